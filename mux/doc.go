// Package mux serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one TCP or TLS
// port, behind a layer-4 load balancer.
//
//	s := mux.New(
//		mux.WithHandler(handler),
//		mux.WithGRPC(func(r mux.GRPCRegistrar) { pb.RegisterEchoServer(r, echo) }),
//	)
//	err := s.ListenAndServe()
//
// Each connection goes one way. It is accepted, accounted for, taken through its PROXY
// header and TLS where the port has them, recognised once by its first bytes, and
// dispatched by cmux to the server of its protocol: net/http, grpc-go, or a listener of the
// embedder. At the end, [Server.Shutdown] drains all of them in one sequence.
//
// Every HTTP server runs the same root handler. So any request of an HTTP/1.1 connection
// may become a WebSocket, and gRPC calls and other requests may share one HTTP/2
// connection.
package mux
