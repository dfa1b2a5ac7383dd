// Package pool accounts for live connections.
//
// A [Set] knows every connection that a server has accepted and not yet
// closed. Each of them is wrapped in a [Conn] that counts its bytes, and is in
// exactly one pool at a time: the one its [Tag] names. A connection starts
// in the pool [Sniffing] and is moved when its protocol is known, and again when it
// changes protocol (an HTTP/1.1 connection that is upgraded to WebSocket).
//
// What has to be looked at now and then is looked at by one goroutine for all
// connections ([Set.Sweep]), and what happens is told to whoever wants to know ([Set.Observe]), the
// reason of each close among it.
//
// The package imports only the standard library and knows no protocol: a tag is
// a name that the caller chooses.
package pool
