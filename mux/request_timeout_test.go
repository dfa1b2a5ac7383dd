package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// requestTimeout bounds requests of both HTTP versions.
func requestTimeout(d time.Duration) mux.Option {
	return mux.Configure(func(c *mux.Config) { c.HTTP1.RequestTimeout, c.HTTP2.RequestTimeout = d, d })
}

// errLate is the error of a handler that has not begun to answer in time.
var errLate = errors.New("the time is up before the header is sent")

// flushFirst sends the header of a response.
func flushFirst(w http.ResponseWriter) error {
	if err := http.NewResponseController(w).Flush(); err != nil {
		return fmt.Errorf("%w: %w", errLate, err)
	}
	return nil
}

// TestRequestTimeout: a request whose time is up is answered if it has not been, and
// otherwise reset, however its handler behaves.
func TestRequestTimeout(t *testing.T) {
	t.Parallel()
	for version := 1; version <= 2; version++ {
		for _, test := range []struct {
			name string
			body bool // The client sends a body for ever.
			h    func(w http.ResponseWriter, r *http.Request, over <-chan struct{}) error
			want string
			err  error // of the handler
		}{
			{"deaf handler", false, func(w http.ResponseWriter, _ *http.Request, over <-chan struct{}) error {
				<-over
				w.Header().Set("X", "too late")
				_, err := io.WriteString(w, "too late")
				return err
			}, "503 Service Unavailable", http.ErrHandlerTimeout},
			{"handler that takes notice", false, func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}) error {
				<-r.Context().Done()
				return context.Cause(r.Context())
			}, "503 Service Unavailable", http.ErrHandlerTimeout},
			{"moving body", true, func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}) error {
				_, err := io.Copy(io.Discard, r.Body)
				return err
			}, "408 Request Timeout", os.ErrDeadlineExceeded},
			{"moving response", false, func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) error {
				err := flushFirst(w)
				for err == nil {
					time.Sleep(time.Millisecond)
					if _, err = io.WriteString(w, "more"); err == nil {
						err = http.NewResponseController(w).Flush()
					}
				}
				return err
			}, "200 OK, broken off", nil},
			{"response that waits for something else", false, func(w http.ResponseWriter, _ *http.Request, over <-chan struct{}) error {
				if err := flushFirst(w); err != nil {
					return err
				}
				r, _ := io.Pipe()
				go func() {
					<-over
					_ = r.Close()
				}()
				_, err := io.Copy(w, r)
				return err
			}, "200 OK, broken off", io.ErrClosedPipe},
		} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", test.name, version), func(t *testing.T) {
				t.Parallel()
				var (
					resp   *http.Response
					ended  chan error
					over   chan struct{}
					events *eventLog
				)
				// On a busy machine a handler may begin to answer when its time is nearly up.
				for limit := 150 * time.Millisecond; resp == nil; limit *= 4 {
					ended, over = make(chan error, 1), make(chan struct{})
					s := start(t, false, requestTimeout(limit), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						ended <- test.h(w, r, over)
					})))
					events = observe(t, s.Server)
					var body io.Reader
					if test.body {
						body = &drip{t.Context(), 1 << 30, time.Millisecond}
					}
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr, body)
					if err != nil {
						t.Fatal(err)
					}
					resp, err = s.client(t, version).Do(r)
					if err == nil {
						break
					}
					close(over)
					if late := within(t, "the handler", ended); !errors.Is(late, errLate) || limit > 5*time.Second {
						t.Fatal(err, late)
					}
				}
				got := resp.Status
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					got += ", broken off"
				}
				_ = resp.Body.Close()
				if got != test.want || resp.Header.Get("X") != "" {
					t.Errorf("the client sees %s %v, want %s", got, resp.Header, test.want)
				}
				close(over)
				err := within(t, "the handler", ended)
				if test.body && errors.Is(err, http.ErrBodyReadAfterClose) {
					err = test.err // It was between two reads when its time was up.
				}
				if err == nil || test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("the handler ends with %v, want %v", err, test.err)
				}
				tag := []protocols.Protocol{protocols.HTTP1, protocols.HTTP2}[version-1]
				eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, tag, "request_timeout") == 1 })
			})
		}
	}
}

