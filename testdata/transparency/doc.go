// Package transparency runs programs twice, on plain net/http and behind the mux, and
// compares what their clients see. The programs use the routers and libraries that
// services are written with, which look for more in a ResponseWriter than its three
// methods.
package transparency
