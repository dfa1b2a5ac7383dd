package mux_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// These tests ask net/http's own server beside a mux with the same handler. The clients'
// views must be equal.

// plain serves h with net/http alone, HTTP/1.1 and HTTP/2 in plaintext.
func plain(t *testing.T, h http.Handler) *server {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: p}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return &server{addr: l.Addr().String()}
}

// beside has client ask net/http and a mux, and compares what it reports.
func beside(t *testing.T, h http.Handler, client func(*testing.T, *server) string, options ...mux.Option) {
	t.Helper()
	want := client(t, plain(t, h))
	s := start(t, false, append(options, mux.WithHandler(h))...)
	if got := client(t, s); got != want {
		t.Errorf("the client sees %q, and %q behind net/http alone; closed: %v", got, want, s.Stats().Closed)
	}
	t.Log(want)
}

// bound is the progress timeout of the tests.
const bound = time.Second

// defaultFigures has TestDuplex, TestTunnel and TestHandlerOwnsBounds ask servers with the
// default settings, by clients that are silent for longer than the progress timeout:
//
//	go test ./mux -run 'TestDuplex|TestTunnel|TestHandlerOwnsBounds' -default-figures -parallel 40
var defaultFigures = flag.Bool("default-figures", false, "ask servers with the default settings by clients that are silent for 75 s")

// quiet is how long the clients are silent.
func quiet() time.Duration {
	if *defaultFigures {
		return 75 * time.Second
	}
	return 3 * bound
}

// strict bounds all that can be bounded.
var strict = mux.Configure(func(c *mux.Config) {
	if !*defaultFigures {
		p := protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: bound, ProgressTimeout: bound}
		c.HTTP1.Progress, c.HTTP2.Progress = p, p
	}
})

// late is a request body whose first bytes come when the client has been silent.
func late(text string) io.Reader {
	r, w := io.Pipe()
	go func() {
		time.Sleep(quiet()) // What is under test is time.
		_, _ = io.WriteString(w, text)
		_ = w.Close()
	}()
	return r
}

// answer reports a response, or the error.
func answer(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %.40s (%d bytes) %v", resp.StatusCode, body, len(body), err)
}

// upload asks version of HTTP with a body of some length, -1 for an undeclared one.
func upload(version int, body func() io.Reader, length int64, expect bool) func(*testing.T, *server) string {
	return func(t *testing.T, s *server) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.scheme()+"://"+s.addr+"/", body())
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		if expect {
			r.Header.Set("Expect", "100-continue")
		}
		c := s.client(t, version)
		c.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
		return answer(c.Do(r))
	}
}

// echoBody answers with the body, or the error with which it has ended.
func echoBody(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		body = []byte(err.Error())
	}
	_, _ = w.Write(body)
}

// TestDuplex: a client of a full duplex stream may be silent once the response has begun,
// whether the response moves or not.
func TestDuplex(t *testing.T) {
	t.Parallel()
	begun := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 does not have it, and always is.
		_, _ = io.WriteString(w, "begun ")
		_ = http.NewResponseController(w).Flush()
		echoBody(w, r)
	}
	moving := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		for range 10 {
			_, _ = io.WriteString(w, "event ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(quiet() / 20)
		}
		echoBody(w, r)
	}
	for name, h := range map[string]http.HandlerFunc{"begun": begun, "moving": moving} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, version), func(t *testing.T) {
				t.Parallel()
				beside(t, h, upload(version, func() io.Reader { return late("at last") }, -1, false), strict)
			})
		}
	}
	t.Run("CONNECT, HTTP/2", func(t *testing.T) {
		t.Parallel()
		beside(t, http.HandlerFunc(begun), func(t *testing.T, s *server) string {
			conn := s.dial(t)
			_ = conn.SetDeadline(time.Now().Add(2*quiet() + 20*time.Second))
			c := newH2Client(t, conn, conn)
			c.request(1, false, ":method", "CONNECT", ":authority", "x:1")
			status := c.header(1)[":status"]
			time.Sleep(quiet()) // What is under test is time.
			c.must(c.WriteData(1, true, []byte("at last")))
			return status + " " + c.rest(1)
		}, strict)
	})
	t.Run("declared length, HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		beside(t, http.HandlerFunc(begun), upload(1, func() io.Reader { return late("at last") }, 7, false), strict)
	})
}

