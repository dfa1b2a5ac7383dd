package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

func TestRecipe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	const text = `global
    maxconn 20000
defaults
    retries 2
    option redispatch
frontend service
    bind 127.0.0.1:8000
backend muxserve
    option httpchk GET /readyz
    default-server check inter 2s fall 3 rise 1 send-proxy-v2
    server a 127.0.0.1:8080 port 8081
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	backends := []*backend{{service: &process.Port{Number: 2}, admin: &process.Port{Number: 3}}}
	tests := map[bool]string{
		true: `global
  stats socket s mode 600
  maxconn 4000
defaults
  retries 0
frontend service
  bind 127.0.0.1:1
backend muxserve
    option httpchk GET /readyz
    default-server check inter 500ms fall 2 rise 1 send-proxy-v2
  server muxserve0 127.0.0.1:2 port 3
`,
		false: `global
  stats socket s mode 600
  maxconn 4000
defaults
    retries 2
    option redispatch
frontend service
  bind 127.0.0.1:1
backend muxserve
    option httpchk GET /readyz
    default-server check inter 2s fall 3 rise 1 send-proxy-v2
  server muxserve0 127.0.0.1:2 port 3
`,
	}
	for strict, want := range tests {
		got, err := recipe(file, "s", &process.Port{Number: 1}, backends, strict)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("strict %v (-want +got):\n%s", strict, diff)
		}
	}
}
