// Package logqueue keeps a log from holding up the program that writes it: lines go through
// a bounded queue to a [slog.Handler], which may be slow or hang.
package logqueue

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// maxLines is how many lines wait at most, besides those that the handler is being given,
// which are as many at most: the access log of a tenth of a second at 40,000 requests a
// second. A line takes less than 1 KB, of which 0.3 KB are kept for later ones.
const maxLines = 4096

// maxText bounds the text of the lines that wait, in bytes, which clients can make long: the
// path of a request. One line may be longer.
const maxText = 4 << 20

// maxWhole is how many lines wait at most with what is more than text: their context, and
// errors. A call's context holds its metadata and the messages that its handler has not read,
// and a TLS error the client's certificate.
const maxWhole = 64

// Handler is a [slog.Handler] that puts lines into a queue. One goroutine at a time takes
// them from there to another handler, in their order. It begins with a line and ends when
// the queue is empty, so a Handler needs no closing.
//
// Handle never blocks. A line that comes while the queue is full is dropped and counted, and
// so is one that the other handler fails or panics on. The log says how many were dropped in
// one line, as soon as it flows again. That line stands where they are missing or, if they
// were too long and shorter ones still fitted in, behind those.
//
// The other handler is called later than the line was logged: the record has the time of
// that, the context has its values but does not end, and values of attributes must not be
// modified any more. Of a line behind 64 others that wait, the queue keeps text alone: the
// other handler gets it with an empty context, and for an attribute that is an error another
// error with the same text. Enabled is asked directly.
type Handler struct {
	*queue

	next slog.Handler
}

var _ slog.Handler = (*Handler)(nil)

// queue is what a handler shares with those derived from it.
type queue struct {
	name string // of the log, in its notices
	// base is the handler without attributes and groups of derived loggers.
	base slog.Handler
	// notices has the lines about dropped ones; nil is this queue.
	notices *slog.Logger

	mu      sync.Mutex // guards what follows
	waiting []line
	text    int           // bytes of text in waiting
	spare   []line        // room for the next ones
	writing bool          // a goroutine takes lines
	idle    chan struct{} // closed when the goroutine ends; nil where nothing waits for it
	dropped uint64        // since the start
	unsaid  uint64        // of those, what no notice has told
	fault   error         // the last of them that the other handler has failed on
}

// line is one line of a log.
type line struct {
	ctx    context.Context //nolint:containedctx // Handlers read values from it.
	next   slog.Handler
	record slog.Record
}

// text returns how many bytes of text the line has. Errors count behind shorten.
func (l *line) text() int {
	n := len(l.record.Message)
	l.record.Attrs(func(a slog.Attr) bool {
		switch a.Value.Kind() {
		case slog.KindString:
			n += len(a.Value.String())
		case slog.KindAny:
			if err, ok := a.Value.Any().(textError); ok {
				n += len(err)
			}
		}
		return true
	})
	return n
}

// shorten takes from the line what is not text.
func (l *line) shorten() {
	l.ctx = context.Background()
	attrs := make([]slog.Attr, 0, l.record.NumAttrs())
	shortened := false
	l.record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.AnyValue(textError(textOf(err)))
			shortened = true
		}
		attrs = append(attrs, a)
		return true
	})
	if shortened {
		l.record = slog.NewRecord(l.record.Time, l.record.Level, l.record.Message, l.record.PC)
		l.record.AddAttrs(attrs...)
	}
}

// textOf returns the text of err, or what slog's handlers show of one whose Error panics, as
// that of a nil pointer may.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "<nil>"
		}
	}()
	return err.Error()
}

// textError is what is left of an error.
type textError string

// Error implements [error].
func (e textError) Error() string { return string(e) }

