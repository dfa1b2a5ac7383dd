// Package h2spec runs h2spec's cases against a mux server, with all its
// protocols on one port, and against net/http alone.
//
// A case that fails at both shows what net/http's HTTP/2 server does; it is
// logged. A case that net/http passes and that fails through the mux is a fault of the mux.
package h2spec
