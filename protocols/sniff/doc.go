// Package sniff recognises what a connection speaks by its first bytes.
//
// [Conn] wraps an accepted connection, reads its first bytes once into a peek buffer,
// and gives a [Verdict]. The server that follows reads every byte again.
//
// A gRPC or HTTP/2 client may wait for the server's SETTINGS before it sends the
// headers that decide. [Conn.Sniff] then plays the server's half of the handshake, and
// Conn takes the frames that it sent back out of what the server writes. So the client
// sees what one server alone would have sent.
package sniff
