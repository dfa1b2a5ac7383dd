package mux_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// tableOf is SETTINGS_HEADER_TABLE_SIZE.
func tableOf(size uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}
}

// sized answers /N by N bytes, with fields of which some are new to an HPACK table.
func sized(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.Header().Set("X-Same", "the same for all")
	_, _ = w.Write(make([]byte, n))
}

// TestLargerHeaderTable: a client that allows a larger HPACK table in the midst of a
// connection goes on.
func TestLargerHeaderTable(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn, tableOf(100))
		c.sync()
		acks := 1
		for stream := uint32(1); stream < 41; stream += 2 {
			c.get(stream, fmt.Sprintf("/%d", stream))
			if stream%8 == 1 {
				c.must(c.WriteSettings(tableOf(100 * stream)))
				acks++
			}
			c.sync()
			if h := c.header(stream); h["content-length"] != strconv.Itoa(int(stream)) || h["x-same"] != "the same for all" {
				t.Errorf("stream %d: %v", stream, h)
			}
			if n := len(c.rest(stream)); n != int(stream) || c.acks != acks || c.goAway != nil {
				t.Errorf("stream %d: %d bytes, %d of %d ACKs, %v", stream, n, c.acks, acks, c.goAway)
			}
		}
	}, mux.WithHandler(http.HandlerFunc(sized)))
}

// TestSmallerHeaderTable: a client that wants a smaller HPACK table in the midst of a
// connection is told to leave and gets no ACK. What it has under way, and what it still asks
// for, is answered with the table of before. Its next connection begins with the smaller one.
func TestSmallerHeaderTable(t *testing.T) {
	t.Parallel()
	for _, size := range []uint32{64, 0} {
		for form, withTLS := range map[string]bool{"plaintext": false, "tls": true} {
			t.Run(fmt.Sprintf("%d/%s", size, form), func(t *testing.T) {
				t.Parallel()
				held, release := make(chan struct{}), make(chan struct{})
				s := start(t, withTLS, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/4" {
						close(held)
						<-release
					}
					sized(w, r)
				})))
				testSmallerTable(t, s, size, held, release)
			})
		}
	}
}

func testSmallerTable(t *testing.T, s *server, size uint32, held <-chan struct{}, release chan<- struct{}) {
	answered := func(c *h2Client, stream uint32, n int) {
		t.Helper()
		if h := c.header(stream); h["content-length"] != strconv.Itoa(n) || h["x-same"] != "the same for all" || len(c.rest(stream)) != n {
			t.Errorf("stream %d: %v", stream, h)
		}
	}
	events := observe(t, s.Server)
	conn := s.dial(t, "h2")
	c := newH2Client(t, conn, conn)
	c.get(1, "/1")
	answered(c, 1, 1)
	c.get(3, "/4")
	within(t, "the request under way", held)
	c.must(c.WriteSettings(tableOf(size)))
	if code := c.goneAway(); code != http2.ErrCodeNo || c.goAway.LastStreamID != maxStream {
		t.Errorf("GOAWAY %v", c.goAway)
	}
	c.must(c.WriteSettings())
	c.must(c.WriteSettings(tableOf(size), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	c.get(5, "/5")
	answered(c, 5, 5)
	c.sync()
	close(release)
	answered(c, 3, 4)
	if c.acks != 1 {
		t.Errorf("%d ACKs, want that of the first SETTINGS", c.acks)
	}
	last, _ := c.goAways(nil) // It may have come before.
	if last = append([]uint32{c.lastTold}, last...); last[len(last)-1] != 5 {
		t.Errorf("the last GOAWAYs: %d", last)
	}
	eventually(t, "closed for it", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "header_table") == 1 })

	conn = s.dial(t, "h2")
	c = newH2Client(t, conn, conn, tableOf(size))
	c.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(size)
	for stream := uint32(1); stream < 9; stream += 2 {
		c.get(stream, "/7")
		answered(c, stream, 7)
	}
	if c.acks != 1 || c.goAway != nil {
		t.Errorf("the next connection: %d ACKs, %v", c.acks, c.goAway)
	}
}

// TestHeaderTableWhileAnswering: a client that changes its HPACK table while it is answered
// gets all answers, whichever server has its connection. net/http alone ends the process.
func TestHeaderTableWhileAnswering(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]struct{ withTLS, upgraded bool }{
		"plaintext": {}, "tls": {withTLS: true}, "Upgrade: h2c": {upgraded: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, form.withTLS, mux.Configure(upgradesOn), mux.WithHandler(http.HandlerFunc(sized)))
			for range 2 {
				conn := s.dial(t, "h2")
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				r := bufio.NewReader(conn)
				first := uint32(1)
				if form.upgraded {
					_ = roundTrip(t, conn, r, "GET /1 HTTP/1.1\r\n"+upgradeFields+"\r\n")
					first = 3
				}
				changeTables(t, conn, r, first)
			}
		})
	}
}

// TestHeaderTableOfRefused: net/http sees no table of a gRPC client that it refuses either.
func TestHeaderTableOfRefused(t *testing.T) {
	t.Parallel()
	s := startLate(t, limits(func(c *mux.Config) { c.GRPC.MaxConnections = 1 }))
	dialLate(t, s.addr).ask(1, testpb.TestService_UnaryCall_FullMethodName)
	c := dialLate(t, s.addr)
	c.ask(1, testpb.TestService_EmptyCall_FullMethodName)
	c.rest(1)
	if got := c.header(1)["grpc-status"]; got != "14" {
		t.Fatalf("status %q", got)
	}
	c.sync()
	acks := c.acks
	c.must(c.WriteSettings(tableOf(0)))
	c.goneAway()
	if c.acks != acks {
		t.Error("net/http has acknowledged the table")
	}
}

