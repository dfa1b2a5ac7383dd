package sniff

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// TestSniffFailures has what ends without a protocol, and how long it takes.
func TestSniffFailures(t *testing.T) {
	tests := []struct {
		name  string
		send  string
		close bool
		want  Verdict
		after time.Duration
	}{
		{"silent", "", false, failed(FailureSilent, reasonNothing), defaultTimeout},
		{"closed at once", "", true, failed(FailureSilent, reasonNothing), 0},
		{"part of a line", "GET / HT", false, failed(FailureTimeout, reasonSlow), defaultTimeout},
		{"closed half-way", "GET / HT", true, failed(FailureNoMatch, reasonClosed), 0},
		{"garbage", "\x00\x01", false, failed(FailureNoMatch, reasonNotHTTP), 0},
		{"no line that matters", strings.Repeat("\r\n", defaultMaxBytes/2), false, failed(FailureTooLarge, reasonTooLarge), 0},
		{"preface half-way", http2.ClientPreface[:20], false, failed(FailureTimeout, reasonSlow), defaultTimeout},
		{"preface alone", http2.ClientPreface, false, failed(FailureTimeout, reasonSlowFrame), defaultTimeout},
		{"preface alone, closed", http2.ClientPreface, true, failed(FailureNoMatch, reasonClosed), 0},
		{"SETTINGS half-way", string(opening()[:30]), false, failed(FailureTimeout, reasonSlow), defaultTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSniff(t, testConfig())
				go io.Copy(io.Discard, s.client)
				if tt.send != "" {
					s.send([]byte(tt.send))
				}
				if tt.close {
					s.client.Close()
				}
				v := s.decided(tt.want)
				if v.Duration != tt.after || v.Bytes != len(tt.send) {
					t.Errorf("%d bytes after %v, want %d after %v", v.Bytes, v.Duration, len(tt.send), tt.after)
				}
				if again := s.conn.Sniff(nil); again != v || s.conn.Verdict() != v {
					t.Errorf("a later verdict is %v, want %v", again, v)
				}
				s.replays([]byte(tt.send))
			})
		})
	}
}

// TestSilentClientIsBounded is point 1: neither silence nor a byte a second
// holds a Sniff for longer than its time.
func TestSilentClientIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		defer s.trickle(bytes.Repeat([]byte("G"), 64))()
		v := s.decided(failed(FailureTimeout, reasonSlow))
		if v.Duration != defaultTimeout {
			t.Errorf("took %v, want %v", v.Duration, defaultTimeout)
		}
	})
}

// TestSlowHead: a head whose bytes keep coming has HeadTimeout, and each of them Timeout.
func TestSlowHead(t *testing.T) {
	line := []byte("GET /" + strings.Repeat("a", 64) + " HTTP/1.1\r\n")
	for name, test := range map[string]struct {
		before, slow []byte
		whole        time.Duration
		want         Verdict
		took         time.Duration
	}{
		"HTTP/1.1":          {nil, line, 2 * time.Minute, Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}, time.Duration(len(line)-1) * time.Second},
		"HTTP/1.1, bounded": {nil, line, 10 * time.Second, failed(FailureTimeout, reasonSlow), 10 * time.Second},
		"HTTP/1.1, stops":   {nil, line[:20], 2 * time.Minute, failed(FailureTimeout, reasonSlow), 19*time.Second + defaultTimeout},
		"HTTP/2":            {opening(), firstRequest(), 2 * time.Minute, Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}, time.Duration(len(firstRequest())-1) * time.Second},
		"HTTP/2, bounded":   {opening(), firstRequest(), 10 * time.Second, failed(FailureTimeout, reasonSlowFrame), 10 * time.Second},
		"HTTP/2, stops":     {opening(), firstRequest()[:20], 2 * time.Minute, failed(FailureTimeout, reasonSlowFrame), 19*time.Second + defaultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := testConfig()
				config.HeadTimeout = test.whole
				s := startSniff(t, config)
				if test.before != nil {
					s.send(test.before)
					s.expect(slices.Concat(testSettings, ackFrame()))
				}
				defer s.trickle(test.slow)()
				if v := s.decided(test.want); v.Duration != test.took {
					t.Errorf("took %v, want %v", v.Duration, test.took)
				}
			})
		})
	}
}

