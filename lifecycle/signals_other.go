//go:build !unix

package lifecycle

import (
	"os"
	"syscall"
)

var (
	exitSignals    = []os.Signal{os.Interrupt, syscall.SIGTERM}
	reloadSignals  []os.Signal
	upgradeSignals []os.Signal
	pipeSignals    []os.Signal
)
