package listeners

import (
	"net"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

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
