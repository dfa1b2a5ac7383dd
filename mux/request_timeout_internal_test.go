package mux

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// lentHeader is a ResponseWriter whose header is read by another goroutine from a status 1xx
// on, as net/http's HTTP/2 server may do where the client has reset the stream.
type lentHeader struct {
	http.ResponseWriter

	header  http.Header
	readers sync.WaitGroup
}

func (w *lentHeader) Header() http.Header { return w.header }

func (w *lentHeader) WriteHeader(status int) {
	if status < http.StatusOK {
		w.readers.Go(func() {
			for range 1000 {
				_ = w.header.Write(io.Discard)
			}
		})
	}
}

func (w *lentHeader) Write(p []byte) (int, error) { return len(p), nil }

// TestHeaderBehindInformation: behind a status 1xx nothing is written to the header of
// net/http that is there already. The race detector tells.
func TestHeaderBehindInformation(t *testing.T) {
	w := &lentHeader{header: make(http.Header)}
	ctx, cancel := context.WithCancel(t.Context())
	g := &guard{w: w, header: make(http.Header), client: ctx}
	h := g.as(w)
	h.Header().Add("Link", "</style.css>")
	h.Header().Add("Link", "</script.js>")
	h.WriteHeader(http.StatusEarlyHints)
	if _, err := io.WriteString(h, "hello"); err != nil {
		t.Error(err)
	}
	finishHandler(nil, g, new(http.Request), new(http.Request))
	w.readers.Wait()
	if got := w.header.Values("Link"); len(got) != 2 {
		t.Errorf("the header has %v", w.header)
	}
	h.WriteHeader(http.StatusEarlyHints)
	cancel() // The client resets the stream, beside the reader.
	h.Header().Set("Content-Type", "text/plain")
	finishHandler(nil, g, new(http.Request), new(http.Request))
	w.readers.Wait()
}

// TestNoSecondReader: a body that a handler may still read is not read behind it.
func TestNoSecondReader(t *testing.T) {
	for name, set := range map[string]func(*bodyWatch){
		"it reads":       func(b *bodyWatch) { b.reader.Store(readByHandler) },
		"its time is up": func(b *bodyWatch) { b.over.Store(true) },
	} {
		r := new(recorder2)
		r.length = minDiscard + 1
		rest := strings.NewReader("rest")
		r.body = body2{ReadCloser: io.NopCloser(rest), exchange: &r.exchange}
		set(&r.watch)
		r.discard(nil, time.Time{})
		if rest.Len() != len("rest") {
			t.Errorf("%s: the body was read", name)
		}
	}
}