// TestHandlerOwnsBounds: a handler that sets a deadline by a ResponseController, or lifts
// it, has taken over the bound of its request.
func TestHandlerOwnsBounds(t *testing.T) {
	t.Parallel()
	for name, deadline := range map[string]time.Time{"lifted": {}, "later": time.Now().Add(time.Hour)} {
		read := func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(deadline); err != nil {
				t.Error(err)
			}
			echoBody(w, r)
		}
		write := func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).SetWriteDeadline(deadline); err != nil {
				t.Error(err)
			}
			_, _ = w.Write(make([]byte, 16<<20))
		}
		for version := 1; version <= 2; version++ {
			for _, length := range []int64{-1, 7} {
				t.Run(fmt.Sprintf("%s, body of length %d, HTTP/%d", name, length, version), func(t *testing.T) {
					t.Parallel()
					beside(t, http.HandlerFunc(read), upload(version, func() io.Reader { return late("at last") }, length, false), strict)
				})
			}
			t.Run(fmt.Sprintf("%s, response, HTTP/%d", name, version), func(t *testing.T) {
				t.Parallel()
				beside(t, http.HandlerFunc(write), func(t *testing.T, s *server) string {
					resp, err := s.client(t, version).Get("http://" + s.addr)
					time.Sleep(quiet()) // What is under test is time.
					return answer(resp, err)
				}, strict)
			})
		}
	}
}

// TestLateBody: the rate of a body of declared length is counted from its first byte.
func TestLateBody(t *testing.T) {
	t.Parallel()
	patient := impatient(protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: bound, ProgressTimeout: time.Hour})
	for version := 1; version <= 2; version++ {
		for _, expect := range []bool{false, true} {
			t.Run(fmt.Sprintf("HTTP/%d, Expect %v", version, expect), func(t *testing.T) {
				t.Parallel()
				beside(t, http.HandlerFunc(echoBody), upload(version, func() io.Reader { return late("at last") }, 7, expect), patient)
			})
		}
	}
}

// TestTunnel: a hijacked connection is its owner's. Its peer may not read for a while.
func TestTunnel(t *testing.T) {
	t.Parallel()
	const size = 30 << 20
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		status := "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + r.Header.Get("Upgrade")
		if r.Method == http.MethodConnect {
			status = "200 OK"
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\n")
		_, _ = conn.Write(make([]byte, size))
	})
	for name, head := range map[string]string{
		"CONNECT":           "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
		"Upgrade: tcp":      "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"foreign WebSocket": handshake,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, h, func(t *testing.T, s *server) string {
				conn := s.dial(t)
				_ = conn.SetDeadline(time.Now().Add(2*quiet() + 20*time.Second))
				send(t, conn, head)
				r := bufio.NewReader(conn)
				line, err := r.ReadString('\n')
				for s := line; err == nil && s != "\r\n"; {
					s, err = r.ReadString('\n')
				}
				time.Sleep(quiet()) // What is under test is time.
				n, err := io.Copy(io.Discard, r)
				return fmt.Sprint(line, n, err)
			}, strict)
		})
	}
}

// TestStalledIsReset: a client that stops reading cannot take what it has for the whole
// response, though nothing but the end of the connection ends that.
func TestStalledIsReset(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		send(t, conn, "GET /flood HTTP/1.0\r\n\r\n")
		if err := within(t, "the handler", outcomes); err == nil {
			t.Error("256 MiB were written to a client that reads nothing")
		}
		eventually(t, "closed", func() bool { return s.active("http1") == 0 })
		if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading ends with %v", err)
		}
	}, mux.WithHandler(movers(outcomes)), strict)
}

// tally counts what clients have seen.
type tally map[string]int

func (m tally) String() string {
	var all []string
	for what, n := range m {
		all = append(all, fmt.Sprintf("%d times %s", n, what))
	}
	return strings.Join(all, ", ")
}

