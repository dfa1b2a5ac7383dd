// Package listeners owns sockets and the TLS material behind them.
//
// [Config] describes an address: [Config.Open] opens its sockets with their options, and
// [NewTLS] loads its certificates. [Config.Reopen] and [TLS.Prepare] exchange both under
// live traffic. [New] wraps a net.Listener in a [Listener] that survives a shortage of
// file descriptors, stops without losing what the kernel has accepted, and hands its
// socket over ([Listener.Detach]). [Sockets] pass from one process to the next.
//
// The package detects no protocols and counts no connections. It imports no sibling.
package listeners
