package mux

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// Refusal counts connections and WebSockets that were refused, or failed before they were
// served, for one and the same fault.
type Refusal struct {
	Protocol string `json:"protocol"` // of the pool, as in [Stats].Rejected; empty while Total is 0
	Reason   string `json:"reason"`   // as in [Stats].Rejected
	Detail   string `json:"detail"`   // what was wrong; the texts are constants
	Cure     string `json:"cure"`     // what an operator can do; empty where there is nothing to do

	Total      uint64 `json:"total"`       // since the start
	LastMinute uint64 `json:"last_minute"` // in the last 60 seconds
	// Last is when the last one was refused, and RemoteAddr its peer. They are zero while
	// Total is 0.
	Last       time.Time `json:"last"`
	RemoteAddr string    `json:"remote_addr"`
}

// fault is why connections are refused: a reason that the metrics have, what was wrong, and
// what an operator can do. A fault without a cure is counted and not logged.
type fault struct{ reason, detail, cure string }

// What an operator can do about several faults.
const (
	cureProxyOff   = "set proxy_protocol.mode and proxy_protocol.trusted of the listener, or have the balancer send no PROXY header"
	cureProxyPeer  = "if the peer is a balancer of yours, add its network to proxy_protocol.trusted"
	cureClientLeft = "see the client's log; port scans and health checks that only connect do this too"
)

// The faults of connections.
var (
	faultSilent   = &fault{sniff.FailureSilent, "nothing was sent", ""}
	faultDraining = &fault{failureDraining, "the server leaves", ""}

	faultProxyMissing    = &fault{failureProxyHeader, "a trusted peer sent no PROXY header", "have the balancer send the PROXY protocol, or set proxy_protocol.mode to optional or off"}
	faultProxyUnexpected = &fault{failureProxyHeader, "a PROXY header from a peer that is not trusted", cureProxyPeer}
	faultProxyUntrusted  = &fault{failureProxyHeader, "the peer is not trusted", cureProxyPeer}
	faultProxyBroken     = &fault{failureProxyHeader, "the PROXY header is broken or too slow", "have the balancer send the PROXY protocol, version 1 or 2, as soon as it has connected"}

	faultTLSExpired         = &fault{failureTLS, "the server's certificate has expired", "renew the certificate; --watch and a reload read the new file"}
	faultTLSNotTrusted      = &fault{failureTLS, "the client does not accept the server's certificate", "serve the whole chain, and a certificate for the name that clients ask for"}
	faultTLSVersion         = &fault{failureTLS, "no common version", "update the client, or widen tls.min_version and tls.max_version"}
	faultTLSCipher          = &fault{failureTLS, "no common cipher suite", "update the client, or widen tls.cipher_suites"}
	faultTLSProtocol        = &fault{failureTLS, "no common application protocol (ALPN)", "have the client offer h2 or http/1.1, as the listener's protocols allow"}
	faultTLSNoClientCert    = &fault{failureTLS, "the client sent no certificate", "give the client a certificate, or loosen tls.client_auth"}
	faultTLSClientExpired   = &fault{failureTLS, "the client's certificate has expired", "renew the client's certificate"}
	faultTLSClientCert      = &fault{failureTLS, "the client's certificate was not verified", "have it signed by a CA in tls.client_ca, or add its CA there"}
	faultTLSPlaintext       = &fault{failureTLS, "plaintext on a TLS port", "have the client use TLS, or set tls.optional"}
	faultTLSProxy           = &fault{failureTLS, "a PROXY header on a port without proxy_protocol", cureProxyOff}
	faultTLSSlow            = &fault{failureTLS, "the handshake was too slow", "look for a slow network, or raise sniff.tls_timeout"}
	faultTLSLeft            = &fault{failureTLS, "the client left during the handshake", cureClientLeft}
	faultTLSPanic           = &fault{failureTLS, "a function of the server's tls.Config panicked", "mend it; an error in the log has the stack"}
	faultTLSOther           = &fault{failureTLS, "the handshake failed", "see the client's log; the level debug logs the error of each connection"}
	faultNoMatchProxy       = &fault{sniff.FailureNoMatch, "a PROXY header on a port without proxy_protocol", cureProxyOff}
	faultNoMatchSecondProxy = &fault{sniff.FailureNoMatch, "a second PROXY header", "of two balancers in a row, have only the last one send the PROXY protocol"}
	faultNoMatchTLS         = &fault{sniff.FailureNoMatch, "TLS on a plaintext port", "set the tls section of the listener, or have the client use no TLS"}
	faultNotServed          = &fault{sniff.FailureNoMatch, "the listener does not serve the protocol", "add it to the listener's protocols, or send the client to another port"}
	faultNoMatchALPN        = &fault{sniff.FailureNoMatch, "not the protocol that ALPN has chosen", "mend the client"}
	faultNoMatchLeft        = &fault{sniff.FailureNoMatch, "the client left in its first bytes", cureClientLeft}
	faultNoMatch            = &fault{sniff.FailureNoMatch, "no protocol of this server", "see what the peer speaks; port scans do this too"}
	faultSlow               = &fault{sniff.FailureTimeout, "the first bytes were too slow", "look for a slow network, or raise sniff.timeout"}
	faultTooLarge           = &fault{sniff.FailureTooLarge, "the first bytes were too many", "raise sniff.max_bytes"}
	faultWeakTLS            = &fault{failureInsecure, "HTTP/2 over a cipher suite that it forbids", "update the client, or take those of RFC 9113 appendix A out of tls.cipher_suites"}

	faultLimit        = &fault{pool.ReasonLimit, "limits.max_connections is reached", "add instances, or raise limits.max_connections"}
	faultPoolLimit    = &fault{pool.ReasonLimit, "max_connections of the protocol is reached", "add instances, or raise max_connections in the protocol's section"}
	faultAddressLimit = &fault{pool.ReasonAddressLimit, "limits.per_address is reached", "raise limits.per_address if many clients share the address"}
)

