package grpcinterop

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(failures{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)})
	goleak.VerifyTestMain(m)
}

// running is the case that runs. There is one at a time.
var running atomic.Pointer[testing.T]

// failures is where the interop package reports a failed case: it logs a fatal
// message in the goroutine that it was called in. Here that ends the test which
// runs the case, before grpclog's own next step, which is to end the process.
type failures struct{ grpclog.LoggerV2 }

// Fatal fails the case that runs.
func (failures) Fatal(args ...any) { fail(fmt.Sprint(args...)) }

// Fatalln fails the case that runs.
func (failures) Fatalln(args ...any) { fail(fmt.Sprintln(args...)) }

// Fatalf fails the case that runs.
func (failures) Fatalf(format string, args ...any) { fail(fmt.Sprintf(format, args...)) }

func fail(message string) {
	t := running.Load()
	if t == nil {
		panic("grpcinterop: fatal message outside of a case: " + message)
	}
	t.Fatal(message)
}
