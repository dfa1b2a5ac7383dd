package upgrade

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain plays the new process if it is told to.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
	}
	goleak.VerifyTestMain(m)
}
