package upgrade

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// roleEnv makes a re-executed test binary the new process of an upgrade.
const roleEnv = "MUXSERVE_UPGRADE_ROLE"

// The behaviours of a new process.
const (
	roleReady     = "ready"      // is ready, and stays until a signal
	roleCrash     = "crash"      // ends with 7
	roleReadyEnds = "ready-ends" // is ready, and ends
	roleHang      = "hang"       // is never ready, and does not end by SIGTERM
)

func play(role string) {
	parent, err := FromParent(os.Getenv)
	if err != nil || parent == nil {
		fmt.Fprintln(os.Stderr, "no parent:", err)
		os.Exit(1)
	}
	signals := make(chan os.Signal, 1)
	switch role {
	case roleCrash:
		os.Exit(7)
	case roleHang:
		signal.Notify(signals, syscall.SIGTERM)
		time.Sleep(time.Minute) // Not for ever, should the test that ends it have crashed.
		os.Exit(1)
	}
	signal.Notify(signals, syscall.SIGTERM)
	if err := errors.Join(parent.Ready(), parent.Tell()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if role == roleReady {
		<-signals
	}
	os.Exit(0)
}
