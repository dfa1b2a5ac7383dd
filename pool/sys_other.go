//go:build !unix

package pool

// fileLimit returns a number that is no limit, where the system has none of this kind.
func fileLimit() uint64 { return 2 * maxDefaultConnections }

// isReset is never true where the system has no error numbers for it. Such a connection
// counts as closed by the server.
func isReset(error) bool { return false }
