// Package connect runs the conformance suite of Connect (connectrpc.com/conformance) against
// the servers that the suite ships with, each alone and behind the mux: no case fails behind
// the mux that passes alone.
package connect
