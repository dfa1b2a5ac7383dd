package protocols

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpguts"
)

func TestPlainHandshake(t *testing.T) {
	const most = 400
	plain := handshakeTo("/chat?a=b", "")
	for name, test := range map[string]struct {
		bytes string
		want  bool
	}{
		"plain":                 {plain, true},
		"with frames behind":    {plain + "\x81\x80", true},
		"bare line feeds":       {strings.ReplaceAll(plain, "\r\n", "\n"), true},
		"cookies":               {handshakeTo("/", "Cookie: a=b\r\nCookie: c=d\r\n"), true},
		"not all there":         {plain[:len(plain)-1], false},
		"long":                  {handshakeTo("/", "X: "+strings.Repeat("x", most)+"\r\n"), false},
		"another method":        {strings.Replace(plain, "GET", "PUT", 1), false},
		"absolute target":       {handshakeTo("http://x/", ""), false},
		"another version":       {strings.Replace(plain, "HTTP/1.1", "HTTP/1.0", 1), false},
		"no host":               {strings.Replace(plain, "Host", "Hose", 1), false},
		"two hosts":             {handshakeTo("/", "host: y\r\n"), false},
		"bad host":              {strings.Replace(plain, "Host: x", "Host: a b", 1), false},
		"body":                  {handshakeTo("/", "Content-Length: 1\r\n"), false},
		"no body by its length": {handshakeTo("/", "Content-Length: 0\r\n"), false},
		"chunks":                {handshakeTo("/", "Transfer-Encoding: chunked\r\n"), false},
		"expects":               {handshakeTo("/", "EXPECT: 100-continue\r\n"), false},
		"HTTP/2":                {handshakeTo("/", "HTTP2-Settings: \r\n"), false},
		"folded":                {handshakeTo("/", "X: a\r\n b\r\n"), true},
		"bad name":              {handshakeTo("/", "X Y: a\r\n"), false},
		"space before colon":    {handshakeTo("/", "Host : a\r\n"), false},
		"bad value":             {handshakeTo("/", "X: a\x01\r\n"), false},
		"no colon":              {handshakeTo("/", "X\r\n"), false},
	} {
		t.Run(name, func(t *testing.T) {
			head := plainHandshake([]byte(test.bytes), most)
			if got := head != nil && parseHandshake(head) != nil; got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// FuzzPlainHandshake: what is taken for a plain handshake is a request that net/http reads alike from the same bytes, and as long.
func FuzzPlainHandshake(f *testing.F) {
	for _, fields := range []string{"", "Content-Length: 5\r\n", "X: a\r\n b\r\n", "Host : x\r\n", "X: \r\n\r\n"} {
		f.Add([]byte(handshakeTo("/a%20b?c#d", fields) + "behind"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head := plainHandshake(b, DefaultHTTP1Config().MaxHeaderBytes)
		if head == nil {
			return
		}
		got := parseHandshake(head)
		if got == nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(b))
		want, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Header, got.Header); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if got.RequestURI != want.RequestURI || got.Host != want.Host || got.URL.String() != want.URL.String() {
			t.Errorf("%s %s %s, want %s %s %s", got.RequestURI, got.Host, got.URL, want.RequestURI, want.Host, want.URL)
		}
		rest, _ := io.ReadAll(br)
		if want.Body != http.NoBody || !bytes.Equal(rest, b[len(head):]) {
			t.Errorf("behind the head there is %q, want %q", b[len(head):], rest)
		}
		for name := range got.Header {
			if !httpguts.ValidHeaderFieldName(name) {
				t.Errorf("field name %q", name)
			}
		}
	})
}
