package listeners

import (
	"strings"
	"testing"
	"time"
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
		{
			name:   "options",
			config: Config{Address: ":80", ReusePort: 4, Backlog: 1, TCPKeepalive: time.Second, TCPUserTimeout: time.Millisecond},
		},
		{name: "default on a Unix socket", config: withAddress(DefaultConfig(), "unix:x")},
		{
			name:   "negative options",
			config: Config{Address: ":80", ReusePort: -1, Backlog: -2, TCPKeepalive: -1, TCPUserTimeout: -1},
			want: []string{
				"listeners: reuse_port: -1 is below 0", "listeners: backlog: -2 is below 0",
				"listeners: tcp_keepalive: -1ns is neither 0 nor from 1s to", "listeners: tcp_user_timeout: -1ns is neither 0 nor from 1ms to",
			},
		},
		{
			name:   "options out of bounds",
			config: Config{Address: ":80", TCPKeepalive: maxKeepalive + 1, TCPUserTimeout: maxUserTimeout + 1},
			want:   []string{"listeners: tcp_keepalive: 9h6m7.000000001s is", "listeners: tcp_user_timeout: 596h31m23.647000001s is"},
		},
		{
			name:   "TCP options of a Unix socket",
			config: Config{Address: "unix:x", ReusePort: 2, TCPKeepalive: time.Minute, TCPUserTimeout: time.Second},
			want: []string{
				"listeners: reuse_port: 2: a Unix socket has no port", "listeners: tcp_keepalive: 1m0s: a Unix socket",
				"listeners: tcp_user_timeout: 1s: a Unix socket",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkError(t, tt.config.Validate(), tt.want)
		})
	}
}

func withAddress(c Config, address string) Config {
	c.Address = address
	return c
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
