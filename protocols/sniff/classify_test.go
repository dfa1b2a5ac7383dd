package sniff

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

const webSocketHead = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

// grpcFields are the header fields that grpc-go's client sends, and more.
func grpcFields(more ...string) []string {
	return append([]string{
		":method", "POST", ":scheme", "http", ":path", "/echo.Echo/Unary", ":authority", "localhost:8080",
		"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers", "grpc-timeout", "999m",
	}, more...)
}

// classify says what the connection that begins with prefix speaks.
func classify(prefix []byte, t protocols.GRPCTransport) (answer, Verdict) {
	s := newScanner(t, defaultMaxBytes)
	answer, v := s.scan(prefix)
	v.Bytes = len(prefix)
	return answer, v
}

// without returns fields but the named one.
func without(name string, fields []string) []string {
	var kept []string
	for i := 0; i < len(fields); i += 2 {
		if fields[i] != name {
			kept = append(kept, fields[i], fields[i+1])
		}
	}
	return kept
}

func headersFrame(fields ...string) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(fields...)}
}

// grpcOpening is what a gRPC client sends first, if the server's SETTINGS are there at once.
func grpcOpening(more ...string) []byte {
	return wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteSettingsAck()
		_ = fr.WriteHeaders(headersFrame(grpcFields(more...)...))
	})
}

type classifyTest struct {
	name   string
	prefix string
	answer answer
	want   Verdict
}

