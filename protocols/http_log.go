package protocols

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"path"
	"runtime"
	"slices"
	"strings"
)

// errorLog brings net/http's own messages into logger. A handler's panic stands at Error,
// and what a handler does wrong at Warn. The others are caused by a peer: they stand at
// Debug.
func errorLog(logger *slog.Logger) *log.Logger {
	return log.New(errorLogWriter{logger}, "", 0)
}

type errorLogWriter struct{ logger *slog.Logger }

func (w errorLogWriter) Write(p []byte) (int, error) {
	msg := strings.TrimSuffix(string(p), "\n")
	level := slog.LevelDebug
	switch {
	case strings.Contains(msg, ": panic serving "):
		level = slog.LevelError
	case hasAnyPrefix(msg, misuses):
		level = slog.LevelWarn
	case hasAnyPrefix(msg, callerMisuses):
		level, msg = slog.LevelWarn, withCaller(msg)
	}
	w.logger.Log(context.Background(), level, msg)
	return len(p), nil
}

// These are how net/http's messages begin about what a handler does wrong, and those of
// them that end with the name and the place of the handler's function.
var (
	misuses = []string{
		"http: invalid Content-Length of ",
		"http: WriteHeader called with both Transfer-Encoding of ",
		"ignoring invalid trailer ",
	}
	callerMisuses = []string{
		"http: superfluous response.WriteHeader call from ",
		"http: response.WriteHeader on hijacked connection from ",
		"http: response.Write on hijacked connection from ",
	}
)

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// withCaller puts the handler's function into a message of net/http. net/http names the
// first function outside of its own package on the stack, which is a method of one of this
// module's ResponseWriters. It logs on the goroutine of the call, so the stack is still
// there.
func withCaller(msg string) string {
	var pcs [maxFrames]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(ownFrames, pcs[:])])
	var caller runtime.Frame
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case isWriterMethod(f.Function):
			caller = runtime.Frame{} // The call came from further out.
		case caller.Function == "" && !hasAnyPrefix(f.Function, loggers):
			caller = f
		}
	}
	said, _, _ := strings.Cut(msg, " from ")
	return fmt.Sprintf("%s from %s (%s:%d)", said, caller.Function, path.Base(caller.File), caller.Line)
}

// maxFrames is how deep withCaller looks. net/http looks at 16 frames; this is room for
// those of package log and of this module as well. ownFrames leaves out the innermost:
// runtime.Callers, withCaller and errorLogWriter.Write.
const (
	maxFrames = 64
	ownFrames = 3
)

// loggers are how the functions begin that stand between withCaller and a handler.
var loggers = []string{"log.", "net/http."}

// isWriterMethod reports whether a function is a method of a ResponseWriter of this module.
func isWriterMethod(function string) bool {
	const module = "github.com/muxserve/muxserve/"
	i := strings.LastIndexByte(function, '.')
	return strings.HasPrefix(function, module) && strings.Contains(function, ".(*") &&
		slices.Contains([]string{"WriteHeader", "Write", "WriteString", "ReadFrom", "Flush", "FlushError"}, function[i+1:])
}
