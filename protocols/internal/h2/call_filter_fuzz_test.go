package h2

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// faults are what a client must not send behind the first call of a connection, and would have
// the filter lose track of what the server reads.
var faults = []struct {
	name  string
	write func(c *testClient)
	want  http2.ErrCode
}{
	{"padding that is too long", func(c *testClient) {
		frame := appendStreamFrame(nil, http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 3, []byte("\xffshort"))
		_, _ = c.out.Write(frame)
	}, http2.ErrCodeProtocol},
	{"a stream below one that was in error", func(c *testClient) {
		c.open(13, callFields("/s/Call", "Upper", "case")...)
		c.open(3, wiretest.GetFields()...)
	}, http2.ErrCodeProtocol},
	{"a stream of the server's", func(c *testClient) { c.open(4, callFields("/s/Call")...) }, http2.ErrCodeProtocol},
	{"an index that is not there", func(c *testClient) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: []byte{0xff, 0x70}})
	}, http2.ErrCodeCompression},
	{"a Huffman code that grpc-go does not read behind a field in error", func(c *testClient) {
		block := append(c.encode(callFields("/s/Call", "Upper", "case")...), 0x04, 0x81, 0x00) // A :path.
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: block})
	}, http2.ErrCodeCompression},
	{"a frame within a header block", func(c *testClient) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.encode(callFields("/s/Call")...)})
		_ = c.WritePing(false, [8]byte{})
	}, http2.ErrCodeProtocol},
	{"another stream within a header block", func(c *testClient) {
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.encode(callFields("/s/Call")...)})
		_ = c.WriteContinuation(5, true, nil)
	}, http2.ErrCodeProtocol},
	{"the rest of no header block", func(c *testClient) { _ = c.WriteContinuation(3, true, nil) }, http2.ErrCodeProtocol},
	{"a frame that is too long", func(c *testClient) { _ = c.WriteData(1, false, make([]byte, MaxFrameSize+1)) }, http2.ErrCodeFrameSize},
	{"table size updates without end", func(c *testClient) {
		updates := bytes.Repeat([]byte{sizeUpdate}, MaxFrameSize) // To 0, behind which they are no error.
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: updates})
		for range leastBlock/MaxFrameSize - 1 {
			_ = c.WriteContinuation(3, false, updates)
		}
		_ = c.WriteContinuation(3, true, c.encode(callFields("/s/Call")...))
	}, http2.ErrCodeEnhanceYourCalm},
}

// TestCallFilterFaults: behind a fault the server gets nothing more, however the bytes are
// split.
func TestCallFilterFaults(t *testing.T) {
	for _, tt := range faults {
		c := newTestClient()
		c.open(1, callFields("/s/Call")...)
		want := c.take()
		tt.write(c)
		c.open(15, wiretest.GetFields()...)
		sent := []byte(want + c.take())
		for _, step := range []int{1, 8, 9, 10, 1000, len(sent)} {
			got, f := filterBytes(sent, step)
			if !strings.HasPrefix(got.Passed, want) || got.Fault != tt.want || got.Refusals > 0 || f.last > 13 {
				t.Errorf("%s: in steps of %d: %d bytes passed, up to stream %d; %v", tt.name, step, len(got.Passed), f.last, got.Fault)
			}
			for _, s := range serverReads(got.Passed) {
				if s.id > 1 {
					t.Errorf("%s: in steps of %d: stream %d got through", tt.name, step, s.id)
				}
			}
		}
	}
}