// TestSniffHTTP1 has what a whole head or a part of it gets, all at once and
// byte by byte.
func TestSniffHTTP1(t *testing.T) {
	long := "GET /" + strings.Repeat("a", 20_000)
	tests := []struct {
		name, send string
		want       Verdict
	}{
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}},
		{"WebSocket", webSocketHead, Verdict{Protocol: protocols.WebSocket, Reason: reasonWebSocket}},
		{"line of 8 KB", "GET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\n", Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}},
		{"line beyond the cap", long, Verdict{Protocol: protocols.HTTP1, Reason: reasonLongRequestLine}},
	}
	for _, tt := range tests {
		for _, step := range []int{len(tt.send), 1} {
			synctest.Test(t, func(t *testing.T) {
				s := startSniff(t, testConfig())
				replayed := make(chan []byte)
				go func() {
					for rest := []byte(tt.send); len(rest) > 0; {
						n, _ := s.client.Write(rest[:min(step, len(rest))])
						rest = rest[n:]
					}
					s.client.Close()
				}()
				want := tt.want
				if step == 1 && want.Protocol == protocols.WebSocket {
					want = Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine} // Found by the root handler.
				}
				s.decided(want)
				go func() {
					b, _ := io.ReadAll(s.conn)
					replayed <- b
				}()
				if got := <-replayed; string(got) != tt.send {
					t.Errorf("%s by %d: replay of %d bytes, want %d", tt.name, step, len(got), len(tt.send))
				}
				if e := s.conn.recognition.Load(); e != nil && e.peek.b != nil {
					t.Errorf("%s by %d: the peek buffer was not given back", tt.name, step)
				}
			})
		}
	}
}

// TestHandshakeIsPlayed: the sniffer answers a client that waits. The server's own SETTINGS
// follow. The ACK that the client has is taken out of what the server sends, and the ACK
// of the sniffer's SETTINGS out of what the client does.
func TestHandshakeIsPlayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(slices.Concat(testSettings, ackFrame()))
		s.send(pingFrame(0, "12345678"))
		s.expect(pingFrame(http2.FlagPingAck, "12345678"))
		time.Sleep(time.Minute)
		s.send(ackFrame())
		s.send(firstRequest())
		s.decided(grpcVerdict)
		if s.conn.h2.Load().AwaitsACK() {
			t.Error("an ACK is awaited that has come")
		}
		s.replays(slices.Concat(opening(), firstRequest()))

		go func() {
			defer s.conn.Close()
			for _, b := range [][]byte{testSettings, ackFrame(), ackFrame()} {
				if _, err := s.conn.Write(b); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		}()
		got, err := io.ReadAll(s.client)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(slices.Concat(testSettings, ackFrame()), got); diff != "" {
			t.Errorf("the client got (-want +got):\n%s", diff)
		}
	})
}

