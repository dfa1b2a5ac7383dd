package mux

// The keys of the server's log lines. Those of the drain are lifecycle's.
const (
	keyConnID     = "conn_id"
	keyProtocol   = "protocol"
	keyRemoteAddr = "remote_addr"
	keyLocalAddr  = "local_addr"
	keyReason     = "reason"
	keyErr        = "err"
)
