//go:build !linux || 386

package pool

import "syscall"

// tcpSendQueue knows nothing where the system does not tell, or tells it by another call.
func tcpSendQueue(syscall.RawConn) (q sendQueue, known bool) { return sendQueue{}, false }
