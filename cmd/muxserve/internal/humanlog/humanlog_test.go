package humanlog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logged returns the line of a handler for one record at a fixed time.
func logged(t *testing.T, o Options, level slog.Level, message string, log func(slog.Handler) slog.Handler, attrs ...slog.Attr) string {
	t.Helper()
	var out bytes.Buffer
	h := New(&out, o)
	if log != nil {
		h = log(h)
	}
	r := slog.NewRecord(time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), level, message, 0)
	r.AddAttrs(attrs...)
	if err := h.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLines(t *testing.T) {
	t.Parallel()
	terminal := Options{Format: Text, Terminal: true}
	err := slog.Any("err", errors.New("no such file"))
	tests := []struct {
		name    string
		options Options
		level   slog.Level
		message string
		with    func(slog.Handler) slog.Handler
		attrs   []slog.Attr
		want    string
	}{
		{"plain", terminal, slog.LevelInfo, "ready", nil, nil, "03:04:05.006 INFO  ready\n"},
		{"attributes", terminal, slog.LevelWarn, "no", nil, []slog.Attr{err, slog.Int("n", 1)}, "03:04:05.006 WARN  no err=\"no such file\" n=1\n"},
		{
			"groups", terminal, slog.LevelError, "no",
			func(h slog.Handler) slog.Handler {
				return h.WithAttrs([]slog.Attr{slog.String("a", "b")}).WithGroup("g")
			},
			[]slog.Attr{slog.String("msg", "d")},
			"03:04:05.006 ERROR no a=b g.msg=d\n",
		},
		{"level as a text", terminal, slog.LevelInfo, "set", nil, []slog.Attr{slog.String("level", "debug")}, "03:04:05.006 INFO  set level=debug\n"},
		{"what a terminal obeys", terminal, slog.LevelInfo, "a\x1b[2Jb\n", nil, []slog.Attr{slog.String("k", "\x1b[2J")}, `03:04:05.006 INFO  "a\x1b[2Jb\n" k="\x1b[2J"` + "\n"},
		{
			"colours", Options{Terminal: true, Color: true}, slog.LevelError, "no", nil, []slog.Attr{slog.Int("n", 1)},
			"\x1b[2m03:04:05.006\x1b[0m \x1b[1;31mERROR\x1b[0m \x1b[1mno\x1b[0m n=1\n",
		},
		{"text for programs", Options{Format: Text}, slog.LevelInfo, "ready", nil, nil, "time=2026-01-02T03:04:05.006Z level=INFO msg=ready\n"},
		{"auto for programs", Options{}, slog.LevelInfo, "ready", nil, nil, `{"time":"2026-01-02T03:04:05.006Z","level":"INFO","msg":"ready"}` + "\n"},
		{"JSON on a terminal", Options{Format: JSON, Terminal: true}, slog.LevelInfo, "ready", nil, nil, `{"time":"2026-01-02T03:04:05.006Z","level":"INFO","msg":"ready"}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := logged(t, tt.options, tt.level, tt.message, tt.with, tt.attrs...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLevelWhileItRuns(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Format: JSON}, {Format: Text}, {Format: Text, Terminal: true}} {
		var out bytes.Buffer
		var level slog.LevelVar
		o.Level = &level
		logger := slog.New(New(&out, o))
		logger.Debug("one")
		level.Set(slog.LevelDebug)
		logger.With("a", 1).Debug("two")
		level.Set(slog.LevelError)
		logger.WithGroup("g").Warn("three")
		if text := out.String(); !strings.Contains(text, "two") || strings.Count(text, "\n") != 1 {
			t.Errorf("%+v wrote %q", o, text)
		}
	}
}

// lines counts the calls of Write. Each must have one line.
type lines struct {
	mu    sync.Mutex
	count int
	torn  []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if bytes.Count(b, []byte("\n")) != 1 || !bytes.HasSuffix(b, []byte(" k=v\n")) {
		l.torn = append(l.torn, string(b))
	}
	return len(b), nil
}

func TestLinesOfManyAtOnce(t *testing.T) {
	t.Parallel()
	var out lines
	logger := slog.New(New(&out, Options{Format: Text, Terminal: true}))
	var all sync.WaitGroup
	const writers, each = 8, 100
	for range writers {
		all.Go(func() {
			own := logger.With("k", "v")
			for range each {
				own.InfoContext(context.Background(), "line")
			}
		})
	}
	all.Wait()
	if out.count != writers*each || out.torn != nil {
		t.Errorf("%d lines, want %d; torn: %q", out.count, writers*each, out.torn)
	}
}

func TestOptionsFor(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	device, err := os.Open("/dev/zero")
	if err != nil {
		t.Skip("no character device that could stand for a terminal: ", err)
	}
	t.Cleanup(func() { device.Close() })
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	none := map[string]string{}
	tests := []struct {
		name string
		out  *os.File
		env  map[string]string
		want Options
	}{
		{"null device", null, none, Options{}},
		{"character device", device, none, Options{Terminal: true, Color: true}},
		{"NO_COLOR", device, map[string]string{"NO_COLOR": "1"}, Options{Terminal: true}},
		{"dumb terminal", device, map[string]string{"TERM": "dumb"}, Options{Terminal: true}},
		{"file", file, none, Options{}},
	}
	for _, tt := range tests {
		got := OptionsFor(tt.out, "", nil, func(name string) string { return tt.env[name] })
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if IsTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}
