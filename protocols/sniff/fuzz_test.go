package sniff

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// http1Seeds are request heads with something to stumble over.
var http1Seeds = []string{
	"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	webSocketHead,
	"GET / HTTP/1.1\nUPGRADE: h2c , WebSocket\nconnection:keep-alive,upgrade\n\n",
	"GET / HTTP/1.1\r\nUpgrade:\r\n websocket\r\nConnection: upgrade\r\n\r\n",
	"GET / HTTP/1.1\r\nUpgrade : websocket\r\nConnection: upgrade\r\n\r\n",
	"OPTIONS * HTTP/1.0\r\n\r\n",
	"CONNECT h:443 HTTP/1.1\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"\r\n\nGET / HTTP/1.1\r\n\r\n",
	"SSH-2.0-OpenSSH_9.2 Debian\r\n",
}

// http2Seeds are openings of clients.
func http2Seeds() [][]byte {
	ping := pingFrame(0, "12345678")
	block := wiretest.HeaderBlock(grpcFields()...)
	return [][]byte{
		grpcOpening(),
		grpcOpening("via", "2 proxy"),
		opening(),
		slices.Concat(opening(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14}), ping, ackFrame(), firstRequest()),
		wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteSettingsAck()
			_ = fr.WriteWindowUpdate(0, 1)
			_ = fr.WritePriority(3, http2.PriorityParam{Weight: 1})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, PadLength: 3, Priority: http2.PriorityParam{StreamDep: 3, Weight: 9}, BlockFragment: block[:7],
			})
			_ = fr.WriteContinuation(1, true, block[7:])
		}),
		wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteHeaders(headersFrame(wiretest.GetFields()...))
		}),
		wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteData(1, true, []byte("data"))
		}),
	}
}

// FuzzClassifyHTTP1 has net/http's parser as its oracle: what that accepts is
// HTTP/1, and WebSocket where its header says so.
func FuzzClassifyHTTP1(f *testing.F) {
	for _, s := range http1Seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		answer, v := classify(b, protocols.TransportAuto)
		if bytes.HasPrefix([]byte(http2.ClientPreface), b) {
			return // A request line that a preface begins with.
		}
		if strings.HasPrefix(string(b), http2.ClientPreface) {
			if v.Protocol == protocols.HTTP1 || v.Protocol == protocols.WebSocket {
				t.Fatalf("verdict %+v for a preface", v)
			}
			return
		}
		want := protocols.HTTP1
		if req.Method == http.MethodGet && req.Proto == "HTTP/1.1" &&
			httpguts.HeaderValuesContainsToken(req.Header["Upgrade"], "websocket") &&
			httpguts.HeaderValuesContainsToken(req.Header["Connection"], "upgrade") {
			want = protocols.WebSocket
		}
		if want == protocols.WebSocket && hasFoldedLine(b) {
			want = protocols.HTTP1 // Left to the server.
		}
		if answer != matched || v.Protocol != want {
			t.Fatalf("%v %q, want %q", answer, v.Protocol, want)
		}
	})
}

// hasFoldedLine reports a line of the head that continues the one before.
func hasFoldedLine(b []byte) bool {
	for line := range bytes.Lines(b) {
		if line[0] == ' ' || line[0] == '\t' {
			return true
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return false
		}
	}
	return false
}

// FuzzClassifyHTTP2 has x/net's framer as its oracle: a connection is gRPC
// exactly where the framer finds a gRPC client's request behind harmless frames.
func FuzzClassifyHTTP2(f *testing.F) {
	for _, b := range http2Seeds() {
		f.Add(b[len(http2.ClientPreface):])
	}
	f.Fuzz(checkFrames)
}

// FuzzClassifyFrames is FuzzClassifyHTTP2 with frames that are made of any bytes.
func FuzzClassifyFrames(f *testing.F) {
	for kind := range byte(16) {
		f.Add([]byte{0, kind, 1, 4, 5, 15, 1}) // That frame, and a call.
		f.Add([]byte{1, 0, 1, 4, 5, 1, kind, 200, 1, 2, 3, 4})
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= wiretest.MaxScript {
			checkFrames(t, wiretest.Script(script))
		}
	})
}

// checkFrames compares the verdict on b, which follows the preface, with the oracle's.
func checkFrames(t *testing.T, b []byte) {
	if len(b) > defaultMaxBytes {
		return
	}
	s := newScanner(protocols.TransportAuto, defaultMaxBytes)
	answer, v := s.scan(slices.Concat([]byte(http2.ClientPreface), b))
	isGRPC, err := oracleHTTP2(b)
	// The framer decodes a header block from its first fragment on.
	incomplete := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || err != nil && s.http2.block != 0
	switch {
	case answer == needMore && incomplete:
	case answer == matched && v.Protocol == protocols.HTTP2 && !isGRPC:
	case answer == matched && v.Protocol == protocols.GRPC && isGRPC:
	default:
		t.Fatalf("%v %+v; the oracle says gRPC: %t, %v", answer, v, isGRPC, err)
	}
}

// errNotHarmless is the oracle's for a frame that goes to the shared server.
var errNotHarmless = errors.New("not harmless")

