package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
)

// The first bytes of frames.
const (
	textFrame     = finBit | 0x1
	binaryFrame   = finBit | 0x2
	lastFrame     = finBit
	textBegins    = 0x1
	textContinues = 0x0

	compressedBit = 0x40 // RSV1 (RFC 7692 section 6)
)

// appendWebSocketFrame appends a frame; a client's is masked.
func appendWebSocketFrame(b []byte, first byte, masked bool, payload []byte) []byte {
	b = append(b, first)
	var second byte
	if masked {
		second = maskBit
	}
	switch n := len(payload); {
	case n < length16:
		b = append(b, second|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, second|length16), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, second|length64), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	key := [maskLen]byte{0x81, 0x7E, 0xFF, 0x01} // Bytes that would begin frames.
	b = append(b, key[:]...)
	for i, x := range payload {
		b = append(b, x^key[i%maskLen])
	}
	return b
}

// TestMessageCounter: what counts as a message, in either direction, in pieces of every
// size.
func TestMessageCounter(t *testing.T) {
	type frame struct {
		first byte
		size  int
	}
	tests := []struct {
		name   string
		frames []frame
		want   int
	}{
		{"nothing", nil, 0},
		{"empty messages", []frame{{textFrame, 0}, {binaryFrame, 0}, {textFrame, 0}}, 3},
		{"compressed", []frame{{textFrame | compressedBit, 5}}, 1},
		{"lengths", []frame{{textFrame, 1}, {textFrame, 125}, {textFrame, 126}, {textFrame, 127}, {binaryFrame, 65535}, {binaryFrame, 65536}, {textFrame, 3}}, 7},
		{"control frames", []frame{{pingFrame, 0}, {pongFrame, 125}, {closeFrame, 2}}, 0},
		{"fragments", []frame{{textBegins, 10}, {textContinues, 0}, {lastFrame, 10}}, 1},
		{"a ping among fragments", []frame{{textBegins, 10}, {pingFrame, 4}, {lastFrame, 0}, {textFrame, 2}}, 2},
		{"unfinished", []frame{{textFrame, 1}, {textBegins, 200}, {textContinues, 10}}, 1},
	}
	for _, test := range tests {
		for _, masked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, masked %v", test.name, masked), func(t *testing.T) {
				var b []byte
				for _, f := range test.frames {
					b = appendWebSocketFrame(b, f.first, masked, bytes.Repeat([]byte{textFrame}, f.size))
				}
				for _, step := range []int{1, 2, 3, 5, 7, 13, 4096, len(b) + 1} {
					if got := countIn(b, step); got != test.want {
						t.Errorf("in steps of %d: %d, want %d", step, got, test.want)
					}
				}
			})
		}
	}
}

func countIn(b []byte, step int) (messages int) {
	var c messageCounter
	for len(b) > 0 {
		n := min(step, len(b))
		messages += c.count(b[:n])
		b = b[n:]
	}
	return messages
}

// FuzzMessageCounter: the counter agrees, however its bytes are split, with a parser that
// has them all.
func FuzzMessageCounter(f *testing.F) {
	for _, masked := range []bool{false, true} {
		var b []byte
		for i, first := range []byte{textFrame, pingFrame, textBegins, lastFrame, closeFrame, binaryFrame} {
			b = appendWebSocketFrame(b, first, masked, make([]byte, i*60))
		}
		f.Add(b, uint8(1))
		f.Add(b, uint8(8))
		f.Add(b[:len(b)/2], uint8(200))
	}
	f.Add([]byte{binaryFrame, length64, 0, 0, 0, 0, 0, 1, 0, 0, 'x'}, uint8(3))
	f.Add([]byte{binaryFrame, length64 | maskBit, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4, textFrame, 0}, uint8(5))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		want := oracleMessages(b)
		for _, n := range []int{int(step) + 1, len(b) + 1} {
			if got := countIn(b, n); got != want {
				t.Errorf("%x in steps of %d: %d messages, want %d", b, n, got, want)
			}
		}
	})
}

// oracleMessages reads frames as RFC 6455 section 5.2 draws them.
func oracleMessages(b []byte) (messages int) {
	r := bytes.NewReader(b)
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return messages
		}
		length := uint64(head[1] & 0x7F)
		var err error
		switch length {
		case 126:
			var n uint16
			err = binary.Read(r, binary.BigEndian, &n)
			length = uint64(n)
		case 127:
			err = binary.Read(r, binary.BigEndian, &length)
		}
		if head[1]&0x80 != 0 && err == nil {
			_, err = io.ReadFull(r, make([]byte, 4))
		}
		if err != nil {
			return messages
		}
		if fin, opcode := head[0]&0x80 != 0, head[0]&0x0F; fin && opcode < 8 {
			messages++
		}
		if length > uint64(r.Len()) {
			return messages
		}
		_, _ = r.Seek(int64(length), io.SeekCurrent)
	}
}

// loopConn gives the same bytes again and again, and takes all.
type loopConn struct {
	net.Conn
	bytes []byte
	at    int
}

func (c *loopConn) Read(p []byte) (int, error) {
	n := copy(p, c.bytes[c.at:])
	c.at = (c.at + n) % len(c.bytes)
	return n, nil
}

func (*loopConn) Write(p []byte) (int, error) { return len(p), nil }

// countedLoop is a watched connection whose peer sends messages of size bytes for ever.
func countedLoop(size int) (c *watchedConn, received, sent *int) {
	b := appendWebSocketFrame(nil, textFrame, true, make([]byte, size))
	b = bytes.Repeat(b, max(1, 1<<16/len(b)))
	received, sent = new(int), new(int)
	return newTestConn(&loopConn{bytes: b}, &testOwner{count: func(in, out int) {
		*received += in
		*sent += out
	}}), received, sent
}

