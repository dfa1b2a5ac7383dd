package h2

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A wireConn keeps what is written to it. One of its writes times out half-way.
type wireConn struct {
	net.Conn
	wrote  bytes.Buffer
	mixed  bool // Our PING was written with something else.
	writes int
	fails  int // Which write does, from 1 on; 0 for none.
	closed bool
}

func (c *wireConn) Write(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if ping := goAwayPingFrame(); bytes.Contains(p, ping) && len(p) > len(ping) {
		c.mixed = true
	}
	if c.writes++; c.writes == c.fails {
		n, _ := c.wrote.Write(p[:len(p)/2])
		return n, os.ErrDeadlineExceeded
	}
	return c.wrote.Write(p)
}

func (c *wireConn) Close() error {
	c.closed = true
	return nil
}

func (*wireConn) SetDeadline(time.Time) error      { return nil }
func (*wireConn) SetReadDeadline(time.Time) error  { return nil }
func (*wireConn) SetWriteDeadline(time.Time) error { return nil }

// serverOutput is what a server may write, and what is to be left of it when
// acks ACKs are taken out.
func serverOutput(acks int) (output, want []byte) {
	var all, left bytes.Buffer
	kept := http2.NewFramer(&multiWriter{&all, &left}, nil)
	removed := http2.NewFramer(&all, nil)

	_ = kept.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	_ = kept.WriteWindowUpdate(0, 1<<20)
	for range acks {
		_ = removed.WriteSettingsAck()
		_ = kept.WritePing(true, [8]byte{1, 2, 3})
	}
	_ = kept.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = kept.WriteSettingsAck()
	_ = kept.WriteData(1, true, bytes.Repeat([]byte("data"), 100))
	return all.Bytes(), left.Bytes()
}

type multiWriter []*bytes.Buffer

func (m *multiWriter) Write(p []byte) (int, error) {
	for _, b := range *m {
		b.Write(p)
	}
	return len(p), nil
}

// newPlayed returns a connection over inner for which SETTINGS and acks ACKs were sent.
func newPlayed(inner net.Conn, acks int) *trackedConn {
	c, t := newTracked(inner, Options{Played: true})
	t.out.dropACKs = uint8(acks)
	return c
}

// TestACKsAreTakenOut: those that were sent already, however they are split.
func TestACKsAreTakenOut(t *testing.T) {
	for acks := range 3 {
		output, want := serverOutput(acks)
		for step := 1; step <= len(output); step++ {
			inner := &wireConn{}
			c := newPlayed(inner, acks)
			for piece := range slices.Chunk(output, step) {
				if n, err := c.Write(piece); n != len(piece) || err != nil {
					t.Fatalf("write = %d, %v; want %d", n, err, len(piece))
				}
			}
			if diff := cmp.Diff(want, inner.wrote.Bytes()); diff != "" {
				t.Fatalf("%d ACKs, writes of %d bytes (-want +got):\n%s", acks, step, diff)
			}
			if c.out.dropACKs > 0 {
				t.Errorf("%d ACKs, writes of %d bytes: more is to be taken out", acks, step)
			}
		}
	}
}

// TestFailedWriteIsTheLast: it may have left half a frame on the wire.
func TestFailedWriteIsTheLast(t *testing.T) {
	for _, played := range []bool{false, true} {
		inner := &wireConn{fails: 2}
		c, _ := newTracked(inner, Options{})
		if played {
			c = newPlayed(inner, 1)
		}
		if _, err := c.Write(slices.Concat(serverSettings(), pingFrame(0, "12345678"))); err != nil {
			t.Fatal(err)
		}
		wrote := inner.wrote.Len()
		for range 2 {
			if n, err := c.Write(pingFrame(0, "12345678")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write = %d, %v; want 0, %v", n, err, os.ErrDeadlineExceeded)
			}
		}
		c.GoAway()
		told(t, c, false, false)
		if got := inner.wrote.Len() - wrote; inner.writes != 2 || got != (HeaderLen+PingLen)/2 {
			t.Errorf("%d writes, the last ones of %d bytes; want 2 with half a frame", inner.writes, got)
		}
	}
}

