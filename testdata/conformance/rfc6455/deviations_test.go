package rfc6455

// A deviation is how a case ends that does not end as it should.
type deviation struct {
	code   int    // The close code that comes instead; 0: the right one.
	fault  string // As in outcome.
	reason string
}

// internal is how several cases deviate.
var internal = deviation{
	code:   internalError,
	reason: "coder/websocket fails such a frame without a close frame, and the handler's error becomes one with 1011",
}

// deviations are the cases that are known to fail, by name, on every transport. One that begins to pass
// fails the suite, so that the table stays true.
var deviations = map[string]deviation{
	"unmasked text":                  internal,
	"unmasked ping":                  internal,
	"highest bit of a 64-bit length": internal,
	"7.5.1":                          {code: normal, reason: "coder/websocket does not check that a close frame's reason is UTF-8"},
}
