package transparency_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A difference is a row of the README's table of what differs from net/http and grpc-go.
type difference struct {
	what, plain, muxed, why string

	where string         // the tests that may show it, as a regular expression with * for anything
	lines *regexp.Regexp // what differs in the views; nil: all may, and must
}

// applies reports whether a test may show the difference.
func (d *difference) applies(test string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(d.where, "*", ".*") + "$").MatchString(test)
}

var differences = []difference{
	{
		what: "first bytes that are no HTTP, and HTTP/0.9", plain: "`400`", muxed: "closed without a word; to TLS an alert",
		why:   "other protocols begin so, and take an answer in HTTP for their own",
		where: "TestRawHTTP1/no_HTTP,_*",
	},
	{
		what: "first bytes that stop", plain: "wait without end", muxed: "closed after 3 s",
		why:   "a client that says nothing would hold a connection for nothing",
		where: "TestRawHTTP1/slow_head,_preface",
	},
	{
		what: "a request body of declared length that stops", plain: "waits without end", muxed: "below 240 B/s from 5 s on the read fails",
		why:   "so does one that sends no body",
		where: "TestRawHTTP1/slow_body",
	},
	{
		what: "metadata of a call above 64 KiB", plain: "taken, up to 16 MiB", muxed: "refused; `http2.max_header_list_bytes`",
		why:   "a header is held in memory before anybody can refuse it",
		where: "TestNetGRPC/*/too_much_metadata",
	},
	{
		what: "`peer.AuthInfo` of a call in plaintext", plain: "nil", muxed: "as of grpc-go's package insecure",
		why:   "it names the connection for `mux.ConnOf`",
		where: "Test*", lines: regexp.MustCompile(` auth (none|insecure)\b`),
	},
	{
		what: "a call whose service nobody has", plain: "one frame with the status", muxed: "header, then the status in the trailer",
		why:   "the HTTP handler was asked first, and a proxy may stand there",
		where: "Test*/no_(service|path)",
	},
	{
		what: "`/livez`, `/readyz`", plain: "your handler's", muxed: "answered, unless `mux.WithoutHealthPaths`",
		why:   "only the server knows when a drain begins",
		where: "TestNetHTTP/(livez|readyz)",
	},
	{
		what: "a hijacked connection", plain: "a `*net.TCPConn` or `*tls.Conn`", muxed: "a type of ours, whose `NetConn` leads there",
		why:   "it is counted, and its bytes may have been read ahead",
		where: "TestWebSocketLibraries/gorilla_plaintext/connection",
	},
	{
		what: "gRPC's health service", plain: "if you register one", muxed: "is there; yours replaces it",
		why:   "a drain has to tell balancers",
		where: "TestConnectByGRPC/other",
	},
	{
		what: "a gRPC client that writes a malformed `grpc-timeout` or binary field, on a connection with requests", plain: "`grpc-status: 13`", muxed: "`400` with a text, which clients read as the same code",
		why:   "grpc-go's own `ServeHTTP` answers so",
		where: "TestCallsByHTTP/bad_(timeout|metadata)",
	},
	{
		what: "`grpc-message` of a call that succeeds, on a connection with requests", plain: "is there, empty", muxed: "is not there",
		why:   "grpc-go's own `ServeHTTP` leaves it out",
		where: "TestCallsByHTTP/*", lines: regexp.MustCompile(`(?m)^Grpc-Message: \n`),
	},
	{
		what: "deadline of a call, on a connection with requests", plain: "the stream is reset", muxed: "`grpc-status: 4`",
		why:   "net/http's HTTP/2 server has no word for that reset",
		where: "TestCallsByHTTP/timeout",
	},
}

// The table in the README stands between these lines.
const (
	tableBegin = "<!-- differences: go test ./testdata/transparency compares them with its table -->\n"
	tableEnd   = "<!-- end of differences -->\n"
)

// table is the README's table of the differences.
func table() string {
	var b strings.Builder
	b.WriteString("| what | net/http, grpc-go | here | why |\n|---|---|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", d.what, d.plain, d.muxed, d.why)
	}
	return b.String()
}

// TestREADME: the README has the table as it is here. With UPDATE=1 in the environment it is
// written there.
func TestREADME(t *testing.T) {
	const name = "../../README.md"
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
	t.Errorf("%s has another table than differences_test.go; UPDATE=1 go test -run TestREADME . in this directory writes:\n%s", name, table())
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
	}
}
