// Package browser shows the pages of the real binary in headless Chromium. On the demo
// page: HTTP/2 over TLS, and WebSockets on connections of their own or on streams of the
// page's connection. On the admin page: serving under load, a drain, a server that is gone,
// and texts that want to be markup. It is a module of its own because of its driver, and
// needs Chromium in the PATH and axe-core: bash ci.sh installs them on Debian. The pictures
// demo.png and admin.png of its screenshots are those in cmd/muxserve; the latter is taken
// by: go test -run TestAdminPicture -loaded 5m10s -timeout 8m
package browser