// TestRequestTimeoutOfBlockedWrite: the client that reads nothing sees a reset, and the
// handler's write ends.
func TestRequestTimeoutOfBlockedWrite(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		send(t, conn, "GET /flood HTTP/1.0\r\n\r\n")
		if err := within(t, "the handler", outcomes); err == nil {
			t.Error("256 MiB were written to a client that reads nothing")
		}
		if _, err := io.Copy(io.Discard, conn); err == nil {
			t.Error("the client cannot tell that the response is not complete")
		}
	}, mux.WithHandler(movers(outcomes)), requestTimeout(300*time.Millisecond))
}

// TestNoRequestTimeout: what is no request, or is not to be bounded, lives on. The bound
// changes while the server runs.
func TestNoRequestTimeout(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	routes := http.NewServeMux()
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	routes.HandleFunc("/tunnel", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.CopyN(conn, rw, 7)
		if err := r.Context().Err(); err != nil {
			t.Error(err)
		}
	})
	routes.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(3 * limit)
		_, _ = io.WriteString(w, "slow")
	})
	s := start(t, false, requestTimeout(limit), mux.WithHandler(routes))
	ws := s.webSocket(t)
	call, exchange := s.echoCall(t)
	tunnel := s.dial(t)
	send(t, tunnel, "CONNECT /tunnel HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(5 * limit) // What is under test is time.
	if err := echoed(t, ws, "after all this time"); err != nil {
		t.Error(err)
	}
	_ = ws.CloseNow()
	exchange("after all this time")
	_ = call.CloseSend()
	if got := s.status(t, "/slow"); got != http.StatusServiceUnavailable {
		t.Errorf("status %d", got)
	}
	send(t, tunnel, "at last")
	if got, err := io.ReadAll(tunnel); err != nil || !strings.HasSuffix(string(got), "at last") {
		t.Errorf("the tunnel: %q, %v", got, err)
	}
	config := s.Config()
	config.HTTP1.RequestTimeout = 0
	if _, err := s.Reload(config, "test"); err != nil {
		t.Fatal(err)
	}
	if got := s.status(t, "/slow"); got != http.StatusOK {
		t.Errorf("without a bound: status %d", got)
	}
}

// TestWithinRequestTimeout: a request that is served in time is what it is without a bound.
func TestWithinRequestTimeout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.Handle("/file", http.FileServer(http.Dir(dir)))
	routes.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "Declared")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("Sum"))
		w.Header().Set("Declared", "yes")
		w.Header().Set(http.TrailerPrefix+"Other", "as well")
	})
	routes.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.FormValue("a"))
	})
	routes.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for version := 1; version <= 2; version++ {
		client := func(t *testing.T, s *server) string {
			var out []string
			c := s.client(t, version)
			out = append(out, answer(c.Get("http://"+s.addr+"/file")))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/trailers", io.MultiReader(strings.NewReader("body")))
			r.RequestURI, r.Trailer = "", http.Header{"Sum": {"7"}}
			resp, err := c.Do(r)
			out = append(out, answer(resp, err), fmt.Sprint(resp.Trailer))
			var form bytes.Buffer
			m := multipart.NewWriter(&form)
			_ = m.WriteField("a", "field")
			_ = m.Close()
			out = append(out, answer(c.Post("http://"+s.addr+"/form", m.FormDataContentType(), &form)))
			if _, err := c.Get("http://" + s.addr + "/panic"); err != nil {
				out = append(out, "broken off")
			}
			return strings.Join(out, "; ")
		}
		beside(t, routes, client, requestTimeout(time.Hour))
	}
	// A trailer that the head does not announce.
	beside(t, routes, func(t *testing.T, s *server) string {
		conn := s.dial(t)
		send(t, conn, "POST /trailers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 7\r\n\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(conn)
		for {
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode >= http.StatusOK {
				return answer(resp, err)
			}
		}
	}, requestTimeout(time.Hour))
}