// FuzzCallFilter has x/net's framer and decoder as its oracle, as grpc-go uses them. Whatever
// the client sends, the server reads no header block but that of a call, and none beyond the
// last stream that was told. As long as the client breaks no rule, the filter finds no fault,
// and refuses exactly the first stream that is no call. It does not matter how the bytes are
// split.
func FuzzCallFilter(f *testing.F) {
	for _, step := range []uint8{1, 7, 255} {
		c := newTestClient()
		_ = c.WriteSettings()
		c.open(1, callFields("/s/Call", "x", "y")...)
		c.open(3, callFields("/s/Call", "x", "z")...)
		c.encoder.SetMaxDynamicTableSize(64)
		c.open(5, callFields("/s/Other")...)
		_ = c.WriteData(1, false, []byte("data"))
		block := c.encode(callFields("/t/Call")...)
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: block[:5], PadLength: 3, Priority: http2.PriorityParam{StreamDep: 7}})
		_ = c.WriteContinuation(7, true, block[5:])
		_ = c.WriteData(7, true, []byte("refused"))
		c.open(9, wiretest.GetFields()...)
		f.Add([]byte(c.take()), step)

		for _, n := range []int{254, 255, 256, 4064 - len("1")} { // Names in the table.
			c = newTestClient()
			name := strings.Repeat("n", n)
			c.open(1, callFields("/s/Call", name, "1")...)
			c.open(3, callFields("/s/Call", name, "2")...)
			c.open(5, wiretest.GetFields()...)
			f.Add([]byte(c.take()), step)
		}
		for _, tt := range faults {
			c = newTestClient()
			c.open(1, callFields("/s/Call")...)
			tt.write(c)
			c.open(15, callFields("/s/Call")...)
			c.open(17, wiretest.GetFields()...)
			f.Add([]byte(c.take()), step)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		if step == 0 || len(b) > 16*MaxFrameSize {
			return
		}
		whole, filter := filterBytes(b, max(1, len(b)))
		split, _ := filterBytes(b, int(step))
		if diff := cmp.Diff(whole, split); diff != "" {
			t.Fatalf("in steps of %d (-whole +split):\n%s", step, diff)
		}
		if whole.Refusals > 1 {
			t.Fatalf("%d refusals", whole.Refusals)
		}
		for _, s := range serverReads(whole.Passed) {
			if s.id > filter.last || !oracleIsCall(s.fields) {
				t.Fatalf("stream %d got through, the last is %d: %v", s.id, filter.last, s.fields)
			}
		}
		told := newTestFilter()
		passed := told.take(b[:len(b)/2], int(step)).Passed
		last := told.gate.shut()
		passed += told.take(b[len(b)/2:], int(step)).Passed
		for _, s := range serverReads(passed) {
			if s.id > last || !oracleIsCall(s.fields) {
				t.Fatalf("stream %d got through behind GOAWAY with %d: %v", s.id, last, s.fields)
			}
		}
		want, last, sound := oracleRefused(b)
		if sound && (want != whole.Stream || filter.last != last || want == 0 && whole.Fault != 0) {
			t.Fatalf("refused %d behind %d, want %d behind %d; %v", whole.Stream, filter.last, want, last, whole.Fault)
		}
	})
}

// A serverStream is what a server reads of a stream that is new to it.
type serverStream struct {
	id     uint32
	fields []hpack.HeaderField
}

// serverReads returns the streams that grpc-go serves or answers. It passes over the errors
// of streams, and ends at others.
func serverReads(frames string) (streams []serverStream) {
	fr := http2.NewFramer(nil, strings.NewReader(frames))
	fr.SetMaxReadFrameSize(MaxFrameSize)
	fr.MaxHeaderListSize = 64 << 10
	fr.ReadMetaHeaders = hpack.NewDecoder(tableLimit, nil)
	var last uint32
	for {
		frame, err := fr.ReadFrame()
		if errors.As(err, new(http2.StreamError)) {
			continue
		}
		if err != nil {
			return streams
		}
		h, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		if h.StreamID <= last || h.StreamID%2 == 0 {
			return streams
		}
		if last = h.StreamID; !h.Truncated {
			streams = append(streams, serverStream{last, slices.Clone(h.Fields)})
		}
	}
}

// oracleRefused returns the first stream in b that asks for something else than a call of
// testWatch, and the highest one before it. It reports false where the frames before that
// are in error, or where there is an error and no such stream.
func oracleRefused(b []byte) (stream, last uint32, sound bool) {
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	fr.SetMaxReadFrameSize(MaxFrameSize)
	decoder := hpack.NewDecoder(tableLimit, nil)
	var block []byte
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return 0, last, errors.Is(err, io.EOF)
		}
		ended := false
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			block, ended = bytes.Clone(f.HeaderBlockFragment()), f.HeadersEnded()
		case *http2.ContinuationFrame:
			block, ended = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
		}
		if !ended {
			continue
		}
		fields, err := decoder.DecodeFull(block)
		id := frame.Header().StreamID
		if err != nil || len(block) > leastBlock/2 || id <= last || id%2 == 0 {
			return 0, last, false
		}
		if !oracleIsCall(fields) {
			return id, last, true
		}
		last = id
	}
}

func oracleIsCall(fields []hpack.HeaderField) bool {
	values := make(map[string][]string)
	for _, f := range fields {
		values[f.Name] = append(values[f.Name], f.Value)
	}
	all := func(name string, is func(string) bool) bool {
		return len(values[name]) > 0 && !slices.ContainsFunc(values[name], func(v string) bool { return !is(v) })
	}
	return all(":method", func(v string) bool { return v == "POST" }) &&
		all(":path", func(v string) bool { return strings.HasPrefix(v, "/s") }) &&
		all("content-type", func(v string) bool { return v == "application/grpc" })
}