// New returns a handler that gives lines to next. A Handler is returned as it is. The name is
// that of the log, for the line about dropped ones, which goes to notices. Nil is the log
// itself.
func New(next slog.Handler, name string, notices *slog.Logger) *Handler {
	if h, ok := next.(*Handler); ok {
		return h
	}
	return &Handler{queue: &queue{name: name, base: next, notices: notices}, next: next}
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler]. It returns nil.
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	h.add(line{ctx: ctx, next: h.next, record: record})
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{queue: h.queue, next: h.next.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{queue: h.queue, next: h.next.WithGroup(name)}
}

// Dropped returns how many lines were dropped since the start.
func (h *Handler) Dropped() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped
}

// Flush waits until every line has been handled, or until ctx ends, and returns ctx's error
// then.
func (h *Handler) Flush(ctx context.Context) error {
	h.mu.Lock()
	if !h.writing {
		h.mu.Unlock()
		return nil
	}
	if h.idle == nil {
		h.idle = make(chan struct{})
	}
	idle := h.idle
	h.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add puts a line into the queue, or drops it.
func (q *queue) add(l line) {
	text := l.text()
	q.mu.Lock()
	if n := len(q.waiting); maxWhole <= n && n < maxLines {
		q.mu.Unlock() // An Error method may log.
		l.shorten()
		text = l.text()
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if len(q.waiting) >= maxLines || q.text > 0 && q.text+text > maxText {
		q.dropped++
		q.unsaid++
		return
	}
	q.waiting = append(q.waiting, l)
	q.text += text
	if !q.writing {
		q.writing = true
		go q.write()
	}
}

// write hands lines on until none is left.
func (q *queue) write() {
	for {
		lines, unsaid := q.take()
		if len(lines) == 0 {
			return
		}
		for i := range lines {
			if err := lines[i].handle(); err != nil {
				q.failed(err)
				unsaid++
			}
			lines[i] = line{} // The next ones may take long.
		}
		// Lines are dropped only while others wait, which none do behind take: none that is
		// missing comes later.
		if unsaid > 0 {
			q.say(unsaid)
		}
		q.giveBack(lines)
	}
}

// take empties the queue, and returns how many lines are missing behind the last one. The
// goroutine ends when there is none.
func (q *queue) take() (lines []line, unsaid uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		lines, q.waiting, q.spare, q.text = q.waiting, q.spare, nil, 0
		unsaid, q.unsaid = q.unsaid, 0
		return lines, unsaid
	}
	q.writing = false
	if q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
	return nil, 0
}

// giveBack keeps the room of lines that have been handled for the next ones.
func (q *queue) giveBack(lines []line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = lines[:0]
}

// failed counts a line that the other handler has failed on.
func (q *queue) failed(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped++
	q.fault = err
}

// say logs that lines are missing. Where that fails too, the next notice tells of them.
func (q *queue) say(missing uint64) {
	q.mu.Lock()
	fault := q.fault
	q.fault = nil
	q.mu.Unlock()
	attrs := []slog.Attr{slog.String(keyLog, q.name), slog.Uint64(keyCount, missing)}
	if fault != nil {
		attrs = append(attrs, slog.Any(keyErr, fault))
	}
	if q.notices != nil {
		q.notices.LogAttrs(context.Background(), slog.LevelWarn, messageDropped, attrs...)
		return
	}
	ctx := context.Background()
	if !q.base.Enabled(ctx, slog.LevelWarn) {
		return
	}
	l := line{ctx: ctx, next: q.base, record: slog.NewRecord(time.Now(), slog.LevelWarn, messageDropped, 0)}
	l.record.AddAttrs(attrs...)
	if err := l.handle(); err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.unsaid += missing
		q.fault = err
	}
}

// The notice and its keys.
const (
	messageDropped = "log lines dropped"

	keyLog   = "log"   // which log: server or access
	keyCount = "count" // of the lines that are missing
	keyErr   = "err"
)

// handle gives the line to its handler. A panic is an error.
func (l *line) handle() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("logqueue: the handler panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return l.next.Handle(context.WithoutCancel(l.ctx), l.record)
}
