package mux

import (
	"errors"
	"net"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// failureProxyHeader is the reason under which a connection is counted whose PROXY header is
// missing, broken, too slow or not to be trusted.
const failureProxyHeader = "proxy_header"

// headerError waits for the header of a connection that begins with one, and
// returns what is wrong with it. TLS that the caller of Serve brought stands above it.
func headerError(raw net.Conn) error {
	for {
		switch layer := raw.(type) {
		case interface{ HeaderError() error }:
			return layer.HeaderError()
		case interface{ NetConn() net.Conn }:
			raw = layer.NetConn()
		default:
			return nil
		}
	}
}

// headerVerdict is the verdict on a connection with a bad header. One that said nothing is a probe.
func headerVerdict(err error) sniff.Verdict {
	v := sniff.Verdict{Failure: failureProxyHeader, Reason: err.Error()}
	if errors.Is(err, listeners.ErrProxySilent) {
		v.Failure = sniff.FailureSilent
	}
	return v
}
