package transparency_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// netHTTP is a program of net/http alone, with what handlers do to a ResponseWriter.
func netHTTP() program {
	var seen notes
	routes := http.NewServeMux()
	routes.HandleFunc("/mirror", mirror)
	routes.HandleFunc("/writer", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, abilities(w)) })
	routes.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		for n := range 3 {
			fmt.Fprintf(w, "part %d\n", n)
			_ = http.NewResponseController(w).Flush()
		}
	})
	routes.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("of the program") })
	routes.HandleFunc("/panic/late", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		panic("of the program")
	})
	routes.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "begun")
		panic(http.ErrAbortHandler)
	})
	routes.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Announced")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Announced", "1")
		w.Header().Set(http.TrailerPrefix+"Unannounced", "2")
		fmt.Fprint(w, r.Trailer)
	})
	routes.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Del("Link")
		fmt.Fprint(w, "late")
	})
	routes.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
		_, _ = io.CopyN(w, letters{}, n)
	})
	routes.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, errText(err))
	})
	routes.HandleFunc("/limited", func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1000))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})
	routes.Handle("/timeout", http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		time.Sleep(50 * time.Millisecond) // TimeoutHandler hears of it at the same time.
		_, err := w.Write([]byte("too late"))
		seen.add("handler below TimeoutHandler: %v", err)
	}), 10*time.Millisecond, "over"))
	routes.Handle("/intime", http.TimeoutHandler(http.HandlerFunc(mirror), time.Hour, "over"))
	routes.HandleFunc("/deadline/read", func(w http.ResponseWriter, r *http.Request) {
		err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(-time.Second))
		_, readErr := io.ReadAll(r.Body)
		fmt.Fprint(w, err, errText(readErr))
	})
	routes.HandleFunc("/deadline/write", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second))
		fmt.Fprint(w, "not sent")
	})
	routes.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			fmt.Fprint(w, err)
		}
		lines := bufio.NewScanner(r.Body)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for lines.Scan() {
			fmt.Fprintln(w, "echo", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
	})
	routes.HandleFunc("/batches", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_ = http.NewResponseController(w).Flush()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			_, _ = w.Write(make([]byte, batch)) // It is long enough to go out without a Flush.
		}
	})
	routes.HandleFunc("/behind", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
		n, err := r.Body.Read(make([]byte, 1))
		fmt.Fprintln(w, n, errText(err))
	})
	routes.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		w.WriteHeader(code)
		n, err := io.WriteString(w, "a body")
		seen.add("status %d: %d %v", code, n, err)
	})
	routes.HandleFunc("/twice", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		w.WriteHeader(http.StatusOK)
		w.Header().Set("Late", "1")
		fmt.Fprint(w, "first wins")
	})
	routes.HandleFunc("/length", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", r.FormValue("declared"))
		n, err := io.WriteString(w, "a body")
		seen.add("declared %s: %d %v", r.FormValue("declared"), n, err)
	})
	routes.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) {})
	routes.HandleFunc("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "last")
	})
	routes.HandleFunc("/fields", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Date"] = nil
		h["Content-Type"] = nil
		h.Add("Set-Cookie", "a=1")
		h.Add("Set-Cookie", "b=2")
		h["lower-case"] = []string{"kept"}
		h.Set("Bad\nName", "x")
		h.Set("Broken", "a\r\nb")
		fmt.Fprint(w, "<html>")
	})
	routes.HandleFunc("/cookie", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "x y", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/mirror?a=b", http.StatusFound)
	})
	files := fstest.MapFS{
		"files/index.html": {Data: []byte("<p>index")}, "files/a.txt": {Data: []byte(strings.Repeat("0123456789", 100))},
	}
	routes.Handle("/files/", http.FileServerFS(files))
	routes.HandleFunc("/range", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		http.ServeContent(w, r, "a.txt", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("0123456789", 10000)))
	})
	routes.HandleFunc("GET /method", mirror)
	routes.HandleFunc("/unread", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "not read") })
	routes.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseMultipartForm(1 << 10)
		fmt.Fprint(w, r.Form, len(r.PostForm), errText(err))
	})
	routes.HandleFunc("/push", func(w http.ResponseWriter, _ *http.Request) {
		p, ok := w.(http.Pusher)
		if ok {
			fmt.Fprint(w, p.Push("/mirror", nil))
		}
	})
	routes.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "no: "+err.Error(), http.StatusNotImplemented)
			return
		}
		defer c.Close()
		_, err = w.Write(nil)
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: lines\r\nConnection: Upgrade\r\n\r\nhijacked %v %v\n", err, r.Context().Err())
		_ = rw.Flush()
		for {
			line, err := rw.ReadString('\n')
			if err != nil || line == "quit\n" {
				return
			}
			fmt.Fprintf(c, "line %q\n", line)
		}
	})
	routes.HandleFunc("/gone", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		seen.add("context: %v, cause: %v", r.Context().Err(), context.Cause(r.Context()))
	})
	routes.HandleFunc("/gone/upload", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		seen.add("upload of the client that left: failed %v", err != nil)
	})
	return program{handler: routes, seen: seen.text}
}

