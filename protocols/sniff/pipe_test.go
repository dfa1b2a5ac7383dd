package sniff

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// testSettings is the frame that testConfig's servers would send.
var testSettings = h2.AppendFrame(nil, http2.FrameSettings, 0, []byte("\x00\x05\x00\x10\x00\x00"))

func testConfig() *Config {
	return &Config{
		Timeout:          defaultTimeout,
		MaxBytes:         defaultMaxBytes,
		UndecidedTimeout: defaultUndecidedTimeout,
		Settings:         testSettings,
	}
}

// A sniffed is a Sniff that runs over a pipe.
type sniffed struct {
	t       *testing.T
	client  net.Conn
	conn    *Conn
	verdict chan Verdict
}

// startSniff starts a Sniff. The connection is closed with the test.
func startSniff(t *testing.T, config *Config) *sniffed {
	t.Helper()
	s := newSniffed(t)
	go func() { s.verdict <- s.conn.Sniff(config) }()
	return s
}

// newSniffed returns a connection that is not sniffed yet.
func newSniffed(t *testing.T) *sniffed {
	t.Helper()
	client, server := net.Pipe()
	s := &sniffed{t: t, client: client, conn: new(Conn), verdict: make(chan Verdict, 1)}
	s.conn.Init(server)
	t.Cleanup(func() { client.Close(); server.Close() })
	return s
}

// send writes all of b, which the sniffer must read.
func (s *sniffed) send(b []byte) {
	s.t.Helper()
	if _, err := s.client.Write(b); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

// expect reads what the sniffer must have sent.
func (s *sniffed) expect(want []byte) {
	s.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.client, got); err != nil {
		s.t.Fatalf("expect: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("sent to the client (-want +got):\n%s", diff)
	}
}

// decided checks the verdict, but for its bytes and duration.
func (s *sniffed) decided(want Verdict) Verdict {
	s.t.Helper()
	got := <-s.verdict
	shown := Verdict{Protocol: got.Protocol, Reason: got.Reason, Failure: got.Failure}
	if diff := cmp.Diff(want, shown); diff != "" {
		s.t.Fatalf("verdict (-want +got):\n%s", diff)
	}
	return got
}

// replays checks what is read behind the verdict.
func (s *sniffed) replays(want []byte) {
	s.t.Helper()
	endTrack(s.conn)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.conn, got); err != nil {
		s.t.Fatalf("replay: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("replay (-want +got):\n%s", diff)
	}
	if e := s.conn.recognition.Load(); e != nil && len(e.peek.unread()) > 0 {
		s.t.Fatalf("replay: %q too many", e.peek.unread())
	}
}

// trickle sends b, a byte a second, until the connection is closed. The
// function that it returns closes the connection and waits for that.
func (s *sniffed) trickle(b []byte) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range b {
			if _, err := s.client.Write(b[i : i+1]); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}()
	return func() {
		s.conn.Close()
		<-done
	}
}

func ackFrame() []byte { return h2.AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil) }

func pingFrame(flags http2.Flags, data string) []byte {
	return h2.AppendFrame(nil, http2.FramePing, flags, []byte(data))
}

// opening is what a patient client sends first.
func opening(settings ...http2.Setting) []byte {
	return wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteSettings(settings...) })
}

// firstRequest is a gRPC client's HEADERS frame.
func firstRequest() []byte { return grpcOpening()[len(opening())+len(ackFrame()):] }

var grpcVerdict = Verdict{Protocol: protocols.GRPC, Reason: reasonGRPC}
