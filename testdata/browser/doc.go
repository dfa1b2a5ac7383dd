// Package browser shows the pages of the real binary in headless Chromium. On the demo
// page: HTTP/2 over TLS, and WebSockets on connections of their own or on streams of the
// page's connection. On the admin page: serving under load, a drain, a server that is gone,
// and texts that want to be markup. axe-core checks it. The module is one of its own because
// of its driver, and needs Chromium and npm in the PATH: bash ci.sh installs them on Debian.
package browser
