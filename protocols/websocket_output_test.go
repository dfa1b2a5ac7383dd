package protocols

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// writes remembers what is written.
type writes struct{ all [][]byte }

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, bytes.Clone(p))
	return len(p), nil
}

// TestFrameWriter: a message goes out in as few writes as through a buffer of 4 KB, however it comes, and in full.
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

// TestFrameWriterHolds: what is not the end of a message waits, and a control frame takes it along.
func TestFrameWriterHolds(t *testing.T) {
	var to writes
	w := frameWriter{to: &to}
	for _, step := range []struct {
		frame []byte
		want  int // writes so far
	}{
		{appendWebSocketFrame(nil, textBegins, false, []byte("a")), 0},
		{appendWebSocketFrame(nil, pingFrameHead, false, nil), 1},
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
