package rfc6455

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

// The close codes of RFC 6455, section 7.4.1.
const (
	normal        = 1000
	protocolError = 1002
	invalidData   = 1007
	tooBig        = 1009
	internalError = 1011
)

// A wsCase is a conversation and how it must end.
type wsCase struct {
	name string // The number that Autobahn has for it, or what it is about.
	send []frame
	chop int      // The size of the client's writes; 0: a frame.
	want []string // What the server must send before its close frame.
	// code is that of the server's close frame; 0 stands for 1000. Where the case
	// itself holds no close frame and expects 1000, the client closes at its end.
	code int
	// firstInHandshake puts the first frame into one segment with the handshake.
	firstInHandshake bool
}

// echoes is what comes back for messages and pings.
func echoes(frames ...frame) []string {
	var all []string
	for _, f := range frames {
		opcode := f.opcode
		if opcode == opPing {
			opcode = opPong
		}
		all = append(all, describe(opcode, f.payload))
	}
	return all
}

// runCases runs cases in plaintext and over TLS.
func runCases(t *testing.T, cases []wsCase) {
	t.Helper()
	runCasesWithin(t, suiteReadLimit, cases)
}

func runCasesWithin(t *testing.T, readLimit int64, cases []wsCase) {
	t.Helper()
	for _, form := range served.Forms {
		t.Run(form.Name, func(t *testing.T) {
			s := start(t, form.TLS, readLimit)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.check(t, s)
				})
			}
		})
	}
}

// check runs the case and compares.
func (c wsCase) check(t *testing.T, s served.Server) {
	t.Helper()
	want := outcome{Received: c.want, Close: c.code}
	if want.Close == 0 {
		want.Close = normal
	}
	got := c.run(t, s)
	diff := cmp.Diff(want, got)
	if known, ok := deviations[c.name]; ok {
		if diff == "" {
			t.Errorf("passes; take it out of the table of deviations (%s)", known.reason)
			return
		}
		t.Logf("known deviation: %s", known.reason)
		want.Fault = known.fault
		if known.code != 0 {
			want.Close = known.code
		}
		diff = cmp.Diff(want, got)
	}
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// run is the conversation.
func (c wsCase) run(t *testing.T, s served.Server) outcome {
	t.Helper()
	send := slices.Clone(c.send)
	isClose := func(f frame) bool { return f.opcode == opClose }
	if (c.code == 0 || c.code == normal) && !slices.ContainsFunc(send, isClose) {
		send = append(send, closing(normal, ""))
	}
	var first []byte
	if c.firstInHandshake {
		first, send = send[0].encode(), send[1:]
	}
	p := connect(t, s)
	if err := p.open(first); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- p.send(send, c.chop) }()
	got := p.receive()
	if err := <-sent; err != nil && got.Close == noClose {
		t.Errorf("sending: %v", err)
	}
	return got
}
