package h2

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
	"github.com/muxserve/muxserve/protocols/moments"
)

// serverSettings is the first thing that a server writes.
func serverSettings() []byte { return bytes.Clone(testSettings) }

// firstGoAway is what GoAway writes, and goAwayPingFrame is what follows.
func firstGoAway() []byte { return AppendGoAway(nil, maxStreamID, http2.ErrCodeNo, "") }

func goAwayPingFrame() []byte { return pingFrame(0, string(goAwayPing[:])) }

// sleepPast lets the PING follow the first GOAWAY, where it does.
func sleepPast() {
	time.Sleep(2 * moments.PingAfter)
	synctest.Wait()
}

// received reads n bytes from conn.
func received(t *testing.T, conn io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// pipeTracked returns a recognised HTTP/2 connection over a pipe, whose every byte waits
// for its reader.
func pipeTracked(t *testing.T) (client net.Conn, c *trackedConn) {
	t.Helper()
	client, server := net.Pipe()
	c, _ = newTracked(server, Options{})
	t.Cleanup(func() { client.Close(); c.Close() })
	return client, c
}

// told checks what GoneAway says.
func told(t *testing.T, c *trackedConn, wantTold, wantAcked bool) {
	t.Helper()
	if gotTold, gotAcked := c.GoneAway(); gotTold != wantTold || gotAcked != wantAcked {
		t.Errorf("GoneAway = %v, %v; want %v, %v", gotTold, gotAcked, wantTold, wantAcked)
	}
}

// TestGoAwayIsWrittenOnce is the order of all that can be asked for.
func TestGoAwayIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &wireConn{}
		c, track := newTracked(inner, Options{})
		c.GoAway()
		if inner.wrote.Len() > 0 {
			t.Fatal("GOAWAY was written before SETTINGS")
		}
		told(t, c, false, false)
		if _, err := c.Write(serverSettings()); err != nil {
			t.Fatal(err)
		}
		told(t, c, true, false)
		track.Follow(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, EndHeaders: true})
			_ = fr.WritePing(true, [8]byte{1})
		}))
		told(t, c, true, false)
		sleepPast()
		track.Follow(pingFrame(http2.FlagPingAck, string(goAwayPing[:])))
		told(t, c, true, true)
		c.GoAway()
		c.FinalGoAway()
		c.FinalGoAway()
		c.GoAway()
		sleepPast()
		want := slices.Concat(serverSettings(), firstGoAway(), goAwayPingFrame(), AppendGoAway(nil, 5, http2.ErrCodeNo, ""))
		if diff := cmp.Diff(want, inner.wrote.Bytes()); diff != "" {
			t.Errorf("wrote (-want +got):\n%s", diff)
		}
	})
}

// TestHasRead: the client has read what it was answered once it has answered a PING that was
// written behind that. A PING before it says nothing, and one is enough for the same answers.
func TestHasRead(t *testing.T) {
	inner := &wireConn{}
	c, track := newTracked(inner, Options{})
	track.Follow(wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true})
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true})
	}))
	write := func(p []byte) {
		t.Helper()
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	hasRead := func(when string, want bool) {
		t.Helper()
		if got := track.HasRead(); got != want {
			t.Errorf("%s: %t", when, got)
		}
	}
	answered := func(answers byte) {
		track.Follow(pingFrame(http2.FlagPingAck, readPing+"\x00\x00\x00"+string(answers)))
	}
	answer := func(stream uint32) []byte {
		return appendStreamFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, stream, nil)
	}
	write(serverSettings())
	hasRead("before an answer", true)
	write(answer(1))
	hasRead("behind an answer", false)
	track.AskRead()
	track.AskRead()
	write(answer(3)) // It takes the PING along, or comes behind it.
	answered(1)
	hasRead("with the answer to the PING before", false)
	track.AskRead()
	answered(1)     // The client makes it up.
	track.AskRead() // So that it is asked once more.
	write(nil)
	answered(2)
	hasRead("with the answer to the PING behind", true)
	write(appendStreamFrame(nil, http2.FrameData, 0, 5, []byte("part")))
	hasRead("behind a part of another answer", false)
	c.FinalGoAway() // It waits for what is being written.
	if n := bytes.Count(inner.wrote.Bytes(), []byte(readPing)); n > 3 {
		t.Errorf("%d PINGs for two answers: %x", n, inner.wrote.Bytes())
	}
}

