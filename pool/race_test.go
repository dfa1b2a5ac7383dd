//go:build race

package pool_test

// raceEnabled tells tests that the race detector makes sync.Pool drop what it is given.
const raceEnabled = true
