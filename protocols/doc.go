// Package protocols serves HTTP/1.1, HTTP/2 and gRPC, and configures what does.
//
// The servers are net/http's and grpc-go's with the limits of this package's
// configuration. [ServeHTTP2] serves recognised connections at less memory,
// [CommonSettings] is what clients are told that wait for the server's SETTINGS,
// [H2CUpgrades] serves "Upgrade: h2c", and [RefuseHTTP1] and [NewRefusingHTTP2Server]
// refuse connections in the client's protocol.
//
// The package sniff recognises what a connection speaks, and the package websocket
// serves WebSockets.
package protocols
