// Package browser shows the demo page of the real binary in headless Chromium:
// HTTP/2 over TLS, and WebSockets on connections of their own or on streams of the
// page's connection. It is a module of its own because of its driver, and needs
// Chromium in the PATH and axe-core: bash ci.sh installs them on Debian. The picture
// demo.png of its screenshots is the one in cmd/muxserve.
package browser
