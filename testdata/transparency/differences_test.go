package transparency_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A difference is a row of the table of what differs from net/http and grpc-go.
type difference struct {
	what, plain, muxed, why string

	where string // the tests that may show it, as a regular expression with * for anything

	// Regular expressions. Either what the whole views are, which then must differ, or the
	// pieces in which they may.
	native, other string
	pieces        string
}

// applies reports whether a test may show the difference.
func (d *difference) applies(test string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(d.where, "*", ".*") + "$").MatchString(test)
}

// whole reports whether the views of a test are those of the difference.
func (d *difference) whole(native, muxed string) bool {
	matches := func(pattern, view string) bool {
		return regexp.MustCompile(`^(?s:` + pattern + `)\s*(program:\s*)?$`).MatchString(view)
	}
	return native != muxed && matches(d.native, native) && matches(d.other, muxed)
}

var differences = []difference{
	{
		what: "first bytes that are no HTTP, and HTTP/0.9", plain: "`400`", muxed: "closed without a word; to TLS an alert",
		why:    "other protocols begin so, and take an answer in HTTP for their own",
		where:  "TestRawHTTP1/no_HTTP,_*",
		native: "HTTP/1.1 400 Bad Request\n.* closed",
		other:  "(\x15\x03\x01\\x00\x02\x02\\()? closed",
	},
	{
		what: "first bytes that stop", plain: "wait without end", muxed: "closed after 3 s",
		why:    "a client that sends no more would hold a connection for nothing",
		where:  "TestRawHTTP1/slow_head,_preface",
		native: " still open",
		other:  " closed",
	},
	{
		what: "a request body that stops", plain: "waits without end",
		muxed:  "of declared length below 240 B/s, else silent for 1 min before the response: the read fails; gRPC and Connect streams wait",
		why:    "a client that sends no more would hold a connection for nothing",
		where:  "TestRawHTTP1/slow_body",
		native: "HTTP/1.1 200 OK\n.*\n\nnot read still open",
		other:  "HTTP/1.1 200 OK\n.*\n\nnot read closed",
	},
	{
		what: "a body above the limit of `http.MaxBytesReader`, below middleware that wraps the ResponseWriter", plain: "HTTP/1.1 goes on", muxed: "`Connection: close`, as without middleware",
		why:    "`MaxBytesReader` tells net/http's own writer alone, so here the body tells, whatever wraps the writer",
		where:  "TestRouters/(chi|gin)/HTTP1_*/(too_long|unsized)",
		pieces: `\bclose (false|true)\b`,
	},
	{
		what: "metadata of a call above 64 KiB", plain: "taken, up to 16 MiB", muxed: "refused; `http2.max_header_list_bytes`",
		why:    "a header is held in memory before anybody can refuse it",
		where:  "TestNetGRPC/*/too_much_metadata",
		native: ` \nOK .*`,
		other:  ` \nInternal "header list size to send violates the maximum size \(65536 bytes\) set by server" .*`,
	},
	{
		what: "`peer.AuthInfo` of a call in plaintext", plain: "nil", muxed: "as of grpc-go's package insecure",
		why:    "it names the connection for `mux.ConnOf`",
		where:  "Test*",
		pieces: ` auth (none|insecure)\b`,
	},
	{
		what: "a call whose service nobody has", plain: "one frame with the status", muxed: "header, then the status in the trailer",
		why:    "the HTTP handler was asked first, and a proxy may stand there",
		where:  "Test*/no_(service|path)",
		native: "HTTP/2.0 200 OK .*\nGrpc-Status: 12\n|Unimplemented .*header:\n\ntrailer:\ncontent-type: .*",
		other:  "HTTP/2.0 200 OK .*\n\ntrailer:\n.*Grpc-Status: 12\n|Unimplemented .*header:\ncontent-type: .*\ntrailer:\n",
	},
	{
		what: "`/livez`, `/readyz`", plain: "your handler's", muxed: "answered, unless `mux.WithoutHealthPaths`",
		why:    "only the server knows when a drain begins",
		where:  "TestNetHTTP/(livez|readyz)",
		native: "HTTP/1.1 404 Not Found .*",
		other:  "HTTP/1.1 200 OK .*\n\nok",
	},
	{
		what: "a hijacked connection", plain: "a `*net.TCPConn` or `*tls.Conn`", muxed: "a type of ours, whose `NetConn` leads there",
		why:    "it is counted, and its bytes may have been read ahead",
		where:  "TestWebSocketLibraries/gorilla_plaintext/connection",
		native: "HTTP/1.1 101 .*\n1 CLIENT SERVER true",
		other:  "HTTP/1.1 101 .*\n1 CLIENT SERVER false",
	},
	{
		what: "gRPC's health service", plain: "if you register one", muxed: "is there; yours replaces it",
		why:    "a drain has to tell balancers",
		where:  "TestConnectByGRPC/other",
		native: "UNKNOWNUnimplemented .*404 page not found.*",
		other:  "SERVINGOK .*",
	},
	{
		what: "a gRPC client that writes a malformed `grpc-timeout` or binary field, on a connection with requests", plain: "`grpc-status: 13`", muxed: "`400` with a text, which clients read as the same code",
		why:    "grpc-go's own `ServeHTTP` answers so",
		where:  "TestCallsByHTTP/bad_(timeout|metadata)",
		native: "HTTP/2.0 400 Bad Request .*\nGrpc-Message: malformed .*\nGrpc-Status: 13\n\n",
		other:  "HTTP/2.0 400 Bad Request .*\n\nmalformed .*",
	},
	{
		what: "deadline of a call, on a connection with requests", plain: "the stream is reset", muxed: "`grpc-status: 4`",
		why:    "net/http's HTTP/2 server has no word for that reset",
		where:  "TestCallsByHTTP/timeout",
		native: " error: .*: stream error: stream ID N; CANCEL; received from peer",
		other:  "HTTP/2.0 200 OK .*\nGrpc-Message: context deadline exceeded\nGrpc-Status: 4\n",
	},
	{
		what: "`SETTINGS_HEADER_TABLE_SIZE` that an HTTP/2 client lowers behind its first request", plain: "acknowledged", muxed: "GOAWAY; its next connection has the new size",
		why:    "net/http may change its HPACK encoder while it encodes, which can end the process",
		where:  "TestSmallerHeaderTable",
		native: "ACK",
		other:  "GOAWAY",
	},
}

