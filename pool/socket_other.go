//go:build !unix

package pool

import "net"

// hasSocketReader is false where sockets are read by net alone.
const hasSocketReader = false

type socketReader struct{ own callerBuffer }

func (*socketReader) init(net.Conn) bool { return false }

func (*socketReader) receive(net.Conn, int, buffers) (*[]byte, int, error) { return nil, 0, nil }

// HasUnread reports whether the system holds bytes of the peer that were not read yet.
// On this platform it cannot be asked.
func (*Conn) HasUnread() bool { return false }

// fileLimit returns a number that is no limit, where the system has none of this kind.
func fileLimit() uint64 { return 2 * maxDefaultConnections }

// isReset is never true where the system has no error numbers for it. Such a connection
// counts as closed by the server.
func isReset(error) bool { return false }
