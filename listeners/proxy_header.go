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

// ProxyInfo is what the PROXY protocol header of a connection says. It is as true as the
// trusted balancer that sent it.
type ProxyInfo struct {
	// Local is true where the balancer speaks for itself, as in health checks: the command
	// LOCAL of version 2, UNKNOWN of version 1. The other fields are empty then.
	Local bool

	// Source is the client, and Destination what it connected to. Nil where the balancer
	// does not say.
	Source, Destination net.Addr

	// VPCEndpointID is the endpoint of an AWS VPC endpoint service through which the client
	// reached a Network Load Balancer ("vpce-08d2bf15fac5001c9"); empty for other clients.
	VPCEndpointID string

	// TLS describes the TLS connection between client and balancer; nil where there is none,
	// or the balancer does not say.
	TLS *ProxyTLS
}

// ProxyTLS is what a balancer that ends TLS says about it (PROXY protocol specification,
// section 2.2.6).
type ProxyTLS struct {
	// Version is the balancer's name for it, such as "TLSv1.3".
	Version string

	// Verified is true where the balancer has verified a certificate of the client, on this
	// connection or when its session began.
	Verified bool

	// CommonName is the client certificate's. It says nothing unless Verified is true.
	CommonName string
}

// ProxyInfoOf returns what the PROXY protocol header of a connection says. It reports
// false where there is none, or a bad one. It looks through wrappers that have a method
// NetConn() net.Conn.
//
// It waits for the header, and may be called concurrently with all of conn's methods.
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

// The two forms of a header (PROXY protocol specification, sections 2.1 and 2.2). The
// space belongs to the first signature: without it, the word may begin a request line.
const (
	proxySignature1 = "PROXY "
	proxySignature2 = "\r\n\r\n\x00\r\nQUIT\n"

	// proxyMaxLine is the longest header of version 1, with its line end.
	proxyMaxLine = 107
	// proxyFixed is the fixed part of a header of version 2. Its last two bytes are the
	// length of the rest.
	proxyFixed = 16
	// proxyMaxRest bounds that rest, as go-proxyproto does. The addresses take 216 bytes at
	// most; client certificates and the like have to fit in what is left.
	proxyMaxRest = 4096
)

// proxyAnswer is what the bytes so far say about a header.
type proxyAnswer uint8

const (
	proxyUnclear proxyAnswer = iota // They could begin a header.
	proxyNone                       // They do not.
	proxyPartial                    // They begin a header, of which the end is missing.
	proxyWhole                      // They begin with a whole header.
	proxyTooLong                    // They begin a header that is too long.
)

// scanProxyHeader looks for a header at the beginning of b, and for its length, which is
// 0 while it is not known.
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

// parseProxyHeader reads a whole header. It ignores malformed information beside the
// addresses, unless the list of it does not end where the header ends.
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

// streamAddr gives an address the type that it has on a stream connection. A client that
// came by QUIC has the same address, and the same limits, as over TCP.
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

// proxyTLSOf returns what a header says about the client's TLS. HAProxy reports a
// successful verification also for a client without a certificate, so that alone does not
// count.
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
