//go:build !unix

package upgrade

// closeOnExec has nothing to do: no descriptor is inherited by its number here.
func closeOnExec(int) {}