func testClassify(t *testing.T, transport protocols.GRPCTransport, tests []classifyTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer, got := classify([]byte(tt.prefix), transport)
			if answer != tt.answer {
				t.Errorf("answer = %v, want %v", answer, tt.answer)
			}
			if answer != needMore {
				tt.want.Bytes = len(tt.prefix)
				if answer == unmatched {
					tt.want.Failure = FailureNoMatch
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("verdict (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestMatchingIsExact is point 8 of the list of what is wrong with plain cmux,
// as far as HTTP/1 goes.
func TestMatchingIsExact(t *testing.T) {
	line := Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}
	none := Verdict{Reason: reasonNotHTTP}
	testClassify(t, protocols.TransportAuto, []classifyTest{
		{"nothing", "", needMore, Verdict{}},
		{"part of a method", "GE", needMore, Verdict{}},
		{"part of a line", "GET / HTTP/1.1\r", needMore, Verdict{}},
		{"request line", "GET / HTTP/1.1\r\n", matched, line},
		{"bare line feed", "GET / HTTP/1.1\n", matched, line},
		{"whole head", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", matched, line},
		{"PATCH", "PATCH /x HTTP/1.1\r\n", matched, line},
		{"PROPFIND", "PROPFIND /x HTTP/1.1\r\n", matched, line},
		{"QUERY", "QUERY /x HTTP/1.1\r\n", matched, line},
		{"any token", "x-!#$%&'*+.^_`|~9 /x HTTP/1.1\r\n", matched, line},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n", matched, line},
		{"absolute form", "GET http://h:80/p?q HTTP/1.1\r\n", matched, line},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\n", matched, line},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n", matched, line},
		{"another version is the server's to refuse", "GET / HTTP/3.7\r\n", matched, line},
		{"spaces in the target are the server's to refuse", "GET /a b c HTTP/1.1\r\n", matched, line},
		{"white space behind the version", "GET / HTTP/1.1 \t\r\n", matched, line},
		{"empty lines before", "\r\n\n\r\nGET / HTTP/1.1\r\n", matched, line},
		{"empty lines alone", "\r\n\r\n\r", needMore, Verdict{}},
		{"line of 10 KB", "GET /" + strings.Repeat("a", 10_000) + " HTTP/1.1\r\n", matched, line},
		{"part of a line of 10 KB", "GET /" + strings.Repeat("a", 10_000), needMore, Verdict{}},
		{"long method", strings.Repeat("M", 200) + " / HTTP/1.1\r\n", matched, line},
		{"part of a long method", strings.Repeat("M", 200), needMore, Verdict{}},
		{"GETAWAY!", "GETAWAY!\r\n", unmatched, none},
		{"SSH banner", "SSH-2.0-OpenSSH_9.2 Debian\r\n", unmatched, none},
		{"HTTP/0.9", "GET /\r\n", unmatched, none},
		{"version in small letters", "GET / http/1.1\r\n", unmatched, none},
		{"version of two digits", "GET / HTTP/11\r\n", unmatched, none},
		{"space first", " GET / HTTP/1.1\r\n", unmatched, none},
		{"carriage return alone", "\rGET / HTTP/1.1\r\n", unmatched, none},
		{"a method that is no token is the server's to refuse", "G(T / HTTP/1.1\r\n", matched, line},
		{"a method of Unicode is the server's to refuse", "G\u00c9T / HTTP/1.1\r\n", matched, line},
		{"no token in a line that is no request", "G(T /\r\n", unmatched, none},
		{"no token first", "(GET / HTTP/1.1\r\n", unmatched, none},
		{"JSON", `{"method": "GET"`, unmatched, none},
		{"binary in a method", "GE\x00", unmatched, none},
		{"binary", "\x00\x01\x02", unmatched, none},
		{"binary behind a token and a space", "A \x01", needMore, Verdict{}},
		{"binary line behind a token and a space", "A \x01\n", unmatched, none},
		{"control characters are the server's to refuse", "GET /\x00\x7f HTTP/1.1\r\n", matched, line},
		{"control character behind the version", "GET / HTTP/1.1\x01\r\n", matched, line},
		{"control character in a line that is no request", "GET /\x01\r\n", unmatched, none},
		{"a preface that goes wrong", "PRI * HTTP/2.0\r\n\r\nXX", matched, line},
		{"a preface that goes wrong early", "PRI * HTTP/1.1\r\n", matched, line},
		{"h2spec's invalid preface", "INVALID CONNECTION PREFACE\r\n\r\n", unmatched, none},
		{"TLS record", "\x16\x03\x01\x02\x00", matched, Verdict{Protocol: protocols.TLS, Reason: reasonTLS}},
		{"TLS record, three bytes", "\x16\x03\x03", matched, Verdict{Protocol: protocols.TLS, Reason: reasonTLS}},
		{"TLS record, two bytes", "\x16\x03", needMore, Verdict{}},
		{"no TLS version", "\x16\x02", unmatched, Verdict{Reason: reasonNotTLS}},
		{"no TLS minor version", "\x16\x03\x05", unmatched, Verdict{Reason: reasonNotTLS}},
	})
}

func TestClassifyWebSocket(t *testing.T) {
	ws := Verdict{Protocol: protocols.WebSocket, Reason: reasonWebSocket}
	line := Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}
	const get = "GET / HTTP/1.1\r\nHost: x\r\n"
	testClassify(t, protocols.TransportAuto, []classifyTest{
		{"plain", webSocketHead, matched, ws},
		{"capitals", get + "UPGRADE: WebSocket\r\nconnection: uPGRADE\r\n\r\n", matched, ws},
		{"token list", get + "Upgrade: h2c, websocket\r\nConnection: keep-alive ,\tUpgrade\r\n\r\n", matched, ws},
		{"lines of one name join", get + "Connection: keep-alive\r\nUpgrade: h2c\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", matched, ws},
		{"bare line feeds", "GET / HTTP/1.1\nUpgrade: websocket\nConnection: Upgrade\n\n", matched, ws},
		{"bytes behind the head", webSocketHead + "\x81\x85", matched, ws},
		{"head not complete", strings.TrimSuffix(webSocketHead, "\r\n"), matched, line},
		{"no Connection", get + "Upgrade: websocket\r\n\r\n", matched, line},
		{"Connection says another thing", get + "Upgrade: websocket\r\nConnection: keep-alive, upgrades\r\n\r\n", matched, line},
		{"another upgrade", get + "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", matched, line},
		{"a longer name", get + "Upgrade-Insecure: websocket\r\nConnection: Upgrade\r\n\r\n", matched, line},
		{"in the body", "GET / HTTP/1.1\r\n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", matched, line},
		{"POST", strings.Replace(webSocketHead, "GET", "POST", 1), matched, line},
		{"HTTP/1.0", strings.Replace(webSocketHead, "/1.1", "/1.0", 1), matched, line},
		{"Unicode folds not", get + "Upgrade: webso\u212aet\r\nConnection: Upgrade\r\n\r\n", matched, line},
		{"folded lines", get + "Upgrade:\r\n websocket\r\nConnection: Upgrade\r\n\r\n", matched, line},
	})
}

func TestClassifyFirstStream(t *testing.T) {
	grpc := Verdict{Protocol: protocols.GRPC, Reason: reasonGRPC}
	shared := Verdict{Protocol: protocols.HTTP2, Reason: reasonFirstStream}
	bad := Verdict{Protocol: protocols.HTTP2, Reason: reasonBadBlock}
	sharedCall := Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}
	opening := func(fields ...string) string {
		return string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteSettingsAck()
			_ = fr.WriteHeaders(headersFrame(fields...))
		}))
	}
	contentType := func(v string) string {
		return opening(append(without("content-type", grpcFields()), "content-type", v)...)
	}
	const cut = 3
	whole := string(grpcOpening())
	testClassify(t, protocols.TransportAuto, []classifyTest{
		{"part of the preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", needMore, Verdict{}},
		{"preface alone", http2.ClientPreface, needMore, Verdict{}},
		{"gRPC client", whole, matched, grpc},
		{"gRPC client, cut", whole[:len(whole)-cut], needMore, Verdict{}},
		{"subtype", contentType("application/grpc+proto"), matched, grpc},
		{"parameter", contentType("application/grpc;x=y"), matched, grpc},
		{"capitals, which grpc-go refuses", contentType("Application/gRPC"), matched, shared},
		{"grpc-web", contentType("application/grpc-web"), matched, shared},
		{"grpcx", contentType("application/grpcx"), matched, shared},
		{"json", contentType("application/json"), matched, shared},
		{"two content types", opening(grpcFields("content-type", "application/grpc")...), matched, shared},
		{"no content type", opening(without("content-type", grpcFields())...), matched, shared},
		{"GET", opening(wiretest.GetFields("content-type", "application/grpc", "user-agent", "grpc-go/1")...), matched, shared},
		{"another client", opening(append(without("user-agent", grpcFields()), "user-agent", "Mozilla")...), matched, sharedCall},
		{"a program's own name before the library's", opening(append(without("user-agent", grpcFields()), "user-agent", "grpcurl/v1.9.3 grpc-go/1.61.0")...), matched, grpc},
		{"grpc- within a name", opening(append(without("user-agent", grpcFields()), "user-agent", "my-grpc-tool/1")...), matched, sharedCall},
		{"no user agent", opening(without("user-agent", grpcFields())...), matched, sharedCall},
		{"via", opening(grpcFields("via", "2 proxy")...), matched, sharedCall},
		{"forwarded", opening(grpcFields("forwarded", "for=x")...), matched, sharedCall},
		{"x-forwarded-for", opening(grpcFields("x-forwarded-for", "10.0.0.1")...), matched, sharedCall},
		{"x-envoy-attempt-count", opening(grpcFields("x-envoy-attempt-count", "1")...), matched, sharedCall},
		{"capitals in a name", opening(grpcFields("X-Up", "1")...), matched, shared},
		{"pseudo-header behind others", opening(grpcFields(":scheme", "http")...), matched, shared},
		{"unknown pseudo-header", opening(append([]string{":x", "y"}, grpcFields()...)...), matched, shared},
		{"bad value", opening(grpcFields("x", "a\x00b")...), matched, shared},
		{"bad HPACK", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff}})
		})), matched, bad},
		{"truncated HPACK", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			b := wiretest.HeaderBlock(grpcFields()...)
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: b[:len(b)-cut]})
		})), matched, bad},
	})
}