// The table in the page stands between these lines.
const (
	tableBegin = "<!-- differences: go test ./testdata/transparency compares them with its table -->\n"
	tableEnd   = "<!-- end of differences -->\n"
)

// table is the table of the differences as it stands in the page.
func table() string {
	var b strings.Builder
	b.WriteString("| what | net/http, grpc-go | here | why |\n|---|---|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", d.what, d.plain, d.muxed, d.why)
	}
	return b.String()
}

// TestPage: mux/COMING_FROM.md has the table as it is here. With UPDATE=1 in the environment
// it is written there.
func TestPage(t *testing.T) {
	const name = "../../mux/COMING_FROM.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegin)
	got, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s has no table between %q and %q", name, tableBegin, tableEnd)
	}
	if got == table() {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(name, []byte(before+tableBegin+table()+tableEnd+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s has another table than differences_test.go; UPDATE=1 go test -run TestPage . in this directory writes:\n%s", name, table())
}

// TestTableFits: the table fits on a screen, and each row gives its reason.
func TestTableFits(t *testing.T) {
	if n := len(differences); n > 25 {
		t.Errorf("%d rows", n)
	}
	for _, d := range differences {
		if d.what == "" || d.plain == "" || d.muxed == "" || d.why == "" || d.where == "" {
			t.Errorf("%+v has an empty field", d)
		}
		if (d.pieces == "") != (d.native != "" && d.other != "") {
			t.Errorf("%+v says neither what the views are nor which pieces differ", d)
		}
	}
}
