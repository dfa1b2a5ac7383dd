package mux

import (
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/protocols"
)

// TestPartsOfResponse: whatever a handler does to its response over HTTP/2 counts as parts
// that have gone through, of little more than a frame at most, and as its bytes.
func TestPartsOfResponse(t *testing.T) {
	const all = 2*writeStep + responseBuffer + 1
	long := strings.Repeat("x", all)
	for name, step := range map[string]struct {
		do   func(r *recorder2)
		want uint64
	}{
		"nothing":     {func(*recorder2) {}, 0},
		"write":       {func(r *recorder2) { _, _ = r.Write([]byte("x")) }, 1 + 1},
		"long write":  {func(r *recorder2) { _, _ = r.Write([]byte(long)) }, all + 3},
		"string":      {func(r *recorder2) { _, _ = r.WriteString("x") }, 1 + 1},
		"long string": {func(r *recorder2) { _, _ = r.WriteString(long) }, all + 3},
		"copy":        {func(r *recorder2) { _, _ = io.Copy(r, strings.NewReader(long)) }, all + 3},
		"flush":       {func(r *recorder2) { r.Flush() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := &recorder2{recorder: recorder{ResponseWriter: w}}
			step.do(r)
			if got := r.written.Load(); got != step.want || r.writing.Load() {
				t.Errorf("%d parts, want %d; waiting %v", got, step.want, r.writing.Load())
			}
			if n, err := io.Copy(io.Discard, w.Body); err != nil || n != r.sent {
				t.Errorf("%d bytes have arrived of %d, %v", n, r.sent, err)
			}
		})
	}
}

