//go:build !unix

package protocols

import (
	"net"

	"google.golang.org/grpc/mem"
)

// A readyReader has no raw sockets to read from on this platform.
type readyReader struct{ conn net.Conn }

func (*readyReader) init(net.Conn) bool { return false }

func (*readyReader) isRaw() bool { return false }

// read is not called where isRaw reports false.
func (*readyReader) read(int, mem.BufferPool) (*[]byte, int, error) {
	return nil, 0, nil
}