func TestClassifyTransport(t *testing.T) {
	proxied := grpcOpening("via", "2 proxy")
	tests := []struct {
		transport protocols.GRPCTransport
		prefix    []byte
		want      protocols.Protocol
	}{
		{"", grpcOpening(), protocols.GRPC},
		{protocols.TransportAuto, proxied, protocols.HTTP2},
		{protocols.TransportNative, proxied, protocols.GRPC},
		{protocols.TransportNative, grpcOpening(), protocols.GRPC},
		{protocols.TransportShared, grpcOpening(), protocols.HTTP2},
		{protocols.TransportShared, []byte(http2.ClientPreface), protocols.HTTP2},
	}
	for _, tt := range tests {
		answer, v := classify(tt.prefix, tt.transport)
		if answer != matched || v.Protocol != tt.want {
			t.Errorf("transport %q: %v %q, want match %q", tt.transport, answer, v.Protocol, tt.want)
		}
	}
}

// TestHeaderListIsBounded is a bomb: few bytes that name a long field often.
func TestHeaderListIsBounded(t *testing.T) {
	fields := grpcFields()
	for range 1000 {
		fields = append(fields, "x-bomb", strings.Repeat("b", 1000))
	}
	prefix := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(headersFrame(fields...))
	})
	answer, v := classify(prefix, protocols.TransportAuto)
	if answer != matched || v.Protocol != protocols.HTTP2 {
		t.Errorf("%v %q, want the shared server", answer, v.Protocol)
	}
}
