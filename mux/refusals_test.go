package mux_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// speaks returns a client that sends b, and reads what is answered until the server closes.
func speaks(b string) func(*testing.T, *server) {
	return func(t *testing.T, s *server) {
		t.Helper()
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, b)
		_, _ = io.Copy(io.Discard, conn)
	}
}

// shakesHands returns a client that tries a TLS handshake, and reads until the server closes.
func shakesHands(c *tls.Config) func(*testing.T, *server) {
	return func(t *testing.T, s *server) {
		t.Helper()
		config := c.Clone()
		if config.RootCAs == nil {
			config.RootCAs = s.roots
		}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", s.addr, config)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// TestRefusalLines: each fault that keeps a connection out has a WARN with its own words, the
// peer and a cure, and stands in Stats.Refusals.
func TestRefusalLines(t *testing.T) {
	ca, strangers := newAuthority(t), newAuthority(t)
	past := time.Now().Add(-time.Minute)
	config := func(c *tls.Config) mux.Option {
		if c.Certificates == nil {
			c.Certificates = []tls.Certificate{ca.issue(t, "server.test")}
		}
		return mux.WithTLS(c)
	}
	mutual := config(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool})
	client := func(c *tls.Config) func(*testing.T, *server) {
		if c.RootCAs == nil {
			c.RootCAs = ca.pool
		}
		return shakesHands(c)
	}
	const v1, v2 = "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x0f\xa0\x01\xbb"
	const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
	const proxyHere = "a PROXY header on a port without proxy_protocol"
	tests := []struct {
		reason, detail string
		listener       listeners.Config
		options        []mux.Option
		client         func(*testing.T, *server)
	}{
		{"proxy_header", "a trusted peer sent no PROXY header", behindProxy("required", "127.0.0.1"), nil, speaks(request)},
		{"proxy_header", "the peer is not trusted", behindProxy("required", "192.0.2.0/24"), nil, speaks(v1 + request)},
		{"proxy_header", "a PROXY header from a peer that is not trusted", behindProxy("optional", "192.0.2.0/24"), nil, speaks(v2 + request)},
		{"proxy_header", "the PROXY header is broken or too slow", behindProxy("required", "127.0.0.1"), nil, speaks("PROXY TCP9 a b\r\n")},
		{"no_match", proxyHere, listeners.Config{}, nil, speaks(v1 + request)},
		{"no_match", proxyHere, listeners.Config{}, nil, speaks(v2 + request)},
		{"no_match", "a second PROXY header", behindProxy("required", "127.0.0.1"), nil, speaks(v1 + v2 + request)},
		{"no_match", "TLS on a plaintext port", listeners.Config{}, nil, client(&tls.Config{})},
		{"no_match", "the listener does not serve the protocol", listeners.Config{Protocols: []string{"http1"}}, nil, speaks(get2(t, "/echo"))},
		{"no_match", "no protocol of this server", listeners.Config{}, nil, speaks("SSH-2.0-OpenSSH_9.9\r\n\r\n")},
		{"no_match", "the client left in its first bytes", listeners.Config{}, nil, func(t *testing.T, s *server) {
			t.Helper()
			conn := s.dial(t)
			send(t, conn, "GET /ec")
			conn.Close()
		}},
		{"sniff_timeout", "the first bytes were too slow", listeners.Config{}, []mux.Option{limits(func(c *mux.Config) { c.Sniff.Timeout = 50 * time.Millisecond })}, speaks("GET /ec")},
		{"tls_handshake", proxyHere, listeners.Config{}, []mux.Option{config(&tls.Config{})}, speaks(v1)},
		{"tls_handshake", proxyHere, listeners.Config{}, []mux.Option{config(&tls.Config{})}, speaks(v2)},
		{"tls_handshake", "plaintext on a TLS port", listeners.Config{}, []mux.Option{config(&tls.Config{})}, speaks(request)},
		{
			"tls_handshake", "the server's certificate has expired", listeners.Config{},
			[]mux.Option{config(&tls.Config{Certificates: []tls.Certificate{ca.issueUntil(t, "server.test", past)}})}, client(&tls.Config{}),
		},
		{"tls_handshake", "the client does not accept the server's certificate", listeners.Config{}, []mux.Option{config(&tls.Config{})}, client(&tls.Config{RootCAs: strangers.pool})},
		{"tls_handshake", "no common version", listeners.Config{}, []mux.Option{config(&tls.Config{MinVersion: tls.VersionTLS13})}, client(&tls.Config{MaxVersion: tls.VersionTLS12})},
		{
			"tls_handshake", "no common cipher suite", listeners.Config{},
			[]mux.Option{config(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})},
			client(&tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}),
		},
		{"tls_handshake", "no common application protocol (ALPN)", listeners.Config{}, []mux.Option{config(&tls.Config{NextProtos: []string{"h2"}})}, client(&tls.Config{NextProtos: []string{"mqtt"}})},
		{
			"tls_handshake", "no common application protocol (ALPN)", listeners.Config{}, []mux.Option{config(&tls.Config{NextProtos: []string{"h2"}})},
			client(&tls.Config{NextProtos: []string{"client didn't provide a certificate"}}), // The error repeats it.
		},
		{"tls_handshake", "the client sent no certificate", listeners.Config{}, []mux.Option{mutual}, client(&tls.Config{})},
		{"tls_handshake", "the client's certificate has expired", listeners.Config{}, []mux.Option{mutual}, client(&tls.Config{Certificates: []tls.Certificate{ca.issueUntil(t, "alice", past)}})},
		{"tls_handshake", "the client's certificate was not verified", listeners.Config{}, []mux.Option{mutual}, client(&tls.Config{
			// GetClientCertificate sends it although the server does not name its CA.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c := strangers.issue(t, "mallory")
				return &c, nil
			},
		})},
		{
			"tls_handshake", "the handshake was too slow", listeners.Config{},
			[]mux.Option{config(&tls.Config{}), limits(func(c *mux.Config) { c.Sniff.TLSTimeout = 50 * time.Millisecond })}, speaks("\x16\x03\x01"),
		},
		{"tls_handshake", "a function of the server's tls.Config panicked", listeners.Config{}, []mux.Option{config(&tls.Config{
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("not for this client") },
		})}, client(&tls.Config{})},
		{"tls_handshake", "the client left during the handshake", listeners.Config{}, []mux.Option{config(&tls.Config{})}, func(t *testing.T, s *server) {
			t.Helper()
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			send(t, conn, "\x16\x03\x01")
			conn.Close()
		}},
		{
			"inadequate_security", "HTTP/2 over a cipher suite that it forbids", listeners.Config{}, []mux.Option{config(&tls.Config{NextProtos: []string{"h2"}})},
			func(t *testing.T, s *server) {
				t.Helper()
				conn, err := tls.Dial("tcp", s.addr, &tls.Config{
					RootCAs: ca.pool, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				send(t, conn, get2(t, "/echo"))
				_, _ = io.Copy(io.Discard, conn)
			},
		},
		{"limit", "limits.max_connections is reached", listeners.Config{}, []mux.Option{limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 })}, behindBusy},
		{"limit", "max_connections of the protocol is reached", listeners.Config{}, []mux.Option{limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 })}, behindBusy},
		{"per_ip_limit", "limits.per_address is reached", listeners.Config{}, []mux.Option{limits(func(c *mux.Config) { c.Limits.PerAddress = 1 })}, behindBusy},
	}
	for _, tt := range tests {
		t.Run(tt.reason+"/"+tt.detail, func(t *testing.T) {
			t.Parallel()
			var lines syncBuffer
			s := startOn(t, false, []listeners.Config{tt.listener}, append(tt.options, mux.WithLogger(recordingLog(&lines)))...)[0]
			before := s.Stats().Refusals
			if !slices.ContainsFunc(before, func(r mux.Refusal) bool {
				return r.Reason == tt.reason && r.Detail == tt.detail && r.Total == 0
			}) {
				t.Errorf("not there before it happens: %v", before)
			}
			tt.client(t, s)
			var got mux.Refusal
			eventually(t, "counted", func() bool {
				for _, r := range s.Stats().Refusals {
					if r.Total > 0 && r.Reason != "silent" {
						got = r
					}
				}
				return got.Total > 0
			})
			peer := "127.0.0.1:"
			if tt.detail == "a second PROXY header" {
				peer = "192.0.2.7:4000" // The first one names it.
			}
			if got.Reason != tt.reason || got.Detail != tt.detail || got.LastMinute != got.Total || !strings.HasPrefix(got.RemoteAddr, peer) {
				t.Errorf("%+v", got)
			}
			if n := s.rejected(got.Protocol, got.Reason); n != got.Total {
				t.Errorf("%d rejected, %d refused", n, got.Total)
			}
			var line string
			eventually(t, "a line", func() bool {
				for text := range strings.Lines(lines.String()) {
					if strings.Contains(text, `msg="connections refused"`) {
						line = text
					}
				}
				return line != ""
			})
			for _, want := range []string{
				"level=WARN", "reason=" + tt.reason, "detail=\"" + tt.detail + "\"", "count=1", "remote_addr=" + got.RemoteAddr, "local_addr=" + s.addr, "cure=\"" + got.Cure + "\"",
			} {
				if !strings.Contains(line, want) || got.Cure == "" {
					t.Errorf("no %s in %s", want, line)
				}
			}
		})
	}
}

// behindBusy makes a request on a connection that is one too many.
func behindBusy(t *testing.T, s *server) {
	t.Helper()
	s.busy(t)
	conn := s.dial(t)
	if resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %s", resp.Status)
	}
}
