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
func classify(prefix []byte, t protocols.GRPCTransport) (Answer, Verdict) {
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
	answer Answer
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
			if answer != NeedMore {
				tt.want.Bytes = len(tt.prefix)
				if answer == NoMatch {
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
		{"nothing", "", NeedMore, Verdict{}},
		{"part of a method", "GE", NeedMore, Verdict{}},
		{"part of a line", "GET / HTTP/1.1\r", NeedMore, Verdict{}},
		{"request line", "GET / HTTP/1.1\r\n", Match, line},
		{"bare line feed", "GET / HTTP/1.1\n", Match, line},
		{"whole head", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Match, line},
		{"PATCH", "PATCH /x HTTP/1.1\r\n", Match, line},
		{"PROPFIND", "PROPFIND /x HTTP/1.1\r\n", Match, line},
		{"QUERY", "QUERY /x HTTP/1.1\r\n", Match, line},
		{"any token", "x-!#$%&'*+.^_`|~9 /x HTTP/1.1\r\n", Match, line},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n", Match, line},
		{"absolute form", "GET http://h:80/p?q HTTP/1.1\r\n", Match, line},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\n", Match, line},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n", Match, line},
		{"another version is the server's to refuse", "GET / HTTP/3.7\r\n", Match, line},
		{"spaces in the target are the server's to refuse", "GET /a b c HTTP/1.1\r\n", Match, line},
		{"white space behind the version", "GET / HTTP/1.1 \t\r\n", Match, line},
		{"empty lines before", "\r\n\n\r\nGET / HTTP/1.1\r\n", Match, line},
		{"empty lines alone", "\r\n\r\n\r", NeedMore, Verdict{}},
		{"line of 10 KB", "GET /" + strings.Repeat("a", 10_000) + " HTTP/1.1\r\n", Match, line},
		{"part of a line of 10 KB", "GET /" + strings.Repeat("a", 10_000), NeedMore, Verdict{}},
		{"long method", strings.Repeat("M", 200) + " / HTTP/1.1\r\n", Match, line},
		{"part of a long method", strings.Repeat("M", 200), NeedMore, Verdict{}},
		{"GETAWAY!", "GETAWAY!\r\n", NoMatch, none},
		{"SSH banner", "SSH-2.0-OpenSSH_9.2 Debian\r\n", NoMatch, none},
		{"HTTP/0.9", "GET /\r\n", NoMatch, none},
		{"version in small letters", "GET / http/1.1\r\n", NoMatch, none},
		{"version of two digits", "GET / HTTP/11\r\n", NoMatch, none},
		{"space first", " GET / HTTP/1.1\r\n", NoMatch, none},
		{"carriage return alone", "\rGET / HTTP/1.1\r\n", NoMatch, none},
		{"a method that is no token is the server's to refuse", "G(T / HTTP/1.1\r\n", Match, line},
		{"a method of Unicode is the server's to refuse", "G\u00c9T / HTTP/1.1\r\n", Match, line},
		{"no token in a line that is no request", "G(T /\r\n", NoMatch, none},
		{"no token first", "(GET / HTTP/1.1\r\n", NoMatch, none},
		{"JSON", `{"method": "GET"`, NoMatch, none},
		{"binary in a method", "GE\x00", NoMatch, none},
		{"binary", "\x00\x01\x02", NoMatch, none},
		{"binary behind a token and a space", "A \x01", NeedMore, Verdict{}},
		{"binary line behind a token and a space", "A \x01\n", NoMatch, none},
		{"control characters are the server's to refuse", "GET /\x00\x7f HTTP/1.1\r\n", Match, line},
		{"control character behind the version", "GET / HTTP/1.1\x01\r\n", Match, line},
		{"control character in a line that is no request", "GET /\x01\r\n", NoMatch, none},
		{"a preface that goes wrong", "PRI * HTTP/2.0\r\n\r\nXX", Match, line},
		{"a preface that goes wrong early", "PRI * HTTP/1.1\r\n", Match, line},
		{"h2spec's invalid preface", "INVALID CONNECTION PREFACE\r\n\r\n", NoMatch, none},
		{"TLS record", "\x16\x03\x01\x02\x00", Match, Verdict{Protocol: protocols.TLS, Reason: reasonTLS}},
		{"TLS record, three bytes", "\x16\x03\x03", Match, Verdict{Protocol: protocols.TLS, Reason: reasonTLS}},
		{"TLS record, two bytes", "\x16\x03", NeedMore, Verdict{}},
		{"no TLS version", "\x16\x02", NoMatch, Verdict{Reason: reasonNotTLS}},
		{"no TLS minor version", "\x16\x03\x05", NoMatch, Verdict{Reason: reasonNotTLS}},
	})
}

