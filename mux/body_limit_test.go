package mux_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// limitReads read a body below http.MaxBytesReader.
var limitReads = map[string]func(io.Reader) error{
	"all":          func(r io.Reader) error { _, err := io.ReadAll(r); return err },
	"copied":       func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
	"nothing":      func(io.Reader) error { return nil },
	"512":          func(r io.Reader) error { _, err := io.ReadFull(r, make([]byte, 512)); return err },
	"one by one":   readOneByOne,
	"JSON":         func(r io.Reader) error { return json.NewDecoder(r).Decode(new(string)) },
	"512 of 4 KiB": func(r io.Reader) error { _, err := io.ReadFull(r, make([]byte, 4096)[:512]); return err },
	"512 limited":  func(r io.Reader) error { _, err := io.Copy(new(strings.Builder), io.LimitReader(r, 512)); return err },
}

// readOneByOne reads 512 bytes through a small buffer.
func readOneByOne(r io.Reader) error {
	buffered := bufio.NewReaderSize(r, 16)
	for range 512 {
		if _, err := buffered.ReadByte(); err != nil {
			return err
		}
	}
	return nil
}

// shortened are the reads that shorten their buffers themselves.
var shortened = map[string]bool{"512 of 4 KiB": true, "512 limited": true}

// TestLimitsBeside: what http.MaxBytesReader does to a connection is what it does with
// net/http alone, where the limit is hit and where the handler just reads no more.
func TestLimitsBeside(t *testing.T) {
	t.Parallel()
	wraps := map[string]func(limit int64, h http.HandlerFunc) http.Handler{
		"assigned": func(limit int64, h http.HandlerFunc) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(w, r.Body, limit)
				h(w, r)
			})
		},
		"twice": func(limit int64, h http.HandlerFunc) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(w, r.Body, 10*limit)
				r.Body = http.MaxBytesReader(w, r.Body, limit)
				h(w, r)
			})
		},
		"MaxBytesHandler": func(limit int64, h http.HandlerFunc) http.Handler { return http.MaxBytesHandler(h, limit) },
	}
	for how, wrap := range wraps {
		for reading, read := range limitReads {
			if how == "MaxBytesHandler" && shortened[reading] {
				continue // Whether the limit was hit cannot be seen, and the answer counts for more than the connection.
			}
			t.Run(how+", "+reading, func(t *testing.T) {
				t.Parallel()
				routes := http.NewServeMux()
				routes.HandleFunc("/next", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "next") })
				var asks []limitAsk
				for _, limit := range []int64{1000, 1 << 20} {
					answer := func(w http.ResponseWriter, r *http.Request) {
						var tooLarge *http.MaxBytesError
						if err := read(r.Body); errors.As(err, &tooLarge) {
							w.WriteHeader(http.StatusRequestEntityTooLarge)
						}
						_, _ = io.WriteString(w, "read")
					}
					path := "/" + strconv.FormatInt(limit, 10)
					routes.Handle(path, wrap(limit, answer))
					for _, size := range []int{1, 511, 512, 513, 999, 1000, 1001, 1002, 5000, 100_000, 300_000} {
						for _, form := range []string{"declared", "chunked", "expected"} {
							switch {
							case how == "MaxBytesHandler" && size == 1001:
								continue // The body has ended, and the connection goes on.
							case how != "MaxBytesHandler" && form == "expected":
								// net/http does not know its own body in the request. It waits for what
								// the handler has not asked for.
								continue
							}
							asks = append(asks, limitAsk{path, size, form})
						}
					}
				}
				p, m := plain(t, routes), start(t, false, mux.WithHandler(routes))
				for _, ask := range asks {
					want := ask.view(t, p)
					if got := ask.view(t, m); got != want {
						t.Errorf("%v: %s, with net/http alone %s", ask, got, want)
					}
				}
			})
		}
	}
}

// limitAsk is a request whose body goes to a limit.
type limitAsk struct {
	path string
	size int
	form string
}

// view sends the request and the next one behind it, and returns what is answered.
func (a limitAsk) view(t *testing.T, s *server) (seen string) {
	t.Helper()
	for range 5 {
		// A close takes the answer with it where the client is late.
		if seen = a.ask(t, s); !strings.HasPrefix(seen, "nothing") {
			break
		}
	}
	return seen
}

func (a limitAsk) ask(t *testing.T, s *server) string {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	head := "POST " + a.path + " HTTP/1.1\r\nHost: x\r\n"
	body := `"` + strings.Repeat("x", max(a.size-2, 0)) + `"`
	body = body[:a.size]
	switch a.form {
	case "chunked":
		head += "Transfer-Encoding: chunked\r\n\r\n"
		body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case "expected":
		head += "Expect: 100-continue\r\n"
		fallthrough
	default:
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
	}
	body += "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
	in := bufio.NewReader(conn)
	var seen []string
	next := func() bool {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return false
		}
		b, err := io.ReadAll(resp.Body)
		seen = append(seen, fmt.Sprint(resp.StatusCode, " ", string(b), " ", err, " close ", resp.Close))
		return resp.StatusCode == http.StatusContinue || !resp.Close
	}
	if a.form == "expected" {
		send(t, conn, head)
		if !next() {
			return fmt.Sprint("nothing more", seen)
		}
		head = ""
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, head+body) // The server may close.
	}()
	for len(seen) < 3 && next() { // 100, the answer, the next one.
		if len(seen) > 0 && strings.Contains(seen[len(seen)-1], "next") {
			break
		}
	}
	_ = conn.Close()
	<-sent
	if len(seen) == 0 {
		return "nothing"
	}
	return strings.Join(seen, "; ")
}
