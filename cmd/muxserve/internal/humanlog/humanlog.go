// Package humanlog makes loggers: for people who read along on a terminal, and
// for programs that read later.
package humanlog

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The formats of a log.
const (
	Auto = "auto" // Text on a terminal, JSON elsewhere
	Text = "text" // lines for people on a terminal, key=value elsewhere
	JSON = "json" // one JSON object a line
)

// Options say how a logger writes. The zero value is [Auto] for what is no
// terminal: JSON from Info on.
type Options struct {
	// Format is Auto, Text or JSON; empty is Auto.
	Format string
	// Level is the least that is written; nil is Info. A [slog.LevelVar] may be
	// changed while the logger is in use.
	Level slog.Leveler
	// Terminal says that people read along.
	Terminal bool
	// Color colours the lines for people.
	Color bool
}

// OptionsFor returns the options for what writes to w: colours on a terminal,
// unless the environment variable NO_COLOR is set (no-color.org) or the terminal is a dumb one.
func OptionsFor(w io.Writer, format string, level slog.Leveler, getenv func(string) string) Options {
	terminal := IsTerminal(w)
	return Options{
		Format: format, Level: level, Terminal: terminal,
		Color: terminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
	}
}

// IsTerminal reports whether w is a character device. Beside terminals it takes
// /dev/null for one, where nobody sees the difference.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// New returns a logger that writes to w, one call of Write for each line.
func New(w io.Writer, o Options) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.Level}
	switch {
	case o.Format == JSON, o.Format != Text && !o.Terminal:
		return slog.New(slog.NewJSONHandler(w, options))
	case !o.Terminal:
		return slog.New(slog.NewTextHandler(w, options))
	default:
		return slog.New(newHandler(w, o))
	}
}

// handler writes time, level and message in columns, and leaves the attributes to
// a [slog.TextHandler], which knows how to quote and to group them.
type handler struct {
	*output

	attrs slog.Handler
}

// output is what a handler shares with those that come of it.
type output struct {
	color bool

	mu  sync.Mutex // guards what follows
	w   io.Writer
	buf bytes.Buffer // the line that is being made
}

func newHandler(w io.Writer, o Options) *handler {
	out := &output{color: o.Color, w: w}
	return &handler{output: out, attrs: slog.NewTextHandler(&out.buf, &slog.HandlerOptions{
		Level: o.Level,
		// The columns have the level and the message already. An attribute may have their names, but not both at
		// once the name and the type of the level, and an attribute called msg is shown nowhere.
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			_, isLevel := a.Value.Any().(slog.Level)
			if len(groups) == 0 && (a.Key == slog.MessageKey || a.Key == slog.LevelKey && isLevel) {
				return slog.Attr{}
			}
			return a
		},
	})}
}

var _ slog.Handler = (*handler)(nil)

// Enabled reports whether a record of the level is written.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.attrs.Enabled(ctx, level)
}

// WithAttrs returns a handler that writes attrs in every line.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{output: h.output, attrs: h.attrs.WithAttrs(attrs)}
}

// WithGroup returns a handler that puts name before the keys that follow.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{output: h.output, attrs: h.attrs.WithGroup(name)}
}

// Handle writes one line.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
	if !r.Time.IsZero() {
		h.paint(dim, r.Time.Format("15:04:05.000"))
		h.buf.WriteByte(' ')
	}
	h.paint(levelColor(r.Level), pad(r.Level.String(), levelWidth))
	h.buf.WriteByte(' ')
	message := printable(r.Message)
	h.paint(bold, message)
	r.Time = time.Time{} // It stands in its column.
	at := h.buf.Len() + 1
	h.buf.WriteByte(' ')
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	if h.buf.Len() == at+1 { // No attribute, but the end of the line.
		h.buf.Truncate(at - 1)
		h.buf.WriteByte('\n')
	}
	_, err := h.w.Write(h.buf.Bytes())
	return err
}

// printable returns a message on one line, without what a terminal would obey.
func printable(message string) string {
	for _, r := range message {
		if !strconv.IsPrint(r) {
			return strconv.Quote(message)
		}
	}
	return message
}

// levelWidth is that of the longest name of a level.
const levelWidth = len("ERROR")

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-len(s))) }

// The colours, as parameters of ECMA-48's SGR.
const (
	dim    = "2"
	bold   = "1"
	red    = "1;31"
	yellow = "33"
	green  = "32"
	blue   = "34"
)

func levelColor(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return red
	case l >= slog.LevelWarn:
		return yellow
	case l >= slog.LevelInfo:
		return green
	default:
		return blue
	}
}

// paint adds a text to the line, coloured where colours are wanted.
func (o *output) paint(color, text string) {
	if !o.color {
		o.buf.WriteString(text)
		return
	}
	o.buf.WriteString("\x1b[" + color + "m" + text + "\x1b[0m")
}