// TestServerAcknowledgesBeforeItGetsMoreSettings: the client's second SETTINGS reach the
// server only when it has written its ACK, or net/http would answer the first and the second
// by one ACK, which the filter takes out. A request that comes between them is not held up.
func TestServerAcknowledgesBeforeItGetsMoreSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(slices.Concat(testSettings, ackFrame()))
		request := wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteHeaders(headersFrame(wiretest.GetFields()...)) })[len(http2.ClientPreface):]
		s.send(request)
		s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonFirstStream})
		read := func(n int) <-chan []byte {
			got := make(chan []byte, 1)
			go func() {
				b := make([]byte, n)
				n, _ := io.ReadFull(s.conn, b)
				got <- b[:n]
			}()
			synctest.Wait()
			return got
		}
		if diff := cmp.Diff(slices.Concat(opening(), request), <-read(len(opening())+len(request))); diff != "" {
			t.Errorf("the server read (-want +got):\n%s", diff)
		}
		more := slices.Concat(testSettings, pingFrame(0, "12345678"))
		got := read(len(more))
		go s.client.Write(slices.Concat(ackFrame(), more))
		go io.Copy(io.Discard, s.client)
		write := func(b []byte) {
			t.Helper()
			if _, err := s.conn.Write(b); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		write(testSettings)
		if len(got) != 0 {
			t.Error("the server read on before its ACK")
		}
		write(ackFrame())
		if diff := cmp.Diff(more, <-got); diff != "" {
			t.Errorf("the server read (-want +got):\n%s", diff)
		}
	})
}

// TestCloseEndsTheWaitForACK: a server closed before its ACK does not stay in Read.
func TestCloseEndsTheWaitForACK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(slices.Concat(testSettings, ackFrame()))
		s.send(wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteHeaders(headersFrame(wiretest.GetFields()...)) })[len(http2.ClientPreface):])
		s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonFirstStream})
		go s.client.Write(testSettings)
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, struct{ io.Reader }{s.conn})
			done <- err
		}()
		synctest.Wait()
		_ = s.conn.Close()
		if err := <-done; err == nil {
			t.Error("the read ended without an error")
		}
	})
}

// TestNothingIsWrittenToEagerClients: their HEADERS are there.
func TestNothingIsWrittenToEagerClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		sent := slices.Concat(opening(), pingFrame(0, "12345678"), ackFrame(), firstRequest())
		s.send(sent) // A pipe's client would block on a write to it.
		s.decided(grpcVerdict)
		s.replays(sent)
		go func() { _, _ = s.conn.Write(testSettings) }()
		s.expect(testSettings) // The server's is not taken out.
	})
}

// TestSettingsAreReplayedAsOne: a server might acknowledge two by one ACK.
func TestSettingsAreReplayedAsOne(t *testing.T) {
	set := func(id http2.SettingID, v uint32) http2.Setting { return http2.Setting{ID: id, Val: v} }
	frame := func(s ...http2.Setting) []byte { return opening(s...)[len(http2.ClientPreface):] }
	const table, window, size = http2.SettingHeaderTableSize, http2.SettingInitialWindowSize, http2.SettingMaxFrameSize
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		update := wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteWindowUpdate(0, 7) })[len(http2.ClientPreface):]
		s.send(slices.Concat(opening(set(table, 100), set(window, 1)), update, frame(set(window, 2))))
		s.expect(slices.Concat(testSettings, ackFrame(), ackFrame()))
		second := frame(set(table, 0), set(size, 1<<15), set(table, 4096))
		for _, b := range second[:len(second)-1] {
			s.send([]byte{b})
		}
		s.send(second[len(second)-1:])
		s.expect(ackFrame())
		s.send(firstRequest())
		s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}) // No library sends that.
		s.replays(slices.Concat(opening(set(table, 0), set(window, 2), set(size, 1<<15)), update, firstRequest()))
	})
}

