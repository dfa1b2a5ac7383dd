package listeners

import (
	"strings"
	"testing"
)

func TestConfigValidate(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   []string // parts of the error; none means valid
	}{
		{name: "tcp", config: Config{Address: "127.0.0.1:8080"}},
		{name: "unix", config: Config{Address: "unix:/run/x.sock"}},
		{name: "empty", config: Config{}, want: []string{"listeners: address: empty"}},
		{name: "no path", config: Config{Address: "unix:"}, want: []string{"listeners: address:", `"unix:"`}},
		{
			name:   "both sections",
			config: Config{TLS: TLSConfig{Mode: "on"}},
			want:   []string{"listeners: address: empty", `listeners: tls.mode: unknown "on"`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkError(t, tt.config.Validate(), tt.want)
		})
	}
}

// checkError wants an error with all of the parts, or none where there are none.
func checkError(t *testing.T, err error, parts []string) {
	t.Helper()
	if len(parts) == 0 {
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}
