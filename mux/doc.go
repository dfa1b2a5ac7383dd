// Package mux serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one TCP or TLS
// port, behind a layer-4 load balancer.
//
//	s := mux.New(
//		mux.WithHandler(handler),
//		mux.WithGRPC(func(r mux.GRPCRegistrar) { pb.RegisterEchoServer(r, echo) }),
//	)
//	err := s.ListenAndServe()
//
// [New] with no option serves: HTTP requests are answered 404, calls UNIMPLEMENTED.
// [WithHandler], [WithGRPC], [WithWebSocket] and [WithTLS] add to that, and [Configure] edits
// the numbers, which [DefaultConfig] lists.
//
// # One connection
//
// Each connection goes one way. It is accepted, accounted for, taken through its PROXY
// header and TLS where the port has them, recognised once by its first bytes, and
// dispatched by cmux to the server of its protocol: net/http, grpc-go, or a listener of the
// embedder ([Server.Match]). At the end, [Server.Shutdown] drains all of them in one
// sequence. [Server.Drain] returns the account of it.
//
// Every HTTP server runs the same root handler. So any request of an HTTP/1.1 connection
// may become a WebSocket ([WebSocket]), and gRPC calls and other requests may share one
// HTTP/2 connection. [ConnOf] tells a handler which connection it is on, and
// [Conn.Draining] when that is to leave.
//
// # While it serves
//
// [Server.Reload] puts another configuration in force, whole or not at all, without refusing
// or cutting a connection. [Server.Stats], [Server.Connections] and [Server.Observe] say what
// happens, and [Server.AddReadiness] takes part in /readyz and gRPC's health service.
// Package mux/muxprom has the figures for Prometheus.
//
// # Embedding
//
// [EMBEDDING.md] has programs with grpc-gateway, Connect, gorilla/websocket, gqlgen, a protocol
// of your own, TLS that is passed through, a grpc.Server of your own, kratos, autocert, client
// certificates, fx and oklog/run. Package mux/muxtest serves a server in a test.
//
// # Coming from another server
//
// [COMING_FROM.md] sets net/http, grpc.Server, cmux, ServeHTTP with h2c.NewHandler and
// koatty_serve beside this package, name by name, and lists what clients see differently.
//
// [EMBEDDING.md]: https://github.com/muxserve/muxserve/blob/main/mux/EMBEDDING.md
// [COMING_FROM.md]: https://github.com/muxserve/muxserve/blob/main/mux/COMING_FROM.md
package mux
