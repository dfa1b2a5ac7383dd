package mux

import (
	"cmp"
	"slices"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
)

// Stats are a server's totals at one moment.
type Stats struct {
	Phase   Phase     `json:"phase"`
	Started time.Time `json:"started"` // zero before the server serves
	// Pools are the connections by the tag of their pool: sniffing, http1, http2, grpc,
	// websocket and custom ones.
	Pools map[string]pool.Stats `json:"pools"`
	// Rejected counts connections that were refused or given up, by tag and reason.
	Rejected map[string]map[string]uint64 `json:"rejected"`
	// Refusals counts the same connections by what exactly was wrong: by reason, detail and
	// protocol. Faults that have not happened are listed, too.
	Refusals []Refusal `json:"refusals"`
	// Requests are requests, calls and WebSocket sessions by what was asked, and
	// Codes how many were answered with which code: HTTP's, or for grpc the call's.
	Requests map[string]requests.Stats `json:"requests"`
	Codes    map[string]map[int]uint64 `json:"codes"`
	// Calls counts gRPC calls by method and code. Methods that are not registered stand
	// under "other".
	Calls map[string]map[int]uint64 `json:"calls"`
	// Durations are the requests' durations since the start.
	Durations map[string]requests.DurationTotals `json:"-"`
	// Reclassified counts native gRPC connections that brought something else, after which
	// the client's connections are shared: a "request", or a "call" to a service that is not
	// registered.
	Reclassified map[string]uint64 `json:"reclassified"`
	// Closed counts closed connections by tag and close reason, as events have it.
	Closed map[string]map[string]uint64 `json:"closed"`
	// ConnDurations are how long closed connections were open, by tag.
	ConnDurations map[string]requests.DurationTotals `json:"-"`
	// Sniffs are the times from a connection's first byte to its verdict, Handshakes those
	// of TLS handshakes that succeeded.
	Sniffs     requests.DurationTotals `json:"-"`
	Handshakes requests.DurationTotals `json:"-"`
	// LogDropped counts lines of the log ("server") and of the access log ("access") that
	// were dropped, because the handler of the log was too slow, or failed.
	LogDropped map[string]uint64 `json:"log_dropped"`
	// UnknownNames counts TLS handshakes for a server name that no certificate of the
	// configured listener has.
	UnknownNames uint64 `json:"unknown_names"`
	// Drain is the account of the drain; nil until that is over.
	Drain *Report `json:"-"`
	// Health is the [Health] of each pool, and "total" that of all of them together.
	Health map[string]pool.HealthStatus `json:"health"`
}

// builtin are the tags that Stats and Servers show even while they are empty.
var builtin = []protocols.Protocol{protocols.HTTP1, protocols.HTTP2, protocols.GRPC, protocols.WebSocket}

// Stats returns the server's totals. What was refused is counted by [Refusal].
func (s *Server) Stats() Stats {
	pools := s.books.conns.Stats()
	stats := Stats{
		Phase:         s.Phase(),
		Started:       s.startTime(),
		Pools:         pools,
		Rejected:      make(map[string]map[string]uint64),
		Refusals:      s.books.refusals.list(time.Now()),
		Requests:      make(map[string]requests.Stats),
		Codes:         make(map[string]map[int]uint64),
		Calls:         s.books.calls.list(),
		Durations:     make(map[string]requests.DurationTotals),
		Reclassified:  make(map[string]uint64),
		Closed:        make(map[string]map[string]uint64),
		Sniffs:        s.books.sniffTimes.Totals(),
		ConnDurations: make(map[string]requests.DurationTotals),
		Handshakes:    s.books.tlsTimes.Totals(),
		LogDropped:    s.logs.dropped(),
		UnknownNames:  s.books.unknownNames.Load(),
		Drain:         s.report.Load(),
		Health:        s.books.conns.Health(),
	}
	for i, kind := range reclassifications {
		stats.Reclassified[kind] = s.books.reclassified[i].Load()
	}
	for tag, p := range pools {
		stats.ConnDurations[tag] = p.Lifetimes
		if len(p.Rejected) > 0 {
			stats.Rejected[tag] = p.Rejected
		}
		if len(p.Reasons) > 0 {
			stats.Closed[tag] = p.Reasons
		}
	}
	for _, p := range builtin {
		if _, ok := pools[string(p)]; !ok {
			pools[string(p)] = pool.Stats{}
		}
		figures, totals := s.books.conns.Requests(pool.Tag(p)).Figures()
		stats.Requests[string(p)] = figures
		stats.Codes[string(p)] = totals.Codes
		stats.Durations[string(p)] = totals.Durations
	}
	return stats
}

