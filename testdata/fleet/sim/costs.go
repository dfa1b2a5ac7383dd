package sim

import "time"

// TLS is what a handshake has to do.
type TLS int

// The values of TLS. A session can be resumed on another replica only where all have the
// same tls.ticket_keys.
const (
	Plain TLS = iota
	TLSFull
	TLSResumed
)

func (t TLS) String() string { return [...]string{"plain", "TLS, full", "TLS, resumed"}[t] }

// The processor time of muxserve for a new connection with its first exchange, as
// testdata/bench measures it on one processor: `direct` times the ratio of `ours`.
const (
	costHTTP1     = 41100 * time.Nanosecond  // h1-newconn, 37.0 µs x 1.11
	costHTTP1TLS  = 520600 * time.Nanosecond // tls-newconn, 495.8 µs x 1.05
	costResumed   = 455800 * time.Nanosecond // tls-resumed, which takes 0.876 of tls-newconn: it saves a signature
	costGRPC      = 130400 * time.Nanosecond // grpc-newconn, 115.4 µs x 1.13
	costGRPCTLS   = 661700 * time.Nanosecond // tls-grpc-newconn, 624.2 µs x 1.06
	costWebSocket = 88900 * time.Nanosecond  // ws-newconn, 71.1 µs x 1.25
	costWebTLS    = 615400 * time.Nanosecond // tls-ws-newconn, 569.8 µs x 1.08
)

// Cost returns the processor time of a new connection. HTTP/2 has gRPC's. A resumed
// handshake saves as much as it does for HTTP/1.1.
func Cost(k Kind, t TLS) time.Duration {
	costs := [2]time.Duration{costHTTP1, costHTTP1TLS}
	switch k {
	case WebSocket:
		costs = [2]time.Duration{costWebSocket, costWebTLS}
	case GRPC, HTTP2:
		costs = [2]time.Duration{costGRPC, costGRPCTLS}
	case HTTP1, HTTP1New:
	}
	switch t {
	case TLSFull:
		return costs[1]
	case TLSResumed:
		return costs[1] - (costHTTP1TLS - costResumed)
	default:
		return costs[0]
	}
}

// trips returns how many round trips there are until the client is served: TCP's, TLS 1.3's,
// and that of the protocol's own opening.
func trips(k Kind, t TLS) time.Duration {
	n := time.Duration(1)
	if k == WebSocket || k == GRPC {
		n++
	}
	if t != Plain {
		n++
	}
	return n
}