// faults are all of them.
var faults = []*fault{
	faultSilent, faultDraining, faultProxyMissing, faultProxyUnexpected, faultProxyUntrusted, faultProxyBroken,
	faultTLSExpired, faultTLSNotTrusted, faultTLSVersion, faultTLSCipher, faultTLSProtocol, faultTLSNoClientCert,
	faultTLSClientExpired, faultTLSClientCert, faultTLSPlaintext, faultTLSProxy, faultTLSSlow, faultTLSLeft, faultTLSPanic, faultTLSOther,
	faultNoMatchProxy, faultNoMatchSecondProxy, faultNoMatchTLS, faultNotServed, faultNoMatchALPN, faultNoMatchLeft, faultNoMatch,
	faultSlow, faultTooLarge, faultWeakTLS, faultLimit, faultPoolLimit, faultAddressLimit,
}

// fault returns what was wrong with a connection that was refused or given up.
func (c *conn) fault() *fault {
	v := c.verdict()
	switch {
	case c.account.CloseReason() == reasonDrain:
		return faultDraining
	case c.refused != notRefused:
		return refusalFaults[c.refused]
	case c.rare().fault != nil:
		return c.rare().fault.fault
	case v.Protocol == protocols.TLS:
		return faultNoMatchTLS
	case v.IsProxyHeader() && c.proxied():
		return faultNoMatchSecondProxy
	case v.IsProxyHeader():
		return faultNoMatchProxy
	case v.IsALPN():
		return faultNoMatchALPN
	case v.IsCutShort():
		return faultNoMatchLeft
	case v.Failure == sniff.FailureSilent:
		return faultSilent
	case v.Failure == sniff.FailureTimeout:
		return faultSlow
	case v.Failure == sniff.FailureTooLarge:
		return faultTooLarge
	default:
		return faultNoMatch
	}
}

// proxied reports whether the connection began with a PROXY header.
func (c *conn) proxied() bool {
	_, ok := listeners.ProxyInfoOf(c.account.NetConn())
	return ok
}

// proxyFault returns what was wrong with a PROXY header.
func proxyFault(err error) *fault {
	switch {
	case errors.Is(err, listeners.ErrProxySilent):
		return faultSilent
	case errors.Is(err, listeners.ErrProxyMissing):
		return faultProxyMissing
	case errors.Is(err, listeners.ErrProxyUnexpected):
		return faultProxyUnexpected
	case errors.Is(err, listeners.ErrProxyUntrusted):
		return faultProxyUntrusted
	default:
		return faultProxyBroken
	}
}

// tlsFault returns what was wrong with a handshake that has failed. crypto/tls has types for
// few of its errors; the texts of the others are compared.
func tlsFault(err error, hasExpired func() bool) *fault {
	var notTLS tls.RecordHeaderError
	var unverified *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	text := err.Error()
	contains := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch alert := strings.Contains(text, "remote error: tls: "); {
	case errors.As(err, &notTLS) && sniff.LooksLikeProxyHeader(notTLS.RecordHeader[:]):
		return faultTLSProxy
	case errors.As(err, &notTLS) && looksLikeHTTP(notTLS.RecordHeader):
		return faultTLSPlaintext
	case errors.As(err, &unverified):
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return faultTLSClientExpired
		}
		return faultTLSClientCert
	case contains("unsupported application protocols", "no application protocol"):
		return faultTLSProtocol // Before the others, because the client's protocols stand there.
	case contains("client didn't provide a certificate"):
		return faultTLSNoClientCert
	case contains("offered only unsupported versions", "protocol version not supported"):
		return faultTLSVersion
	case contains("no cipher suite supported", "insufficient security level"):
		return faultTLSCipher
	case contains("tls: expired certificate"), alert && hasExpired():
		return faultTLSExpired // Some clients say no more than that the certificate is bad.
	case alert && contains("certificate"):
		return faultTLSNotTrusted
	case errors.Is(err, os.ErrDeadlineExceeded):
		return faultTLSSlow
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return faultTLSLeft
	default:
		return faultTLSOther
	}
}

