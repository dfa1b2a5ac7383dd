package logref

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../../../.."

// TestReference: the committed reference is what the sources say.
func TestReference(t *testing.T) {
	t.Parallel()
	want, err := Reference(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, Name))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date; run go generate ./cmd/muxserve/internal/logref (-generated +committed):\n%s", Name, diff)
	}
	// One of each kind of call: pairs, attributes, a level in a variable, a table of messages, a
	// message in a constant.
	for _, line := range []string{
		"| INFO | draining | `origin` | cmd/muxserve |",
		"| INFO | phase change | `phase`, `trace_id` | lifecycle |",
		"| WARN or INFO | drain ended | `duration_seconds`, `forced`, `reason`, `trace_id` | lifecycle |",
		"| DEBUG | connection accepted |",
		"| WARN | log lines dropped | `count`, `err`, `log` | lifecycle/logqueue |",
	} {
		if !strings.Contains(string(want), line) {
			t.Errorf("%s is missing", line)
		}
	}
}
