package h2

import (
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// openClient is a client of a native connection, and its server.
type openClient struct {
	t     *testing.T
	conn  *trackedConn
	track *Track
	step  int // how many bytes are read or written at a time
}

func newOpenClient(t *testing.T, step int) *openClient {
	t.Helper()
	return openClientOf(t, step, Options{})
}

func openClientOf(t *testing.T, step int, o Options) *openClient {
	t.Helper()
	c := &openClient{t: t, step: step}
	c.conn, c.track = newTracked(&wireConn{}, o)
	c.client(func(*http2.Framer) {}) // The preface.
	c.server(func(fr *http2.Framer) { _ = fr.WriteSettings() })
	return c
}

// client has the client send frames.
func (c *openClient) client(write func(*http2.Framer)) {
	sent := wiretest.ClientBytes(write)
	if c.track.highest.Load() > 0 || c.track.in.left == 0 {
		sent = sent[len(http2.ClientPreface):]
	}
	for piece := range slices.Chunk(sent, c.step) {
		c.track.Follow(piece)
	}
}

// server has the server write frames.
func (c *openClient) server(write func(*http2.Framer)) {
	c.t.Helper()
	for piece := range slices.Chunk(wiretest.ClientBytes(write)[len(http2.ClientPreface):], c.step) {
		if _, err := c.conn.Write(piece); err != nil {
			c.t.Fatal(err)
		}
	}
}

// open opens a stream.
func (c *openClient) open(stream uint32) {
	c.client(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true})
	})
}

// want checks whether a stream is open.
func (c *openClient) want(open bool, what string) {
	c.t.Helper()
	if c.track.HasOpenStreams() != open {
		c.t.Errorf("by %d: open %t after %s", c.step, !open, what)
	}
}

// header has the server answer by HEADERS.
func (c *openClient) header(stream uint32, end bool) {
	c.server(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: end})
	})
}

// TestOpenStreams: a stream is open until its answer is complete, or either side has reset
// it. Nothing else counts.
func TestOpenStreams(t *testing.T) {
	for step := 1; step < 40; step++ {
		c := newOpenClient(t, step)
		c.want(false, "the preface")
		c.open(1)
		c.want(true, "HEADERS")
		c.header(1, false)
		c.server(func(fr *http2.Framer) { _ = fr.WriteData(1, false, make([]byte, 100)) })
		c.want(true, "a part of the answer")
		c.server(func(fr *http2.Framer) { _ = fr.WritePing(true, [8]byte{}) })
		c.want(true, "PING")
		c.header(1, true)
		c.want(false, "trailers")
		c.server(func(fr *http2.Framer) { _ = fr.WriteRSTStream(1, http2.ErrCodeNo) })
		c.open(3)
		c.want(true, "another, behind RST_STREAM of one that has ended")
		c.client(func(fr *http2.Framer) { _ = fr.WriteRSTStream(1, http2.ErrCodeCancel) })
		c.client(func(fr *http2.Framer) { _ = fr.WriteRSTStream(5, http2.ErrCodeCancel) })
		c.server(func(fr *http2.Framer) { _ = fr.WriteRSTStream(2, http2.ErrCodeProtocol) })
		c.server(func(fr *http2.Framer) { _ = fr.WriteRSTStream(99, http2.ErrCodeProtocol) })
		c.want(true, "RST_STREAM of streams that are not open")
		c.server(func(fr *http2.Framer) { _ = fr.WriteData(3, true, nil) })
		c.want(false, "DATA with END_STREAM")
		c.open(5)
		c.client(func(fr *http2.Framer) { _ = fr.WriteRSTStream(5, http2.ErrCodeCancel) })
		c.want(false, "RST_STREAM of the client")
		c.open(7)
		c.header(5, true)
		c.want(true, "an answer that crosses RST_STREAM")
		c.server(func(fr *http2.Framer) { _ = fr.WriteRSTStream(7, http2.ErrCodeCancel) })
		c.want(false, "RST_STREAM of the server")
		c.open(1<<31 - 3)
		c.want(true, "streams that were left out")
		c.header(1<<31-3, true)
		c.want(false, "the only one that was not")
	}
}

