package mux_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestHeaderFaults: a client of a native connection whose header blocks break the rules is
// told so by GOAWAY, and the connection ends. Of what it sends behind that nothing is served.
func TestHeaderFaults(t *testing.T) {
	t.Parallel()
	served := make(chan string, 10)
	const flags = http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream
	faults := []struct {
		name  string
		write func(c *h2Client)
		want  http2.ErrCode
		last  uint32
	}{
		{"padding that is too long", func(c *h2Client) {
			c.must(c.WriteRawFrame(http2.FrameHeaders, flags|http2.FlagHeadersPadded, 3, []byte("\xffshort")))
		}, http2.ErrCodeProtocol, 1},
		{"a stream below one whose field has a bad name", func(c *h2Client) {
			c.request(101, true, append(libraryCall(), "Upper", "case")...)
		}, http2.ErrCodeProtocol, 101},
		{"an index that is not there", func(c *h2Client) {
			c.must(c.WriteRawFrame(http2.FrameHeaders, flags, 3, []byte{0xff, 0x70}))
		}, http2.ErrCodeCompression, 1},
		{"table size updates without end", func(c *h2Client) {
			updates := bytes.Repeat([]byte{0x20}, 16384)
			c.must(c.WriteRawFrame(http2.FrameHeaders, 0, 3, updates))
			for range 8 {
				c.must(c.WriteRawFrame(http2.FrameContinuation, 0, 3, updates))
			}
			c.must(c.WriteRawFrame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, nil))
		}, http2.ErrCodeEnhanceYourCalm, 1},
	}
	bothForms(t, func(t *testing.T, s *server) {
		for _, tt := range faults {
			t.Run(tt.name, func(t *testing.T) {
				conn := s.dial(t, "h2")
				c := newH2Client(t, conn, conn)
				c.ready()
				c.request(1, false, libraryCall()...)
				within(t, "the call", served)
				tt.write(c)
				for _, stream := range []uint32{5, 7} {
					_ = c.open(stream, true, append(libraryCall(), "x", "y")...)
				}
				_ = c.open(9, true, ":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/")
				last, codes := c.goAways(nil)
				if !cmp.Equal([]uint32{tt.last}, last) || !cmp.Equal([]http2.ErrCode{tt.want}, codes) {
					t.Errorf("GOAWAY %d, %v, want %d, %v", last, codes, tt.last, tt.want)
				}
			})
		}
		eventually(t, "all are closed", func() bool { return s.active("grpc") == 0 })
		if len(served) > 0 {
			t.Errorf("%s was served", <-served)
		}
	}, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, heldCalls{served: served})
	}))
}

// TestLongHeaders: calls have header lists as long as the limit lets them, in however many
// frames.
func TestLongHeaders(t *testing.T) {
	t.Parallel()
	served := make(chan string, 10)
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		c.ready()
		c.request(1, false, libraryCall()...) // The first decides who serves the connection.
		within(t, "the call", served)
		fields := libraryCall()
		for i := range 90 {
			fields = append(fields, "x"+strconv.Itoa(i), strings.Repeat("#", 10000))
		}
		for stream := uint32(3); stream < 7; stream += 2 {
			c.openLong(stream, fields...)
			within(t, "the long call", served)
		}
		c.get(7, "/") // It is refused, as on other native connections.
		for c.goAway == nil {
			c.step()
		}
		if c.lastTold != 5 || c.goAway.ErrCode != http2.ErrCodeNo {
			t.Errorf("GOAWAY %d, %v", c.lastTold, c.goAway.ErrCode)
		}
	}, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, heldCalls{served: served})
	}), mux.Configure(func(c *mux.Config) { c.HTTP2.MaxHeaderListBytes = 1 << 20 }))
}

// openLong opens a stream whose header block takes many frames.
func (c *h2Client) openLong(stream uint32, fields ...string) {
	c.t.Helper()
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.must(c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	typ := http2.FrameHeaders
	for c.block.Len() > 0 {
		fragment := c.block.Next(16384)
		var flags http2.Flags
		if c.block.Len() == 0 {
			flags = http2.FlagHeadersEndHeaders // The same bit for CONTINUATION.
		}
		c.must(c.WriteRawFrame(typ, flags, stream, fragment))
		typ = http2.FrameContinuation
	}
}
