package listeners

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// The two forms of a header (PROXY protocol specification, sections 2.1 and
// 2.2). The space belongs to the first signature: without it, the word may begin a request line.
const (
	proxySignature1 = "PROXY "
	proxySignature2 = "\r\n\r\n\x00\r\nQUIT\n"

	// proxyMaxLine is the longest header of version 1, with its line end.
	proxyMaxLine = 107
	// proxyFixed is the part of a header of version 2 that is always there. Its last two bytes are the length of the rest.
	proxyFixed = 16
	// proxyMaxRest bounds that rest. The addresses take 216 bytes at most; what
	// else balancers add, a client certificate among it, fits in the page that go-proxyproto allows.
	proxyMaxRest = 4096
)

// proxyAnswer is what the bytes so far say about a header.
type proxyAnswer uint8

const (
	proxyUnclear proxyAnswer = iota // They could begin a header.
	proxyNone                       // They do not.
	proxyPartial                    // They begin a header, of which the end is missing.
	proxyWhole                      // They begin with a whole header.
	proxyTooLong                    // They begin a header that is longer than any may be.
)

// scanProxyHeader looks for a header at the beginning of b. The length is that of the
// whole header, as far as it is known: 0 while it is not.
func scanProxyHeader(b []byte) (length int, answer proxyAnswer) {
	switch {
	case bytes.HasPrefix(b, []byte(proxySignature1)):
		line := b[:min(len(b), proxyMaxLine)]
		switch end := bytes.IndexByte(line, '\n'); {
		case end >= 0:
			return end + 1, proxyWhole
		case len(line) == proxyMaxLine:
			return 0, proxyTooLong
		}
		return 0, proxyPartial
	case bytes.HasPrefix(b, []byte(proxySignature2)):
		if len(b) < proxyFixed {
			return 0, proxyPartial
		}
		rest := int(binary.BigEndian.Uint16(b[proxyFixed-2:]))
		switch length = proxyFixed + rest; {
		case rest > proxyMaxRest:
			return 0, proxyTooLong
		case len(b) < length:
			return length, proxyPartial
		}
		return length, proxyWhole
	case strings.HasPrefix(proxySignature1, string(b)), strings.HasPrefix(proxySignature2, string(b)):
		return 0, proxyUnclear
	}
	return 0, proxyNone
}

// parseProxyHeader reads a whole header. What it says beside the addresses is read
// as far as it is in order; only a list of it that does not end where the header ends makes the header a broken one.
func parseProxyHeader(b []byte) (*ProxyInfo, error) {
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return nil, fmt.Errorf("listeners: proxy header: %w", err)
	}
	if header.Command.IsLocal() {
		return &ProxyInfo{Local: true}, nil
	}
	tlvs, err := header.TLVs()
	if err != nil {
		return nil, fmt.Errorf("listeners: proxy header: %w", err)
	}
	return &ProxyInfo{
		Source:        streamAddr(header.SourceAddr),
		Destination:   streamAddr(header.DestinationAddr),
		VPCEndpointID: tlvparse.FindAWSVPCEndpointID(tlvs),
		TLS:           proxyTLSOf(tlvs),
	}, nil
}

// streamAddr gives an address the type that it has on a connection like ours. A
// client that came by QUIC has the same address here, and the same limits, as one that came by TCP.
func streamAddr(a net.Addr) net.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return &net.TCPAddr{IP: a.IP, Port: a.Port}
	case *net.UnixAddr:
		return &net.UnixAddr{Name: a.Name, Net: "unix"}
	default:
		return a
	}
}

// ProxyInfo is what the PROXY protocol header of a connection says. It is as
// true as the balancer that has sent it, which is one of those that are trusted.
type ProxyInfo struct {
	// Local is true where the balancer speaks for itself, as its health checks do: the command LOCAL
	// of version 2, UNKNOWN of version 1. There is nothing else then.
	Local bool

	// Source is the client, and Destination what it has connected to. Nil where the balancer does not say.
	Source, Destination net.Addr

	// VPCEndpointID is the endpoint of an AWS VPC endpoint service by which the client has come to a Network Load
	// Balancer ("vpce-08d2bf15fac5001c9"); empty for other clients.
	VPCEndpointID string

	// TLS is about the TLS connection that the client has with the balancer; nil where it has none, or
	// the balancer does not say.
	TLS *ProxyTLS
}

// ProxyTLS is what a balancer that ends TLS says about it (PROXY protocol
// specification, section 2.2.6).
type ProxyTLS struct {
	// Version is the balancer's name for it, such as "TLSv1.3".
	Version string

	// Verified is true where the client has shown a certificate, on this connection or when its session
	// began, that the balancer has verified.
	Verified bool

	// CommonName is that of the client's certificate. It says nothing about the client unless Verified is true.
	CommonName string
}

// ProxyInfoOf returns what the PROXY protocol header of a connection says. It reports
// false where there is none, or a bad one. Wrappers of the connection are looked
// through if they have a method NetConn() net.Conn.
//
// It waits for the header, as RemoteAddr of such a connection does, and may be called concurrently with all its methods.
func ProxyInfoOf(conn net.Conn) (ProxyInfo, bool) {
	for {
		switch layer := conn.(type) {
		case *proxyConn:
			_ = layer.HeaderError() // There is no info then.
			info := layer.info.Load()
			if info == nil {
				return ProxyInfo{}, false
			}
			return *info, true
		case interface{ NetConn() net.Conn }:
			conn = layer.NetConn()
		default:
			return ProxyInfo{}, false
		}
	}
}

// proxyTLSOf returns what a header says about the client's TLS.
//
// HAProxy says that there was no error in verifying also where the client had no
// certificate, so "verified" alone means nothing.
func proxyTLSOf(tlvs []proxyproto.TLV) *ProxyTLS {
	said, ok := tlvparse.FindSSL(tlvs)
	if !ok || !said.ClientSSL() {
		return nil
	}
	t := &ProxyTLS{Verified: said.Verified() && (said.ClientCertConn() || said.ClientCertSess())}
	t.Version, _ = said.SSLVersion()
	t.CommonName, _ = said.ClientCN()
	return t
}