// rounds is how often tests of what happens by chance ask.
const rounds = 20

// count has rounds clients ask, a few at a time.
func count(t *testing.T, s *server, ask func(*testing.T, *server) string) tally {
	t.Helper()
	seen, answers := make(tally), make(chan string)
	for range 5 {
		go func() {
			for range rounds / 5 {
				answers <- ask(t, s)
			}
		}()
	}
	for range rounds {
		seen[<-answers]++
	}
	return seen
}

// TestBodyLimit: behind http.MaxBytesReader the answer arrives, whatever its status and
// however the body comes.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	reads := map[string]func(w http.ResponseWriter, r *http.Request) error{
		"assigned": func(w http.ResponseWriter, r *http.Request) error {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			_, err := io.Copy(io.Discard, r.Body)
			return err
		},
		"passed on": func(w http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
			return err
		},
	}
	for how, read := range reads {
		for _, status := range []int{http.StatusRequestEntityTooLarge, http.StatusBadRequest} {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var tooLarge *http.MaxBytesError
				if err := read(w, r); !errors.As(err, &tooLarge) {
					t.Errorf("read: %v", err)
				}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "too much")
			})
			name := fmt.Sprintf("%s, %d", how, status)
			t.Run(name+", waiting", func(t *testing.T) {
				t.Parallel()
				// The client sends no more than the limit and waits for the answer.
				beside(t, h, func(t *testing.T, s *server) string {
					var seen []string
					for _, head := range []string{"Content-Length: 4000000\r\n\r\n", "Content-Length: 150000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3d0900\r\n"} {
						conn := s.dial(t)
						send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\n"+head+strings.Repeat("x", limit+1))
						resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
						if err != nil {
							seen = append(seen, err.Error())
							continue
						}
						body, err := io.ReadAll(resp.Body)
						seen = append(seen, fmt.Sprint(resp.StatusCode, resp.Close, string(body), err))
						if s.Server == nil {
							continue // net/http itself may wait for the rest for ever.
						}
						if n, end := conn.Read(make([]byte, 1)); end != io.EOF {
							t.Errorf("%s: behind the answer: %d, %v", head, n, end)
						}
					}
					return strings.Join(seen, "; ")
				})
			})
			// The client sends all of its body before it reads.
			for name, head := range map[string]string{"declared": "Content-Length: 4000000\r\n\r\n", "chunked": "Transfer-Encoding: chunked\r\n\r\n3d0900\r\n"} {
				t.Run(fmt.Sprintf("%s, %d, sending first, %s", how, status, name), func(t *testing.T) {
					t.Parallel()
					ask := func(t *testing.T, s *server) string {
						conn := s.dial(t)
						_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n"+head)
						_, _ = conn.Write(make([]byte, 4_000_000))
						return answer(http.ReadResponse(bufio.NewReader(conn), nil))
					}
					want := fmt.Sprintf("%d too much (8 bytes) <nil>", status)
					if m := count(t, start(t, false, mux.WithHandler(h)), ask); m[want] < rounds {
						t.Errorf("behind the mux: %v; behind net/http alone: %v", m, count(t, plain(t, h), ask))
					}
				})
			}
			// A client that has asked whether it may send its body sends it beside the answer.
			for version := 1; version <= 2; version++ {
				for _, length := range []int64{4 << 20, -1} {
					t.Run(fmt.Sprintf("%s, length %d, HTTP/%d", name, length, version), func(t *testing.T) {
						t.Parallel()
						size := length
						if length < 0 {
							size = 4 << 20
						}
						ask := upload(version, func() io.Reader { return io.LimitReader(zeros{}, size) }, length, true)
						want := fmt.Sprintf("%d too much (8 bytes) <nil>", status)
						m := count(t, start(t, false, mux.WithHandler(h)), ask)
						if m[want] == rounds {
							return
						}
						if p := count(t, plain(t, h), ask); m[want] < p[want]-2 { // On a busy machine one may be late.
							t.Errorf("behind the mux: %v; behind net/http alone: %v", m, p)
						}
					})
				}
			}
		}
	}
}