// changeTables asks for answers while it changes the HPACK table, and decodes them.
func changeTables(t *testing.T, conn net.Conn, r io.Reader, first uint32) {
	t.Helper()
	const answers, atOnce = 3000, 100
	open, done := make(chan struct{}, atOnce), make(chan error, 1)
	go func() { done <- readSized(http2.NewFramer(nil, r), first, answers, open) }()
	out := bufio.NewWriter(conn)
	_, _ = out.WriteString(http2.ClientPreface)
	c := &h2Client{Framer: http2.NewFramer(out, nil), t: t}
	c.encoder = hpack.NewEncoder(&c.block)
	c.must(c.WriteSettings())
	c.must(c.WriteWindowUpdate(0, 1<<30))
	// Go's decoder takes two sizes at the beginning of a block only if the first empties the table.
	sizes := []uint32{0, 4096, 0, 1000}
	for i := range uint32(answers) {
		stream := first + 2*i
		c.get(stream, fmt.Sprintf("/%d", stream%1000))
		c.must(c.WriteSettings(tableOf(sizes[i%uint32(len(sizes))])))
		if i%8 == 7 {
			c.must(out.Flush())
		}
		select {
		case open <- struct{}{}:
		case err := <-done:
			t.Fatal(err)
		}
	}
	c.must(out.Flush())
	if err := within(t, "the answers", done); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
}

// readSized reads n answers of streams from first on, and takes an element from open for each.
func readSized(fr *http2.Framer, first uint32, n int, open <-chan struct{}) error {
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	last := uint32(maxStream)
	for n > 0 {
		f, err := fr.ReadFrame()
		if err != nil {
			return fmt.Errorf("%d answers are missing: %w", n, err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got := make(map[string]string)
			for _, field := range f.Fields {
				got[field.Name] = field.Value
			}
			want := strconv.Itoa(int(f.StreamID % 1000))
			if f.StreamID >= first && (got[":status"] != "200" || got["content-length"] != want || got["x-same"] != "the same for all") {
				return fmt.Errorf("stream %d: %v", f.StreamID, got)
			}
		case *http2.GoAwayFrame:
			last = f.LastStreamID
		case *http2.RSTStreamFrame:
			if f.StreamID <= last {
				return fmt.Errorf("stream %d: %v", f.StreamID, f.ErrCode)
			}
			<-open // A client that answers no PING is told its last stream behind 5 s.
			n--
		}
		h := f.Header()
		if (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) && h.Flags.Has(http2.FlagDataEndStream) && h.StreamID >= first {
			<-open
			n--
		}
	}
	return nil
}

// TestSettingsAreNetHTTPs: SETTINGS in the midst of answers do what they do in net/http
// alone, but for the size of the HPACK table. So do those that are not allowed.
func TestSettingsAreNetHTTPs(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(sized)
	t.Run("storm", func(t *testing.T) {
		beside(t, handler, func(t *testing.T, s *server) string {
			var seen strings.Builder
			conn := s.dial(t)
			c := newH2Client(t, conn, conn)
			c.sync()
			storm := [][]http2.Setting{
				nil,
				{{ID: http2.SettingInitialWindowSize, Val: 0}},
				{{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, {ID: http2.SettingInitialWindowSize, Val: 10}},
				{{ID: http2.SettingEnablePush, Val: 0}, {ID: http2.SettingMaxConcurrentStreams, Val: 0}, {ID: 0xe1, Val: 1}, {ID: 0x1234, Val: 1}},
				{{ID: http2.SettingMaxHeaderListSize, Val: 1}, {ID: http2.SettingEnableConnectProtocol, Val: 1}, {ID: http2.SettingNoRFC7540Priorities, Val: 0}},
				{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}},
			}
			for i := range uint32(60) {
				stream := 2*i + 1
				c.get(stream, fmt.Sprintf("/%d", 100*i))
				c.must(c.WriteSettings(storm[i%uint32(len(storm))]...))
				c.sync()
				fmt.Fprint(&seen, c.acks, " ")
			}
			for i := range uint32(60) {
				fmt.Fprint(&seen, c.header(2*i + 1)["content-length"], " ", len(c.rest(2*i+1)), " ")
			}
			return seen.String()
		})
	})
	t.Run("not allowed", func(t *testing.T) {
		raw := func(flags http2.Flags, stream uint32, payload ...byte) func(*h2Client) error {
			return func(c *h2Client) error { return c.WriteRawFrame(http2.FrameSettings, flags, stream, payload) }
		}
		settings := func(settings ...http2.Setting) func(*h2Client) error {
			return func(c *h2Client) error { return c.WriteSettings(settings...) }
		}
		var many []http2.Setting
		for id := range http2.SettingID(101) {
			many = append(many, http2.Setting{ID: 0x100 + id})
		}
		beside(t, handler, func(t *testing.T, s *server) string {
			var clients []*h2Client
			for _, write := range []func(*h2Client) error{
				settings(tableOf(0), tableOf(0)),
				settings(tableOf(4096), tableOf(0)),
				settings(http2.Setting{ID: 0x99}, http2.Setting{ID: 0x99}),
				settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}),
				settings(many...),
				raw(0, 0, 0, 1, 0, 0, 0, 0, 0),
				raw(0, 1, 0, 1, 0, 0, 0, 0),
				raw(http2.FlagSettingsAck, 0, 0, 1, 0, 0, 0, 0),
			} {
				conn := s.dial(t)
				c := newH2Client(t, conn, conn)
				c.get(1, "/10")
				c.rest(1)
				c.must(write(c))
				clients = append(clients, c)
			}
			var seen strings.Builder
			for _, c := range clients {
				_, codes := c.goAways(nil)
				fmt.Fprint(&seen, codes)
			}
			return seen.String()
		})
	})
}
