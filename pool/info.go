package pool

import (
	"crypto/tls"
	"time"
)

// Info is a connection's account at one moment, in a form that can be shown.
// RemoteAddr, Verdict, its figures and TLS are facts that the caller adds.
type Info struct {
	ID            uint64    `json:"id"`
	Protocol      string    `json:"protocol"`
	State         string    `json:"state"`
	RemoteAddr    string    `json:"remote_addr"` // empty until it is known
	LocalAddr     string    `json:"local_addr"`
	Opened        time.Time `json:"opened"`
	LastActivity  time.Time `json:"last_activity"`
	BytesReceived uint64    `json:"bytes_received"`
	BytesSent     uint64    `json:"bytes_sent"`
	Requests      uint64    `json:"requests"`  // requests, calls and WebSocket sessions so far
	InFlight      int       `json:"in_flight"` // of those, the ones that are not over

	// What [Conn.CountMessages] was told.
	MessagesReceived uint64 `json:"messages_received"`
	MessagesSent     uint64 `json:"messages_sent"`

	// Verdict is the reason for which the connection was given its protocol;
	// the figures say how many bytes and microseconds it took to find it.
	Verdict       string   `json:"verdict,omitempty"`
	VerdictBytes  int      `json:"verdict_bytes,omitempty"`
	VerdictMicros float64  `json:"verdict_micros,omitempty"`
	TLS           *TLSInfo `json:"tls,omitempty"`
}

// TLSInfo are the facts of a finished TLS handshake.
type TLSInfo struct {
	Version       string `json:"version"`
	Cipher        string `json:"cipher"`
	ALPN          string `json:"alpn"`
	ServerName    string `json:"server_name"`
	ClientSubject string `json:"client_subject"`
}

// NewTLSInfo returns the facts of a handshake, or nil where there was none.
func NewTLSInfo(state *tls.ConnectionState) *TLSInfo {
	if state == nil {
		return nil
	}
	info := &TLSInfo{
		Version:    tls.VersionName(state.Version),
		Cipher:     tls.CipherSuiteName(state.CipherSuite),
		ALPN:       state.NegotiatedProtocol,
		ServerName: state.ServerName,
	}
	if len(state.PeerCertificates) > 0 {
		info.ClientSubject = state.PeerCertificates[0].Subject.String()
	}
	return info
}

// Info returns c's account at this moment.
func (s *Set) Info(c *Conn) Info {
	moved := c.traffic()
	return Info{
		ID:               c.id,
		Protocol:         string(s.Tag(c)),
		State:            c.State().String(),
		LocalAddr:        c.LocalAddr().String(),
		Opened:           c.Opened(),
		LastActivity:     c.LastActivity(),
		BytesReceived:    moved.bytesReceived,
		BytesSent:        moved.bytesSent,
		Requests:         c.Requests(),
		InFlight:         c.InFlight(),
		MessagesReceived: moved.messagesReceived,
		MessagesSent:     moved.messagesSent,
	}
}