// TestCountingAllocatesNothing: neither a read nor a write costs memory.
func TestCountingAllocatesNothing(t *testing.T) {
	c, received, sent := countedLoop(10)
	message := appendWebSocketFrame(nil, textFrame, false, make([]byte, 10))
	buf := make([]byte, 4096)
	const runs = 100
	if n := testing.AllocsPerRun(runs, func() {
		_, _ = c.Read(buf)
		_, _ = c.Write(message)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if *received < runs || *sent != runs+1 { // AllocsPerRun warms up by one more.
		t.Errorf("%d received, %d sent in %d runs", *received, *sent, runs)
	}
}

func BenchmarkWatchedConnRead(b *testing.B) {
	for _, size := range []int{10, 1000, 1 << 16} {
		for _, counted := range []bool{false, true} {
			b.Run(fmt.Sprintf("messages of %d/counted %v", size, counted), func(b *testing.B) {
				c, received, _ := countedLoop(size)
				if !counted {
					c.owner = nil
				}
				buf := make([]byte, 4096) // What net/http's reader has.
				b.SetBytes(int64(len(buf)))
				b.ReportAllocs()
				for b.Loop() {
					_, _ = c.Read(buf)
				}
				b.ReportMetric(float64(*received)/float64(b.N), "messages/op")
			})
		}
	}
}

func BenchmarkWatchedConnWrite(b *testing.B) {
	for _, counted := range []bool{false, true} {
		b.Run(fmt.Sprintf("counted %v", counted), func(b *testing.B) {
			c, _, _ := countedLoop(100)
			if !counted {
				c.owner = nil
			}
			message := appendWebSocketFrame(nil, textFrame, false, make([]byte, 100))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Write(message)
			}
		})
	}
}

// writes remembers what is written.
type writes struct{ all [][]byte }

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, bytes.Clone(p))
	return len(p), nil
}

// TestFrameWriter: a message goes out in as few writes as through a buffer of 4 KB,
// however it comes, and in full.
func TestFrameWriter(t *testing.T) {
	for _, size := range []int{0, 10, 125, 126, 4000, heldSize - 4, heldSize, 10_000, 1 << 16} {
		for _, piece := range []int{1, 100, 128, heldSize - 1, heldSize, 1 << 20} {
			t.Run(fmt.Sprintf("%d by %d", size, piece), func(t *testing.T) {
				frame := appendWebSocketFrame(nil, textFrame, false, make([]byte, size))
				var to writes
				w := frameWriter{to: &to}
				messages := 0
				for rest := frame; len(rest) > 0; {
					p := rest[:min(piece, len(rest))]
					rest = rest[len(p):]
					n, err := w.write(p)
					if err != nil {
						t.Fatal(err)
					}
					messages += n
				}
				if got := bytes.Join(to.all, nil); !bytes.Equal(got, frame) {
					t.Errorf("%d bytes went out of %d", len(got), len(frame))
				}
				if most := len(frame)/min(heldSize, max(piece, heldSize)) + 1; len(to.all) > most {
					t.Errorf("%d writes, want at most %d", len(to.all), most)
				}
				if messages != 1 || w.held != nil {
					t.Errorf("%d messages, held %v", messages, w.held != nil)
				}
			})
		}
	}
}

// TestFrameWriterHolds: what is not the end of a message waits, and a control frame takes
// it along.
func TestFrameWriterHolds(t *testing.T) {
	var to writes
	w := frameWriter{to: &to}
	for _, step := range []struct {
		frame []byte
		want  int // writes so far
	}{
		{appendWebSocketFrame(nil, textBegins, false, []byte("a")), 0},
		{appendWebSocketFrame(nil, pingFrame, false, nil), 1},
		{appendWebSocketFrame(nil, lastFrame, false, []byte("b")), 2},
		{appendWebSocketFrame(nil, textFrame, false, []byte("c"))[:2], 2},
		{[]byte("c"), 3},
	} {
		if _, err := w.write(step.frame); err != nil {
			t.Fatal(err)
		}
		if len(to.all) != step.want {
			t.Errorf("%d writes behind %q, want %d", len(to.all), step.frame, step.want)
		}
	}
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

// TestFrameWriterFails: the error of the connection is the writer's.
func TestFrameWriterFails(t *testing.T) {
	frame := appendWebSocketFrame(nil, textFrame, false, make([]byte, 2*heldSize))
	for _, pieces := range [][]int{{len(frame)}, {100, len(frame)}, {1, 2, len(frame)}, {heldSize, len(frame)}} {
		w := frameWriter{to: brokenWriter{}}
		var err error
		for at, i := 0, 0; i < len(pieces) && err == nil; i++ {
			_, err = w.write(frame[at:pieces[i]])
			at = pieces[i]
		}
		if !errors.Is(err, errBroken) || w.held != nil {
			t.Errorf("%v: %v, held %v", pieces, err, w.held != nil)
		}
	}
}

// TestHoldingAllocatesNothing: the buffer comes from its pool.
func TestHoldingAllocatesNothing(t *testing.T) {
	frame := appendWebSocketFrame(nil, textFrame, false, make([]byte, 1000))
	w := frameWriter{to: new(loopConn)}
	if n := testing.AllocsPerRun(100, func() {
		_, _ = w.write(frame[:128])
		_, _ = w.write(frame[128:])
	}); n >= 1 { // A garbage collection may empty the pool.
		t.Errorf("%v allocations", n)
	}
}