// notes are what a program has seen.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

// text returns the lines, sorted, and forgets them.
func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.Sort(n.lines)
	text := strings.Join(n.lines, "\n")
	n.lines = nil
	return text
}

func (n *notes) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lines)
}

// letters are bytes without end.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// mirror answers with all that a handler sees of its request.
func mirror(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	body, err := io.ReadAll(r.Body)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	_, isServer := r.Context().Value(http.ServerContextKey).(*http.Server)
	_, hasDeadline := r.Context().Deadline()
	fmt.Fprintf(w, "%s %s %s %s host %q pattern %q from %s to %v server %v deadline %v length %d %v close %v\n",
		r.Method, r.RequestURI, r.URL, r.Proto, r.Host, r.Pattern, r.RemoteAddr, local, isServer, hasDeadline,
		r.ContentLength, r.TransferEncoding, r.Close)
	if r.TLS != nil {
		fmt.Fprintf(w, "TLS %x %q %q resumed %v %d\n", r.TLS.Version, r.TLS.NegotiatedProtocol, r.TLS.ServerName, r.TLS.DidResume, len(r.TLS.PeerCertificates))
	}
	_ = r.Header.Write(w)
	fmt.Fprintf(w, "%s%s %v\n", digest(body), errText(err), r.Trailer)
}

// abilities lists the interfaces of a ResponseWriter.
func abilities(w http.ResponseWriter) string {
	has := func(name string, ok bool) string { return fmt.Sprintf("%s %v\n", name, ok) }
	_, flusher := w.(http.Flusher)
	_, flushError := w.(interface{ FlushError() error })
	_, hijacker := w.(http.Hijacker)
	_, pusher := w.(http.Pusher)
	_, readerFrom := w.(io.ReaderFrom)
	_, stringWriter := w.(io.StringWriter)
	_, notifier := w.(interface{ CloseNotify() <-chan bool })
	_, read := w.(interface{ SetReadDeadline(time.Time) error })
	_, write := w.(interface{ SetWriteDeadline(time.Time) error })
	_, duplex := w.(interface{ EnableFullDuplex() error })
	return has("Flusher", flusher) + has("FlushError", flushError) + has("Hijacker", hijacker) + has("Pusher", pusher) +
		has("ReaderFrom", readerFrom) + has("StringWriter", stringWriter) + has("CloseNotifier", notifier) +
		has("SetReadDeadline", read) + has("SetWriteDeadline", write) + has("EnableFullDuplex", duplex)
}

