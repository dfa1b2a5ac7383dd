package mux

// The keys of the server's log lines. Those of the drain are lifecycle's.
const (
	keyConnID     = "conn_id"
	keyProtocol   = "protocol"
	keyRemoteAddr = "remote_addr"
	keyLocalAddr  = "local_addr"
	keyVerdict    = "verdict" // why a connection was taken for what
	keyReason     = "reason"  // why it was refused; empty if it was not
	keyBytesRead  = "bytes_read"
	keyDuration   = "duration"
	keyErr        = "err"
)