// TestUndecidedEnds has the ways in which an undecided HTTP/2 connection ends.
func TestUndecidedEnds(t *testing.T) {
	started := func(t *testing.T) *sniffed {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(slices.Concat(testSettings, ackFrame()))
		return s
	}
	run := func(name string, f func(t *testing.T, s *sniffed)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, started(t)) })
		})
	}
	goAway := h2.AppendFrame(nil, http2.FrameGoAway, 0, make([]byte, 8))

	run("idle, with pings", func(t *testing.T, s *sniffed) {
		for range 3 {
			time.Sleep(30 * time.Second)
			s.send(pingFrame(0, "12345678"))
			s.expect(pingFrame(http2.FlagPingAck, "12345678"))
		}
		s.expect(goAway)
		if v := s.decided(failed(FailureTimeout, reasonIdle)); v.Duration != defaultUndecidedTimeout {
			t.Errorf("took %v, want %v", v.Duration, defaultUndecidedTimeout)
		}
	})
	run("slow header block", func(t *testing.T, s *sniffed) {
		time.Sleep(time.Minute)
		defer s.trickle(firstRequest())()
		v := s.decided(failed(FailureTimeout, reasonSlowFrame))
		if want := time.Minute + defaultTimeout; v.Duration != want {
			t.Errorf("took %v, want %v", v.Duration, want)
		}
	})
	run("closed", func(t *testing.T, s *sniffed) {
		s.client.Close()
		s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonClosedUndecided})
	})
	run("too many bytes", func(t *testing.T, s *sniffed) {
		update := wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteWindowUpdate(0, 1) })[len(http2.ClientPreface):]
		go s.client.Write(bytes.Repeat(update, defaultMaxBytes/len(update)+1))
		v := s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonLongBlock})
		if v.Bytes != defaultMaxBytes {
			t.Errorf("read %d bytes, want %d", v.Bytes, defaultMaxBytes)
		}
	})
	run("DATA", func(t *testing.T, s *sniffed) {
		s.send(h2.AppendFrame(nil, http2.FrameData, 0, nil))
		s.expect(h2.AppendFrame(nil, http2.FrameGoAway, 0, []byte{0, 0, 0, 0, 0, 0, 0, byte(http2.ErrCodeProtocol)}))
		s.decided(failed(FailureNoMatch, reasonData))
	})
	run("too many pings", func(t *testing.T, s *sniffed) {
		go io.Copy(io.Discard, s.client)
		for range maxAnswered - 1 { // The SETTINGS were the first.
			s.send(pingFrame(0, "12345678"))
		}
		s.decided(failed(FailureTooLarge, reasonManyFrames))
	})
	run("client does not read", func(t *testing.T, s *sniffed) {
		s.send(pingFrame(0, "12345678"))
		s.decided(failed(FailureTimeout, reasonAnswerTooSlow))
	})
}

// A lateConn calls GiveUp when its client's first request has come, and before the sniffer
// has seen it.
type lateConn struct {
	net.Conn

	giveUp func()
}

// Read implements io.Reader.
func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == len(firstRequest()) {
		c.giveUp()
	}
	return n, err
}

// TestGiveUpHolds: a connection that was given up is not served, even if its first request
// comes in that moment. One that is decided cannot be given up.
func TestGiveUpHolds(t *testing.T) {
	for name, agrees := range map[string]bool{"agreed": true, "not agreed": false} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(20 * time.Second))
			s := &sniffed{t: t, client: client, conn: new(Conn), verdict: make(chan Verdict, 1)}
			asked := 0
			giveUp := func() bool { return s.conn.GiveUp(func() bool { asked++; return agrees }) }
			s.conn.Init(&lateConn{server, func() {
				if got := giveUp(); got != agrees {
					t.Errorf("given up: %v", got)
				}
			}})
			go func() { s.verdict <- s.conn.Sniff(testConfig()) }()
			s.send(opening())
			s.expect(slices.Concat(testSettings, ackFrame()))
			s.send(ackFrame())
			s.send(firstRequest())
			if agrees {
				s.expect(h2.AppendFrame(nil, http2.FrameGoAway, 0, make([]byte, 8)))
				s.decided(failed(FailureTimeout, reasonIdle))
			} else {
				s.decided(grpcVerdict)
			}
			if giveUp() || asked != 1 {
				t.Errorf("given up behind the verdict, asked %d times", asked)
			}
		})
	}
}

