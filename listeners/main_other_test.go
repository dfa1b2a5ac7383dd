//go:build !unix

package listeners

// childMain has no part to play where there is no RLIMIT_NOFILE.
func childMain() int { return 1 }
