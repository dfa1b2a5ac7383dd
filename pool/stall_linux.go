//go:build !386

package pool

import (
	"encoding/binary"
	"syscall"
	"unsafe"
)

// Where the fields of the kernel's struct tcp_info lie, in bytes (uapi linux/tcp.h):
// eight bytes of states and options, then numbers of 32 bits, and of 64 from 104 on. The
// struct only ever grows at its end, and an older kernel gives the shorter one.
const (
	tcpInfoState        = 0   // tcpi_state
	tcpInfoUnacked      = 24  // tcpi_unacked: segments that were sent and not acknowledged
	tcpInfoBytesAcked   = 120 // tcpi_bytes_acked, since Linux 4.1 (RFC 4898, tcpEStatsAppHCThruOctetsAcked)
	tcpInfoNotSentBytes = 144 // tcpi_notsent_bytes, since Linux 4.6: what waits in the send buffer
	tcpInfoSize         = 148 // up to there
)

// States of a connection (uapi linux/tcp.h, and RFC 9293 section 3.3.2).
const (
	tcpClosed    = 7 // TCP_CLOSE
	tcpCloseWait = 8 // TCP_CLOSE_WAIT
)

// tcpSendQueue is sendQueueOf for a socket, known for TCP. It disturbs neither reads nor
// writes.
func tcpSendQueue(raw syscall.RawConn) (q sendQueue, known bool) {
	var info [tcpInfoSize]byte
	var errno syscall.Errno
	size := uint32(len(info))
	err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || errno != 0 || size < tcpInfoSize {
		return sendQueue{}, false
	}
	q = sendQueue{
		acked: binary.NativeEndian.Uint64(info[tcpInfoBytesAcked:]),
		ended: info[tcpInfoState] == tcpCloseWait,
		reset: info[tcpInfoState] == tcpClosed,
	}
	if !q.reset { // The kernel has thrown away what waited, and still counts it.
		q.unacked = binary.NativeEndian.Uint32(info[tcpInfoUnacked:])
		q.unsent = binary.NativeEndian.Uint32(info[tcpInfoNotSentBytes:])
	}
	return q, true
}
