//go:build !unix

package upgrade

// closeOnExec does nothing: child processes do not inherit descriptors by number here.
func closeOnExec(int) {}
