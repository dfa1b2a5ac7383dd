package mux

// The keys of the server's log lines. Those of the drain are lifecycle's.
const (
	keyConnID       = "conn_id"
	keyProtocol     = "protocol"
	keyRemoteAddr   = "remote_addr"
	keyLocalAddr    = "local_addr"
	keyVerdict      = "verdict" // why a connection was taken for what
	keyReason       = "reason"  // why it was refused or closed; empty if it was not
	keyBytesRead    = "bytes_read"
	keyBytesWritten = "bytes_written"
	keyDuration     = "duration_seconds"
	keyErr          = "err"
	keyFrom         = "from"    // what a state was before
	keyTo           = "to"      // what it is now
	keyCheck        = "check"   // of readiness
	keyKind         = "kind"    // of what a native gRPC connection brought
	keyChanges      = "changes" // how often a pool's health has changed since its last line

	// Of the access log alone.
	keyRequestID       = "request_id"
	keyTraceID         = "trace_id"
	keySpanID          = "span_id"
	keyMethod          = "method"
	keyPath            = "path"
	keyCode            = "code" // HTTP's status, or gRPC's
	keyUserAgent       = "user_agent"
	keyMessagesRead    = "messages_read"
	keyMessagesWritten = "messages_written"
)
