package mux_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestDate: whatever a handler does to its header, there is the Date field that net/http would send, and that once.
func TestDate(t *testing.T) {
	const own = "Tue, 15 Nov 1994 08:12:31 GMT"
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", own) }))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	write := func(set func(http.Header)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			set(w.Header())
			_, _ = io.WriteString(w, "hello")
		}
	}
	type want int
	const (
		now want = iota
		theirs
		none
	)
	for name, tt := range map[string]struct {
		handler http.Handler
		want    want
	}{
		"no field":           {hello, now},
		"nothing written":    {http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), now},
		"one field":          {write(func(h http.Header) { h.Set("Content-Type", "text/plain") }), now},
		"a field taken back": {write(func(h http.Header) { h.Set("X", "y"); h.Del("X") }), now},
		"many fields": {write(func(h http.Header) {
			for i := range 20 {
				h.Set("X-"+strconv.Itoa(i), "y")
			}
		}), now},
		"early hints": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNoContent)
		}), now},
		"its own":    {write(func(h http.Header) { h.Set("Date", own) }), theirs},
		"suppressed": {write(func(h http.Header) { h.Set("X", "y"); h["Date"] = nil }), none},
		"a proxy":    {httputil.NewSingleHostReverseProxy(target), theirs},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, mux.New(mux.WithHandler(tt.handler), mux.WithLogger(discard)), listen(t))
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for range 2 {
				before := time.Now().Add(-time.Second) // The field has seconds, and its clock is a little late.
				send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				answer, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				for answer.StatusCode < http.StatusOK {
					if answer.Header["Date"] != nil {
						t.Errorf("%s has a date", answer.Status)
					}
					if answer, err = http.ReadResponse(answers, nil); err != nil {
						t.Fatal(err)
					}
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				dates := answer.Header["Date"]
				switch {
				case tt.want == none && len(dates) == 0:
				case len(dates) != 1:
					t.Errorf("the dates are %q", dates)
				case tt.want == theirs:
					if dates[0] != own {
						t.Errorf("the date is %s, want %s", dates[0], own)
					}
				default:
					got, err := http.ParseTime(dates[0])
					if err != nil || got.Before(before.Truncate(time.Second)) || got.After(time.Now()) {
						t.Errorf("at %v the date is %s: %v", time.Now(), dates[0], err)
					}
				}
			}
		})
	}
}

// TestDateIsNotKept: what a handler keeps of a response's header does not bring its date into the next one.
func TestDateIsNotKept(t *testing.T) {
	var kept http.Header
	s := serveOn(t, mux.New(mux.WithLogger(discard), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusNotFound)
		kept = w.Header().Clone()
	}))), listen(t))
	response, err := http.Get("http://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusNotFound || response.Header.Get("Date") == "" || kept["Date"] != nil {
		t.Errorf("%s; the client got %v, the handler has %v", response.Status, response.Header, kept)
	}
}

// TestDateMoves: the field keeps up with the clock on a connection that is asked again and again.
func TestDateMoves(t *testing.T) {
	t.Parallel()
	s := serveOn(t, mux.New(mux.WithLogger(discard), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
	}))), listen(t))
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	seen := make(map[string]bool)
	eventually(t, "three dates", func() bool {
		send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		seen[answer.Header.Get("Date")] = true
		return len(seen) == 3
	})
}
