package connect

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// long runs every case. Without it the calls of connect-go are a fixed share of them.
var long = flag.Bool("long", false, "run all cases of the suite, which takes some minutes")

// TestMain is a server under test where the runner starts it with the name of a form.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1][0] != '-' {
		form := os.Args[1]
		if err := serve(form); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", form, err)
			recordFault(form, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
