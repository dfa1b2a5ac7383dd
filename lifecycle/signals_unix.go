//go:build unix

package lifecycle

import (
	"os"
	"syscall"
)

var (
	exitSignals    = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	reloadSignals  = []os.Signal{syscall.SIGHUP}
	upgradeSignals = []os.Signal{syscall.SIGUSR2}
	pipeSignals    = []os.Signal{syscall.SIGPIPE}
)