// frames returns the complete frames of b and their headers. The last one has
// no type and is what is cut short.
func frames(b []byte) iter.Seq2[http2.FrameHeader, []byte] {
	return func(yield func(http2.FrameHeader, []byte) bool) {
		for {
			h, err := http2.ReadFrameHeader(bytes.NewReader(b))
			end := HeaderLen + int(h.Length)
			if err != nil || len(b) < end {
				yield(http2.FrameHeader{}, b)
				return
			}
			if !yield(h, b[:end]) {
				return
			}
			b = b[end:]
		}
	}
}

// scriptOutput is what a server may write: a frame for each byte of script, as the
// bytes of the frames. Its GOAWAYs carry debug data, which ours do not.
func scriptOutput(script []byte) (output [][]byte) {
	var buf bytes.Buffer
	fr := http2.NewFramer(&buf, nil)
	fr.AllowIllegalWrites = true
	next := func() {
		output = append(output, bytes.Clone(buf.Bytes()))
		buf.Reset()
	}
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	next()
	for _, b := range script {
		kind, value := b%8, uint32(b/8)
		switch kind {
		case 0:
			_ = fr.WriteData(value|1, value%3 == 0, make([]byte, 5*value))
		case 1:
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: value | 1, EndHeaders: true, BlockFragment: make([]byte, value)})
		case 2:
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: value | 1, BlockFragment: []byte("block")})
			for i := range value % 4 {
				next()
				_ = fr.WriteContinuation(value|1, false, make([]byte, i))
			}
			next()
			_ = fr.WriteContinuation(value|1, true, []byte("end"))
		case 3:
			_ = fr.WritePing(value%2 == 0, [8]byte{b})
		case 4:
			_ = fr.WriteSettingsAck()
		case 5:
			_ = fr.WriteWindowUpdate(0, value+1)
		case 6:
			_ = fr.WriteGoAway(value/2, http2.ErrCode(value%2), make([]byte, 1+value))
		case 7:
			_ = fr.WriteRawFrame(0xbe, http2.Flags(b), value, make([]byte, value))
		}
		next()
	}
	return output
}

// A wireCheck compares what came out with what the server wrote.
type wireCheck struct {
	t      *testing.T
	server [][]byte // What is still to come.
	ours   [][]byte // Likewise, of the frames that were asked for.
	last   uint32   // What the client was told last, where it was by us.
	told   bool
}

func isGoAway(frame []byte) (last uint32, code http2.ErrCode, ok bool) {
	h := ParseHeader(frame)
	if h.Type != http2.FrameGoAway {
		return 0, 0, false
	}
	last, code = goAwayFields(frame[HeaderLen:])
	return last, code, true
}

// check takes the next frame from the wire.
func (w *wireCheck) check(frame []byte) {
	w.t.Helper()
	last, code, goAway := isGoAway(frame)
	if len(w.ours) > 1 && bytes.Equal(w.ours[0], goAwayPingFrame()) && bytes.Equal(frame, w.ours[1]) {
		w.ours = w.ours[1:] // The final one makes the PING needless.
	}
	if len(w.ours) > 0 && bytes.Equal(frame, w.ours[0]) {
		w.ours = w.ours[1:]
		if goAway {
			w.last, w.told = last, true
		}
		return
	}
	for len(w.server) > 0 && !bytes.Equal(frame, w.server[0]) {
		w.dropped(w.server[0])
		w.server = w.server[1:]
	}
	if len(w.server) == 0 {
		w.t.Fatalf("nobody wrote %q", frame)
	}
	w.server = w.server[1:]
	if goAway {
		if w.told && code == http2.ErrCodeNo && last >= w.last {
			w.t.Fatalf("the server's GOAWAY names %d behind ours, which names %d", last, w.last)
		}
		w.ours = nil // Nothing is to come behind the server's.
		if w.told {
			w.last = min(w.last, last)
		}
	}
}

// dropped checks that a frame of the server's may be missing.
func (w *wireCheck) dropped(frame []byte) {
	w.t.Helper()
	if last, code, ok := isGoAway(frame); !ok || !w.told || code != http2.ErrCodeNo || last < w.last {
		w.t.Fatalf("%q is missing", frame)
	}
}

