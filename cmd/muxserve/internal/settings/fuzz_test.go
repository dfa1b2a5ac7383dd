package settings

import (
	"io"
	"strings"
	"testing"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// FuzzLoad loads settings from any command line, its words separated by NUL:
// they are valid as a whole, or the error says something, and what is valid can be shown.
func FuzzLoad(f *testing.F) {
	for _, args := range [][]string{
		{"--listen", "127.0.0.1:0", "--listen=unix:/tmp/x", "--admin", "off"},
		{"--tls", "mutual", "--tls-cert=c", "--tls-key=k", "--tls-client-ca", "ca", "--tls-optional"},
		{"--drain-delay", "1h", "--drain-timeout=0", "--ws-read-limit", "-1"},
		{"--protocols", "http1,grpc", "--proxy-protocol", "required", "--proxy-trusted", "10.0.0.0/8"},
		{"--log-level", "loud"}, {"--lisen", ":1"}, {"--"}, {"-"}, {"--watch=perhaps"},
	} {
		f.Add(strings.Join(args, "\x00"), "8080")
	}
	f.Fuzz(func(t *testing.T, line, port string) {
		parsed, err := cli.Parse(Flags(), strings.Split(line, "\x00"))
		if err == nil {
			var s *Settings
			env := map[string]string{"PORT": port}
			if s, err = Load(parsed, func(name string) string { return env[name] }); err == nil {
				if err := s.Mux.Validate(); err != nil {
					t.Errorf("loaded, and not valid: %v", err)
				}
				if err := s.Write(io.Discard); err != nil {
					t.Errorf("cannot be shown: %v", err)
				}
				return
			}
		}
		if strings.TrimSpace(err.Error()) == "" {
			t.Error("an error without a word")
		}
	})
}
