package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestRefusalsAreSeen: whoever watches the log at its default level or the metrics sees why
// connections are refused, with a peer and what to do.
func TestRefusalsAreSeen(t *testing.T) {
	t.Parallel()
	const header, hello = "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n", "\x16\x03\x01\x00\x05hello"
	const request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	tests := []struct {
		args                       []string
		said, reason, detail, cure string
	}{
		{nil, header + request, "no_match", "a PROXY header on a port without proxy_protocol", "proxy_protocol.trusted"},
		{nil, hello, "no_match", "TLS on a plaintext port", "tls section"},
		{[]string{"--proxy-protocol=required", "--proxy-trusted=192.0.2.0/24"}, header + request, "proxy_header", "the peer is not trusted", "proxy_protocol.trusted"},
		{[]string{"--proxy-protocol=required", "--proxy-trusted=127.0.0.1"}, request, "proxy_header", "a trusted peer sent no PROXY header", "send the PROXY protocol"},
		{[]string{"--tls=self-signed"}, request, "tls_handshake", "plaintext on a TLS port", "tls.optional"},
	}
	for _, tt := range tests {
		t.Run(tt.detail, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.args...)
			for range 3 {
				conn, err := net.Dial("tcp", p.service.Host)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(conn, tt.said)
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			series := fmt.Sprintf("mux_refusals_total{detail=%q,reason=%q} 3\n", tt.detail, tt.reason)
			eventually(t, "the metrics have "+series, func() bool {
				_, body, err := fetch(t.Context(), httpClient(t, false), "GET", p.admin.JoinPath("metrics"), nil)
				return err == nil && strings.Contains(string(body), series)
			})
			line := ""
			eventually(t, "the log has a line", func() bool {
				for text := range strings.Lines(p.stderr.String()) {
					if strings.Contains(text, "connections refused") {
						line = text
					}
				}
				return line != ""
			})
			for _, want := range []string{"WARN", tt.reason, tt.detail, tt.cure, "127.0.0.1:"} {
				if !strings.Contains(line, want) {
					t.Errorf("no %s in %s", want, line)
				}
			}
			if n := strings.Count(p.stderr.String(), "connections refused"); n > 2 {
				t.Errorf("%d lines", n)
			}
		})
	}
}