// FuzzFrameTracker has x/net's framer as its oracle: however the server's output is
// split, and whenever a frame is asked for, the client reads the server's frames and
// ours at places where they may stand. A write that fails is the last one.
func FuzzFrameTracker(f *testing.F) {
	all := []byte{0, 1, 2, 3, 4, 5, 7, 8, 81, 26, 250, 0x80}
	for split := range uint8(30) {
		f.Add(all, split, split/3, split/2, uint8(0))
		f.Add(append(all, 0x76, 0x06, 0x16, 0x0e, 2, 10), split, split/4, split, split)
		f.Add([]byte{2, 6, 0x36, 0x3e, 0x46}, split, uint8(0), uint8(3), uint8(0))
	}
	f.Fuzz(func(t *testing.T, script []byte, split, first, final, fails uint8) {
		if len(script) > 256 {
			return // What is long is slow, byte by byte, and shows nothing new.
		}
		synctest.Test(t, func(t *testing.T) { fuzzFrames(t, script, split, first, final, fails) })
	})
}

func fuzzFrames(t *testing.T, script []byte, split, first, final, fails uint8) {
	const highest = 7
	inner := &wireConn{fails: int(fails)}
	c, track := newTracked(inner, Options{})
	track.highest.Store(highest)
	server := scriptOutput(script)
	ours := [][]byte{
		firstGoAway(), goAwayPingFrame(),
		AppendGoAway(nil, highest, http2.ErrCodeNo, ""),
	}
	finally := func() {
		if track.asked.Load() == 0 {
			ours = ours[2:] // What comes behind the final one has no effect.
		}
		c.FinalGoAway()
	}

	output := bytes.Join(server, nil)
	failed := false
	for i := 0; len(output) > 0 && !failed; i++ {
		if i == int(first) {
			c.GoAway()
		}
		if i == (int(first)+int(final))/2 {
			sleepPast()
		}
		if i == int(final) {
			finally()
		}
		piece := output[:min(int(split)+1, len(output))]
		output = output[len(piece):]
		n, err := c.Write(piece)
		c.mu.Lock() // The PING may be written next.
		failed = fails > 0 && inner.writes >= int(fails)
		c.mu.Unlock()
		if failed {
			if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				// It may have been a frame of ours behind the server's.
				if _, err = c.Write(nil); !errors.Is(err, os.ErrDeadlineExceeded) || !inner.closed {
					t.Fatalf("write = %d, %v behind a failed one", n, err)
				}
			}
		} else if n != len(piece) || err != nil {
			t.Fatalf("write = %d, %v", n, err)
		}
	}
	c.GoAway()
	finally()
	failed = failed || fails > 0 && inner.writes >= int(fails)
	if failed && inner.writes > int(fails) {
		t.Fatalf("%d writes, of which number %d failed", inner.writes, fails)
	}

	wire := inner.wrote.Bytes()
	if failed {
		wire = wholeFrames(wire)
	}
	checkOrder(t, wire)
	if inner.mixed {
		t.Error("our PING was written with something else")
	}
	w := &wireCheck{t: t, server: server, ours: ours}
	for h, frame := range frames(wire) {
		if len(frame) == 0 {
			break
		}
		if len(frame) != HeaderLen+int(h.Length) {
			t.Fatalf("%q is cut short", frame)
		}
		w.check(frame)
	}
	if failed {
		return
	}
	for _, frame := range w.server {
		w.dropped(frame)
	}
	if len(w.ours) > 0 {
		t.Errorf("%d frames of ours are missing", len(w.ours))
	}
}

// wholeFrames returns b without the frame at its end that is cut short.
func wholeFrames(b []byte) []byte {
	whole := 0
	for len(b)-whole >= HeaderLen {
		next := whole + HeaderLen + ParseHeader(b[whole:]).Length
		if next > len(b) {
			break
		}
		whole = next
	}
	return b[:whole]
}

// checkOrder lets x/net's framer read b, which knows where a frame must not stand.
func checkOrder(t *testing.T, b []byte) {
	t.Helper()
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	fr.SetMaxReadFrameSize(1<<24 - 1)
	for i := 0; ; i++ {
		frame, err := fr.ReadFrame()
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, new(http2.StreamError)): // A WINDOW_UPDATE or its like of no sense.
		case err != nil:
			t.Fatalf("frame %d: %v", i, err)
		case i == 0:
			if _, ok := frame.(*http2.SettingsFrame); !ok {
				t.Fatalf("the first frame is %v", frame)
			}
		}
	}
}

