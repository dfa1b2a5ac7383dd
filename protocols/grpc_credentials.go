package protocols

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
)

// channelzService is the service that shows connections and their sockets.
const channelzService = "grpc.channelz.v1.Channelz"

// handshaken are transport credentials for connections whose TLS handshake, if
// they have one, is over. They show its outcome as the peer's AuthInfo.
type handshaken struct {
	// It answers for all but ServerHandshake, which asks nothing of it.
	credentials.TransportCredentials
	// sockets lets grpc-go see the socket of each connection. It would keep a copy of the
	// socket's options as they are at the accept, which is some 370 bytes, for channelz
	// alone.
	sockets bool
}

// TLSConn is a connection that knows the outcome of its TLS handshake. It is not named
// ConnectionState, because net/http does not look for HTTP/2 on a connection
// with that method.
type TLSConn interface {
	// TLSState returns nil for a connection without TLS.
	TLSState() *tls.ConnectionState
}

// Plaintext is the AuthInfo of a native call's peer on a connection without TLS. It says
// what the AuthInfo of grpc-go's package insecure says, and names the connection, which a
// call shows nowhere else.
type Plaintext struct{ conn net.Conn }

// NetConn returns the connection that the server's listener has accepted. Use only its
// addresses: the server reads and writes it.
func (p Plaintext) NetConn() net.Conn { return p.conn }

// AuthType implements [credentials.AuthInfo].
func (Plaintext) AuthType() string { return "insecure" }

// GetCommonAuthInfo is how grpc-go asks for the security level.
func (Plaintext) GetCommonAuthInfo() credentials.CommonAuthInfo {
	return credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (h *handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if tc, ok := conn.(TLSConn); ok {
		if state := tc.TLSState(); state != nil {
			return conn, credentials.TLSInfo{
				State:          *state,
				CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
				SPIFFEID:       spiffeID(state.PeerCertificates),
			}, nil
		}
	}
	info := Plaintext{conn}
	if ready, ok := conn.(readyConn); ok && !h.sockets {
		conn = socketless{ready}
	}
	return conn, info, nil
}

// The longest SPIFFE ID and trust domain (SPIFFE ID specification, section 2.3).
const (
	maxSPIFFEID    = 2048
	maxTrustDomain = 255
)

// spiffeID returns the SPIFFE ID of the client's certificate, as grpc-go's own credentials
// do: the one URI that names it, or nil where there is none or it is not valid.
func spiffeID(chain []*x509.Certificate) *url.URL {
	if len(chain) == 0 || len(chain[0].URIs) != 1 {
		return nil // A certificate with a SPIFFE ID has no other URI.
	}
	id := chain[0].URIs[0]
	switch {
	case id.Scheme != "spiffe", id.Opaque != "", id.User.Username() != "":
		return nil
	case len(id.String()) > maxSPIFFEID, id.Host == "", len(id.Host) > maxTrustDomain, id.Path == "":
		return nil
	}
	return id
}

// addrOf returns the address of the client of a call that net/http serves, by the call's
// context; nil where it is not known.
type addrOf func(context.Context) net.Addr

// show has the peer of a call show the client's address, of the type that it has on
// connections of grpc-go's own. ServeHTTP shows its text, of a type that is unexported. The
// peer is the call's own, and must not be in use.
func (of addrOf) show(ctx context.Context) {
	if of == nil {
		return
	}
	if p, ok := peer.FromContext(ctx); ok {
		if addr := of(ctx); addr != nil {
			p.Addr = addr
		}
	}
}

// identifier completes what the calls of a grpc-go server's ServeHTTP show of their client:
// the address, as show does, and the SPIFFE ID, which grpc-go leaves out. It is a
// stats.Handler, because those are asked first. Each costs time in every call.
type identifier struct{ addrOf }

// TagConn implements [stats.Handler].
func (i identifier) TagConn(ctx context.Context, tag *stats.ConnTagInfo) context.Context {
	i.show(ctx)
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	tag.RemoteAddr = p.Addr // For the handlers behind this one.
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		info.SPIFFEID = spiffeID(info.State.PeerCertificates)
		p.AuthInfo = info
	}
	return ctx
}

// TagRPC implements [stats.Handler].
func (identifier) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (identifier) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if header, ok := event.(*stats.InHeader); ok {
		if p, ok := peer.FromContext(ctx); ok {
			header.RemoteAddr = p.Addr
		}
	}
}

// HandleConn implements [stats.Handler].
func (identifier) HandleConn(context.Context, stats.ConnStats) {}

// Clone implements [credentials.TransportCredentials].
func (h *handshaken) Clone() credentials.TransportCredentials {
	return &handshaken{h.TransportCredentials.Clone(), h.sockets}
}

// readyConn is all that grpc-go needs of a connection.
type readyConn interface {
	net.Conn
	ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error)
}

// socketless is a connection without SyscallConn.
type socketless struct{ readyConn }
