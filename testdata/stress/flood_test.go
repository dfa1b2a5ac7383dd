package stress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// maxHeapPerConn is how much the heap may grow for each connection of a flood.
const maxHeapPerConn = 64 << 10

// What each connection of a flood sends, in bytes.
const (
	shortFlood = 1 << 20
	longFlood  = 100 << 20
)

// floodConns is how many connections flood at the same time. Many of them make
// what the measurement itself needs look small.
const floodConns = 32

// end says by when a flooding connection must be over.
type end int

const (
	atOnce   end = iota // The flood meets an error; at the latest when the sniff time is over.
	whenIdle            // It breaks no rule, so it is net/http's, which ends it as a connection without requests.
)

// flood is what a client sends before its first complete header block.
type flood struct {
	name    string
	opening string // Once.
	unit    string // Again and again, until the client has sent what it is to send.
	deaf    bool   // The client never reads.
	end     end
}

// frames returns the frames that write writes.
func frames(write func(*http2.Framer) error) string {
	var buf bytes.Buffer
	if err := write(http2.NewFramer(&buf, nil)); err != nil {
		panic(err) // The tables below are wrong.
	}
	return buf.String()
}

// many repeats frames until they fill a large write.
func many(frames string) string {
	const largeWrite = 64 << 10
	return string(bytes.Repeat([]byte(frames), max(1, largeWrite/len(frames))))
}

func floods() []flood {
	payload := make([]byte, 1<<14) // The largest frame that is allowed; RFC 9113, section 4.2.
	raw := func(typ http2.FrameType, stream uint32, payload []byte) string {
		return frames(func(f *http2.Framer) error { return f.WriteRawFrame(typ, 0, stream, payload) })
	}
	// A HEADERS frame without END_HEADERS, of a literal field that goes on for ever.
	headers := raw(http2.FrameHeaders, 1, payload[:100])
	hello := http2.ClientPreface + frames(func(f *http2.Framer) error { return f.WriteSettings() })
	settings := frames(func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
	})
	ping := raw(http2.FramePing, 0, payload[:8])
	return []flood{
		{name: "DATA", opening: hello, unit: many(raw(http2.FrameData, 1, payload))},
		{name: "unknown frames", opening: hello, unit: many(raw(0xfa, 0, payload)), end: whenIdle},
		{name: "PING", opening: hello, unit: many(ping)},
		{name: "PING, answers not read", opening: hello, unit: many(ping), deaf: true},
		{name: "SETTINGS", opening: hello, unit: many(settings)},
		{name: "WINDOW_UPDATE", opening: hello, unit: many(raw(http2.FrameWindowUpdate, 0, []byte{0, 0, 0, 1})), end: whenIdle},
		{name: "PRIORITY", opening: hello, unit: many(raw(http2.FramePriority, 1, payload[:5])), end: whenIdle},
		{name: "CONTINUATION", opening: hello + headers, unit: many(raw(http2.FrameContinuation, 1, payload))},
		{name: "HEADERS without END_HEADERS", opening: hello, unit: many(headers)},
		{name: "HEADERS that stop half-way", opening: hello + headers[:len(headers)-1]},
		{name: "a frame of 16 MiB", opening: hello + "\xff\xff\xff\x01\x00\x00\x00\x00\x01", unit: many(string(payload))},
		{name: "DATA in place of SETTINGS", opening: http2.ClientPreface, unit: many(raw(http2.FrameData, 1, payload))},
		{name: "an HTTP/1.1 header", opening: "GET / HTTP/1.1\r\nHost: a\r\nX-Long: ", unit: many("long ")},
		{name: "an HTTP/1.1 request line", opening: "GET /", unit: many("long/")},
		{name: "nothing known", opening: "?", unit: many("????")},
	}
}

// TestFloodBeforeHeaders sends a lot to a server that waits for the first
// header block. The heap must hardly grow, and the connection must end.
func TestFloodBeforeHeaders(t *testing.T) {
	for _, f := range floods() {
		t.Run(f.name, func(t *testing.T) {
			if *long && f.end == whenIdle {
				t.Parallel() // They wait for the idle timeout, each with a server of its own.
			}
			p := start(t, process.Options{Binary: embedding, Bare: true})
			f.warmUp(t.Context(), p.Addr)
			before := figures(t, p).Live
			var sent int64
			var left int
			most := peak(t, p, func(sample func()) {
				sent, left = f.run(t.Context(), p.Addr, f.budget(), floodConns, sample)
			})
			perConn := (most - before) / floodConns
			t.Logf("%d connections sent %d KiB each, %d are left; heap %+.1f KiB a connection, process at most %d MiB",
				floodConns, sent/floodConns>>10, left, float64(most-before)/floodConns/1024, peakMemory(t, p)>>20)
			if perConn > maxHeapPerConn {
				t.Errorf("the heap has grown by %d bytes a connection, want at most %d", perConn, maxHeapPerConn)
			}
			if f.end == atOnce && left > 0 {
				t.Errorf("%d connections are open %v after the flood", left, sniffTime+slack)
			}
			if f.end == whenIdle {
				f.checkHandedOver(t, p, left)
			}
		})
	}
}

