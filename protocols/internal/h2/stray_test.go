package h2

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// followed gives a client's bytes to c in reads of step bytes, into a buffer of size bytes. It
// returns what the server gets.
func followed(c *trackedConn, sent []byte, step, size int) (got []byte) {
	buf := make([]byte, size)
	src := pieceReader{bytes.NewReader(bytes.Clone(sent)), step}
	for {
		if n := c.ReadMarker(buf); n > 0 {
			got = append(got, buf[:n]...)
			continue
		}
		n, err := src.Read(buf)
		if err != nil {
			return got
		}
		got = append(got, buf[:c.Follow(buf[:n])]...)
	}
}

// TestStrays: behind a GOAWAY net/http sees no RST_STREAM and no WINDOW_UPDATE of a stream that
// the client has not opened, however the bytes are split. All else passes as it is.
func TestStrays(t *testing.T) {
	payload := []byte{0, 0, 0, 8}
	frame := func(typ http2.FrameType, stream uint32) []byte {
		return appendStreamFrame(nil, typ, 0, stream, payload)
	}
	start := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte("block"), EndHeaders: true})
	})
	reset, update := frame(http2.FrameRSTStream, 7), frame(http2.FrameWindowUpdate, 1<<24+7)
	more := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: []byte("block"), EndHeaders: true})
	})[len(http2.ClientPreface):]
	long := appendStreamFrame(nil, http2.FrameRSTStream, 0, 7, append(payload, 0))
	data := AppendFrame(nil, http2.FrameData, 0, slices.Concat(reset, update))
	sent := slices.Concat(reset, data, update, frame(http2.FrameRSTStream, 5), frame(http2.FrameRSTStream, 3),
		frame(http2.FrameWindowUpdate, 5), frame(http2.FrameWindowUpdate, 0), frame(http2.FrameRSTStream, 8),
		frame(http2.FramePriority, 7), frame(http2.FrameData, 7), long, reset, reset, more, reset, update, pingFrame(0, "12345678"))
	var passed []byte
	opened := uint32(5)
	for h, f := range frames(sent) {
		f = bytes.Clone(f)
		if h.Type == http2.FrameHeaders {
			opened = h.StreamID
		}
		isKind := h.Type == http2.FrameRSTStream || h.Type == http2.FrameWindowUpdate
		if isKind && h.Length == 4 && h.StreamID%2 == 1 && h.StreamID > opened {
			f[3] = byte(hiddenFrame)
		}
		passed = append(passed, f...)
	}
	server := AppendGoAway(nil, maxStreamID, http2.ErrCodeNo, "")
	for name, tt := range map[string]struct {
		options Options
		leave   func(*trackedConn)
		want    []byte
	}{
		"before GOAWAY":   {Options{NetHTTP: true}, func(*trackedConn) {}, sent},
		"GOAWAY":          {Options{NetHTTP: true}, func(c *trackedConn) { c.GoAway() }, passed},
		"final GOAWAY":    {Options{NetHTTP: true}, func(c *trackedConn) { c.FinalGoAway() }, passed},
		"server's GOAWAY": {Options{NetHTTP: true}, func(c *trackedConn) { _, _ = c.Write(server) }, passed},
		"upgraded":        {Options{NetHTTP: true, Upgraded: true}, func(c *trackedConn) { c.GoAway() }, passed},
		"grpc-go":         {Options{}, func(c *trackedConn) { c.GoAway() }, sent},
	} {
		for step := 1; step <= len(sent); step++ {
			for _, size := range []int{1, 2, HeaderLen, len(sent)} {
				c, _ := newTracked(&wireConn{}, tt.options)
				_, _ = c.Write(testSettings)
				got := followed(c, start, len(start), len(start))
				tt.leave(c)
				got = append(got, followed(c, sent, step, size)...)
				if diff := cmp.Diff(slices.Concat(start, tt.want), got); diff != "" {
					t.Fatalf("%s, in reads of %d bytes into %d (-want +got):\n%s", name, step, size, diff)
				}
				c.End()
			}
		}
	}
}

// TestStrayAcrossGoAway: of a frame that began before the GOAWAY, the server has the type or
// not. Either way it gets the frame whole.
func TestStrayAcrossGoAway(t *testing.T) {
	reset := appendStreamFrame(nil, http2.FrameRSTStream, 0, 3, []byte{0, 0, 0, 8})
	for split := range reset {
		c, _ := newTracked(&wireConn{}, Options{NetHTTP: true})
		_, _ = c.Write(testSettings)
		got := followed(c, slices.Concat([]byte(http2.ClientPreface), reset[:split]), 100, 100)
		c.GoAway()
		got = append(got, followed(c, slices.Concat(reset[split:], reset), 1, 1)...)
		c.End()
		first, second := bytes.Clone(reset), bytes.Clone(reset)
		second[3] = byte(hiddenFrame)
		if split <= 3 {
			first = second
		}
		if diff := cmp.Diff(slices.Concat([]byte(http2.ClientPreface), first, second), got); diff != "" {
			t.Errorf("split at %d (-want +got):\n%s", split, diff)
		}
	}
}

// TestStraysArePaced: as all that the client sends, they are read on only as the server answers.
func TestStraysArePaced(t *testing.T) {
	c, _ := newTracked(&wireConn{}, Options{NetHTTP: true})
	defer c.End()
	_, _ = c.Write(testSettings)
	followed(c, []byte(http2.ClientPreface), 100, 100)
	c.GoAway()
	reset := appendStreamFrame(nil, http2.FrameRSTStream, 0, 3, []byte{0, 0, 0, 8})
	got := followed(c, bytes.Repeat(reset, 2*maxBehind), 1<<20, 1<<10)
	if !bytes.Contains(got, marker) {
		t.Errorf("%d strays without a marker", 2*maxBehind)
	}
}
