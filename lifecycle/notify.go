package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The service manager's protocol, as sd_notify(3) and sd_watchdog_enabled(3)
// describe it.
const (
	envNotifySocket = "NOTIFY_SOCKET"
	envWatchdogUsec = "WATCHDOG_USEC"
	envWatchdogPID  = "WATCHDOG_PID"
)

// notifyTimeout bounds the wait for a service manager whose socket's queue is
// full. It is less than a step of the drain may take.
const notifyTimeout = 2 * time.Second

// Notify sends the assignments ("READY=1", "STATUS=...", "MAINPID=...") to the
// service manager, all in one datagram, and reports whether there was one to
// send to. Without NOTIFY_SOCKET in the environment it does nothing and
// returns false and no error. It waits for at most 2 s.
//
// The environment is left as it is, so that a process started for a binary
// upgrade can speak to the service manager as well. Notify is safe to call
// concurrently.
func Notify(assignments ...string) (bool, error) {
	path := os.Getenv(envNotifySocket)
	if path == "" || len(assignments) == 0 {
		return false, nil
	}
	for _, a := range assignments {
		if !strings.Contains(a, "=") || strings.Contains(a, "\n") {
			return false, fmt.Errorf("lifecycle: notify: %q is not one assignment", a)
		}
	}
	// A '@' stands for the null byte of an abstract address; package net
	// knows that as well.
	if path[0] != '/' && path[0] != '@' {
		return false, fmt.Errorf("lifecycle: notify: %s: unsupported address %q", envNotifySocket, path)
	}
	if err := sendDatagram(path, strings.Join(assignments, "\n")); err != nil {
		return false, fmt.Errorf("lifecycle: notify: %w", err)
	}
	return true, nil
}

// sendDatagram sends text to the Unix datagram socket at path.
func sendDatagram(path, text string) (err error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(text))
	return err
}

// Ready tells the service manager that the server serves: after its start, and
// after a reload that [Reloading] announced. See [Notify] for what it returns.
func Ready() (bool, error) { return Notify("READY=1") }

// Stopping tells the service manager that the server is going. See [Notify]
// for what it returns.
func Stopping() (bool, error) { return Notify("STOPPING=1") }

// Reloading tells the service manager that the server reads its configuration again, with
// the time on the monotonic clock, as a service of Type=notify-reload must. [Ready] ends
// it. See [Notify] for what it returns.
func Reloading() (bool, error) {
	if os.Getenv(envNotifySocket) == "" {
		return false, nil
	}
	now, err := monotonicClock()
	if err != nil {
		return false, fmt.Errorf("lifecycle: notify: monotonic clock: %w", err)
	}
	return Notify("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Microseconds(), 10))
}

// Alive tells the service manager's watchdog that the server is well; see
// [WatchdogInterval] for how often, and [Notify] for what it returns.
func Alive() (bool, error) { return Notify("WATCHDOG=1") }

// WatchdogInterval returns the time after which the service manager takes this process
// for dead if it has not heard from [Alive]; call that after half of it. It is zero if
// there is no watchdog, or if WATCHDOG_PID names another process. Take that variable out
// of the environment of a process that is started for a binary upgrade.
func WatchdogInterval() (time.Duration, error) {
	if s := os.Getenv(envWatchdogPID); s != "" {
		pid, err := strconv.Atoi(s)
		if err != nil || pid <= 0 {
			return 0, fmt.Errorf("lifecycle: watchdog: %s is %q, not a process id", envWatchdogPID, s)
		}
		if pid != os.Getpid() {
			return 0, nil
		}
	}
	s := os.Getenv(envWatchdogUsec)
	if s == "" {
		return 0, nil
	}
	usec, err := strconv.ParseInt(s, 10, 64)
	if err != nil || usec <= 0 || usec > maxDuration.Microseconds() {
		return 0, fmt.Errorf("lifecycle: watchdog: %s is %q, not a number of microseconds", envWatchdogUsec, s)
	}
	return time.Duration(usec) * time.Microsecond, nil
}
