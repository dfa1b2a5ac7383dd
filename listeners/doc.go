// Package listeners owns sockets and the TLS material behind them.
//
// [Listen] opens a TCP or Unix-domain socket, and [Config.Open] all that an address
// is configured to have, with their options. [New] wraps any net.Listener in
// a [Listener] that survives a shortage of file descriptors and that can be
// stopped without losing what the kernel has already accepted, or give its socket to
// another one ([Listener.Detach]). A [Sub] is a
// listener without a socket, fed by whoever owns the real one. [TLSConfig]
// describes certificates, keys and client verification; [NewTLS] loads them
// and [TLS.Reload] exchanges them under live traffic.
//
// The package does no protocol detection and no accounting of connections.
// It imports no sibling package.
package listeners
