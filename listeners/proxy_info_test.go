package listeners

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"
)

// Headers as HAProxy 2.6 has sent them: send-proxy-v2-ssl-cn but for the first
// and the last, which are a health check and send-proxy.
const (
	haproxyCheck  = "0d0a0d0a000d0a515549540a20000000"
	haproxyCert   = "0d0a0d0a000d0a515549540a2111002f7f0000017f000001db0a6f1b2000200700000000210007544c5376312e3322000e636c69656e742e6578616d706c65"
	haproxyNoCert = "0d0a0d0a000d0a515549540a2111001e7f0000017f000001db186f1b20000f0100000000210007544c5376312e33"
	haproxyPlain  = "0d0a0d0a000d0a515549540a211100147f0000017f00000196ca6db02000050000000000"
	haproxyOne    = "50524f58592054435034203132372e302e302e31203132372e302e302e312035343430362032383038310d0a"
)

// unhex returns the bytes of a header.
func unhex(t *testing.T, digits string) string {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withBytes appends bytes to a header of version 2, and counts them in.
func withBytes(header, more string) string {
	b := []byte(header + more)
	length := len(b) - proxyFixed
	b[proxyFixed-2], b[proxyFixed-1] = byte(length>>8), byte(length)
	return string(b)
}

// scripted returns a connection that begins with in, from a trusted peer.
func scripted(in string, required bool) *proxyConn {
	return &proxyConn{
		Conn:    &scriptConn{in: strings.NewReader(in), step: len(in), peer: scriptPeer},
		trusted: true, required: required,
	}
}

func TestProxyInfo(t *testing.T) {
	loopback := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: port} }
	v2 := header2(t, proxyproto.TCPv4, proxyproto.PROXY, loopback(1), loopback(2))
	alone := ProxyInfo{Source: loopback(1), Destination: loopback(2)}
	tests := []struct {
		name string
		in   string
		want ProxyInfo
	}{
		{"health check", unhex(t, haproxyCheck), ProxyInfo{Local: true}},
		{"version 1", unhex(t, haproxyOne), ProxyInfo{Source: loopback(54406), Destination: loopback(28081)}},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", ProxyInfo{Local: true}},
		{"TLS with certificate", unhex(t, haproxyCert), ProxyInfo{
			Source: loopback(0xdb0a), Destination: loopback(0x6f1b),
			TLS: &ProxyTLS{Version: "TLSv1.3", CommonName: "client.example", Verified: true},
		}},
		// HAProxy says "verified" here.
		{"TLS without certificate", unhex(t, haproxyNoCert), ProxyInfo{
			Source: loopback(0xdb18), Destination: loopback(0x6f1b), TLS: &ProxyTLS{Version: "TLSv1.3"},
		}},
		{"no TLS", unhex(t, haproxyPlain), ProxyInfo{Source: loopback(0x96ca), Destination: loopback(0x6db0)}},
		{"certificate of the session", withBytes(v2, "\x20\x00\x0f\x05\x00\x00\x00\x00\x21\x00\x07TLSv1.2"),
			ProxyInfo{Source: loopback(1), Destination: loopback(2), TLS: &ProxyTLS{Version: "TLSv1.2", Verified: true}}},
		{"bad certificate", withBytes(v2, "\x20\x00\x19\x03\x00\x00\x00\x0a\x21\x00\x07TLSv1.2\x22\x00\x07mallory"),
			ProxyInfo{Source: loopback(1), Destination: loopback(2), TLS: &ProxyTLS{Version: "TLSv1.2", CommonName: "mallory"}}},
		{"VPC endpoint", withBytes(v2, "\xea\x00\x17\x01vpce-08d2bf15fac5001c9"),
			ProxyInfo{Source: loopback(1), Destination: loopback(2), VPCEndpointID: "vpce-08d2bf15fac5001c9"}},
		// What cannot be read counts as not said, because a certificate's name may be in any
		// encoding.
		{"TLS without version", withBytes(v2, "\x20\x00\x05\x03\x00\x00\x00\x00"), alone},
		{"VPC endpoint with a line end", withBytes(v2, "\xea\x00\x04\x01a\r\n"), alone},
		{"unknown to us", withBytes(v2, "\xea\x00\x02\x02x\xe5\x00\x00\x04\x00\x01\x00"), alone},
		{"local with more", withBytes(unhex(t, haproxyCheck), "\xea\x00\x02\x01x"), ProxyInfo{Local: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := scripted(tt.in+request, true)
			got, ok := ProxyInfoOf(c)
			if !ok {
				t.Fatal("no info: ", c.HeaderError())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("info (-want +got):\n%s", diff)
			}
			wrapped, _ := ProxyInfoOf(tls.Server(c, nil))
			if diff := cmp.Diff(got, wrapped); diff != "" {
				t.Errorf("info through TLS (-want +got):\n%s", diff)
			}
		})
	}
}

// TestProxyInfoOfNone: no header, a bad one, and connections that have none.
func TestProxyInfoOfNone(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	for name, conn := range map[string]net.Conn{
		"no header": scripted(request, false),
		"missing":   scripted(request, true),
		"silent":    scripted("", true),
		"other":     server,
		"other TLS": tls.Server(server, nil),
		"nil":       nil,
	} {
		if info, ok := ProxyInfoOf(conn); ok {
			t.Errorf("%s: %+v", name, info)
		}
	}
}

// TestProxyBrokenList: a list that does not end with its header makes the header a broken
// one.
func TestProxyBrokenList(t *testing.T) {
	v2 := header2(t, proxyproto.TCPv4, proxyproto.PROXY, scriptPeer, scriptLocal)
	for _, more := range []string{"\x04", "\x04\x00", "\xea\x00\x05\x01abc", "\x04\x00\x01\x00\x20"} {
		c := scripted(withBytes(v2, more)+request, true)
		if err := c.HeaderError(); !errors.Is(err, proxyproto.ErrTruncatedTLV) {
			t.Errorf("%x: %v, want %v", more, err, proxyproto.ErrTruncatedTLV)
		}
		if _, ok := ProxyInfoOf(c); ok {
			t.Errorf("%x: there is info", more)
		}
	}
}
