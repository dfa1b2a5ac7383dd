package mux_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client speaks HTTP/2 frame by frame, so that a test decides what goes into each.
type h2Client struct {
	*http2.Framer

	t        *testing.T
	conn     net.Conn
	settings map[http2.SettingID]uint32
	ended    map[uint32]bool // The streams on which the server has sent END_STREAM.
	encoder  *hpack.Encoder
	block    bytes.Buffer
}

// newH2Client opens HTTP/2 on a connection whose next bytes come from r.
func newH2Client(t *testing.T, conn net.Conn, r io.Reader) *h2Client {
	t.Helper()
	c := &h2Client{Framer: http2.NewFramer(conn, r), t: t, conn: conn, ended: make(map[uint32]bool)}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c.must(c.WriteSettings())
	return c
}

func (c *h2Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// request writes HEADERS of names and values, pseudo-header fields first.
func (c *h2Client) request(stream uint32, end bool, fields ...string) {
	c.t.Helper()
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.must(c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	c.must(c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true,
	}))
}

// get writes a GET of path.
func (c *h2Client) get(stream uint32, path string) {
	c.t.Helper()
	c.request(stream, true, ":method", "GET", ":scheme", "http", ":authority", "x", ":path", path)
}

// next returns the next frame that is about more than the connection's upkeep.
func (c *h2Client) next() http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		c.must(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			c.settings = make(map[http2.SettingID]uint32)
			c.must(f.ForeachSetting(func(s http2.Setting) error {
				c.settings[s.ID] = s.Val
				return nil
			}))
			c.must(c.WriteSettingsAck())
		case *http2.WindowUpdateFrame:
		case *http2.PingFrame:
			if !f.IsAck() {
				c.must(c.WritePing(true, f.Data))
			}
		default:
			return f
		}
	}
}

// header returns the response to a stream.
func (c *h2Client) header(stream uint32) map[string]string {
	c.t.Helper()
	for {
		f, ok := c.next().(*http2.MetaHeadersFrame)
		if !ok || f.StreamID != stream {
			continue
		}
		c.ended[stream] = f.StreamEnded()
		fields := make(map[string]string)
		for _, hf := range f.Fields {
			fields[hf.Name] = hf.Value
		}
		return fields
	}
}

// data returns n bytes of a stream's body; with n = -1 all that is left of it.
func (c *h2Client) data(stream uint32, n int) string {
	c.t.Helper()
	var body bytes.Buffer
	for !c.ended[stream] && (body.Len() < n || n < 0) {
		switch f := c.next().(type) {
		case *http2.DataFrame:
			if f.StreamID != stream {
				continue
			}
			body.Write(f.Data())
			if k := uint32(len(f.Data())); k > 0 {
				c.must(c.WriteWindowUpdate(0, k))
				c.must(c.WriteWindowUpdate(stream, k))
			}
			c.ended[stream] = f.StreamEnded()
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				c.t.Fatalf("stream %d was reset: %v, after %q", stream, f.ErrCode, body.String())
			}
		}
	}
	return body.String()
}

// frame reads until a frame of type F comes.
func frame[F http2.Frame](c *h2Client) F {
	c.t.Helper()
	for {
		if f, ok := c.next().(F); ok {
			return f
		}
	}
}