// startTime returns when the server began to serve, zero before.
func (s *Server) startTime() time.Time {
	if at := s.startedAt.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Phase returns where the server is in its life.
func (s *Server) Phase() Phase { return s.machine.Phase() }

// Connections returns the live connections, by id. A server name and the subject of a client's
// certificate are cut where they have more than 256 bytes.
func (s *Server) Connections() []ConnInfo {
	conns := s.books.conns.Conns()
	infos := make([]ConnInfo, 0, len(conns))
	for _, a := range conns {
		if c, ok := a.Owner().(*conn); ok {
			infos = append(infos, c.info())
		}
	}
	slices.SortFunc(infos, func(a, b pool.Info) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

// ServerInfo describes the server of one protocol.
type ServerInfo struct {
	ID          string        `json:"id"`        // the same as Protocol
	Protocol    string        `json:"protocol"`  // the name of its pool
	Status      string        `json:"status"`    // the phase, or "not_served" where no address serves the protocol
	Addresses   []string      `json:"addresses"` // that serve the protocol
	Connections int64         `json:"connections"`
	Uptime      time.Duration `json:"uptime"` // of the server, since it has served
	// Native is the *http.Server or *grpc.Server itself; nil before the server serves, but
	// from [Server.ServerOf]. It is for looking at: do not shut it down, and register gRPC
	// services by [WithGRPC]. A reload may put another in its place.
	Native any `json:"-"`
}

// statusNotServed is the status of a protocol that no listener serves.
const statusNotServed = "not_served"

// Servers returns a [ServerInfo] for each built-in protocol.
func (s *Server) Servers() []ServerInfo {
	stats := s.Stats()
	native := make(map[protocols.Protocol]any)
	var uptime time.Duration
	if !stats.Started.IsZero() {
		uptime = time.Since(stats.Started)
	}
	if b := s.topology.backend.Load(); b != nil {
		native[protocols.HTTP1] = b.http1
		native[protocols.HTTP2] = b.http2
		native[protocols.GRPC] = b.grpc.Native
		native[protocols.WebSocket] = b.http1
	}
	infos := make([]ServerInfo, 0, len(builtin))
	for _, p := range builtin {
		infos = append(infos, ServerInfo{
			ID:          string(p),
			Protocol:    string(p),
			Status:      string(stats.Phase),
			Addresses:   s.topology.addresses(p),
			Connections: stats.Pools[string(p)].Active,
			Uptime:      uptime,
			Native:      native[p],
		})
		if last := &infos[len(infos)-1]; stats.Phase == PhaseServing && len(last.Addresses) == 0 {
			last.Status = statusNotServed
		}
	}
	return infos
}

// ServerOf returns the server of one built-in protocol, by the name of its pool. Before the
// server serves it makes the protocols' servers, so that Native is there for packages that ask
// for a *grpc.Server. Shutdown or Close ends them. Native takes no more services: [WithGRPC]
// registers them.
func (s *Server) ServerOf(protocol string) (ServerInfo, bool) {
	_ = s.prepare() // Its error is that of the start.
	infos := s.Servers()
	i := slices.IndexFunc(infos, func(info ServerInfo) bool { return info.Protocol == protocol })
	if i < 0 {
		return ServerInfo{}, false
	}
	return infos[i], true
}
