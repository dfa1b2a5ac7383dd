package logqueue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a handler that keeps what it is given. It waits at the gate before each line.
type recorder struct {
	slog.Handler // Enabled

	gate chan struct{} // closed, or nil: open
	fail func(slog.Record) error

	mu    sync.Mutex
	lines []slog.Record
	ctxs  []context.Context
}

func newRecorder() *recorder {
	return &recorder{Handler: slog.NewTextHandler(new(bytes.Buffer), nil), gate: make(chan struct{})}
}

func (r *recorder) Handle(ctx context.Context, record slog.Record) error {
	if r.gate != nil {
		<-r.gate
	}
	if r.fail != nil {
		if err := r.fail(record); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.ctxs = append(r.lines, record), append(r.ctxs, ctx)
	return nil
}

func (r *recorder) messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, l := range r.lines {
		all = append(all, l.Message)
	}
	return all
}

// attrs returns the attributes of the last line with a message.
func (r *recorder) attrs(message string) map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	values := make(map[string]any)
	for _, l := range r.lines {
		if l.Message == message {
			l.Attrs(func(a slog.Attr) bool {
				values[a.Key] = a.Value.Any()
				return true
			})
		}
	}
	return values
}

func flush(t *testing.T, h *Handler) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestSlogContract(t *testing.T) {
	t.Parallel()
	var out *bytes.Buffer
	var h *Handler
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out = new(bytes.Buffer)
		h = New(slog.NewJSONHandler(out, nil), "x", nil)
		return h
	}, func(t *testing.T) map[string]any {
		flush(t, h)
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	})
}

// TestNothingWaits: while the handler hangs, logging returns at once. Lines keep their order,
// their time and the values of their context, which does not end. Those for which there is no
// room are missing at one place, where one line says so.
func TestNothingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := New(r, "server", nil)
		log := slog.New(h)
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		start := time.Now()
		log.InfoContext(ctx, "first")
		synctest.Wait() // The handler has it, and hangs.
		cancel()
		time.Sleep(time.Hour)
		for range maxLines {
			log.Info("waiting")
		}
		const tooMany = 7
		for range tooMany {
			log.Info("too many")
		}
		if got := h.Dropped(); got != tooMany {
			t.Errorf("%d lines dropped, want %d", got, tooMany)
		}
		bounded, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := h.Flush(bounded); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush of a log that hangs: %v", err)
		}
		close(r.gate)
		flush(t, h)
		log.Info("later")
		flush(t, h)

		want := []string{"first"}
		for range maxLines {
			want = append(want, "waiting")
		}
		want = append(want, messageDropped, "later")
		if diff := cmp.Diff(want, r.messages()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]any{keyLog: "server", keyCount: uint64(tooMany)}, r.attrs(messageDropped)); diff != "" {
			t.Errorf("the line about dropped ones (-want +got):\n%s", diff)
		}
		if !r.lines[0].Time.Equal(start) || !r.lines[1].Time.Equal(start.Add(time.Hour)) {
			t.Errorf("times %v and %v, want those of the calls", r.lines[0].Time, r.lines[1].Time)
		}
		if r.ctxs[0].Value(key{}) != "value" || r.ctxs[0].Err() != nil {
			t.Errorf("the handler's context has %v and %v", r.ctxs[0].Value(key{}), r.ctxs[0].Err())
		}
	})
}

// TestLongLines: lines wait that have so much text together, or one that has more.
func TestLongLines(t *testing.T) {
	for _, test := range []struct{ text, want int }{{maxText / 4, 4}, {maxText/4 + 1, 3}, {2 * maxText, 1}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			h := New(r, "server", nil)
			log := slog.New(h)
			log.Info("first")
			synctest.Wait() // The handler has it, and hangs.
			for range 6 {
				log.Info("", "path", strings.Repeat("p", test.text))
			}
			if got, want := h.Dropped(), uint64(6-test.want); got != want {
				t.Errorf("lines of %d bytes: %d dropped, want %d", test.text, got, want)
			}
			close(r.gate)
			flush(t, h)
			log.Info("", "path", strings.Repeat("p", test.text))
			flush(t, h)
			if got := h.Dropped(); got != uint64(6-test.want) {
				t.Errorf("one more line of %d bytes was dropped", test.text)
			}
		})
	}
}