// TestPingsOfAnyLength: a PING of another length than the eight bytes of RFC 9113, section 6.7,
// says nothing. The server ends the connection for it.
func TestPingsOfAnyLength(t *testing.T) {
	for n := range uint32(12) {
		for _, payload := range []string{readPing + "\x00\x00\x00\x07\x00\x00\x00\x00", string(goAwayPing[:]) + "serve"} {
			c, track := newTracked(&wireConn{}, Options{})
			if _, err := c.Write(serverSettings()); err != nil {
				t.Fatal(err)
			}
			track.Follow(slices.Concat([]byte(http2.ClientPreface), pingFrame(http2.FlagPingAck, payload[:n]), pingFrame(0, payload[:n])))
			if n != PingLen && !track.HasRead() {
				t.Errorf("a PING of %d bytes says that answers were read", n)
			}
		}
	}
}

// TestEarlyAnswer: an answer to our PING that comes before the PING says nothing.
func TestEarlyAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, track := newTracked(&wireConn{}, Options{})
		answer := pingFrame(http2.FlagPingAck, string(goAwayPing[:]))
		track.Follow(slices.Concat([]byte(http2.ClientPreface), answer))
		if _, err := c.Write(serverSettings()); err != nil {
			t.Fatal(err)
		}
		c.GoAway()
		track.Follow(answer)
		told(t, c, true, false)
		sleepPast()
		told(t, c, true, false)
		track.Follow(answer)
		told(t, c, true, true)
	})
}

// TestServerGoAway: the server's own is the last word where it comes first, and is heard
// behind ours where it has something to say.
func TestServerGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := func(last uint32, code http2.ErrCode) []byte { return AppendGoAway(nil, last, code, "server") }
		first, final := (*trackedConn).GoAway, func(c *trackedConn) { c.FinalGoAway() }
		ourFinal := AppendGoAway(nil, 7, http2.ErrCodeNo, "")
		tests := []struct {
			name   string
			before []byte
			ask    []func(*trackedConn)
			after  []byte
			want   []byte // All but the SETTINGS.
		}{
			{"before ours", server(3, http2.ErrCodeNo), []func(*trackedConn){first, final}, nil, server(3, http2.ErrCodeNo)},
			{"the same as the first", nil, []func(*trackedConn){first}, server(maxStreamID, http2.ErrCodeNo), firstGoAway()},
			{"lower than the first", nil, []func(*trackedConn){first}, server(7, http2.ErrCodeNo), slices.Concat(firstGoAway(), server(7, http2.ErrCodeNo))},
			{"higher than the last", nil, []func(*trackedConn){final}, server(maxStreamID, http2.ErrCodeNo), ourFinal},
			{"the same as the last", nil, []func(*trackedConn){first, final}, server(7, http2.ErrCodeNo), slices.Concat(firstGoAway(), ourFinal)},
			{"lower than the last", nil, []func(*trackedConn){final}, server(5, http2.ErrCodeNo), slices.Concat(ourFinal, server(5, http2.ErrCodeNo))},
			{"an error", nil, []func(*trackedConn){final}, server(7, http2.ErrCodeProtocol), slices.Concat(ourFinal, server(7, http2.ErrCodeProtocol))},
		}
		for _, tt := range tests {
			for step := 1; step < 30; step++ {
				inner := &wireConn{}
				c, track := newTracked(inner, Options{})
				track.highest.Store(7)
				write := func(b []byte) {
					for piece := range slices.Chunk(b, step) {
						if n, err := c.Write(piece); n != len(piece) || err != nil {
							t.Fatalf("write = %d, %v", n, err)
						}
					}
				}
				write(slices.Concat(serverSettings(), tt.before))
				for _, ask := range tt.ask {
					ask(c)
				}
				write(slices.Concat(tt.after, pingFrame(0, "the last")))
				want := slices.Concat(serverSettings(), tt.want, pingFrame(0, "the last"))
				if diff := cmp.Diff(want, inner.wrote.Bytes()); diff != "" {
					t.Errorf("%s, by %d (-want +got):\n%s", tt.name, step, diff)
				}
			}
		}
	})
}

// TestGoAwayWaitsForNoWriter: a Write under way takes the frames along.
func TestGoAwayWaitsForNoWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := pipeTracked(t)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(serverSettings())
			done <- err
		}()
		synctest.Wait()
		started := time.Now()
		c.GoAway()
		if took := time.Since(started); took > 0 {
			t.Errorf("GoAway took %v", took)
		}
		told(t, c, false, false)
		want := slices.Concat(serverSettings(), firstGoAway())
		if diff := cmp.Diff(want, received(t, client, len(want))); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		told(t, c, true, false)
	})
}

// writeSettings lets the server write its SETTINGS.
func writeSettings(t *testing.T, client net.Conn, c *trackedConn) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.Write(serverSettings()) })
	received(t, client, len(serverSettings()))
	wg.Wait()
}

