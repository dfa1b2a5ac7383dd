//go:build !unix

package pool

// fileLimit returns a number that is no limit, where the system has none of this kind.
func fileLimit() uint64 { return 2 * maxDefaultConnections }
