//go:build !unix

package pool

// isReset is never true where the system has no number of this kind for it; such a
// connection counts as closed by the server.
func isReset(error) bool { return false }