// TestNothingIsAwaitedBehindTheEnd: behind the handler the server waits for what is left of
// a body, and for nothing of one that was read to its end, however long the response takes.
func TestNothingIsAwaitedBehindTheEnd(t *testing.T) {
	for name, read := range map[string]int{"read to its end": 10, "read in part": 5} {
		var b bodyWatch1
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789"))
		b.watch(r)
		var err error
		for n := 0; n < read && err == nil; n++ {
			_, err = b.read(r.Body, make([]byte, 1))
		}
		if read == 10 {
			_, err = b.read(r.Body, make([]byte, 1))
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		b.handled()
		if isBound, want := b.isBound(), read < 10; isBound != want {
			t.Errorf("%s: bound %t, want %t", name, isBound, want)
		}
	}
}

// TestLateReads: a Read that a handler has left in a goroutine changes nothing for the server,
// which waits for the rest of the body behind the handler, and for nothing behind the request.
func TestLateReads(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	var b bodyWatch1
	b.watch(httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789")))
	want := func(what string, bound bool) {
		t.Helper()
		if b.isBound() != bound {
			t.Errorf("%s: bound %t", what, !bound)
		}
	}
	want("before the first read", false)
	read := make(chan error)
	go func() {
		_, err := b.read(near, make([]byte, 1))
		read <- err
	}()
	for !b.isBound() {
		runtime.Gosched()
	}
	if _, err := b.read(strings.NewReader("1"), make([]byte, 1)); err != nil {
		t.Error(err)
	}
	want("beside a second read", true)
	b.handled()
	if _, err := far.Write([]byte("0")); err != nil {
		t.Error(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	want("behind a handler whose read has ended", true)
	b.finish()
	want("behind the request", false)
	if _, err := b.read(strings.NewReader("1"), make([]byte, 1)); err != nil {
		t.Error(err)
	}
	want("behind a late read", false)
}

// A step calls what it is to do when it is read or written to.
type step func()

func (s step) Read([]byte) (int, error) {
	s()
	return 0, io.EOF
}

func (s step) Write(p []byte) (int, error) {
	s()
	return len(p), nil
}

func (step) Header() http.Header { return make(http.Header) }
func (step) WriteHeader(int)     {}

// TestWritesMayDrain: net/http may read the rest of a body while the handler writes, and not
// while a copy waits for its source.
func TestWritesMayDrain(t *testing.T) {
	var b bodyWatch
	b.watch(httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789")))
	look := func(what string, want bool) step {
		return func() {
			if got := b.mayDrain(); got != want {
				t.Errorf("%s: %t, want %t", what, got, want)
			}
		}
	}
	rec := &recorder1{recorder: recorder{ResponseWriter: look("a write", true), watched: &b}}
	_, _ = rec.Write([]byte("x"))
	_, _ = rec.WriteString("x")
	_, _ = io.Copy(rec, strings.NewReader("x"))
	_, _ = io.Copy(rec, look("a source", false))
	look("behind all of them", false)()
	b.ended.Store(true)
	rec.ResponseWriter = look("a body that has ended", false)
	_, _ = rec.Write([]byte("x"))
}

// TestAcceptedIsOnItsOwn: the sweep looks at a request for a WebSocket until that is accepted.
func TestAcceptedIsOnItsOwn(t *testing.T) {
	for code, listed := range map[int]bool{http.StatusMethodNotAllowed: true, http.StatusOK: false} {
		var l exchanges
		w := httptest.NewRecorder()
		rec := &recorder2{recorder: recorder{ResponseWriter: w}}
		rec.begin(&l, w, httptest.NewRequest(http.MethodConnect, "/", nil))
		rec.accepted = func() { rec.end(&l) }
		rec.WriteHeader(code)
		if l.first != nil != listed {
			t.Errorf("%d: listed %t", code, !listed)
		}
		rec.end(&l)
		if l.first != nil {
			t.Errorf("%d: still listed", code)
		}
	}
}

// TestSlowBodyIsReportedOnce: the sweep reports a slow body once, however long its handler takes
// to see the error.
func TestSlowBodyIsReportedOnce(t *testing.T) {
	var l exchanges
	w := httptest.NewRecorder()
	rec := &recorder2{recorder: recorder{ResponseWriter: w}}
	rec.begin(&l, w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789")))
	defer rec.end(&l)
	defer rec.watch.exit(rec.watch.enter())
	reported := 0
	for range 3 {
		n, _ := l.sweep(movement{elapsed: time.Second}, &protocols.ProgressConfig{ProgressTimeout: time.Second})
		reported += n.bodies
	}
	if reported != 1 {
		t.Errorf("reported %d times", reported)
	}
}

// TestStreamsInTurn: of many streams on a slow link each moves seldom, which is not its fault.
// When nothing moves all are ended, behind the time that the client may need for what it was
// sent, and may be reading.
func TestStreamsInTurn(t *testing.T) {
	const streams, sweeps, perStream = 10, 100, 6554 // All may take 4 s to read.
	limits := &protocols.ProgressConfig{MinBodyRate: 100, BodyGrace: 3 * time.Second, ProgressTimeout: 3 * time.Second}
	begin := func(r *recorder2) { r.watch.enter() }
	moves := func(r *recorder2) { r.watch.received.Add(110) }
	count := func(n ended) int { return n.bodies }
	for name, test := range map[string]struct {
		begin  func(*recorder2)
		moves  func(*recorder2)
		count  func(ended) int
		unread uint64
		least  int // sweeps until the end
	}{
		"bodies":                              {begin, moves, count, 0, 3},
		"bodies behind a response":            {begin, moves, count, 4 * 16 << 10, 3 + 4},
		"bodies whose client reads no answer": {begin, moves, count, math.MaxUint64, 3 + 300},
		"responses": {
			func(r *recorder2) { r.writing.Store(true) },
			func(r *recorder2) { r.written.Add(perStream / (sweeps / streams)) },
			func(n ended) int { return n.responses },
			0, 3 + 4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var l exchanges
			var all []*recorder2
			for range streams {
				w := httptest.NewRecorder()
				rec := &recorder2{recorder: recorder{ResponseWriter: w}}
				rec.begin(&l, w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789")))
				test.begin(rec)
				all = append(all, rec)
			}
			m := movement{elapsed: time.Second}
			for i := range sweeps {
				test.moves(all[i%streams])
				m.received += 2 * leastRate
				m.sent += 2 * leastRate
				if n, _ := l.sweep(m, limits); n != (ended{}) {
					t.Fatalf("sweep %d ends %v", i, n)
				}
			}
			stops := 0
			m.unread = test.unread
			for n := 0; n == 0; stops++ {
				m.received += leastRate / 2 // PINGs, say.
				m.sent += leastRate / 2
				e, _ := l.sweep(m, limits)
				n = test.count(e)
			}
			if stops > test.least || stops < test.least-1 {
				t.Errorf("%d sweeps until the end, want %d, or one less", stops, test.least)
			}
		})
	}
}