func TestClassifyWebSocket(t *testing.T) {
	ws := Verdict{Protocol: protocols.WebSocket, Reason: reasonWebSocket}
	line := Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}
	const get = "GET / HTTP/1.1\r\nHost: x\r\n"
	testClassify(t, protocols.TransportAuto, []classifyTest{
		{"plain", webSocketHead, Match, ws},
		{"capitals", get + "UPGRADE: WebSocket\r\nconnection: uPGRADE\r\n\r\n", Match, ws},
		{"token list", get + "Upgrade: h2c, websocket\r\nConnection: keep-alive ,\tUpgrade\r\n\r\n", Match, ws},
		{"lines of one name join", get + "Connection: keep-alive\r\nUpgrade: h2c\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Match, ws},
		{"bare line feeds", "GET / HTTP/1.1\nUpgrade: websocket\nConnection: Upgrade\n\n", Match, ws},
		{"bytes behind the head", webSocketHead + "\x81\x85", Match, ws},
		{"head not complete", strings.TrimSuffix(webSocketHead, "\r\n"), Match, line},
		{"no Connection", get + "Upgrade: websocket\r\n\r\n", Match, line},
		{"Connection says another thing", get + "Upgrade: websocket\r\nConnection: keep-alive, upgrades\r\n\r\n", Match, line},
		{"another upgrade", get + "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", Match, line},
		{"a longer name", get + "Upgrade-Insecure: websocket\r\nConnection: Upgrade\r\n\r\n", Match, line},
		{"in the body", "GET / HTTP/1.1\r\n\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", Match, line},
		{"POST", strings.Replace(webSocketHead, "GET", "POST", 1), Match, line},
		{"HTTP/1.0", strings.Replace(webSocketHead, "/1.1", "/1.0", 1), Match, line},
		{"Unicode folds not", get + "Upgrade: webso\u212aet\r\nConnection: Upgrade\r\n\r\n", Match, line},
		{"folded lines", get + "Upgrade:\r\n websocket\r\nConnection: Upgrade\r\n\r\n", Match, line},
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
		{"part of the preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", NeedMore, Verdict{}},
		{"preface alone", http2.ClientPreface, NeedMore, Verdict{}},
		{"gRPC client", whole, Match, grpc},
		{"gRPC client, cut", whole[:len(whole)-cut], NeedMore, Verdict{}},
		{"subtype", contentType("application/grpc+proto"), Match, grpc},
		{"parameter", contentType("application/grpc;x=y"), Match, grpc},
		{"capitals, which grpc-go refuses", contentType("Application/gRPC"), Match, shared},
		{"grpc-web", contentType("application/grpc-web"), Match, shared},
		{"grpcx", contentType("application/grpcx"), Match, shared},
		{"json", contentType("application/json"), Match, shared},
		{"two content types", opening(grpcFields("content-type", "application/grpc")...), Match, shared},
		{"no content type", opening(without("content-type", grpcFields())...), Match, shared},
		{"GET", opening(wiretest.GetFields("content-type", "application/grpc", "user-agent", "grpc-go/1")...), Match, shared},
		{"another client", opening(append(without("user-agent", grpcFields()), "user-agent", "Mozilla")...), Match, sharedCall},
		{"a program's own name before the library's", opening(append(without("user-agent", grpcFields()), "user-agent", "grpcurl/v1.9.3 grpc-go/1.61.0")...), Match, grpc},
		{"grpc- within a name", opening(append(without("user-agent", grpcFields()), "user-agent", "my-grpc-tool/1")...), Match, sharedCall},
		{"no user agent", opening(without("user-agent", grpcFields())...), Match, sharedCall},
		{"via", opening(grpcFields("via", "2 proxy")...), Match, sharedCall},
		{"forwarded", opening(grpcFields("forwarded", "for=x")...), Match, sharedCall},
		{"x-forwarded-for", opening(grpcFields("x-forwarded-for", "10.0.0.1")...), Match, sharedCall},
		{"x-envoy-attempt-count", opening(grpcFields("x-envoy-attempt-count", "1")...), Match, sharedCall},
		{"capitals in a name", opening(grpcFields("X-Up", "1")...), Match, shared},
		{"pseudo-header behind others", opening(grpcFields(":scheme", "http")...), Match, shared},
		{"unknown pseudo-header", opening(append([]string{":x", "y"}, grpcFields()...)...), Match, shared},
		{"bad value", opening(grpcFields("x", "a\x00b")...), Match, shared},
		{"bad HPACK", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff}})
		})), Match, bad},
		{"truncated HPACK", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			b := wiretest.HeaderBlock(grpcFields()...)
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: b[:len(b)-cut]})
		})), Match, bad},
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
		if answer != Match || v.Protocol != tt.want {
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
	if answer != Match || v.Protocol != protocols.HTTP2 {
		t.Errorf("%v %q, want the shared server", answer, v.Protocol)
	}
}
