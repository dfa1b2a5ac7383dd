package protocols

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// atOnce is how many tests run in parallel unless -parallel says otherwise. They wait most
// of the time, so there are more of them than processors.
const atOnce = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(atOnce); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// wireTime bounds every wait for the peer. No test is about this bound.
const wireTime = 20 * time.Second