// heldError is an error that holds something large.
type heldError struct{ held *[1 << 16]byte }

func (*heldError) Error() string { return "failed" }

// TestLinesAreText: while the handler hangs, only so many lines keep their contexts and
// errors. The others have their text.
func TestLinesAreText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := New(r, "server", nil)
		log := slog.New(h)
		type key struct{}
		var contexts, errs []weak.Pointer[[1 << 16]byte]
		call := func() {
			held := [2]*[1 << 16]byte{new([1 << 16]byte), new([1 << 16]byte)}
			contexts, errs = append(contexts, weak.Make(held[0])), append(errs, weak.Make(held[1]))
			log.LogAttrs(context.WithValue(t.Context(), key{}, held[0]), slog.LevelInfo, "call",
				slog.String("a", "1"), slog.Any("err", &heldError{held[1]}), slog.Int("b", 2))
		}
		left := func(held []weak.Pointer[[1 << 16]byte]) (n int) {
			for _, p := range held {
				if p.Value() != nil {
					n++
				}
			}
			return n
		}
		const more = 200
		call()
		synctest.Wait() // The handler has it, and hangs.
		for range maxWhole + more {
			call()
		}
		runtime.GC()
		if c, e := left(contexts), left(errs); c != 1+maxWhole || e != 1+maxWhole {
			t.Errorf("%d contexts and %d errors are kept, want %d", c, e, 1+maxWhole)
		}
		close(r.gate)
		flush(t, h)
		if len(r.lines) != 1+maxWhole+more {
			t.Fatalf("%d lines", len(r.lines))
		}
		for i, l := range r.lines {
			whole := i < 1+maxWhole
			if got := r.ctxs[i].Value(key{}) != nil; got != whole {
				t.Errorf("line %d has its context: %v", i, got)
			}
			var values []string
			l.Attrs(func(a slog.Attr) bool {
				_, isError := a.Value.Any().(error)
				_, isWhole := a.Value.Any().(*heldError)
				values = append(values, fmt.Sprint(a, isError, isWhole))
				return true
			})
			want := []string{"a=1 false false", fmt.Sprint("err=failed true ", whole), "b=2 false false"}
			if diff := cmp.Diff(want, values); diff != "" {
				t.Errorf("line %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

// TestHandledLinesAreLetGo: the queue keeps nothing of lines that the handler has, while the
// handler hangs with a later one.
func TestHandledLinesAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := New(slogWithoutMemory{r}, "server", nil)
		log := slog.New(h)
		type key struct{}
		log.Info("first")
		synctest.Wait() // The handler has it, and hangs.
		held := new([1 << 16]byte)
		context1 := weak.Make(held)
		log.InfoContext(context.WithValue(t.Context(), key{}, held), "second")
		log.Info("third")
		r.gate <- struct{}{}
		r.gate <- struct{}{}
		synctest.Wait() // The handler hangs with the third.
		runtime.GC()
		if context1.Value() != nil {
			t.Error("the context of a line that was handled is kept")
		}
		close(r.gate)
		flush(t, h)
	})
}

// slogWithoutMemory is a recorder that keeps nothing.
type slogWithoutMemory struct{ *recorder }

func (s slogWithoutMemory) Handle(context.Context, slog.Record) error {
	<-s.gate
	return nil
}

// TestLongErrors: the text of errors counts as other text.
func TestLongErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := New(r, "server", nil)
		log := slog.New(h)
		for range 1 + maxWhole {
			log.Info("short")
			synctest.Wait() // The handler has the first, and hangs.
		}
		for range 6 {
			log.Info("", "err", errors.New(strings.Repeat("e", maxText/4)))
		}
		if got := h.Dropped(); got != 3 {
			t.Errorf("%d dropped, want 3", got)
		}
		close(r.gate)
		flush(t, h)
	})
}

