// Package mux serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one TCP or TLS
// port, behind a balancer that looks no further than TCP.
//
//	s := mux.New(
//		mux.WithHandler(handler),
//		mux.WithGRPC(func(r mux.GRPCRegistrar) { pb.RegisterEchoServer(r, echo) }),
//	)
//	err := s.ListenAndServe()
//
// Each connection goes one way: it is accepted, accounted for, taken through
// TLS where the port has it, recognised once by its first bytes, dispatched to the
// server of its protocol, and served there by net/http, grpc-go or coder/websocket. At the
// end, [Server.Shutdown] drains all of them in one sequence.
//
// Every HTTP server runs the same root handler. So a WebSocket may be asked for
// on any request of an HTTP/1.1 connection, and gRPC calls and other requests may share
// one HTTP/2 connection.
package mux
