// Package protocols recognises what a connection speaks and serves it.
//
// The recognising half is [Conn] and [Classify]. Conn
// wraps an accepted connection, reads its first bytes once into a peek buffer,
// and gives a [Verdict]; every byte it read is read again by the server that
// follows. Classify is the same decision as a pure function over a prefix.
//
// A gRPC or HTTP/2 client may wait for the server's SETTINGS before it sends
// the headers that decide where it belongs. [Conn.Sniff] then plays the
// server's half of the handshake, and takes the frames that it sent for the
// server back out of what the server writes, so that the client sees exactly
// what one server would have sent.
package protocols
