package listeners

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pires/go-proxyproto"
)

// FuzzProxyConn compares what a connection makes of its first bytes, however they
// are split, with a second reading of the specification.
func FuzzProxyConn(f *testing.F) {
	headers := [2]string{"\x21\x11\x00\x0c\x7f\x00\x00\x01\x0a\x00\x00\x02\x00\x05\x01\xbb", "\x20\x00\x00\x00"}
	for _, seed := range []string{
		"", "P", request, header1 + request, "PROXY UNKNOWN ffff\r\n" + request, "PROXY TCP6 ::1 ::ffff:1.2.3.4 0 65535\r\n",
		"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		proxySignature2 + headers[0] + request, proxySignature2 + headers[1] + request, proxySignature2 + "\x20\x11\x00\x02xx" + request,
		withTLV(proxySignature2+headers[0], 300) + request,
		header2(f, proxyproto.UnixStream, proxyproto.PROXY, &net.UnixAddr{Name: "/a"}, &net.UnixAddr{Name: "/b"}),
	} {
		for _, who := range []uint8{0, 1, 2, 3} {
			f.Add([]byte(seed), uint16(7), who)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint16, who uint8) {
		in, trusted, required := string(b), who&1 == 0, who&2 == 0
		want := readBySpecification(in, trusted, required)
		for _, step := range []int{len(in) + 1, max(int(step), 1)} {
			got := read(t, in, step, trusted, required)
			if got.Err != nil && want.Err == errBroken {
				got.Err = errBroken
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("%q in steps of %d, trusted %t, required %t (-want +got):\n%s", in, step, trusted, required, diff)
			}
		}
	})
}

// readBySpecification says what becomes of a connection that is closed behind in. All
// faults of a header are errBroken.
func readBySpecification(in string, trusted, required bool) outcome {
	got := outcome{Remote: scriptPeer.String(), Local: scriptLocal.String()}
	one, two := strings.HasPrefix(in, "PROXY "), strings.HasPrefix(in, "\r\n\r\n\x00\r\nQUIT\n")
	switch {
	case required && !trusted:
		got.Err = errBroken
		return got
	case in == "":
		got.Err = ErrProxySilent
		return got
	case !one && !two && !required:
		got.Rest = in
		return got
	case !one && !two, !trusted:
		got.Err = errBroken
		return got
	}
	specified := readVersion1
	if two {
		specified = readVersion2
	}
	source, destination, rest, ok := specified(in)
	if !ok {
		got.Err = errBroken
		return got
	}
	got.Rest = rest
	if source != nil {
		got.Remote, got.Local = *source, *destination
	}
	return got
}

// readVersion1 follows section 2.1. Without a source the header is one of the balancer's
// own.
func readVersion1(in string) (source, destination *string, rest string, ok bool) {
	line, rest, found := strings.Cut(in, "\n")
	if !found || len(line) >= 107 || !strings.HasSuffix(line, "\r") {
		return nil, nil, "", false
	}
	words := strings.Split(strings.TrimSuffix(line, "\r"), " ")
	if words[1] == "UNKNOWN" {
		return nil, nil, rest, true
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return nil, nil, "", false
	}
	var ends [2]string
	for i := range ends {
		address, err := netip.ParseAddr(words[2+i])
		if err != nil || address.Is4() != (words[1] == "TCP4") || address.Zone() != "" {
			return nil, nil, "", false
		}
		port, err := strconv.ParseUint(words[4+i], 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != words[4+i] {
			return nil, nil, "", false
		}
		ends[i] = netip.AddrPortFrom(address.Unmap(), uint16(port)).String()
	}
	return &ends[0], &ends[1], rest, true
}

// readVersion2 follows section 2.2.
func readVersion2(in string) (source, destination *string, rest string, ok bool) {
	if len(in) < 16 {
		return nil, nil, "", false
	}
	length := int(binary.BigEndian.Uint16([]byte(in[14:])))
	if length > 4096 || len(in) < 16+length {
		return nil, nil, "", false
	}
	body, rest := in[16:16+length], in[16+length:]
	command, family := in[12], in[13]
	if !slices.Contains([]byte{0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32}, family) {
		return nil, nil, "", false
	}
	size := map[byte]int{1: 4, 2: 16, 3: 108}[family>>4]
	switch {
	case command == 0x20:
		return nil, nil, rest, true
	case command != 0x21, family == 0, family>>4 == 3 && length < 2*size, family>>4 != 3 && length < 2*size+4:
		return nil, nil, "", false
	}
	if family>>4 == 3 && !endsWithHeader(body[2*size:]) || family>>4 != 3 && !endsWithHeader(body[2*size+4:]) {
		return nil, nil, "", false
	}
	var ends [2]string
	for i := range ends {
		address := body[i*size:][:size]
		if family>>4 == 3 {
			ends[i], _, _ = strings.Cut(address, "\x00")
			continue
		}
		ip, _ := netip.AddrFromSlice([]byte(address))
		port := binary.BigEndian.Uint16([]byte(body[2*size+2*i:]))
		ends[i] = netip.AddrPortFrom(ip.Unmap(), port).String()
	}
	return &ends[0], &ends[1], rest, true
}

// endsWithHeader reports whether the list behind the addresses (section 2.2) is all
// there: type, length and value of each element.
func endsWithHeader(list string) bool {
	for list != "" {
		if len(list) < 3 || len(list) < 3+int(binary.BigEndian.Uint16([]byte(list[1:]))) {
			return false
		}
		list = list[3+int(binary.BigEndian.Uint16([]byte(list[1:]))):]
	}
	return true
}