// oracleHTTP2 says by x/net's framer whether the first request in b is a gRPC
// client's. It returns an EOF where the frames end too early.
func oracleHTTP2(b []byte) (bool, error) {
	fr := http2.NewFramer(io.Discard, bytes.NewReader(b))
	fr.SetMaxReadFrameSize(h2.MaxFrameSize)
	fr.ReadMetaHeaders = hpack.NewDecoder(headerTableSize, nil)
	fr.MaxHeaderListSize = 2 * maxHeaderList
	var settings []http2.Setting
	acked, window := false, int64(h2.DefaultWindow)
	for first := true; ; first = false {
		frame, err := fr.ReadFrame()
		if err != nil {
			return false, err
		}
		if h := frame.Header(); first && (h.Type != http2.FrameSettings || h.Flags.Has(http2.FlagSettingsAck)) {
			return false, errNotHarmless
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			self := h.HasPriority() && h.Priority.StreamDep == h.StreamID
			return h.StreamID%2 == 1 && !self && acked && oracleIsGRPC(h, settings), nil
		}
		if !oracleIsHarmless(frame, settings) {
			return false, errNotHarmless
		}
		if f, ok := frame.(*http2.WindowUpdateFrame); ok {
			// RFC 9113, section 6.9.1. The framer sees one frame at a time.
			if window += int64(f.Increment); window > 1<<31-1 {
				return false, errNotHarmless
			}
		}
		if f, ok := frame.(*http2.SettingsFrame); ok {
			acked = acked || f.IsAck()
			for i := range f.NumSettings() {
				if first {
					settings = append(settings, f.Setting(i))
				}
			}
		}
	}
}

// oracleIsHarmless reports a frame that may stand before the first request of a client
// with these settings.
func oracleIsHarmless(frame http2.Frame, settings []http2.Setting) bool {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		return frame.ForeachSetting(func(s http2.Setting) error {
			if s.ID > http2.SettingMaxHeaderListSize {
				return nil // Of another RFC.
			}
			return s.Valid()
		}) == nil
	case *http2.WindowUpdateFrame:
		return frame.StreamID == 0
	case *http2.PriorityFrame:
		return frame.StreamDep != frame.StreamID
	case *http2.RSTStreamFrame:
		return frame.StreamID%2 == 1 && oracleIsCore(settings)
	case *http2.PingFrame, *http2.PriorityUpdateFrame, *http2.UnknownFrame:
		return true
	}
	return false
}

// oracleIsCore reports the settings of gRPC's C-core.
func oracleIsCore(settings []http2.Setting) bool {
	return slices.Contains(settings, http2.Setting{ID: 0xfe03, Val: 1})
}

// oracleIsGRPC applies the rules of TransportAuto to decoded fields.
func oracleIsGRPC(h *http2.MetaHeadersFrame, settings []http2.Setting) bool {
	var size uint32
	values := map[string][]string{}
	for _, f := range h.Fields {
		size += f.Size()
		values[f.Name] = append(values[f.Name], f.Value)
		via := f.Name == "via" || f.Name == "forwarded"
		if via || strings.HasPrefix(f.Name, "x-forwarded-") || strings.HasPrefix(f.Name, "x-envoy-") {
			return false
		}
		if max(len(f.Name), len(f.Value)) > defaultMaxBytes {
			return false
		}
	}
	types, agents := values["content-type"], values["user-agent"]
	if h.Truncated || size > maxHeaderList || len(types) != 1 || len(agents) != 1 {
		return false
	}
	rest, isGRPC := strings.CutPrefix(types[0], "application/grpc")
	return isGRPC && (rest == "" || rest[0] == '+' || rest[0] == ';') &&
		oracleIsLibrary(agents[0], settings) && slices.Equal(values[":method"], []string{"POST"})
}

// oracleIsLibrary has the table of the openings' README.
func oracleIsLibrary(agent string, settings []http2.Setting) bool {
	isPlain := !slices.ContainsFunc(settings, func(s http2.Setting) bool { return s.ID < 4 || s.ID > 6 })
	for product := range strings.FieldsSeq(agent) {
		switch strings.Split(product, "/")[0] {
		case "grpc-go", "grpc-node-js", "grpc-java-okhttp":
			return isPlain
		case "grpc-java-netty":
			return slices.Contains(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams})
		case "grpc-c":
			return oracleIsCore(settings)
		}
	}
	return false
}

// FuzzClassifySplit gives the same bytes to one scanner piece by piece: that
// must say what the whole prefix says.
func FuzzClassifySplit(f *testing.F) {
	for _, s := range http1Seeds {
		f.Add([]byte(s), uint8(1))
	}
	for _, b := range http2Seeds() {
		f.Add(b, uint8(1))
		f.Add(b, uint8(50))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		if len(b) > defaultMaxBytes || step == 0 {
			return
		}
		wantAnswer, want := classify(b, protocols.TransportAuto)
		s := newScanner(protocols.TransportAuto, defaultMaxBytes)
		answer, v, n := needMore, Verdict{}, 0
		for n < len(b) && answer == needMore {
			n = min(n+int(step), len(b))
			answer, v = s.scan(b[:n])
		}
		// The head of a request counts only if it came with the line.
		if want.Protocol == protocols.WebSocket && n < len(b) {
			want = Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}
		}
		// Bytes that match nothing are named by those that had come.
		if wantAnswer == unmatched {
			_, want = classify(b[:n], protocols.TransportAuto)
		}
		want.Bytes = 0
		if answer != wantAnswer {
			t.Errorf("answer = %v, want %v", answer, wantAnswer)
		}
		if diff := cmp.Diff(want, v); diff != "" {
			t.Errorf("verdict (-want +got):\n%s", diff)
		}
	})
}

// A replayConn reads what it was given and writes nowhere.
type replayConn struct {
	net.Conn
	io.Reader
}

func (c *replayConn) Read(p []byte) (int, error)     { return c.Reader.Read(p) }
func (*replayConn) Write(p []byte) (int, error)      { return len(p), nil }
func (*replayConn) Close() error                     { return nil }
func (*replayConn) SetDeadline(time.Time) error      { return nil }
func (*replayConn) SetWriteDeadline(time.Time) error { return nil }
