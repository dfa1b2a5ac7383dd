//go:build !linux || 386

package pool

import "net"

// tcpSendQueue knows nothing where the system does not tell, or tells it by another call.
func tcpSendQueue(*net.TCPConn) (acked uint64, waiting, known bool) { return 0, false, false }
