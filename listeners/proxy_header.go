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
