package mux

import (
	"context"
	"log/slog"
	"time"

	"github.com/muxserve/muxserve/lifecycle/logqueue"
)

// logs are the queues in front of the embedder's loggers. Every line of the server goes
// through one of them, so that no part of it waits for a log.
type logs struct {
	server *logqueue.Handler
	access *logqueue.Handler // nil without an access log
}

// The names of the logs, in [Stats].LogDropped and in the line about dropped lines.
const (
	logServer = "server"
	logAccess = "access"
)

// newLogs returns the queues, and has the options' loggers write into them.
func newLogs(o *options) *logs {
	if o.logger == nil {
		o.logger = slog.Default()
	}
	l := &logs{server: logqueue.New(o.logger.Handler(), logServer, nil)}
	o.logger = slog.New(l.server)
	if o.accessLog != nil {
		l.access = logqueue.New(o.accessLog.Handler(), logAccess, o.logger)
		o.accessLog = slog.New(l.access)
	}
	return l
}

// flushTime bounds flush.
const flushTime = time.Second

// flush waits until the lines have been written, for a bounded time.
func (l *logs) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if l.access != nil {
		_ = l.access.Flush(ctx) // It may put a notice into the server's log.
	}
	_ = l.server.Flush(ctx)
}

// dropped returns how many lines of each log were dropped.
func (l *logs) dropped() map[string]uint64 {
	counts := map[string]uint64{logServer: l.server.Dropped(), logAccess: 0}
	if l.access != nil {
		counts[logAccess] = l.access.Dropped()
	}
	return counts
}

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
	keyDetail       = "detail"  // what exactly was wrong
	keyCount        = "count"   // of connections since the last line of the same kind
	keyCure         = "cure"    // what an operator can do

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
