package lifecycle

// The keys of this package's log records. They are the project's: a key means
// the same wherever it stands.
const (
	// KeyTraceID is the identity of one drain, the same in all its records.
	KeyTraceID = "trace_id"
	// KeyPhase is a [Phase].
	KeyPhase = "phase"
	// KeyStep is the name of a drain step, one of [Steps].
	KeyStep = "step"
	// KeyStatus is the [Status] with which a step ended.
	KeyStatus = "status"
	// KeyDuration is how long something took, a time.Duration.
	KeyDuration = "duration"
	// KeyRemaining is a group: connections left, by protocol.
	KeyRemaining = "remaining"
	// KeyForced is a group: connections cut, by protocol.
	KeyForced = "forced"
	// KeyReason says why the waiting was cut short.
	KeyReason = "reason"
	// KeySignal is the name of a signal that was received.
	KeySignal = "signal"
	// KeyErr is an error.
	KeyErr = "err"
)
