package settings

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// FuzzLoad loads settings from any command line, with words separated by NUL. They are
// valid and can be written, or the error has a text.
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

// FuzzFile reads any file. It is refused with faults that have lines, or its settings can
// be written, and are the same when they are read again.
func FuzzFile(f *testing.F) {
	for _, tests := range [][]badFile{badSyntax, badKeys, badValues} {
		for _, tt := range tests {
			f.Add([]byte(tt.text))
		}
	}
	f.Add([]byte("listeners: [{address: \"unix:a\\u00e9\\n\", tls: {mode: off, cert: 'true', key: \"1.5e3\"}}]\nhttp1: {max_age: 1m}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := loadBytes(data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f.yaml:") {
					t.Errorf("a fault without its line: %q", line)
				}
			}
			return
		}
		var first, second strings.Builder
		if err := s.Write(&first); err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		again, err := loadBytes([]byte(first.String()))
		if err != nil {
			t.Fatalf("cannot be read again: %v\n%s", err, &first)
		}
		again.origins = s.origins
		again.places = s.places
		if err := again.Write(&second); err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		if diff := cmp.Diff(first.String(), second.String()); diff != "" {
			t.Errorf("says something else when it is read again (-first +second):\n%s", diff)
		}
	})
}

// loadBytes loads settings from a file with this content.
func loadBytes(data []byte) (*Settings, error) {
	return load(inputs{
		flags:  cli.Parsed{Values: map[string][]string{configOption.Name: {"f.yaml"}}},
		getenv: func(string) string { return "" },
		read:   func(string) ([]byte, error) { return data, nil },
	})
}
