package main

import (
	"slices"
	"strings"
)

// extendedConnect is the word in GODEBUG by which net/http offers extended CONNECT
// (RFC 8441), and with it WebSockets over HTTP/2. It is looked for once, when the process
// starts, so that the process has to be started again to change it.
const extendedConnect = "http2xconnect=1"

// fitGODEBUG reports whether a value of GODEBUG offers extended CONNECT if and only if it
// is wanted. If not, it returns one that does, and keeps what else is set.
func fitGODEBUG(current string, wanted bool) (godebug string, fits bool) {
	if strings.Contains(current, extendedConnect) == wanted {
		return current, true
	}
	settings := slices.DeleteFunc(strings.Split(current, ","), func(s string) bool {
		return s == "" || s == extendedConnect
	})
	if wanted {
		settings = append(settings, extendedConnect)
	}
	godebug = strings.Join(settings, ",")
	// A value that stays as it is, whatever is tried, must not be tried for ever.
	return godebug, strings.Contains(godebug, extendedConnect) != wanted
}