// TestEndWaitAtAnyTime has EndWait race with a Sniff: the verdict stays, and
// what was sent is read.
func TestEndWaitAtAnyTime(t *testing.T) {
	for range 200 {
		client, server := wiretest.TCPPair(t)
		c := newConn(server)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = client.Write([]byte(webSocketHead))
			c.EndWait()
		}()
		v := c.Sniff(testConfig())
		<-ended
		if v.Protocol != protocols.WebSocket {
			t.Fatalf("verdict %+v", v)
		}
		got := make([]byte, len(webSocketHead))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != webSocketHead {
			t.Fatalf("read %q, %v", got, err)
		}
		client.Close()
		server.Close()
	}
}

// TestWithoutSettings: there is nothing to play the handshake with.
func TestWithoutSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, nil)
		s.send(opening())
		s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonUndecided})
	})
}

// TestPrefaceAlone: a client that waits for the server's SETTINGS before it sends its own
// gets them, and one ACK, whatever it does then. A client whose SETTINGS has begun to come
// is not sent anything before it is there.
func TestPrefaceAlone(t *testing.T) {
	settings := opening()[len(http2.ClientPreface):]
	request := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(headersFrame(wiretest.GetFields()...))
	})[len(http2.ClientPreface):]
	ack := []byte("\x00\x00\x00\x04\x01\x00\x00\x00\x00")
	for name, f := range map[string]func(s *sniffed){
		"SETTINGS": func(s *sniffed) {
			s.send(settings)
			s.expect(ack)
			s.conn.EndWait()
			s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonDrain})
		},
		"SETTINGS and a request": func(s *sniffed) {
			s.send(request)
			s.expect(ack)
			s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonFirstStream})
		},
		"no SETTINGS": func(s *sniffed) {
			s.send([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"))
			s.decided(Verdict{Protocol: protocols.HTTP2, Reason: reasonNotSettings})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSniff(t, testConfig())
				s.send([]byte(http2.ClientPreface))
				s.expect(testConfig().Settings)
				f(s)
			})
		})
	}
	t.Run("half of SETTINGS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := startSniff(t, testConfig())
			s.send([]byte(http2.ClientPreface))
			s.send(settings[:5])
			time.Sleep(2 * greetPatience)
			s.send(settings[5:])
			s.expect(slices.Concat(testConfig().Settings, ack))
		})
	})
}

// TestEndWait: the wait for a first request ends at once, and nobody else's.
func TestEndWait(t *testing.T) {
	drain := Verdict{Protocol: protocols.HTTP2, Reason: reasonDrain}
	tests := []struct {
		name string
		send []byte
		want Verdict
		took time.Duration
	}{
		{"silent", nil, failed(FailureSilent, reasonNothing), defaultTimeout},
		{"part of a line", []byte("GET /"), failed(FailureTimeout, reasonSlow), defaultTimeout},
		{"preface", []byte(http2.ClientPreface), failed(FailureTimeout, reasonSlowFrame), defaultTimeout},
		{"preface and SETTINGS", opening(), drain, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSniff(t, testConfig())
				go io.Copy(io.Discard, s.client)
				if tt.send != nil {
					s.send(tt.send)
				}
				synctest.Wait()
				s.conn.EndWait()
				if v := s.decided(tt.want); v.Duration != tt.took {
					t.Errorf("took %v, want %v", v.Duration, tt.took)
				}
			})
		})
	}
	t.Run("before", func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		var c Conn
		c.Init(server)
		c.EndWait()
		go client.Write(opening())
		if v := c.Sniff(testConfig()); v.Reason != reasonDrain {
			t.Errorf("verdict %+v, want %+v", v, drain)
		}
	})
	t.Run("after", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := startSniff(t, testConfig())
			s.send([]byte("GET / HTTP/1.1\r\n"))
			s.decided(Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine})
			s.conn.EndWait()
			go s.client.Write([]byte("\r\n"))
			s.replays([]byte("GET / HTTP/1.1\r\n\r\n"))
		})
	})
}
