package mux

import "time"

// Edge sets the bounds for a port that strangers reach, where the defaults are those of
// net/http and grpc-go. It edits a configuration before other settings do:
//
//	mux.Configure(mux.Edge)
//
// Each protocol has at most 1000 connections, a connection 100 streams, and a head 32 KiB.
// Handlers that do not read keep 64 KiB of a stream and 1 MiB of its connection. A gRPC
// message that is sent has at most 4 MiB. What is in flight on a connection that has
// reached its age is cut after 30 s.
func Edge(c *Config) {
	const (
		connections = 1000
		streams     = 100
		headBytes   = 32 << 10
		window      = 64<<10 - 1 // HTTP/2's own, and the least that is allowed
		connWindow  = 1 << 20
		grace       = 30 * time.Second
	)
	h1, h2, g := &c.HTTP1, &c.HTTP2, &c.GRPC
	h1.MaxConnections, h2.MaxConnections, g.MaxConnections, c.WebSocket.MaxConnections = connections, connections, connections, connections
	h1.MaxHeaderBytes, h2.MaxHeaderListBytes = headBytes, headBytes
	h2.MaxStreams, g.MaxStreams = streams, streams
	h2.StreamWindow, g.StreamWindow = window, window
	h2.ConnectionWindow, g.ConnectionWindow = connWindow, connWindow
	g.MaxSendBytes = 4 << 20
	h1.MaxAgeGrace, h2.MaxAgeGrace, g.MaxAgeGrace = grace, grace, grace
}
