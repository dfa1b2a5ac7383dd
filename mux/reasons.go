package mux

// The reasons for which the server closes a connection, beside those that package pool
// finds out for itself and those of custom protocols. They stand in Stats.Closed, in events
// and in the log. closeReasons says what each means.
const (
	reasonIdle     = "idle_timeout"    // nothing was in flight for too long
	reasonHeader   = "header_timeout"  // a request's header took too long
	reasonSlowBody = "slow_body"       // a request's body made no progress
	reasonStalled  = "write_stalled"   // the client did not take what it was sent
	reasonTimeout  = "request_timeout" // a request has taken longer than it may
	reasonPing     = "ping_timeout"    // a ping was not answered
	reasonSniff    = "sniff_timeout"   // the protocol was not known in time
	reasonTLS      = "tls_handshake"   // the handshake failed
	reasonAge      = "max_age"         // the connection was old enough
	reasonReload   = "reload"          // a reload has replaced its listener or server
	reasonRequests = "max_requests"    // the connection has had all its requests
	reasonRoom     = "made_room"       // it did nothing, or too slowly, where a limit kept others out
	reasonDrain    = "drain"           // the server leaves
	reasonForced   = "forced"          // the server leaves, and the time for it was up
	reasonRefused  = "refused"         // a limit kept the connection out
	reasonProbe    = "probe"           // a limit kept it out, but for a request of /livez or /readyz
	reasonFlood    = "too_many_resets" // the client reset streams faster than is allowed

	reasonDisconnected = "disconnected" // by Server.Disconnect
	reasonReclassified = "reclassified" // a native gRPC connection brought something else
	reasonTable        = "header_table" // the client lowered SETTINGS_HEADER_TABLE_SIZE
)

// closeReason is what a reason says of the connection that was closed for it.
type closeReason struct {
	word string
	// told: its client was told to leave, and goes on with what it has under way until a
	// drain cuts it.
	told bool
	// late: its client was too slow, of which an EventTimeout tells.
	late bool
	// failed: it did not end as it should.
	failed bool
}

var closeReasons = []closeReason{
	{word: "peer_closed"}, // This and the next three are package pool's.
	{word: "reset", failed: true},
	{word: "timeout", failed: true},
	{word: "server_closed"},
	{word: reasonIdle, told: true, late: true},
	{word: reasonHeader, late: true, failed: true},
	{word: reasonSlowBody, late: true, failed: true},
	{word: reasonStalled, late: true, failed: true},
	{word: reasonTimeout, late: true, failed: true},
	{word: reasonPing, late: true, failed: true},
	{word: reasonSniff, late: true, failed: true},
	{word: reasonTLS, failed: true},
	{word: reasonAge, told: true},
	{word: reasonReload, told: true},
	{word: reasonRequests, told: true},
	{word: reasonRoom, told: true},
	{word: reasonDrain, told: true},
	{word: reasonForced},
	{word: reasonRefused},
	{word: reasonProbe},
	{word: reasonFlood, failed: true},
	{word: reasonDisconnected},
	{word: reasonReclassified, told: true},
	{word: reasonTable, told: true},
}

// reasonsOf returns the words of the reasons that are such.
func reasonsOf(such func(closeReason) bool) (words []string) {
	for _, r := range closeReasons {
		if such(r) {
			words = append(words, r.word)
		}
	}
	return words
}

var (
	toldReasons   = reasonsOf(func(r closeReason) bool { return r.told })
	lateReasons   = reasonsOf(func(r closeReason) bool { return r.late })
	failedReasons = reasonsOf(func(r closeReason) bool { return r.failed })
)

// CloseReasons returns the reasons for which connections are closed, as they stand in
// [Stats].Closed. Custom protocols may have others.
func CloseReasons() []string { return reasonsOf(func(closeReason) bool { return true }) }
