package mux

import (
	"fmt"
	"path"
	"slices"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// WebSocketOption is one thing that [WebSocket] and [WithWebSocket] are told.
type WebSocketOption func(*websocket.Options)

// Subprotocols names the subprotocols that the handler speaks, the one that it likes best
// first. The first of them that the client asks for is agreed on, and Subprotocol of the
// handler's connection tells which. Default: none. Browsers and node close a WebSocket
// that has asked for subprotocols and got none.
func Subprotocols(names ...string) WebSocketOption {
	names = slices.Clone(names)
	return func(o *websocket.Options) { o.Subprotocols = names }
}

// OriginPatterns names the origins, besides the request's own host, whose pages may open a
// WebSocket. Patterns are as in [path.Match], of the origin's host, or of the whole origin
// where the pattern has a scheme: "*.example.com", "https://example.com". The default is
// the key websocket.origin_patterns. It panics for a pattern that is malformed.
func OriginPatterns(patterns ...string) WebSocketOption {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			panic(fmt.Sprintf("mux: OriginPatterns: %q: %v", p, err))
		}
	}
	patterns = append([]string{}, patterns...) // Not nil, which would be the default.
	return func(o *websocket.Options) { o.OriginPatterns = patterns }
}

// Compression says whether messages are compressed where the client offers it (RFC 7692).
// The default is the key websocket.compression. It panics for any value but
// [CompressionOff], [CompressionTakeover] and [CompressionNoTakeover].
func Compression(c WebSocketCompression) WebSocketOption {
	if !slices.Contains([]WebSocketCompression{CompressionOff, CompressionTakeover, CompressionNoTakeover}, c) {
		panic(fmt.Sprintf("mux: Compression: %q", c))
	}
	return func(o *websocket.Options) { o.Compression = c }
}

// WebSocketCompression says how the messages of a WebSocket are compressed.
type WebSocketCompression = protocols.WebSocketCompression

// The values of [WebSocketCompression]. With takeover each message refers to those before
// it, which costs 1.2 MB a connection.
const (
	CompressionOff        = protocols.CompressionOff
	CompressionTakeover   = protocols.CompressionTakeover
	CompressionNoTakeover = protocols.CompressionNoTakeover
)

// webSocketOptions returns nil where no option is given.
func webSocketOptions(options []WebSocketOption) *websocket.Options {
	if len(options) == 0 {
		return nil
	}
	o := new(websocket.Options)
	for _, option := range options {
		option(o)
	}
	return o
}