// TestGoAwayIsBounded: a client that reads nothing costs a second. It gets the frames
// when it reads again, and the server's next behind them.
func TestGoAwayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := pipeTracked(t)
		writeSettings(t, client, c)
		started := time.Now()
		c.GoAway()
		if took := time.Since(started); took != insertTimeout {
			t.Errorf("GoAway took %v, want %v", took, insertTimeout)
		}
		told(t, c, false, false)
		time.Sleep(time.Hour)
		if diff := cmp.Diff(firstGoAway(), received(t, client, len(firstGoAway()))); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
		synctest.Wait()
		told(t, c, true, false)
		ping := pingFrame(0, "12345678")
		go func() { _, _ = c.Write(ping) }()
		if diff := cmp.Diff(ping, received(t, client, len(ping))); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
	})
}

// A heraldConn tells of each Write before it begins.
type heraldConn struct {
	net.Conn
	writes chan struct{}
}

func (c *heraldConn) Write(p []byte) (int, error) {
	c.writes <- struct{}{}
	return c.Conn.Write(p)
}

// TestDeadlineDuringGoAway: the server's deadline bounds the frame of ours, and the
// server's Write that waits for it. It takes real time, because a bubble's clock stands
// still while a goroutine waits for a mutex.
func TestDeadlineDuringGoAway(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	inner := &heraldConn{server, make(chan struct{}, 2)}
	c, track := newTracked(inner, Options{})
	defer c.Close()
	track.out.begun = true
	var wg sync.WaitGroup
	wg.Go(c.GoAway)
	<-inner.writes
	deadline := time.Now().Add(insertTimeout + 100*time.Millisecond)
	if err := c.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(pingFrame(0, "12345678")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v, want a timeout", err)
	}
	if early := time.Until(deadline); early > 0 {
		t.Errorf("the write ended %v before its deadline", early)
	}
	wg.Wait()
}

// TestHalfAGoAway ends the connection.
func TestHalfAGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := pipeTracked(t)
		writeSettings(t, client, c)
		if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.ReadFull(client, make([]byte, 3)) }()
		c.GoAway()
		told(t, c, false, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, err := c.Write(pingFrame(0, "12345678")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write = %d, %v; want a timeout", n, err)
		}
		if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the client reads %d bytes, %v; want the end", n, err)
		}
	})
}

// TestGoAwayOverTLS: neither a frame of ours that fails nor Close waits for a client
// that does not read the farewell either.
func TestGoAwayOverTLS(t *testing.T) {
	for name, end := range map[string]func(*trackedConn){
		"deadline": func(c *trackedConn) { _ = c.SetWriteDeadline(time.Now()) },
		"close":    func(c *trackedConn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) { testGoAwayOverTLS(t, end) })
	}
}

func testGoAwayOverTLS(t *testing.T, end func(*trackedConn)) {
	certificate := wiretest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		below := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
				t.Error(err)
			}
		})
		if err := below.Handshake(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		c, track := newTracked(below, Options{})
		track.out.begun = true
		started := time.Now()
		c.GoAway()
		if took := time.Since(started); took != insertTimeout {
			t.Errorf("GoAway took %v, want %v", took, insertTimeout)
		}
		end(c)
		synctest.Wait()
		if took := time.Since(started); took != insertTimeout {
			t.Errorf("it ended after %v, want %v", took, insertTimeout)
		}
		if _, err := server.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write: %v, want %v", err, io.ErrClosedPipe)
		}
	})
}

// TestGoAwayTogether lets everything run at once, for the race detector.
func TestGoAwayTogether(t *testing.T) {
	client, server := wiretest.TCPPair(t)
	c, _ := newTracked(server, Options{MaxResetsPerMinute: 1})
	var writers, others sync.WaitGroup
	writers.Go(func() {
		frame := AppendFrame(nil, 0xbe, 0, make([]byte, 1000)) // A type that clients ignore.
		for _, b := range slices.Concat([][]byte{serverSettings()}, slices.Repeat([][]byte{frame[:500], frame[500:]}, 200)) {
			if _, err := c.Write(b); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() { _, _ = io.Copy(io.Discard, c) })
	for _, f := range []func(){c.GoAway, func() { c.FinalGoAway() }, func() { c.GoneAway() }, func() { _ = c.SetWriteDeadline(time.Time{}) }} {
		writers.Go(func() {
			for range 50 {
				f()
			}
		})
	}
	sent := wiretest.ClientBytes(func(fr *http2.Framer) {
		for stream := uint32(1); stream < 9; stream += 2 {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true})
			_ = fr.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	})
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	go func() {
		writers.Wait()
		_ = server.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, got)
	client.Close()
	others.Wait()
}