// TestRequestTimeoutRemovesFiles: the files of a form stay as long as its handler runs, and
// no longer, whatever has become of the request.
func TestRequestTimeoutRemovesFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir) // Windows.
	files := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, _ := m.CreateFormFile("file", "name")
	_, _ = part.Write(make([]byte, 64<<10))
	_ = m.Close()
	for name, end := range map[string]func(w http.ResponseWriter, over <-chan struct{}){
		"unanswered": func(_ http.ResponseWriter, over <-chan struct{}) { <-over },
		"begun": func(w http.ResponseWriter, over <-chan struct{}) {
			_ = flushFirst(w)
			<-over
		},
		"blocked": func(w http.ResponseWriter, over <-chan struct{}) {
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 1<<20))
			}
			<-over
		},
		"panic": func(_ http.ResponseWriter, over <-chan struct{}) {
			<-over
			panic(http.ErrAbortHandler)
		},
	} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, version), func(t *testing.T) {
				late := errLate
				// On a busy machine the form may not have come when the time is up.
				for limit := 150 * time.Millisecond; late != nil; limit *= 4 {
					parsed, over := make(chan error, 1), make(chan struct{})
					s := start(t, false, requestTimeout(limit), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						parsed <- r.ParseMultipartForm(1)
						end(w, over)
					})))
					events := observe(t, s.Server)
					resp, err := s.client(t, version).Post("http://"+s.addr, m.FormDataContentType(), bytes.NewReader(form.Bytes()))
					if err == nil {
						defer resp.Body.Close()
					}
					eventually(t, "the event", func() bool {
						return events.count(mux.EventTimeout, []protocols.Protocol{protocols.HTTP1, protocols.HTTP2}[version-1], "request_timeout") == 1
					})
					late = within(t, "the form", parsed)
					if got := files(); late == nil && got != 1 {
						t.Errorf("%d files while the handler runs, want 1", got)
					}
					close(over)
					eventually(t, "no file is left", func() bool { return files() == 0 })
				}
			})
		}
	}
}

// TestRequestTimeoutEndsUpload: a client that has got 408 and sends no more of its body does
// not keep the connection.
func TestRequestTimeoutEndsUpload(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	s := start(t, false, mux.WithHandler(handler), requestTimeout(50*time.Millisecond), mux.Configure(func(c *mux.Config) {
		c.HTTP1.Progress = protocols.ProgressConfig{MinBodyRate: 240, BodyGrace: 100 * time.Millisecond, ProgressTimeout: 300 * time.Millisecond}
	}))
	var answered sync.WaitGroup
	for range 20 {
		conn := s.dial(t)
		send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n0123456789")
		answered.Go(func() {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			switch {
			case err != nil:
				t.Error(err)
			case resp.StatusCode == http.StatusServiceUnavailable: // Its handler has not come to read.
			case resp.StatusCode != http.StatusRequestTimeout || !resp.Close:
				t.Errorf("%v", resp)
			}
		})
	}
	answered.Wait()
	eventually(t, "the connections are closed", func() bool { return s.active("http1") == 0 })
}

// TestAnswerToHalfClosed: a client of HTTP/1.1 that has ended its half of the connection gets
// the whole answer, its header included.
func TestAnswerToHalfClosed(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // net/http has seen the end.
		w.Header().Set("X", "here")
		_, _ = io.WriteString(w, "the answer")
	})
	beside(t, handler, func(t *testing.T, s *server) string {
		conn := s.dial(t)
		send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		body, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.Status, resp.Header.Get("X"), string(body), err)
	}, requestTimeout(time.Hour))
}
