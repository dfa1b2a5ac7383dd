package h2

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// testWatch has the calls of a server whose services' names begin with "s".
func testWatch() *Watch {
	return &Watch{
		IsContentType: func(v string) bool { return v == "application/grpc" },
		HasService:    func(path string) bool { return strings.HasPrefix(path, "/s") },
	}
}

// filtered is what became of a client's bytes.
type filtered struct {
	Passed   string // frames that the server got
	Stream   uint32 // the stream that was refused
	Refund   uint32
	Refusals int
	Fault    http2.ErrCode // that ends the connection, else 0
}

// newTestFilter returns a filter behind the preface.
func newTestFilter() *callFilter {
	f := newCallFilter(new(Options))
	f.left = 0
	return f
}

// filterBytes gives b, which has no preface, to a filter in pieces of step bytes.
func filterBytes(b []byte, step int) (filtered, *callFilter) {
	f := newTestFilter()
	return f.take(b, step), f
}

// take gives b to the filter, which may have had bytes before.
func (f *callFilter) take(b []byte, step int) filtered {
	var out filtered
	var passed []byte
	for piece := range slices.Chunk(bytes.Clone(b), step) {
		r := refusal{watch: testWatch()}
		passed = append(passed, f.filter(piece, &r)...)
		out.Refund += r.refund
		if r.stream != 0 {
			out.Stream = r.stream
			out.Refusals++
		}
	}
	out.Passed, out.Fault = string(passed), http2.ErrCode(f.fault)
	return out
}

// callFields are the header fields of a call.
func callFields(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":path", path, "content-type", "application/grpc"}, more...)
}

// A testClient writes a client's frames by x/net's framer and encoder.
type testClient struct {
	*http2.Framer

	out, block bytes.Buffer
	encoder    *hpack.Encoder
}

func newTestClient() *testClient {
	c := new(testClient)
	c.Framer = http2.NewFramer(&c.out, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

// encode returns a header block.
func (c *testClient) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// open opens a stream.
func (c *testClient) open(stream uint32, fields ...string) {
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: c.encode(fields...)})
}

// take returns what was written since.
func (c *testClient) take() string {
	defer c.out.Reset()
	return c.out.String()
}

// TestCallFilter: calls pass, the first other stream is refused, and what belongs to calls
// under way passes behind it, however the bytes are split.
func TestCallFilter(t *testing.T) {
	c := newTestClient()
	var sent, want strings.Builder
	pass := func() {
		frames := c.take()
		sent.WriteString(frames)
		want.WriteString(frames)
	}
	drop := func() { sent.WriteString(c.take()) }

	_ = c.WriteSettings()
	for stream := uint32(1); stream < 21; stream += 2 {
		c.open(stream, callFields("/s/Call", "grpc-timeout", strings.Repeat("9", int(stream)), "x-long", strings.Repeat("v", 900))...)
		_ = c.WriteData(stream, stream != 1, []byte("message"))
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 21, EndHeaders: true, PadLength: 7, Priority: http2.PriorityParam{StreamDep: 1},
		BlockFragment: c.encode(callFields("/s/Padded")...),
	})
	block := c.encode(callFields("/s/Continued", "x", "y")...)
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 23, BlockFragment: block[:3]})
	_ = c.WriteContinuation(23, false, block[3:4])
	_ = c.WriteContinuation(23, true, block[4:])
	c.encoder.SetMaxDynamicTableSize(100)
	c.open(25, callFields("/s/SmallTable", "x-long", strings.Repeat("v", 200))...)
	_ = c.WritePing(false, [8]byte{1})
	pass()

	c.open(27, wiretest.GetFields()...)
	drop()
	_ = c.WriteData(1, false, []byte("goes on"))
	_ = c.WriteWindowUpdate(0, 100)
	_ = c.WriteWindowUpdate(1, 100)
	_ = c.WriteRSTStream(3, http2.ErrCodeCancel)
	_ = c.WritePing(true, [8]byte{2})
	_ = c.WriteSettingsAck()
	pass()
	_ = c.WriteData(27, false, []byte("refused"))
	_ = c.WriteWindowUpdate(27, 100)
	_ = c.WriteRSTStream(27, http2.ErrCodeCancel)
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 29, EndHeaders: false, BlockFragment: []byte("anything")})
	_ = c.WriteContinuation(29, true, []byte("at all"))
	_ = c.WriteDataPadded(29, true, []byte("refused"), make([]byte, 5))
	drop()
	sent.Write(AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, []byte("trailers")))
	frames := []byte(sent.String())
	frames[len(frames)-len("trailers")-1] = 1 // The stream.
	want.Write(appendStreamFrame(nil, http2.FrameData, http2.FlagDataEndStream, 1, nil))

	refund := uint32(len("refused") + len("refused") + 1 + 5)
	for step := 1; step <= len(frames); step++ {
		got, f := filterBytes(frames, step)
		if diff := cmp.Diff(filtered{want.String(), 27, refund, 1, 0}, got); diff != "" {
			t.Fatalf("in steps of %d (-want +got):\n%s", step, diff)
		}
		if f.last != 25 {
			t.Fatalf("in steps of %d: last stream %d", step, f.last)
		}
	}
}

