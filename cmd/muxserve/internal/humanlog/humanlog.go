// Package humanlog makes handlers of logs for people at a terminal and for programs.
package humanlog

import (
	"bytes"
	"context"
	"fmt"
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
	Text = "text" // columns on a terminal, key=value elsewhere
	JSON = "json" // one JSON object a line
)

// Options configure a handler. The zero value writes JSON from Info on.
type Options struct {
	// Format is Auto, Text or JSON; empty is Auto.
	Format string
	// Level is the lowest level that is written; nil is Info. A [slog.LevelVar] may be
	// changed while the handler is in use.
	Level slog.Leveler
	// Terminal says that the output is a terminal.
	Terminal bool
	// Color colours the columns.
	Color bool
}

// OptionsFor returns the options of a handler that writes to w. It uses colours on a
// terminal, unless NO_COLOR is set (no-color.org) or TERM is dumb.
func OptionsFor(w io.Writer, format string, level slog.Leveler, getenv func(string) string) Options {
	terminal := IsTerminal(w)
	return Options{
		Format: format, Level: level, Terminal: terminal,
		Color: terminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
	}
}

// InJSON reports whether the handler writes JSON.
func (o Options) InJSON() bool { return o.Format == JSON || o.Format != Text && !o.Terminal }

// IsTerminal reports whether w is a terminal: a character device other than the null device.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// New returns a handler that writes to w, one call of Write for each line.
func New(w io.Writer, o Options) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level}
	switch {
	case o.InJSON():
		return slog.NewJSONHandler(w, options)
	case !o.Terminal:
		return slog.NewTextHandler(w, options)
	default:
		return newHandler(w, o)
	}
}

// handler writes time, level and message in columns. A [slog.TextHandler] quotes, groups
// and writes the attributes.
type handler struct {
	*output

	attrs slog.Handler
}

// output is shared by a handler and the handlers derived from it.
type output struct {
	color bool

	mu  sync.Mutex // guards what follows
	w   io.Writer
	buf bytes.Buffer // the line under construction
}

func newHandler(w io.Writer, o Options) *handler {
	out := &output{color: o.Color, w: w}
	return &handler{output: out, attrs: slog.NewTextHandler(&out.buf, &slog.HandlerOptions{
		Level: o.Level,
		// The columns have the level and the message already. The caller's own attribute called
		// level stays unless its value is a slog.Level too. One called msg is dropped.
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

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.attrs.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{output: h.output, attrs: h.attrs.WithAttrs(attrs)}
}

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
	h.paint(levelColor(r.Level), fmt.Sprintf("%-5v", r.Level))
	h.buf.WriteByte(' ')
	h.paint(bold, Printable(r.Message))
	r.Time = time.Time{} // Its column has it.
	at := h.buf.Len() + 1
	h.buf.WriteByte(' ')
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	if h.buf.Len() == at+1 { // There are no attributes, only the end of the line.
		h.buf.Truncate(at - 1)
		h.buf.WriteByte('\n')
	}
	_, err := h.w.Write(h.buf.Bytes())
	return err
}

// Printable returns a text on one line and without control sequences of terminals.
func Printable(message string) string {
	if strings.ContainsFunc(message, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(message)
	}
	return message
}

// The colours are parameters of ECMA-48's SGR.
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

// paint adds a text to the line, in a colour where colours are on.
func (o *output) paint(color, text string) {
	if o.color {
		text = "\x1b[" + color + "m" + text + "\x1b[0m"
	}
	o.buf.WriteString(text)
}
