package upgrade

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is the new process where the environment says so.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
	}
	goleak.VerifyTestMain(m)
}
