package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVariableWarnings(t *testing.T) {
	t.Parallel()
	passed := []string{
		"PATH=/bin", "MUXSERVE_LISTEN=:1", "MUXSERVE_OWN=3",
		"MUXSERVE_PORT=tcp://10.0.0.1:80", "MUXSERVE_SERVICE_HOST=10.0.0.1", "MUXSERVE_SERVICE_PORT=80",
		"MUXSERVE_SERVICE_PORT_SERVICE=80", "MUXSERVE_PORT_8080_TCP=tcp://10.0.0.1:8080", "MUXSERVE_PORT_8080_TCP_ADDR=10.0.0.1",
		"MUXSERVE_PORT_8080_TCP_PORT=8080", "MUXSERVE_PORT_8080_TCP_PROTO=tcp", "MUXSERVE_ADMIN_SERVICE_HOST=10.0.0.2",
		"MUXSERVE_ADMIN_PORT_8081_UDP_ADDR=10.0.0.2",
	}
	if got := VariableWarnings(passed, "MUXSERVE_OWN"); got != nil {
		t.Errorf("warnings %q", got)
	}
	want := []string{
		"MUXSERVE_LISTN is no variable of muxserve; did you mean MUXSERVE_LISTEN?",
		"MUXSERVE_PORT is no variable of muxserve; did you mean PORT?",
		"MUXSERVE_SOMETHING_ELSE is no variable of muxserve; muxserve help flags has them all",
	}
	got := VariableWarnings([]string{"MUXSERVE_LISTN=:1", "MUXSERVE_PORT=8080", "MUXSERVE_SOMETHING_ELSE=1"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServiceCalledApp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"": 1, "--listen=:1": 0} {
		s, err := loadFrom(t, strings.Fields(args), map[string]string{"APP_PORT": "tcp://10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Warnings(); len(got) != want || want > 0 && !strings.Contains(got[0], "a Service called app") {
			t.Errorf("%q warns %q, want %d warnings", args, got, want)
		}
	}
}

// TestPlatformKeepsTheHostOfTheFile: PORT alone opens all addresses only where nothing
// else says on which to listen.
func TestPlatformKeepsTheHostOfTheFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(name, []byte("listeners: [{address: 127.0.0.2:1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadFrom(t, []string{"--config", name}, map[string]string{"PORT": "9000"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Mux.Listeners[0].Address; got != "127.0.0.2:9000" {
		t.Errorf("address %s", got)
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\r\n")
	s, err := loadFrom(t, []string{"--admin-token-file", file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write("second")
	next, err := s.Reload()
	if err != nil {
		t.Fatal(err)
	}
	if s.Admin.Token != "first" || next.Admin.Token != "second" {
		t.Errorf("tokens %q and %q", s.Admin.Token, next.Admin.Token)
	}
	var printed strings.Builder
	if err := s.Write(&printed); err != nil || strings.Contains(printed.String(), "first") {
		t.Errorf("the token is printed: %v\n%s", err, printed.String())
	}
	if _, err := loadFrom(t, []string{"--admin-token-file", file, "--admin-token=x"}, nil); err == nil {
		t.Error("a token beside its file is taken")
	}
	write("\n")
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), "admin.token_file: the file is empty") {
		t.Errorf("an empty file: %v", err)
	}
}