// TestNetHTTP: what handlers do with a request and its ResponseWriter.
func TestNetHTTP(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 3<<20)
	scenarios := map[string]scenario{
		"GET":             get("/mirror?a=b&c=%20d"),
		"POST":            request("POST", "/mirror", "hello", field("X-Field", "ä"), field("Cookie", "a=b; c=d")),
		"PUT":             request("PUT", "/mirror/../mirror", "hello"),
		"HEAD":            request("HEAD", "/mirror", ""),
		"OPTIONS":         request("OPTIONS", "/mirror", ""),
		"odd method":      request("FROB-1", "/mirror", ""),
		"escapes":         get("/mirror%2f..%2f?x=%zz"),
		"no route":        get("/none"),
		"empty response":  get("/nothing"),
		"wrong method":    request("POST", "/method", "x"),
		"other host":      get("/mirror", func(r *http.Request) { r.Host = "example.org:81" }),
		"writer":          get("/writer"),
		"stream":          get("/stream"),
		"panic":           get("/panic"),
		"panic late":      get("/panic/late"),
		"abort":           get("/abort"),
		"trailers":        request("POST", "/trailers", "body", requestTrailer),
		"informational":   informational,
		"download":        get("/large?n=3000000"),
		"upload":          request("POST", "/upload", large),
		"upload unsized":  request("POST", "/upload", large, unsized),
		"upload limited":  request("POST", "/limited", large[:2000]),
		"upload unread":   request("POST", "/unread", large[:100_000]),
		"upload nowhere":  request("POST", "/none", large[:100_000], unsized),
		"expect":          request("POST", "/mirror", "hello", field("Expect", "100-continue")),
		"expect unread":   request("POST", "/unread", "hello", field("Expect", "100-continue")),
		"expect other":    request("POST", "/mirror", "hello", field("Expect", "pony")),
		"TimeoutHandler":  withNote(get("/timeout")),
		"TimeoutHandler2": request("POST", "/intime", "hello"),
		"read deadline":   request("POST", "/deadline/read", "", endless),
		"write deadline":  get("/deadline/write"),
		"full duplex":     fullDuplex,
		"batches":         batches,
		"read and closed": request("POST", "/behind", "hello"),
		"large, closed":   request("POST", "/behind", large[:200_000]),
		"unsized, closed": request("POST", "/behind", "hello", unsized),
		"204 with body":   get("/status?code=204"),
		"304 with body":   get("/status?code=304"),
		"status 599":      get("/status?code=599"),
		"status 1000":     get("/status?code=1000"),
		"status 0":        get("/status?code=0"),
		"status 101":      get("/status?code=101"),
		"two statuses":    get("/twice"),
		"too short":       get("/length?declared=20"),
		"too long":        get("/length?declared=3"),
		"bad length":      get("/length?declared=x"),
		"close":           get("/close"),
		"fields":          get("/fields"),
		"cookie":          get("/cookie"),
		"directory":       get("/files"),
		"index":           get("/files/index.html"),
		"file":            get("/files/a.txt"),
		"no file":         get("/files/b.txt"),
		"range":           get("/range", field("Range", "bytes=5-14")),
		"ranges":          get("/range", field("Range", "bytes=100000-")),
		"tail":            get("/range", field("Range", "bytes=-5")),
		"not modified":    get("/range", field("If-None-Match", `"1"`)),
		"precondition":    get("/range", field("If-Match", `"2"`)),
		"whole file":      get("/range"),
		"form":            request("POST", "/form?q=1", "a=1&b=2", field("Content-Type", "application/x-www-form-urlencoded")),
		"multipart":       request("POST", "/form", "--b\r\nContent-Disposition: form-data; name=a; filename=f\r\n\r\nfile\r\n--b--\r\n", field("Content-Type", "multipart/form-data; boundary=b")),
		"push":            get("/push"),
		"many fields":     get("/mirror", manyFields),
		"same connection": sameConnection,
		"client leaves":   clientLeaves,
		"upload broken":   uploadBroken,
	}
	everyWay(t, netHTTP, scenarios)
	t.Run("livez", func(t *testing.T) { alike(t, netHTTP, 1, get("/livez")) })
	t.Run("readyz", func(t *testing.T) { alike(t, netHTTP, 1, get("/readyz")) })
	t.Run("hijack in HTTP2", func(t *testing.T) { alike(t, netHTTP, 2, get("/hijack")) })
}

func unsized(r *http.Request) { r.ContentLength = -1 }

// endless gives a request a body that never comes.
func endless(r *http.Request) { r.Body, _ = io.Pipe(); r.ContentLength = -1 }

func requestTrailer(r *http.Request) {
	r.ContentLength = -1
	r.Trailer = http.Header{"Checksum": {"abc"}}
}

func manyFields(r *http.Request) {
	for n := range 100 {
		r.Header.Set("X-Field-"+strconv.Itoa(n), strings.Repeat("v", 100))
	}
}

