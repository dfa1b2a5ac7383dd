//go:build !linux || 386

package pool

import "net"

// tcpSendQueue knows nothing where the system does not tell, or tells it by another call.
func tcpSendQueue(*net.TCPConn) (q sendQueue, known bool) { return sendQueue{}, false }
