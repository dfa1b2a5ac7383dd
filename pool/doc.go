// Package pool accounts for live connections.
//
// A [Set] knows every connection that a server has accepted and not yet closed. Each is
// wrapped in a [Conn] that counts its bytes, and is in exactly one pool at a time: the
// one its [Tag] names. A connection starts in the pool [Sniffing]. It is moved when its
// protocol is known, and again when it changes protocol, as HTTP/1.1 does to WebSocket.
//
// One goroutine visits all connections now and then ([Set.Sweep]), instead of a timer for
// each. Observers are told what happens, and why a connection was closed ([Set.Observe]).
// [Set.Requests] keeps the statistics of requests.
//
// The package knows no protocol: a tag is a name that the caller chooses.
package pool
