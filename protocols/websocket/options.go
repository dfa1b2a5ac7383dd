package websocket

import (
	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
)

// Options are what a handler sets for its own WebSockets. What is not set is as the
// server's configuration says.
type Options struct {
	Subprotocols   []string                       // that the handler speaks, the best first
	OriginPatterns []string                       // nil: not set
	Compression    protocols.WebSocketCompression // empty: not set
}

// compressionModes are coder/websocket's names. Off is 0.
var compressionModes = map[protocols.WebSocketCompression]coder.CompressionMode{
	protocols.CompressionTakeover:   coder.CompressionContextTakeover,
	protocols.CompressionNoTakeover: coder.CompressionNoContextTakeover,
}

// over returns the options of the configuration with o's on top. o may be nil.
func (o *Options) over(accept coder.AcceptOptions) coder.AcceptOptions {
	if o == nil {
		return accept
	}
	accept.Subprotocols = o.Subprotocols
	if o.OriginPatterns != nil {
		accept.OriginPatterns = o.OriginPatterns
	}
	if o.Compression != "" {
		accept.CompressionMode = compressionModes[o.Compression]
	}
	return accept
}