// hasExpired reports whether a certificate of the root has expired.
func (r *root) hasExpired() bool {
	if r.endpoint.tls != nil {
		return slices.ContainsFunc(r.endpoint.tls.Certificates(), func(c *x509.Certificate) bool { return time.Now().After(c.NotAfter) })
	}
	if r.tlsConfig == nil || len(r.tlsConfig.Certificates) == 0 {
		return false
	}
	certificate, err := x509.ParseCertificate(r.tlsConfig.Certificates[0].Certificate[0])
	return err == nil && time.Now().After(certificate.NotAfter)
}

// refusalPace is the least time between two lines about the same fault.
const refusalPace = 10 * time.Second

// refusedConns are connections that were refused for the same fault, for a line of the log.
type refusedConns struct {
	count         int
	remote, local net.Addr // of the first one; nil where they are not known
}

// merge keeps the peer of the first.
func (before refusedConns) merge(now refusedConns) refusedConns {
	before.count += now.count
	return before
}

// refusalKey is what refusals are counted and logged by.
type refusalKey struct {
	tag   pool.Tag
	fault *fault
}

// refusals counts refusals and logs them, at most one line for each fault in refusalPace.
// All methods may be called concurrently.
type refusals struct {
	lines *paced[refusalKey, refusedConns]

	mu     sync.Mutex // guards what follows
	counts map[refusalKey]*refusalCount
}

// refusalCount is what Refusal shows of a fault.
type refusalCount struct {
	total  uint64
	recent lastMinute
	last   time.Time
	remote net.Addr
}

func newRefusals(log func(refusalKey, refusedConns)) *refusals {
	return &refusals{lines: newPaced(refusalPace, refusedConns.merge, log), counts: make(map[refusalKey]*refusalCount)}
}

// noteRefusal counts a connection that was refused or given up, and logs it.
func (b *books) noteRefusal(c *conn, tag pool.Tag, f *fault) {
	b.conns.Reject(tag, f.reason)
	key, remote := refusalKey{tag, f}, c.knownAddr()
	b.refusals.count(key, remote, time.Now())
	if f.cure != "" {
		b.refusals.lines.note(key, refusedConns{1, remote, c.root.listener.Addr()})
	}
}

func (r *refusals) count(key refusalKey, remote net.Addr, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.counts[key]
	if n == nil {
		n = new(refusalCount)
		r.counts[key] = n
	}
	n.total++
	n.recent.add(now)
	n.last, n.remote = now, remote
}

// list returns the refusals by reason, detail and protocol. Every fault is there from the
// start.
func (r *refusals) list(now time.Time) []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Refusal
	seen := make(map[*fault]bool)
	for key, n := range r.counts {
		seen[key.fault] = true
		all = append(all, Refusal{
			Protocol: string(key.tag), Reason: key.fault.reason, Detail: key.fault.detail, Cure: key.fault.cure,
			Total: n.total, LastMinute: n.recent.sum(now), Last: n.last, RemoteAddr: addrText(n.remote),
		})
	}
	for _, f := range faults {
		if !seen[f] {
			all = append(all, Refusal{Reason: f.reason, Detail: f.detail, Cure: f.cure})
		}
	}
	slices.SortFunc(all, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Detail, b.Detail), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

// addrText is an address for people; empty for nil.
func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// logRefusals writes a line about connections that were refused for the same fault.
func (b *books) logRefusals(key refusalKey, r refusedConns) {
	b.logger.Warn("connections refused",
		keyReason, key.fault.reason, keyDetail, key.fault.detail, keyCount, r.count, keyProtocol, string(key.tag),
		keyRemoteAddr, addrText(r.remote), keyLocalAddr, addrText(r.local), keyCure, key.fault.cure)
}

// lastMinute counts what has happened in the last 60 seconds, by the second. The zero value
// is ready to use.
type lastMinute struct {
	seconds [60]struct {
		unix  int64
		count uint64
	}
}

func (m *lastMinute) add(now time.Time) {
	s := &m.seconds[now.Unix()%int64(len(m.seconds))]
	if s.unix != now.Unix() {
		s.unix, s.count = now.Unix(), 0
	}
	s.count++
}

func (m *lastMinute) sum(now time.Time) (n uint64) {
	for _, s := range m.seconds {
		if s.unix > now.Unix()-int64(len(m.seconds)) {
			n += s.count
		}
	}
	return n
}
