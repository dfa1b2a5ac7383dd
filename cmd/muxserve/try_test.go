package main

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/listeners"
)

func TestAnnounce(t *testing.T) {
	t.Parallel()
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(mustAddrPort(t, s)) }
	unix := func(path string) net.Addr { return &net.UnixAddr{Net: "unix", Name: path} }
	tests := []struct {
		name      string
		addr      net.Addr
		mode      string
		protocols []string
		want      string
	}{
		{"two protocols", tcp("127.0.0.1:8080"), "off", []string{"http1", "grpc"}, `
muxserve: HTTP/1.1 and gRPC on http://127.0.0.1:8080
  HTTP/1.1  curl --http1.1 http://127.0.0.1:8080/echo
  gRPC      grpcurl -plaintext -d '{"message": "hello"}' 127.0.0.1:8080 muxserve.demo.v1.Echo/Unary
`},
		{"plaintext", tcp("127.0.0.1:8080"), "off", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on http://127.0.0.1:8080
  HTTP/1.1   curl --http1.1 http://127.0.0.1:8080/echo
  HTTP/2     curl --http2-prior-knowledge http://127.0.0.1:8080/echo
  gRPC       grpcurl -plaintext -d '{"message": "hello"}' 127.0.0.1:8080 muxserve.demo.v1.Echo/Unary
  WebSocket  npx wscat -c ws://127.0.0.1:8080/ws
  browser    http://127.0.0.1:8080/
`},
		{"self-signed on all addresses", tcp("[::]:8443"), "self-signed", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on https://127.0.0.1:8443
  HTTP/1.1   curl -k --http1.1 https://127.0.0.1:8443/echo
  HTTP/2     curl -k --http2 https://127.0.0.1:8443/echo
  gRPC       grpcurl -insecure -d '{"message": "hello"}' 127.0.0.1:8443 muxserve.demo.v1.Echo/Unary
  WebSocket  npx wscat -n -c wss://127.0.0.1:8443/ws
  browser    https://127.0.0.1:8443/
`},
		{"a certificate", tcp("0.0.0.0:443"), "auto", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on https://127.0.0.1:443
  HTTP/1.1   curl -k --http1.1 https://127.0.0.1:443/echo
  HTTP/2     curl -k --http2 https://127.0.0.1:443/echo
  gRPC       grpcurl -insecure -d '{"message": "hello"}' 127.0.0.1:443 muxserve.demo.v1.Echo/Unary
  WebSocket  npx wscat -n -c wss://127.0.0.1:443/ws
  browser    https://127.0.0.1:443/
`},
		{"mutual", tcp("127.0.0.1:443"), "mutual", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on https://127.0.0.1:443
  HTTP/1.1   curl -k --cert client.pem --key client.key --http1.1 https://127.0.0.1:443/echo
  HTTP/2     curl -k --cert client.pem --key client.key --http2 https://127.0.0.1:443/echo
  gRPC       grpcurl -insecure -cert client.pem -key client.key -d '{"message": "hello"}' 127.0.0.1:443 muxserve.demo.v1.Echo/Unary
  WebSocket  npx wscat -n --cert client.pem --key client.key -c wss://127.0.0.1:443/ws
  browser    https://127.0.0.1:443/
`},
		{"Unix socket", unix("/run/it's.sock"), "off", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on unix:/run/it's.sock
  HTTP/1.1   curl --unix-socket '/run/it'\''s.sock' --http1.1 http://localhost/echo
  HTTP/2     curl --unix-socket '/run/it'\''s.sock' --http2-prior-knowledge http://localhost/echo
  gRPC       grpcurl -plaintext -d '{"message": "hello"}' -unix '/run/it'\''s.sock' muxserve.demo.v1.Echo/Unary
  WebSocket  websocat --ws-c-uri=ws://localhost/ws - ws-c:unix:'/run/it'\''s.sock'
`},
		{"Unix socket with TLS", unix("/run/m.sock"), "self-signed", nil, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on unix:/run/m.sock
  HTTP/1.1   curl -k --unix-socket /run/m.sock --http1.1 https://localhost/echo
  HTTP/2     curl -k --unix-socket /run/m.sock --http2 https://localhost/echo
  gRPC       grpcurl -insecure -d '{"message": "hello"}' -unix /run/m.sock muxserve.demo.v1.Echo/Unary
  WebSocket  websocat -k --ws-c-uri=ws://localhost/ws - ws-c:tls:unix:/run/m.sock
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			printAddress(&out, tt.addr, listeners.Config{TLS: listeners.TLSConfig{Mode: tt.mode}, Protocols: tt.protocols}, true)
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnnounceSpecial: hints for an IPv6 address in a shell that takes brackets for a pattern,
// for a port that wants client certificates, and for those that want a PROXY header. Without
// a terminal there are none.
func TestAnnounceSpecial(t *testing.T) {
	t.Parallel()
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(mustAddrPort(t, s)) }
	proxy := func(trusted ...string) listeners.Config {
		return listeners.Config{
			ProxyProtocol: listeners.ProxyConfig{Mode: "required", Trusted: trusted}, Protocols: []string{"http1", "http2", "grpc", "websocket"},
		}
	}
	const note = "  Clients come through a balancer of proxy_protocol.trusted, which sends a PROXY header.\n"
	tests := []struct {
		name  string
		addr  net.Addr
		c     listeners.Config
		hints bool
		want  string
	}{
		{"no terminal", tcp("0.0.0.0:80"), listeners.Config{Protocols: []string{"http1"}}, false, `
muxserve: HTTP/1.1 on http://127.0.0.1:80
`},
		{"brackets", tcp("[::1]:80"), listeners.Config{Protocols: []string{"http2", "grpc"}}, true, `
muxserve: HTTP/2 and gRPC on http://[::1]:80
  HTTP/2  curl --http2-prior-knowledge 'http://[::1]:80/echo'
  gRPC    grpcurl -plaintext -d '{"message": "hello"}' '[::1]:80' muxserve.demo.v1.Echo/Unary
`},
		{"client certificates", tcp("127.0.0.1:443"), listeners.Config{
			Protocols: []string{"http1"}, TLS: listeners.TLSConfig{Mode: "manual", ClientAuth: "require"},
		}, true, `
muxserve: HTTP/1.1 on https://127.0.0.1:443
  HTTP/1.1  curl -k --cert client.pem --key client.key --http1.1 https://127.0.0.1:443/echo
`},
		{"client certificates if the client likes", tcp("127.0.0.1:443"), listeners.Config{
			Protocols: []string{"http1"}, TLS: listeners.TLSConfig{Mode: "mutual", ClientAuth: "verify-if-given"},
		}, true, `
muxserve: HTTP/1.1 on https://127.0.0.1:443
  HTTP/1.1  curl -k --http1.1 https://127.0.0.1:443/echo
`},
		{"PROXY of this machine", tcp("[::]:80"), proxy("10.0.0.0/8", "127.0.0.0/8"), true, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on http://127.0.0.1:80
` + note + `  HTTP/1.1  curl --haproxy-protocol --http1.1 http://127.0.0.1:80/echo
  HTTP/2    curl --haproxy-protocol --http2-prior-knowledge http://127.0.0.1:80/echo
`},
		{"PROXY of others", tcp("0.0.0.0:80"), proxy("10.0.0.0/8", "10.1.1.1", "unix"), true, `
muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on http://127.0.0.1:80
` + note},
	}
	for _, tt := range tests {
		var out strings.Builder
		printAddress(&out, tt.addr, tt.c, tt.hints)
		if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
