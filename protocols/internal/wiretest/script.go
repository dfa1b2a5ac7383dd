package wiretest

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// MaxScript is how long a script should be at most: longer ones are slow and show nothing
// new.
const MaxScript = 256

// Script makes the frames of an HTTP/2 client, without the preface, of any bytes, for fuzz
// targets: bytes that are changed at random seldom make a header block. Most of the frames
// are sound, and their numbers are often at the edge of what RFC 9113 allows. The client
// acknowledges the server's SETTINGS first if the first byte is even.
func Script(script []byte) []byte {
	s := &scripted{script: script}
	s.fr = http2.NewFramer(&s.out, nil)
	s.fr.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	if s.next()%2 == 0 {
		_ = s.fr.WriteSettings() // A bytes.Buffer takes every write.
		_ = s.fr.WriteSettingsAck()
	}
	for len(s.script) > 0 {
		s.frame(s.next())
	}
	return s.out.Bytes()
}

type scripted struct {
	script     []byte
	out, block bytes.Buffer
	fr         *http2.Framer
	enc        *hpack.Encoder
	opened     uint32 // The next stream.
}

// next returns the script's next byte, and 0 behind its end.
func (s *scripted) next() byte {
	if len(s.script) == 0 {
		return 0
	}
	b := s.script[0]
	s.script = s.script[1:]
	return b
}

// bytes returns up to n bytes of the script.
func (s *scripted) bytes(n int) []byte {
	b := s.script[:min(n, len(s.script))]
	s.script = s.script[len(b):]
	return b
}

// edges are numbers at which RFC 9113 draws a line, and some without a meaning.
var edges = []uint32{
	0, 1, 2, 3, 100, 4096, 8192, 1<<14 - 1, 1 << 14, 1<<16 - 1, 1<<24 - 1, 1 << 24,
	1<<31 - 1<<16, 1<<31 - 1<<16 + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1,
}

func (s *scripted) number() uint32 {
	if n := int(s.next()); n < len(edges) {
		return edges[n]
	}
	return binary.BigEndian.Uint32(append(bytes.Clone(s.bytes(4)), 0, 0, 0, 0))
}

// stream returns the stream opened last, or another one.
func (s *scripted) stream() uint32 {
	if n := s.next(); n >= 8 {
		return uint32(n % 16)
	}
	return max(s.opened, 2) - 1
}

// frame writes the kind of frame.
func (s *scripted) frame(kind byte) {
	switch kind % 16 {
	default:
		s.headers()
	case 0:
		settings := make([]http2.Setting, s.next()%5)
		for i := range settings {
			settings[i] = http2.Setting{ID: http2.SettingID(s.next() % 11), Val: s.number()}
			if settings[i].ID == 10 {
				settings[i].ID = 0xfe03 // gRPC's C-core.
			}
		}
		_ = s.fr.WriteSettings(settings...)
	case 1:
		_ = s.fr.WriteSettingsAck()
	case 2:
		_ = s.fr.WritePing(s.next()%2 == 1, [8]byte(append(bytes.Clone(s.bytes(8)), "12345678"...)))
	case 3:
		_ = s.fr.WriteWindowUpdate(0, s.number())
	case 4:
		_ = s.fr.WriteWindowUpdate(s.stream(), s.number())
	case 5:
		_ = s.fr.WritePriority(s.stream(), http2.PriorityParam{StreamDep: s.stream(), Weight: 1})
	case 6:
		_ = s.fr.WriteRawFrame(http2.FramePriorityUpdate, 0, 0, append(binary.BigEndian.AppendUint32(nil, s.stream()), s.bytes(3)...))
	case 7:
		_ = s.fr.WriteData(s.stream(), s.next()%2 == 1, s.bytes(int(s.next())))
	case 8:
		_ = s.fr.WriteRSTStream(s.stream(), http2.ErrCode(s.next()))
	case 9:
		flags, stream := http2.Flags(s.next()), s.number()
		_ = s.fr.WriteRawFrame(http2.FrameType(s.next()), flags, stream, s.bytes(int(s.next())))
	case 10:
		s.enc.SetMaxDynamicTableSize(s.number() % 8192)
	}
}

// scriptFields are what header blocks are made of.
var scriptFields = [...][2]string{
	{":method", "POST"}, {":scheme", "http"}, {":path", "/s/Call"}, {":path", "/t/Call"}, {":authority", "x"},
	{"content-type", "application/grpc"}, {"content-type", "application/grpc+proto"}, {"content-type", "application/grpc-web"}, {"content-type", "text/plain"},
	{"user-agent", "grpc-go/1.85.0"}, {"user-agent", "grpc-c++/1.6 grpc-c/40.0"}, {"user-agent", "grpc-java-netty/1.7"}, {"user-agent", "curl/8"},
	{":method", "GET"}, {":protocol", "websocket"}, {":status", "200"}, {":path", ""}, {":other", "x"},
	{"via", "2 x"}, {"forwarded", "for=x"}, {"x-forwarded-for", "x"}, {"x-envoy-y", "x"}, {"te", "trailers"}, {"trailer", "a,b"},
	{"Upper", "x"}, {"", "x"}, {"bad value", "x"}, {"x", "bad\nvalue"}, {"x", strings.Repeat("long", 1<<10)}, {"y", strings.Repeat("~", 1<<10)},
}

// headers writes a header block: that of a call, if the script says so, and more fields.
func (s *scripted) headers() {
	s.block.Reset()
	how := s.next()
	if how%4 > 0 {
		for _, i := range []int{0, 1, 2, 5, 9} {
			s.field(scriptFields[i], false)
		}
	}
	for range how >> 2 % 8 {
		i := s.next()
		s.field(scriptFields[int(i)%len(scriptFields)], i >= 128)
	}
	s.opened += 2
	p := http2.HeadersFrameParam{StreamID: s.opened - 1, EndHeaders: true, EndStream: how >= 128, BlockFragment: s.block.Bytes()}
	if how&32 != 0 {
		p.StreamID, p.PadLength = s.stream(), s.next()
		p.Priority = http2.PriorityParam{StreamDep: s.stream(), Weight: s.next()}
	}
	var rest []byte
	if how&64 != 0 {
		n := min(int(s.next()), s.block.Len())
		p.BlockFragment, rest, p.EndHeaders = p.BlockFragment[:n], p.BlockFragment[n:], false
	}
	_ = s.fr.WriteHeaders(p)
	for !p.EndHeaders {
		n := min(int(s.next())+1, len(rest))
		p.EndHeaders = n == len(rest)
		_ = s.fr.WriteContinuation(p.StreamID, p.EndHeaders, rest[:n])
		rest = rest[n:]
	}
}

func (s *scripted) field(f [2]string, sensitive bool) {
	_ = s.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: sensitive})
}