// withNote waits until the program has noted something.
func withNote(do scenario) scenario {
	return func(t *testing.T, s *site) string {
		text := do(t, s)
		var seen string
		eventually(t, "note of the program", func() bool { seen += s.seen(); return seen != "" })
		return text + "\n" + seen
	}
}

func informational(t *testing.T, s *site) string {
	var early []string
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(requestContext(t), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			early = append(early, fmt.Sprint(code, h))
			return nil
		},
	}), http.MethodGet, s.url("/early"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.do(t, r) + strings.Join(early, "\n")
}

// beginPost makes a request whose body is what is written to in, and returns when the response
// has begun.
func beginPost(t *testing.T, s *site, path string) (in *io.PipeWriter, resp *http.Response, err error) {
	t.Helper()
	body, in := io.Pipe()
	r, err := http.NewRequestWithContext(requestContext(t), http.MethodPost, s.url(path), body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = s.httpClient(t).Do(r)
	return in, resp, err
}

// fullDuplex sends a line when the last has been echoed.
func fullDuplex(t *testing.T, s *site) string {
	in, resp, err := beginPost(t, s, "/duplex")
	if err != nil {
		return errText(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	out := bufio.NewReader(resp.Body)
	for n := range 3 {
		fmt.Fprintln(in, n)
		line, err := out.ReadString('\n')
		b.WriteString(line + errText(err))
	}
	_ = in.Close()
	rest, err := io.ReadAll(out)
	return b.String() + string(rest) + errText(err)
}

// batch is how long a part of an answer is that goes out at once. The last frame of HTTP/2 has
// less than what net/http keeps until it is told to flush.
const batch = 20_000

// batches waits for each part of an answer before it asks for the next.
func batches(t *testing.T, s *site) string {
	in, resp, err := beginPost(t, s, "/batches")
	if err != nil {
		return errText(err)
	}
	defer resp.Body.Close()
	defer in.Close()
	for n := range 3 {
		fmt.Fprintln(in, n)
		if _, err := io.CopyN(io.Discard, resp.Body, batch); err != nil {
			return fmt.Sprint("batch ", n, errText(err))
		}
	}
	return "all"
}

// sameConnection makes requests one after another and reports which came on one connection.
func sameConnection(t *testing.T, s *site) string {
	client := s.httpClient(t)
	var b strings.Builder
	for _, path := range []string{"/mirror", "/none", "/status?code=204", "/stream", "/large?n=100000", "/panic", "/mirror", "/unread", "/close", "/mirror"} {
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(requestContext(t), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { fmt.Fprintf(&b, "reused %v ", info.Reused) },
		}), http.MethodGet, s.url(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			fmt.Fprintln(&b, path, errText(err))
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		fmt.Fprintln(&b, path, resp.Status, resp.Close)
	}
	return b.String()
}

// clientLeaves ends a request while its handler runs, and waits for what the handler notes.
func clientLeaves(t *testing.T, s *site) string {
	ctx, cancel := context.WithCancel(requestContext(t))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/gone"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.httpClient(t).Do(r)
	if err != nil {
		return errText(err)
	}
	defer resp.Body.Close()
	cancel()
	var seen string
	eventually(t, "end of the handler's context", func() bool { seen = s.seen(); return seen != "" })
	return seen
}

// uploadBroken leaves in the middle of a body.
func uploadBroken(t *testing.T, s *site) string {
	ctx, cancel := context.WithCancel(requestContext(t))
	defer cancel()
	body, in := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url("/gone/upload"), body)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		resp, err := s.httpClient(t).Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	_, _ = in.Write(make([]byte, 1000))
	cancel()
	_ = in.CloseWithError(context.Canceled) // The transport waits for it.
	err = <-failed
	var seen string
	eventually(t, "end of the handler", func() bool { seen = s.seen(); return seen != "" })
	return fmt.Sprint(err != nil) + seen
}

// raw returns a scenario that sends bytes and reads until the server closes. Between the
// pieces it waits for some answer.
func raw(pieces ...string) scenario {
	return func(t *testing.T, s *site) string {
		c := s.dial(t)
		_ = c.SetDeadline(time.Now().Add(silence))
		var got strings.Builder
		p := make([]byte, 64<<10)
		for n, piece := range pieces {
			if n > 0 {
				read, err := c.Read(p)
				got.Write(p[:read])
				if err != nil {
					return got.String() + closed(err)
				}
			}
			if _, err := io.WriteString(c, piece); err != nil {
				return got.String() + closed(err)
			}
		}
		rest, err := io.ReadAll(c)
		got.Write(rest)
		return strings.ReplaceAll(got.String(), "\r\n", "\n") + closed(err)
	}
}

// silence is how long a scenario waits for the server to close what stays open elsewhere.
const silence = 12 * time.Second

// closed says how a connection ended. A reset is one end or another of what TCP does when
// bytes cross the close, so it is the same as a close.
func closed(err error) string {
	var timed net.Error
	if errors.As(err, &timed) && timed.Timeout() {
		return " still open"
	}
	return " closed"
}

// TestRawHTTP1: requests as clients of all kinds write them, and what is none.
func TestRawHTTP1(t *testing.T) {
	t.Parallel()
	const host = "Host: localhost\r\n"
	last := "GET /close HTTP/1.1\r\n" + host + "\r\n"
	for name, do := range map[string]scenario{
		"HTTP/1.0":               raw("GET /mirror HTTP/1.0\r\n\r\n"),
		"HTTP/1.0 keep-alive":    raw("GET /mirror HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", last),
		"HTTP/1.0 stream":        raw("GET /stream HTTP/1.0\r\n\r\n"),
		"HTTP/1.2":               raw("GET /mirror HTTP/1.2\r\n" + host + "Connection: close\r\n\r\n"),
		"HTTP/2.0":               raw("GET /mirror HTTP/2.0\r\n" + host + "\r\n"),
		"HTTP/3.0":               raw("GET /mirror HTTP/3.0\r\n" + host + "\r\n"),
		"pipelined":              raw("GET /mirror HTTP/1.1\r\n" + host + "\r\nGET /none HTTP/1.1\r\n" + host + "\r\n" + last),
		"in pieces":              raw("GET /mirror HTTP/1.1\r\n"+host+"\r\n", last),
		"newlines before":        raw("\r\n\r\nGET /close HTTP/1.1\r\n" + host + "\r\n"),
		"bare LF":                raw("GET /close HTTP/1.1\nHost: localhost\n\n"),
		"no host":                raw("GET /mirror HTTP/1.1\r\n\r\n"),
		"two hosts":              raw("GET /mirror HTTP/1.1\r\n" + host + "Host: other\r\n\r\n"),
		"bad host":               raw("GET /mirror HTTP/1.1\r\nHost: a b\r\n\r\n"),
		"bad field":              raw("GET /mirror HTTP/1.1\r\n" + host + "a b: c\r\n\r\n"),
		"no colon":               raw("GET /mirror HTTP/1.1\r\n" + host + "abc\r\n\r\n"),
		"folded":                 raw("GET /close HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n"),
		"space before colon":     raw("GET /mirror HTTP/1.1\r\n" + host + "A : b\r\n\r\n"),
		"NUL in value":           raw("GET /mirror HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n"),
		"no HTTP, 0.9":           raw("GET /mirror\r\n\r\n"),
		"two spaces":             raw("GET  /mirror HTTP/1.1\r\n" + host + "\r\n"),
		"bad method":             raw("G(T /mirror HTTP/1.1\r\n" + host + "\r\n"),
		"lower-case method":      raw("get /close HTTP/1.1\r\n" + host + "\r\n"),
		"bad escape":             raw("GET /%zz HTTP/1.1\r\n" + host + "\r\n"),
		"absolute form":          raw("GET http://example.org/mirror?x HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"asterisk":               raw("OPTIONS * HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"CONNECT":                raw("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nConnection: close\r\n\r\n"),
		"long target":            raw("GET /mirror?" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"long method":            raw(strings.Repeat("A", 100) + " /mirror HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"chunked":                raw("POST /mirror HTTP/1.1\r\n" + host + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n"),
		"chunk extension":        raw("POST /mirror HTTP/1.1\r\n" + host + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"),
		"bad chunk":              raw("POST /mirror HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
		"unknown coding":         raw("POST /mirror HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n"),
		"length and chunked":     raw("POST /mirror HTTP/1.1\r\n"+host+"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", last),
		"two lengths":            raw("POST /mirror HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
		"bad length":             raw("POST /mirror HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n"),
		"unread body":            raw("POST /unread HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello" + last),
		"expect":                 raw("POST /mirror HTTP/1.1\r\n"+host+"Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", "hello"),
		"slow body":              raw("POST /unread HTTP/1.1\r\n" + host + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
		"upgrade of nothing":     raw("GET /mirror HTTP/1.1\r\n" + host + "Connection: Upgrade, close\r\nUpgrade: pigeon\r\n\r\n"),
		"upgrade to h2c":         raw("GET /mirror HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
		"websocket of nobody":    raw("GET /mirror HTTP/1.1\r\n" + host + "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"),
		"websocket, then GET":    raw("GET /mirror HTTP/1.1\r\n"+host+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", last),
		"hijack":                 raw("GET /hijack HTTP/1.1\r\n"+host+"Connection: Upgrade\r\nUpgrade: lines\r\n\r\n", "one\n", "quit\n"),
		"hijack, bytes at once":  raw("GET /hijack HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: lines\r\n\r\none\nquit\n"),
		"panic":                  raw("GET /panic HTTP/1.1\r\n" + host + "\r\n"),
		"fields":                 raw("GET /fields HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"length too short":       raw("GET /length?declared=20 HTTP/1.1\r\n" + host + "\r\n"),
		"HEAD":                   raw("HEAD /range HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"informational":          raw("GET /early HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"),
		"slow head, preface":     raw("PRI * HTTP/2.0\r\n\r\n"),
		"no HTTP, SMTP":          raw("EHLO example.org\r\n"),
		"no HTTP, TLS":           raw("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n"),
		"websocket, old version": raw("GET /mirror HTTP/1.1\r\n" + host + "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Some wait for bounds of seconds.
			alike(t, netHTTP, 1, do)
		})
	}
}

// TestSmallerHeaderTable: a client that lowers SETTINGS_HEADER_TABLE_SIZE behind a request.
func TestSmallerHeaderTable(t *testing.T) {
	t.Parallel()
	alike(t, netHTTP, 2, lowersHeaderTable)
}

// lowersHeaderTable is a scenario by frames of HTTP/2 in plaintext. It waits for the answer
// to a PING before it lowers the table, because net/http does not write then.
func lowersHeaderTable(t *testing.T, s *site) string {
	const data, headers, settings, ping, goAway = 0, 1, 4, 6, 7
	c := s.dial(t)
	_ = c.SetDeadline(time.Now().Add(silence))
	frame := func(typ, flags, stream byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload)), typ, flags, 0, 0, 0, stream}) + payload
	}
	// readTo reads frames until one is done, and fails where the connection ends.
	readTo := func(done func(typ byte, flagged bool) bool) {
		for isDone := false; !isDone; {
			var head [9]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(head[1])<<8|int64(head[2])); err != nil {
				t.Fatal(err)
			}
			isDone = done(head[3], head[4]&1 != 0) // END_STREAM and ACK are the same bit.
		}
	}
	write := func(frames ...string) {
		if _, err := io.WriteString(c, strings.Join(frames, "")); err != nil {
			t.Fatal(err)
		}
	}
	write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(settings, 0, 0, ""), frame(headers, 5, 1, "\x82\x86\x04\x07/mirror\x01\x01x"))
	readTo(func(typ byte, flagged bool) bool { return (typ == data || typ == headers) && flagged })
	write(frame(ping, 0, 0, "answered"))
	readTo(func(typ byte, flagged bool) bool { return typ == ping && flagged })
	write(frame(settings, 0, 0, "\x00\x01\x00\x00\x00\x00"), frame(ping, 0, 0, "lowered."))
	answered, seen := false, ""
	readTo(func(typ byte, flagged bool) bool {
		switch {
		case typ == ping && flagged:
			answered = true
		case typ == settings && flagged:
			seen += "ACK"
		case typ == goAway:
			seen += "GOAWAY"
		}
		return answered && seen != ""
	})
	return seen
}
