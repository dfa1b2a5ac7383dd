package h2spec

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// leakChecks is how often goleak, which waits nearly half a second each time,
// looks for goroutines that are left. net/http keeps a connection's goroutine for a
// second behind its last GOAWAY.
const leakChecks = 10

func TestMain(m *testing.M) {
	status := m.Run()
	if status == 0 {
		if err := leaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

func leaks() error {
	// A handshake that h2spec gives up leaves its reader behind, waiting for somebody to take its result.
	abandoned := goleak.IgnoreAnyFunction("github.com/summerwind/h2spec/spec.(*Conn).handshakeAsClient.func1")
	var err error
	for range leakChecks {
		if err = goleak.Find(abandoned); err == nil {
			break
		}
	}
	return err
}
