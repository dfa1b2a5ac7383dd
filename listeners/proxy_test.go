package listeners

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"
)

const header1 = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"

// header2 returns a header of version 2 as go-proxyproto writes it.
func header2(tb testing.TB, transport proxyproto.AddressFamilyAndProtocol, command proxyproto.ProtocolVersionAndCommand, source, destination net.Addr) string {
	tb.Helper()
	b, err := (&proxyproto.Header{
		Version: 2, Command: command, TransportProtocol: transport, SourceAddr: source, DestinationAddr: destination,
	}).Format()
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// withTLV appends n bytes of padding to a header of version 2, as balancers append what
// they know (section 2.2).
func withTLV(header string, n int) string {
	const noop = 4
	b := append([]byte(header), noop, byte(n>>8), byte(n))
	b = append(b, make([]byte, n)...)
	length := len(b) - proxyFixed
	b[proxyFixed-2], b[proxyFixed-1] = byte(length>>8), byte(length)
	return string(b)
}

// scriptConn reads what it was given, at most step bytes at a time, and then io.EOF.
type scriptConn struct {
	net.Conn

	in   io.Reader
	step int
	peer net.Addr
	out  bytes.Buffer
}

var (
	scriptPeer  = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4321}
	scriptLocal = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
)

func (c *scriptConn) Read(p []byte) (int, error)    { return c.in.Read(p[:min(len(p), c.step)]) }
func (c *scriptConn) Write(p []byte) (int, error)   { return c.out.Write(p) }
func (c *scriptConn) RemoteAddr() net.Addr          { return c.peer }
func (*scriptConn) LocalAddr() net.Addr             { return scriptLocal }
func (*scriptConn) SetReadDeadline(time.Time) error { return nil }

// outcome is all that can be seen of a connection that may begin with a header.
type outcome struct {
	Remote, Local string
	Err           error
	Rest          string
}

// read plays the bytes in steps to a connection.
func read(tb testing.TB, in string, step int, trusted, required bool) outcome {
	tb.Helper()
	c := &proxyConn{
		Conn:    &scriptConn{in: strings.NewReader(in), step: step, peer: scriptPeer},
		trusted: trusted, required: required,
	}
	got := outcome{Remote: c.RemoteAddr().String(), Local: c.LocalAddr().String(), Err: c.HeaderError()}
	rest, err := io.ReadAll(c)
	if err != got.Err {
		tb.Errorf("the header's error is %v, that of Read %v", got.Err, err)
	}
	got.Rest = string(rest)
	return got
}

const request = "GET / HTTP/1.1\r\n\r\n"

// TestProxyHeader reads the forms of a header, at once and byte by byte, and what follows
// it.
func TestProxyHeader(t *testing.T) {
	const remote, local = "127.0.0.1:4321", "127.0.0.1:80"
	four := func(last byte, port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, last), Port: port} }
	six := func(address string, port int) net.Addr {
		return &net.TCPAddr{IP: net.ParseIP(address), Port: port}
	}
	toUDP := func(a net.Addr) net.Addr {
		tcp := a.(*net.TCPAddr)
		return &net.UDPAddr{IP: tcp.IP, Port: tcp.Port}
	}
	v4 := header2(t, proxyproto.TCPv4, proxyproto.PROXY, four(1, 5), four(2, 6))
	tests := []struct {
		name          string
		header        string
		remote, local string
	}{
		{"version 1", header1, "192.0.2.1:56324", "198.51.100.1:443"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "[2001:db8::1]:1", "[2001:db8::2]:2"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", remote, local},
		{"version 1, unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", remote, local},
		{"version 2", v4, "192.0.2.1:5", "192.0.2.2:6"},
		{"version 2, IPv6", header2(t, proxyproto.TCPv6, proxyproto.PROXY, six("2001:db8::1", 5), six("2001:db8::2", 6)), "[2001:db8::1]:5", "[2001:db8::2]:6"},
		{"version 2, QUIC at the balancer", header2(t, proxyproto.UDPv4, proxyproto.PROXY, toUDP(four(1, 5)), toUDP(four(2, 6))), "192.0.2.1:5", "192.0.2.2:6"},
		{"version 2, Unix", header2(t, proxyproto.UnixStream, proxyproto.PROXY, &net.UnixAddr{Name: "/a"}, &net.UnixAddr{Name: "/b"}), "/a", "/b"},
		{"version 2, local", header2(t, proxyproto.UNSPEC, proxyproto.LOCAL, nil, nil), remote, local},
		{"version 2, local with addresses", header2(t, proxyproto.TCPv4, proxyproto.LOCAL, four(1, 5), four(2, 6)), remote, local},
		{"version 2, a certificate behind it", withTLV(v4, 3000), "192.0.2.1:5", "192.0.2.2:6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, required := range []bool{true, false} {
				for _, in := range []string{tt.header, tt.header + request, tt.header + strings.Repeat("x", 1000)} {
					for _, step := range []int{len(in), 1, len(tt.header), len(tt.header) + 1} {
						want := outcome{tt.remote, tt.local, nil, in[len(tt.header):]}
						if diff := cmp.Diff(want, read(t, in, step, true, required)); diff != "" {
							t.Fatalf("required %t, steps of %d (-want +got):\n%s", required, step, diff)
						}
					}
				}
			}
		})
	}
}

