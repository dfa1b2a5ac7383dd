//go:build !unix

package pool

import "net"

// hasSocketReader is false where sockets are read by net alone.
const hasSocketReader = false

// A socketReader is never used on this platform.
type socketReader struct{ own callerBuffer }

func (*socketReader) init(net.Conn) bool { return false }

func (*socketReader) receive(int, buffers) (*[]byte, int, error) { return nil, 0, nil }

func readError(_ net.Conn, err error) error { return err }

// HasUnread reports whether the system holds bytes of the peer that were not read yet.
// On this platform it cannot be asked.
func (*Conn) HasUnread() bool { return false }
