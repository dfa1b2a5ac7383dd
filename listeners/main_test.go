package listeners

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes a re-executed test binary play a part instead of testing.
const childEnv = "MUXSERVE_LISTENERS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}