// errBroken stands for any error of the parser.
var errBroken = errors.New("broken")

// TestProxyPolicy: who may, must and must not send a header.
func TestProxyPolicy(t *testing.T) {
	long := "PROXY TCP4 " + strings.Repeat("1", 200)
	v2 := header2(t, proxyproto.UNSPEC, proxyproto.LOCAL, nil, nil)
	tests := []struct {
		name                                                             string
		in                                                               string
		required, optional, untrustedWhereOptional, untrustedWhereNeeded error
	}{
		{"nothing", "", ErrProxySilent, ErrProxySilent, ErrProxySilent, ErrProxyUntrusted},
		{"no header", request, ErrProxyMissing, nil, nil, ErrProxyUntrusted},
		{"much, and no header", strings.Repeat("x", 5000), ErrProxyMissing, nil, nil, ErrProxyUntrusted},
		{"a method", "PROXYFIND / HTTP/1.1\r\n\r\n", ErrProxyMissing, nil, nil, ErrProxyUntrusted},
		{"empty line first", "\r\n" + request, ErrProxyMissing, nil, nil, ErrProxyUntrusted},
		{"less than a signature", "PRO", ErrProxyMissing, nil, nil, ErrProxyUntrusted},
		{"header", header1, nil, nil, ErrProxyUnexpected, ErrProxyUntrusted},
		{"version 2", v2, nil, nil, ErrProxyUnexpected, ErrProxyUntrusted},
		{"beginning of one", header1[:20], errProxyCutShort, errProxyCutShort, ErrProxyUnexpected, ErrProxyUntrusted},
		{"beginning of version 2", v2[:14], errProxyCutShort, errProxyCutShort, ErrProxyUnexpected, ErrProxyUntrusted},
		{"long", long, errProxyTooLong, errProxyTooLong, ErrProxyUnexpected, ErrProxyUntrusted},
		{"version 2, long", withTLV(v2, 5000), errProxyTooLong, errProxyTooLong, ErrProxyUnexpected, ErrProxyUntrusted},
		{"bad family", "PROXY TCP5 a b 1 2\r\n", errBroken, errBroken, ErrProxyUnexpected, ErrProxyUntrusted},
		{"bad port", strings.Replace(header1, "443", "70000", 1), errBroken, errBroken, ErrProxyUnexpected, ErrProxyUntrusted},
		{"line feed alone", strings.Replace(header1, "\r", "", 1), errBroken, errBroken, ErrProxyUnexpected, ErrProxyUntrusted},
		{"version 3", proxySignature2 + "\x31\x11\x00\x00", errBroken, errBroken, ErrProxyUnexpected, ErrProxyUntrusted},
		{"too short for its family", proxySignature2 + "\x21\x11\x00\x04\x00\x00\x00\x00", errBroken, errBroken, ErrProxyUnexpected, ErrProxyUntrusted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				trusted, required bool
				want              error
			}{
				{true, true, tt.required},
				{true, false, tt.optional},
				{false, false, tt.untrustedWhereOptional},
				{false, true, tt.untrustedWhereNeeded},
			} {
				got := read(t, tt.in, max(len(tt.in), 1), c.trusted, c.required)
				switch {
				case c.want == errBroken:
					if got.Err == nil || !strings.HasPrefix(got.Err.Error(), "listeners: proxy header: proxyproto:") {
						t.Errorf("trusted %t, required %t: %v, want an error of the parser", c.trusted, c.required, got.Err)
					}
				case !errors.Is(got.Err, c.want):
					t.Errorf("trusted %t, required %t: %v, want %v", c.trusted, c.required, got.Err, c.want)
				}
				if got.Err != nil && got.Rest != "" {
					t.Errorf("trusted %t, required %t: %q came through", c.trusted, c.required, got.Rest)
				}
				if got.Err == nil && !strings.HasSuffix(tt.in, got.Rest) {
					t.Errorf("trusted %t, required %t: the rest of %q is %q", c.trusted, c.required, tt.in, got.Rest)
				}
			}
		})
	}
}
