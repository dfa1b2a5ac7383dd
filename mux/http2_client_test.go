package mux_test

import (
	"bytes"
	"io"
	"maps"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client speaks HTTP/2 frame by frame, so that a test decides what goes into each
// frame. It keeps incoming data by stream.
type h2Client struct {
	*http2.Framer

	t       *testing.T
	encoder *hpack.Encoder
	block   bytes.Buffer

	// noCredit leaves the server's stream windows as they are. The client still refills
	// the connection's window.
	noCredit bool

	settings  map[http2.SettingID]uint32   // What holds; nil before the server's first.
	announced []map[http2.SettingID]uint32 // What each SETTINGS frame says.
	acks      int                          // How many SETTINGS the server has acknowledged.
	goAway    *http2.GoAwayFrame           // The first.
	lastTold  uint32                       // What the last GOAWAY has named.
	knows     bool                         // It has answered a PING behind that GOAWAY.
	syncs     byte                         // How many PINGs sync has sent.
	answered  [8]byte                      // The last PING that the server has answered.
	window    int                          // What may be sent on the connection.
	streams   map[uint32]*h2Stream
}

// h2Stream is what the server has sent on a stream.
type h2Stream struct {
	asked  bool              // The status 100 has come.
	header map[string]string // nil before the response.
	body   bytes.Buffer
	ended  bool
	reset  bool // With NO_ERROR, behind the end, or because it is not served.
	window int  // What may be sent beyond the initial window.
}

// newH2Client opens HTTP/2 on a connection whose next bytes come from r.
func newH2Client(t *testing.T, conn net.Conn, r io.Reader, settings ...http2.Setting) *h2Client {
	t.Helper()
	c := &h2Client{
		Framer:  http2.NewFramer(conn, r),
		t:       t,
		window:  65535,
		streams: make(map[uint32]*h2Stream),
	}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	send(t, conn, http2.ClientPreface)
	c.must(c.WriteSettings(settings...))
	return c
}

// ready waits for the server's SETTINGS and acknowledges them, as gRPC's libraries do before
// they make a call.
func (c *h2Client) ready() {
	c.t.Helper()
	for c.settings == nil {
		c.step()
	}
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
	c.must(c.open(stream, end, fields...))
}

// open is request for a connection that may be closed.
func (c *h2Client) open(stream uint32, end bool, fields ...string) error {
	c.t.Helper()
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.must(c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true,
	})
}

// get writes a GET of path.
func (c *h2Client) get(stream uint32, path string) {
	c.t.Helper()
	c.request(stream, true, ":method", "GET", ":scheme", "http", ":authority", "x", ":path", path)
}

// send writes bytes in DATA frames of at most n bytes, as flow control allows.
func (c *h2Client) send(stream uint32, b []byte, n int) {
	c.t.Helper()
	s := c.stream(stream)
	for len(b) > 0 {
		allowed := min(n, len(b), c.window, s.window+int(c.settings[http2.SettingInitialWindowSize]))
		if allowed <= 0 {
			c.step()
			continue
		}
		c.must(c.WriteData(stream, false, b[:allowed]))
		c.window -= allowed
		s.window -= allowed
		b = b[allowed:]
	}
}

func (c *h2Client) stream(id uint32) *h2Stream {
	if c.streams[id] == nil {
		c.streams[id] = new(h2Stream)
	}
	return c.streams[id]
}

// step reads a frame and answers it. An answer that fails is no fault: the server may have
// closed the connection behind the frames that are still to be read.
func (c *h2Client) step() {
	c.t.Helper()
	f, err := c.ReadFrame()
	c.must(err)
	switch f := f.(type) {
	case *http2.SettingsFrame:
		c.readSettings(f)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
		} else {
			c.stream(f.StreamID).window += int(f.Increment)
		}
	case *http2.PingFrame:
		if f.IsAck() {
			c.answered = f.Data
		} else {
			_ = c.WritePing(true, f.Data)
			c.knows = c.knows || c.goAway != nil
		}
	case *http2.MetaHeadersFrame:
		s := c.stream(f.StreamID)
		if f.PseudoValue("status") == "100" {
			s.asked = true
			return
		}
		s.header = make(map[string]string)
		for _, hf := range f.Fields {
			s.header[hf.Name] = hf.Value
		}
		s.ended = f.StreamEnded()
	case *http2.DataFrame:
		s := c.stream(f.StreamID)
		s.body.Write(f.Data())
		s.ended = f.StreamEnded()
		if n := uint32(len(f.Data())); n > 0 {
			_ = c.WriteWindowUpdate(0, n)
			if !c.noCredit {
				_ = c.WriteWindowUpdate(f.StreamID, n)
			}
		}
	case *http2.RSTStreamFrame:
		// With NO_ERROR, the client too treats a stream that the server has ended as
		// over.
		if s := c.stream(f.StreamID); c.goAway != nil && f.StreamID > c.lastTold {
			s.reset = true
		} else if f.ErrCode != http2.ErrCodeNo || !s.ended {
			c.t.Fatalf("stream %d was reset: %v, after %d bytes", f.StreamID, f.ErrCode, s.body.Len())
		} else {
			s.reset = true
		}
	case *http2.GoAwayFrame:
		if c.goAway == nil {
			c.goAway = f
		}
		c.lastTold = f.LastStreamID
	}
}

func (c *h2Client) readSettings(f *http2.SettingsFrame) {
	c.t.Helper()
	if f.IsAck() {
		c.acks++
		return
	}
	if c.settings == nil {
		c.settings = map[http2.SettingID]uint32{http2.SettingInitialWindowSize: 65535}
	}
	announced := make(map[http2.SettingID]uint32)
	c.must(f.ForeachSetting(func(s http2.Setting) error {
		announced[s.ID] = s.Val
		return nil
	}))
	maps.Copy(c.settings, announced)
	c.announced = append(c.announced, announced)
	_ = c.WriteSettingsAck()
}

// header returns the response to a stream.
func (c *h2Client) header(stream uint32) map[string]string {
	c.t.Helper()
	s := c.stream(stream)
	for s.header == nil {
		c.step()
	}
	return s.header
}

// data returns the next n bytes of a stream's body, or fewer where it ends.
func (c *h2Client) data(stream uint32, n int) string {
	c.t.Helper()
	s := c.stream(stream)
	for s.body.Len() < n && !s.ended {
		c.step()
	}
	return string(s.body.Next(n))
}

// rest returns what is left of a stream's body when it has ended.
func (c *h2Client) rest(stream uint32) string {
	c.t.Helper()
	s := c.stream(stream)
	for !s.ended {
		c.step()
	}
	return string(s.body.Next(s.body.Len()))
}

// sync waits for the answer to a PING, before which all comes that the server has sent.
func (c *h2Client) sync() {
	c.t.Helper()
	data := [8]byte{'s', 'y', 'n', 'c', c.syncs}
	c.syncs++
	c.must(c.WritePing(false, data))
	for c.answered != data {
		c.step()
	}
}

// answersPing returns when the client has the PING behind the first GOAWAY, and the server the
// answer. None follows where a last stream is named.
func (c *h2Client) answersPing() {
	c.t.Helper()
	for !c.knows && c.lastTold == maxStream {
		c.step()
	}
	c.sync()
}

// goneAway returns the code of the GOAWAY frame.
func (c *h2Client) goneAway() http2.ErrCode {
	c.t.Helper()
	for c.goAway == nil {
		c.step()
	}
	return c.goAway.ErrCode
}