// TestCallFilterRequests: what is refused, and how.
func TestCallFilterRequests(t *testing.T) {
	for _, tt := range []struct {
		name             string
		fields           []string
		isServed, isCall bool
	}{
		{"call", callFields("/s/Call"), true, true},
		{"no such service", callFields("/t/Call"), false, true},
		{"no path", []string{":method", "POST", "content-type", "application/grpc"}, false, true},
		{"GET", wiretest.GetFields(), false, false},
		{"GET of gRPC", wiretest.GetFields("content-type", "application/grpc"), false, false},
		{"other content type", []string{":method", "POST", ":path", "/s/Call", "content-type", "application/json"}, false, false},
		{"no content type", []string{":method", "POST", ":path", "/s/Call"}, false, false},
		{"two content types", callFields("/s/Call", "content-type", "text/plain"), false, false},
		{"nothing", nil, false, false},
	} {
		c := newTestClient()
		table := headerTable{limit: tableLimit}
		for range 2 { // Literals first, then indices.
			r, err := table.read(c.encode(tt.fields...), testWatch())
			if err != nil || r.isServed() != tt.isServed || r.IsCall() != tt.isCall {
				t.Errorf("%s: %v; served %t, call %t", tt.name, err, r.isServed(), r.IsCall())
			}
		}
	}
}

// TestRefusedStream: the client sees RST_STREAM with REFUSED_STREAM, a GOAWAY below the
// stream, and the connection's window back.
func TestRefusedStream(t *testing.T) {
	wire := new(wireConn)
	refused := make(chan Request, 1)
	watch := testWatch()
	watch.OnRefused = func(_ net.Conn, client uint32, r Request) {
		if client == 7 {
			refused <- r
		}
	}
	conn, track := newTracked(wire, Options{Watch: watch, IsNative: true, Client: 7})
	c := newTestClient()
	c.open(1, callFields("/s/Call")...)
	c.open(3, wiretest.GetFields()...)
	_ = c.WriteData(3, true, []byte("five5"))
	sent := http2.ClientPreface + c.take()
	if n := track.Follow([]byte(sent)); n >= len(sent) || track.highest.Load() != 1 {
		t.Errorf("%d of %d bytes passed, highest stream %d", n, len(sent), track.highest.Load())
	}
	if r := <-refused; r.IsCall() || r.isServed() {
		t.Errorf("refused: %+v", r)
	}
	if _, err := conn.Write(testSettings); err != nil {
		t.Fatal(err)
	}
	var got []string
	fr := http2.NewFramer(nil, bytes.NewReader(wire.wrote.Bytes()))
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			got = append(got, f.ErrCode.String())
		case *http2.GoAwayFrame:
			got = append(got, f.ErrCode.String(), string(rune('0'+f.LastStreamID)))
		case *http2.WindowUpdateFrame:
			got = append(got, string(rune('0'+f.Increment)))
		case *http2.SettingsFrame:
			got = append(got, "SETTINGS")
		}
	}
	if diff := cmp.Diff([]string{"SETTINGS", "NO_ERROR", "1", "REFUSED_STREAM", "5"}, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

// A readConn is a connection to read from.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// smallReads reads from r into buffers of at most n bytes.
type smallReads struct {
	r io.Reader
	n int
}

func (s *smallReads) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }

// TestHeldFramesAreReadLater: what was held does not have to fit into the next buffer.
func TestHeldFramesAreReadLater(t *testing.T) {
	c := newTestClient()
	c.open(1, callFields("/s/Call", "x", strings.Repeat("v", 1000))...)
	_ = c.WritePing(false, [8]byte{1})
	sent := http2.ClientPreface + c.take()
	for step := 1; step < 300; step++ {
		conn, _ := newTracked(&readConn{r: strings.NewReader(sent)}, Options{Watch: testWatch(), IsNative: true})
		got, err := io.ReadAll(&smallReads{conn, step})
		if err != nil || string(got) != sent {
			t.Fatalf("in reads of %d: %v, %d of %d bytes", step, err, len(got), len(sent))
		}
	}
}

// TestCallFilterAllocations: a call whose fields are indexed costs none.
func TestCallFilterAllocations(t *testing.T) {
	c := newTestClient()
	f := newTestFilter()
	r := refusal{watch: testWatch()}
	c.open(1, callFields("/s/Call")...)
	f.filter([]byte(c.take()), &r)
	c.open(3, callFields("/s/Call")...)
	frames := []byte(c.take())
	if n := testing.AllocsPerRun(100, func() {
		f.last = 1
		f.filter(frames, &r)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCallFilter(b *testing.B) {
	c := newTestClient()
	f := newTestFilter()
	r := refusal{watch: testWatch()}
	c.open(1, callFields("/s/Call")...)
	f.filter([]byte(c.take()), &r)
	c.open(3, callFields("/s/Call")...)
	frames := []byte(c.take())
	b.ReportAllocs()
	for b.Loop() {
		f.last = 1
		f.filter(frames, &r)
	}
}
