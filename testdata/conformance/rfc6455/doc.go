// Package rfc6455 is a WebSocket suite: a client that writes every byte itself
// speaks to an echo handler on a mux server.
//
// It covers the case families 1 to 7, 9 and 10 of the Autobahn test suite, and
// what RFC 6455 asks of a server beyond them. Families 12 and 13 are about
// compression, which the server does not offer.
package rfc6455