// checkHandedOver checks that nothing is left to be recognised, and in the long
// form that net/http ended the connections.
func (f flood) checkHandedOver(t *testing.T, p *process.Process, left int) {
	if n := figures(t, p).Sniffing; n != 0 {
		t.Errorf("%d connections are still being recognised", n)
	}
	if *long && left > 0 {
		t.Errorf("%d connections are open %v after the flood began", left, idleTime)
	}
}

// warmUp floods a little, so that the server's own tables are there.
func (f flood) warmUp(ctx context.Context, addr string) {
	const little = 1 << 10
	f.end = atOnce
	f.run(ctx, addr, little, 1, func() {})
}

// peak returns the largest live heap of the process while do runs. The function
// that do is given returns when the heap has been looked at once more.
func peak(t *testing.T, p *process.Process, do func(sample func())) int64 {
	t.Helper()
	done := make(chan struct{})
	samples := make(chan chan struct{})
	go func() {
		defer close(done)
		do(func() {
			taken := make(chan struct{})
			samples <- taken
			<-taken
		})
	}()
	var most int64
	const interval = 200 * time.Millisecond
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return most
		case taken := <-samples:
			most = max(most, figures(t, p).Live)
			close(taken)
		case <-tick.C:
			most = max(most, figures(t, p).Live)
		}
	}
}

// run floods from n connections with budget bytes each, or as much as they can
// send. It calls sample when they have sent all and are still there. It returns
// how much was sent in all, and how many were not closed by the server in the end.
func (f flood) run(ctx context.Context, addr string, budget int64, n int, sample func()) (sent int64, left int) {
	var wg, flooding sync.WaitGroup
	var mu sync.Mutex // guards sent and left
	sampled := make(chan struct{})
	flooding.Add(n)
	for range n {
		wg.Go(func() {
			bytes, closed := f.connection(ctx, addr, budget, func() {
				flooding.Done()
				<-sampled
			})
			mu.Lock()
			defer mu.Unlock()
			sent += bytes
			if !closed {
				left++
			}
		})
	}
	flooding.Wait()
	sample()
	close(sampled)
	wg.Wait()
	return sent, left
}

// connection floods from one connection, and calls flooded once when it has sent
// what it could. It reports whether the server closed it.
func (f flood) connection(ctx context.Context, addr string, budget int64, flooded func()) (sent int64, closed bool) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		flooded()
		return 0, false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(idleTime + patience)) // Nothing here lasts as long.
	ended := make(chan error, 1)
	if !f.deaf {
		go func() {
			_, err := io.Copy(io.Discard, conn)
			ended <- err
		}()
	}
	started := time.Now()
	err = f.send(conn, budget, &sent)
	flooded()
	if f.deaf {
		// The end of the connection shows in the writes.
		return sent, err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	conn.SetReadDeadline(f.deadline(started))
	err = <-ended
	return sent, !errors.Is(err, os.ErrDeadlineExceeded)
}

// budget returns how much a connection sends, in bytes.
func (f flood) budget() int64 {
	if f.deaf {
		return pick[int64](longFlood/2, longFlood) // The answers fill the sockets' buffers first, some MiB.
	}
	return pick[int64](shortFlood, longFlood)
}

// deadline returns when the connection must have ended that was opened at
// started and has just sent all it had to.
func (f flood) deadline(started time.Time) time.Time {
	switch {
	case f.end == atOnce:
		return time.Now().Add(sniffTime + slack)
	case *long:
		const busy = 10 * slack // All the floods that are lawful run at the same time.
		return started.Add(idleTime + busy)
	default:
		return time.Now() // It is net/http's, and nothing to wait for.
	}
}

// send sends the flood, up to budget bytes of it.
func (f flood) send(conn net.Conn, budget int64, sent *int64) error {
	n, err := io.WriteString(conn, f.opening)
	*sent += int64(n)
	for err == nil && f.unit != "" && *sent < budget {
		n, err = io.WriteString(conn, f.unit)
		*sent += int64(n)
	}
	return err
}
