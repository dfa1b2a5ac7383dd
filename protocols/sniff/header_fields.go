package sniff

import (
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/protocols"
)

const (
	// headerTableSize is the dynamic table that an encoder may count on before
	// it sees another SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2).
	headerTableSize = 4096

	// maxHeaderList bounds the decoded header list, counted as RFC 9113,
	// section 6.5.2, does, since a few bytes of HPACK can name the same long
	// field again and again. It is twice what the servers take by default.
	maxHeaderList = 64 << 10
)

var blockDecoders = sync.Pool{New: func() any {
	d := new(blockDecoder)
	d.hpack = hpack.NewDecoder(headerTableSize, func(f hpack.HeaderField) {
		if !d.fields.add(f) {
			// The verdict is certain; what follows need not be decoded.
			d.hpack.SetEmitEnabled(false)
		}
	})
	return d
}}

// A blockDecoder decodes one header block at a time.
type blockDecoder struct {
	hpack  *hpack.Decoder
	fields headerFields
}

func (d *blockDecoder) begin(maxString int) {
	d.fields = headerFields{}
	d.hpack.SetEmitEnabled(true)
	d.hpack.SetMaxStringLength(maxString)
}

// end forgets the block's dynamic table.
func (d *blockDecoder) end() {
	d.fields = headerFields{}
	d.hpack.SetMaxDynamicTableSize(0)
	d.hpack.SetMaxDynamicTableSize(headerTableSize)
}

// headerFields keeps what the verdict needs of a request's header fields.
type headerFields struct {
	other       bool // Malformed, too long, or of no gRPC client: nothing more counts.
	post        bool // The method is POST.
	contentType bool // The content type is gRPC.
	proxied     bool // A proxy left its trace.
	path        string
	userAgent   string

	regular bool  // A field that is not a pseudo-header was seen.
	seen    uint8 // Bits of the fields that may stand only once.
	size    uint32
}

// Bits of headerFields.seen.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
	seenContentType
	seenUserAgent
)

// isCall reports a gRPC call.
func (h *headerFields) isCall() bool { return !h.other && h.post && h.contentType }

// add looks at one field and reports whether the following ones matter.
func (h *headerFields) add(f hpack.HeaderField) bool {
	h.size += f.Size()
	switch {
	case h.size > maxHeaderList || !httpguts.ValidHeaderFieldValue(f.Value):
		h.other = true
	case f.IsPseudo():
		h.addPseudo(f)
	default:
		h.regular = true
		h.addRegular(f)
	}
	return !h.other
}

// addPseudo applies RFC 9113, section 8.3: pseudo-headers are a closed set,
// come first and stand once.
func (h *headerFields) addPseudo(f hpack.HeaderField) {
	var bit uint8
	switch f.Name {
	case ":method":
		bit = seenMethod
		// The gRPC protocol allows no other method.
		h.post = f.Value == "POST"
		h.other = !h.post
	case ":scheme":
		bit = seenScheme
	case ":authority":
		bit = seenAuthority
	case ":path":
		bit = seenPath
		h.path = f.Value
	case ":protocol":
		bit = seenProtocol // RFC 8441, section 4.
	}
	if bit == 0 || h.regular {
		h.other = true
	}
	h.once(bit)
}

func (h *headerFields) addRegular(f hpack.HeaderField) {
	switch f.Name {
	case "content-type":
		h.once(seenContentType)
		h.contentType = protocols.IsGRPCContentType(f.Value)
		h.other = h.other || !h.contentType
	case "user-agent":
		h.once(seenUserAgent)
		h.userAgent = f.Value
	case "via", "forwarded":
		h.proxied = true
	default:
		if !validFieldName(f.Name) {
			h.other = true
		}
		if strings.HasPrefix(f.Name, "x-forwarded-") || strings.HasPrefix(f.Name, "x-envoy-") {
			h.proxied = true
		}
	}
}

// once notes a field that makes the request ambiguous when it comes twice.
func (h *headerFields) once(bit uint8) {
	if h.seen&bit != 0 {
		h.other = true
	}
	h.seen |= bit
}

// validFieldName applies RFC 9113, section 8.2.1: a token without capitals.
func validFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isToken(c) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return name != ""
}