// nilError is an error whose nil pointer has no text.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// TestErrorsWithoutText: an error whose text cannot be asked for stops nobody who logs it.
func TestErrorsWithoutText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := New(r, "server", nil)
		log := slog.New(h)
		for range 2 * maxWhole {
			log.Info("", "err", (*nilError)(nil))
			synctest.Wait()
		}
		close(r.gate)
		flush(t, h)
	})
}

// TestFaultyHandler: lines on which the handler fails or panics are counted, and the next
// line that it takes is followed by one that says so.
func TestFaultyHandler(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() error{
		"error": func() error { return errors.New("disk full") },
		"panic": func() error { panic("disk full") },
	} {
		r := newRecorder()
		close(r.gate)
		faulty := true
		r.fail = func(slog.Record) error {
			if faulty {
				return fault()
			}
			return nil
		}
		h := New(r, "server", nil)
		log := slog.New(h)
		for range 3 {
			log.Info("lost")
			flush(t, h)
		}
		faulty = false
		log.Info("fine")
		flush(t, h)
		log.Info("as well")
		flush(t, h)
		if diff := cmp.Diff([]string{"fine", messageDropped, "as well"}, r.messages()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		attrs := r.attrs(messageDropped)
		err, _ := attrs[keyErr].(error)
		if attrs[keyCount] != uint64(3) || err == nil || h.Dropped() != 3 {
			t.Errorf("%s: %v, and %d dropped", name, attrs, h.Dropped())
		}
	}
}

// TestNoticeElsewhere: what the access log drops is told by the server's log.
func TestNoticeElsewhere(t *testing.T) {
	t.Parallel()
	server, access := newRecorder(), newRecorder()
	close(server.gate)
	s := New(server, "server", nil)
	a := New(access, "access", slog.New(s))
	for range 2*maxLines + 1 { // The handler has some of them at most, and the rest waits.
		slog.New(a).Info("request")
	}
	close(access.gate)
	flush(t, a)
	flush(t, s)
	dropped := a.Dropped()
	if dropped == 0 || len(access.messages()) != 2*maxLines+1-int(dropped) {
		t.Errorf("%d dropped, and %d handled", dropped, len(access.messages()))
	}
	if diff := cmp.Diff(map[string]any{keyLog: "access", keyCount: dropped}, server.attrs(messageDropped)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOneQueue: a handler that has a queue gets no second one.
func TestOneQueue(t *testing.T) {
	t.Parallel()
	h := New(slog.DiscardHandler, "x", nil)
	derived := slog.New(h).With("a", 1).Handler()
	if got := New(derived, "y", nil); got != derived {
		t.Error("a second queue")
	}
}

// BenchmarkLog compares a line of the access log with and without the queue.
func BenchmarkLog(b *testing.B) {
	attrs := []slog.Attr{
		slog.Uint64("conn_id", 1), slog.String("remote_addr", "127.0.0.1:1234"), slog.String("request_id", "1-1"),
		slog.String("protocol", "http1"), slog.String("method", "GET"), slog.String("path", "/echo"),
		slog.Int("code", 200), slog.Float64("duration_seconds", 0.000123), slog.Int64("bytes_written", 5),
	}
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	queued := New(slog.NewJSONHandler(out, nil), "access", nil)
	for name, log := range map[string]*slog.Logger{
		"direct": slog.New(slog.NewJSONHandler(out, nil)),
		"queued": slog.New(queued),
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				log.LogAttrs(b.Context(), slog.LevelInfo, "request", attrs...)
				if i%(maxLines/2) == 0 { // It is as fast as the handler; nothing is dropped.
					_ = queued.Flush(b.Context())
				}
			}
			_ = queued.Flush(b.Context())
			if n := queued.Dropped(); n > 0 {
				b.Errorf("%d lines dropped", n)
			}
		})
	}
}