// TestOpenStreamsByChance compares with a set, and checks that little is kept.
func TestOpenStreamsByChance(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var o openStreams
		open, highest := make(map[uint32]bool), uint32(0)
		most := 1 + r.IntN(20)
		for range 1000 {
			switch all := slices.Sorted(maps.Keys(open)); {
			case len(all) > 0 && (len(all) >= most || r.IntN(2) == 0):
				stream := all[r.IntN(len(all))]
				delete(open, stream)
				o.end(stream)
			case highest > 0 && r.IntN(4) == 0: // Once more.
				if stream := uint32(r.IntN(int(highest))) | 1; !open[stream] {
					o.end(stream)
				}
			default:
				next := (highest + 1) | 1
				if r.IntN(8) == 0 {
					next += 2 * uint32(r.IntN(5))
				}
				o.open(highest, next)
				highest = next
				open[next] = true
			}
			if o.any(highest) != (len(open) > 0) || o.below != nil && len(*o.below) > len(open) {
				t.Fatalf("seed %d: %d streams are open up to %d, and %+v", seed, len(open), highest, o.below)
			}
			if stream := uint32(r.IntN(int(highest)+4)) | 1; o.has(stream, highest) != open[stream] {
				t.Fatalf("seed %d: stream %d of %d is open: %t, and %+v", seed, stream, highest, open[stream], o.below)
			}
		}
		for stream := range open {
			if !o.any(highest) {
				t.Fatalf("seed %d: none is open, but %d", seed, stream)
			}
			o.end(stream)
		}
		if o.any(highest) {
			t.Fatalf("seed %d: open %+v", seed, o.below)
		}
	}
}

// TestOpenStreamsBehindGoAway: what a client opens behind the server's own GOAWAY is not open,
// and nothing is kept of it. The server drops it without a word, whether the client sees that
// GOAWAY or not.
func TestOpenStreamsBehindGoAway(t *testing.T) {
	for name, test := range map[string]struct {
		options Options
		before  func(*Track)
	}{
		"native":        {Options{}, nil},
		"of net/http":   {Options{NetHTTP: true, MaxStreams: 3}, nil},
		"behind ours":   {Options{}, (*Track).GoAway},
		"hidden behind": {Options{NetHTTP: true, MaxStreams: 3}, (*Track).FinalGoAway},
	} {
		t.Run(name, func(t *testing.T) {
			c := openClientOf(t, 1<<20, test.options)
			c.open(1)
			if test.before != nil {
				test.before(c.track)
			}
			c.server(func(fr *http2.Framer) { _ = fr.WriteGoAway(1, http2.ErrCodeNo, nil) })
			for stream := uint32(5); stream < 2000; stream += 4 {
				c.open(stream)
			}
			if kept := c.track.open.below; kept != nil && len(*kept) > 1 {
				t.Errorf("%d gaps are kept", len(*kept))
			}
			c.want(true, "a GOAWAY that serves the first stream")
			c.header(1, true)
			c.want(false, "the answer to the last that is served")
		})
	}
}

// TestOpenStreamsAllocateNothing: a stream that ends costs no memory, also where one that
// lasts and others go on beside it.
func TestOpenStreamsAllocateNothing(t *testing.T) {
	var o openStreams
	highest := uint32(1) // It lasts.
	if n := testing.AllocsPerRun(1000, func() {
		first := highest + 2
		highest += 4
		o.end(highest)
		o.end(first)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !o.any(highest) {
		t.Error("the first has ended")
	}
}

// BenchmarkCall follows the frames of a unary call, to compare what is done for each.
func BenchmarkCall(b *testing.B) {
	conn, track := newTracked(discardConn{}, Options{})
	track.Follow([]byte(http2.ClientPreface))
	if _, err := conn.Write(testSettings); err != nil {
		b.Fatal(err)
	}
	in := appendStreamFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, make([]byte, 40))
	in = appendStreamFrame(in, http2.FrameData, http2.FlagDataEndStream, 0, make([]byte, 10))
	out := appendStreamFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, make([]byte, 10))
	out = appendStreamFrame(out, http2.FrameData, 0, 0, make([]byte, 10))
	out = appendStreamFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 0, make([]byte, 10))
	set := func(p []byte, at int, stream uint32) {
		p[at+5], p[at+6], p[at+7], p[at+8] = byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream)
	}
	b.ReportAllocs()
	stream := uint32(1)
	for b.Loop() {
		set(in, 0, stream)
		set(in, 49, stream)
		track.Follow(in)
		set(out, 0, stream)
		set(out, 19, stream)
		set(out, 38, stream)
		if _, err := conn.Write(out); err != nil {
			b.Fatal(err)
		}
		stream += 2
	}
}

// discardConn takes everything.
type discardConn struct{ net.Conn }

func (discardConn) Write(p []byte) (int, error) { return len(p), nil }

// TestHalfHeaders: a stream is open when its header block is whole, whatever frames it is in.
func TestHalfHeaders(t *testing.T) {
	frames := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82}, EndStream: true})
		_ = fr.WriteContinuation(3, true, []byte{0x86})
	})[len(http2.ClientPreface):]
	c := newOpenClient(t, 1000)
	c.open(1)
	c.server(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
	})
	for i, b := range frames {
		if c.track.HasOpenStreams() {
			t.Fatalf("open behind %d bytes of %d", i, len(frames))
		}
		c.track.Follow([]byte{b})
	}
	if !c.track.HasOpenStreams() {
		t.Error("not open behind the whole block")
	}
}
