package sniff

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
)

// TestSilentTimeout: a client may be silent for longer than its first bytes may take, which
// have their own time from then on.
func TestSilentTimeout(t *testing.T) {
	const silence = time.Minute
	config := testConfig()
	config.SilentTimeout = 2 * silence
	whole := []byte("GET / HTTP/1.1\r\n")
	nothing := failed(FailureSilent, reasonNothing)
	for _, tt := range []struct {
		name    string
		after   time.Duration // when the client sends
		send    []byte
		hurry   time.Duration // when EndWait is called; 0 for never
		want    Verdict
		decided time.Duration // since the beginning
		took    time.Duration
	}{
		{"for ever", time.Hour, whole, 0, nothing, 2 * silence, 2 * silence},
		{"then a request", silence, whole, 0, Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}, silence, 0},
		{"then a part of one", silence, []byte("GET /"), 0, failed(FailureTimeout, reasonSlow), silence + defaultTimeout, defaultTimeout},
		{"then the preface", silence, []byte(http2.ClientPreface), 0, failed(FailureTimeout, reasonSlowFrame), silence + defaultTimeout, defaultTimeout},
		{"part of a request at once", 0, []byte("GET /"), 0, failed(FailureTimeout, reasonSlow), defaultTimeout, defaultTimeout},
		{"part of a request soon", time.Second, []byte("GET /"), 0, failed(FailureTimeout, reasonSlow), time.Second + defaultTimeout, defaultTimeout},
		{"in a drain", time.Hour, whole, silence, nothing, silence, silence},
		{"in a drain, and new", time.Hour, whole, time.Second, nothing, defaultTimeout, defaultTimeout},
	} {
		for _, peeks := range []bool{false, true} { // as a custom matcher does
			name := tt.name
			if peeks {
				name += ", peeked"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSniffed(t)
					defer s.client.Close()
					began := time.Now()
					go func() {
						if peeks {
							s.conn.SetPeek(config)
							_, _ = io.ReadFull(s.conn.PeekReader(), make([]byte, 16))
						}
						s.verdict <- s.conn.Sniff(config)
					}()
					go io.Copy(io.Discard, s.client)
					send := time.AfterFunc(tt.after, func() { _, _ = s.client.Write(tt.send) })
					defer send.Stop()
					if tt.hurry > 0 {
						time.Sleep(tt.hurry)
						s.conn.EndWait()
					}
					v := s.decided(tt.want)
					if since := time.Since(began); since != tt.decided || v.Duration != tt.took {
						t.Errorf("decided after %v and within %v, want %v and %v", since, v.Duration, tt.decided, tt.took)
					}
				})
			})
		}
	}
}

// fedConn is a connection whose system holds bytes when the silence ends.
type fedConn struct{ net.Conn }

func (fedConn) HasUnread() bool { return true }

// TestSilenceEndsBesideFirstByte: what has come when a drain ends the silence is read.
func TestSilenceEndsBesideFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig()
		config.SilentTimeout = time.Hour
		s := newSniffed(t)
		s.conn.Init(fedConn{s.conn.NetConn()})
		go func() { s.verdict <- s.conn.Sniff(config) }()
		time.Sleep(time.Minute)
		s.conn.EndWait()
		time.Sleep(time.Second)
		s.send([]byte("GET / HTTP/1.1\r\n"))
		s.decided(Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine})
	})
}