// TestTrackerFollowsTheClient splits a client's bytes anywhere.
func TestTrackerFollowsTheClient(t *testing.T) {
	sent := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		for _, stream := range []uint32{1, 3, 9, 5} {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: []byte("block")})
			_ = fr.WriteData(stream, true, bytes.Repeat([]byte("data"), 9))
		}
		_ = fr.WritePing(true, goAwayPing)
	})
	for step := 1; step <= len(sent); step++ {
		_, track := newTracked(&wireConn{}, Options{})
		track.marks.Or(markPinged)
		for piece := range slices.Chunk(sent, step) {
			track.Follow(piece)
		}
		if highest := track.highest.Load(); highest != 9 {
			t.Errorf("by %d: the highest stream is %d, want 9", step, highest)
		}
		if track.marks.Load()&markSettled == 0 {
			t.Errorf("by %d: the PING's answer was not seen", step)
		}
	}
}

// A nullConn writes nowhere.
type nullConn struct{ net.Conn }

func (*nullConn) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkTrackedWrite writes frames of common size through the tracker.
func BenchmarkTrackedWrite(b *testing.B) {
	c, _ := newTracked(&nullConn{}, Options{})
	p := bytes.Repeat(AppendFrame(nil, http2.FrameData, 0, make([]byte, 4096)), 4)
	b.ReportAllocs()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzACKFilter has the frames that x/net finds in the whole stream as
// its oracle.
func FuzzACKFilter(f *testing.F) {
	for acks := range 3 {
		output, _ := serverOutput(acks)
		f.Add(output, uint8(acks), uint8(1))
		f.Add(output, uint8(acks), uint8(100))
	}
	f.Fuzz(func(t *testing.T, b []byte, acks, step uint8) {
		if step == 0 {
			return
		}
		inner := &wireConn{}
		c := newPlayed(inner, int(acks))
		for piece := range slices.Chunk(b, int(step)) {
			if n, err := c.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("write = %d, %v; want %d", n, err, len(piece))
			}
		}
		if diff := cmp.Diff(string(oracleFilter(b, int(acks))), inner.wrote.String()); diff != "" {
			t.Fatalf("left (-want +got):\n%s", diff)
		}
	})
}

// oracleFilter returns what is to be left of b. A frame that is cut short goes
// or stays like a whole one; a cut head is held back.
func oracleFilter(b []byte, acks int) []byte {
	var left []byte
	for len(b) > 0 {
		h, err := http2.ReadFrameHeader(bytes.NewReader(b))
		if err != nil {
			return left
		}
		head := HeaderLen
		switch h.Type {
		case http2.FramePing:
			head += min(int(h.Length), 8)
		case http2.FrameGoAway:
			head += min(int(h.Length), 16)
		case http2.FrameWindowUpdate, http2.FrameRSTStream:
			head += min(int(h.Length), 4)
		}
		if len(b) < head {
			return left
		}
		frame := b[:min(HeaderLen+int(h.Length), len(b))]
		b = b[len(frame):]
		if h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) && acks > 0 {
			acks--
			continue
		}
		left = append(left, frame...)
	}
	return left
}

// TestSecondResetIsTakenOut: a stream is reset once, however the frames are split. The reset
// of another stream stays.
func TestSecondResetIsTakenOut(t *testing.T) {
	var all, left bytes.Buffer
	kept := http2.NewFramer(&multiWriter{&all, &left}, nil)
	removed := http2.NewFramer(&all, nil)
	_ = kept.WriteSettings()
	_ = kept.WriteData(1, true, []byte("early"))
	_ = kept.WriteRSTStream(1, http2.ErrCodeNo)
	_ = removed.WriteRSTStream(1, http2.ErrCodeStreamClosed)
	_ = kept.WriteRSTStream(3, http2.ErrCodeStreamClosed)
	_ = kept.WriteData(5, true, []byte("late"))
	_ = removed.WriteRSTStream(1, http2.ErrCodeStreamClosed)
	_ = removed.WriteRSTStream(3, http2.ErrCodeStreamClosed)
	for step := 1; step <= all.Len(); step++ {
		inner := &wireConn{}
		c, _ := newTracked(inner, Options{NetHTTP: true})
		for piece := range slices.Chunk(all.Bytes(), step) {
			if n, err := c.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("write = %d, %v; want %d", n, err, len(piece))
			}
		}
		if diff := cmp.Diff(left.Bytes(), inner.wrote.Bytes()); diff != "" {
			t.Fatalf("writes of %d bytes (-want +got):\n%s", step, diff)
		}
	}
}
