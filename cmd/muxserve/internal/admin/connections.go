package admin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// The bounds of the parameter limit. All connections of a full server, 50,000, would be
// 20 MB.
const (
	defaultLimit = 100
	maxLimit     = 10_000
)

// maxLongLists is how many answers of /connections with more than defaultLimit connections
// are made at a time. They take some megabytes each until the client has them.
const maxLongLists = 4

// orders are the values of the parameter sort.
var orders = map[string]func(a, b pool.Info) int{
	"id":    func(a, b pool.Info) int { return cmp.Compare(a.ID, b.ID) },
	"age":   func(a, b pool.Info) int { return a.Opened.Compare(b.Opened) },
	"bytes": func(a, b pool.Info) int { return cmp.Compare(bytesOf(b), bytesOf(a)) },
}

func bytesOf(c pool.Info) uint64 { return c.BytesReceived + c.BytesSent }

// connectionsView is the answer of /connections.
type connectionsView struct {
	// Total counts the connections that passed the filter. The list may be shorter.
	Total       int         `json:"total"`
	Connections []pool.Info `json:"connections"`
}

// serveConnections lists the live connections. ?protocol= selects one pool, ?peer= the
// connections of an address or network, ?sort= the order (id, age for the oldest first,
// bytes for the busiest first), and ?limit= the number.
func (p *Pages) serveConnections(w http.ResponseWriter, r *http.Request) {
	q, err := p.parseQuery(r.URL.Query())
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	if q.limit > defaultLimit {
		select {
		case p.longLists <- struct{}{}:
			defer func() { <-p.longLists }()
		default:
			w.Header().Set("Retry-After", "10")
			page.Error(w, http.StatusServiceUnavailable, fmt.Errorf("%d other long lists are being sent, which is the most", maxLongLists))
			return
		}
	}
	page.JSON(w, http.StatusOK, p.list(q))
}

// list returns what a query asks for. It looks at all connections, which takes memory, and
// so does that once at a time.
func (p *Pages) list(q query) connectionsView {
	p.listing.Lock()
	defer p.listing.Unlock()
	infos := p.server.Connections()
	if q.protocol != "" {
		infos = slices.DeleteFunc(infos, func(c pool.Info) bool { return c.Protocol != q.protocol })
	}
	if q.peer != nil {
		infos = slices.DeleteFunc(infos, func(c pool.Info) bool { return !q.peer(c) })
	}
	slices.SortStableFunc(infos, q.order)
	shown := infos[:min(len(infos), q.limit)]
	// An empty list is [] and not null.
	return connectionsView{Total: len(infos), Connections: append([]pool.Info{}, shown...)}
}

// query has the parameters of /connections.
type query struct {
	protocol string // "" for all
	order    func(a, b pool.Info) int
	limit    int
	peer     func(pool.Info) bool // nil for all
}

func (p *Pages) parseQuery(values url.Values) (query, error) {
	q := query{protocol: values.Get("protocol"), order: orders["id"]}
	if q.protocol != "" {
		if known := p.protocols(); !slices.Contains(known, q.protocol) {
			return q, badParameter("protocol", q.protocol, "one of "+strings.Join(known, ", "))
		}
	}
	if name := values.Get("sort"); name != "" {
		if q.order = orders[name]; q.order == nil {
			return q, badParameter("sort", name, "one of "+strings.Join(slices.Sorted(maps.Keys(orders)), ", "))
		}
	}
	if peer := values.Get("peer"); peer != "" {
		var err error
		if q.peer, err = parsePeer(peer); err != nil {
			return q, err
		}
	}
	var err error
	q.limit, err = parseLimit(values.Get("limit"))
	return q, err
}

// parseLimit returns the parameter limit, or its default.
func parseLimit(text string) (int, error) {
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, badParameter("limit", text, fmt.Sprintf("a number from 1 to %d", maxLimit))
	}
	return n, nil
}

// protocols returns the names of all pools.
func (p *Pages) protocols() []string {
	known := slices.AppendSeq([]string{string(pool.Sniffing)}, maps.Keys(p.server.Stats().Pools))
	slices.Sort(known)
	return slices.Compact(known)
}

// The bounds of the parameter patience.
const (
	defaultPatience = time.Second
	maxPatience     = time.Hour
)

// serveDisconnect ends the connection with an id, or all connections of a peer. The server
// tells their clients first.
func (p *Pages) serveDisconnect(w http.ResponseWriter, r *http.Request) {
	which, what, err := connectionsOf(r)
	patience := defaultPatience
	if text := r.URL.Query().Get("patience"); text != "" && err == nil {
		if patience, err = time.ParseDuration(text); err != nil || patience < 0 || patience > maxPatience {
			err = badParameter("patience", text, "a length of time from 0s to 1h, such as 10s")
		}
	}
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	n := p.server.Disconnect(which, patience)
	if n == 0 {
		page.Error(w, http.StatusNotFound, errors.New("no open connection has "+what))
		return
	}
	page.JSON(w, http.StatusOK, map[string]any{"closed": n, "patience_seconds": patience.Seconds()})
}

// connectionsOf returns the condition for the connections that a request names, and the
// same in words.
func connectionsOf(r *http.Request) (which func(pool.Info) bool, what string, err error) {
	if text := r.PathValue("id"); text != "" {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, "", badParameter("id", text, "the number of a connection")
		}
		return func(c pool.Info) bool { return c.ID == id }, "the id " + text, nil
	}
	peer := r.URL.Query().Get("peer")
	which, err = parsePeer(peer)
	return which, "the peer " + peer, err
}

// parsePeer returns the condition for the connections of a peer: an address, one with a
// port, or a network.
func parsePeer(text string) (func(pool.Info) bool, error) {
	port, network := uint16(0), netip.Prefix{}
	if both, err := netip.ParseAddrPort(text); err == nil {
		port, network = both.Port(), netip.PrefixFrom(both.Addr(), both.Addr().BitLen())
	} else if addr, err := netip.ParseAddr(text); err == nil {
		network = netip.PrefixFrom(addr, addr.BitLen())
	} else if network, err = netip.ParsePrefix(text); err != nil {
		return nil, badParameter("peer", text, "an address such as 192.0.2.1, 192.0.2.1:4711 or 192.0.2.0/24")
	}
	return func(c pool.Info) bool {
		peer, err := netip.ParseAddrPort(c.RemoteAddr)
		return err == nil && network.Contains(peer.Addr().Unmap()) && (port == 0 || port == peer.Port())
	}, nil
}

// serveClosed lists the connections that have ended last, the latest first.
func (p *Pages) serveClosed(w http.ResponseWriter, r *http.Request) {
	limit, err := parseLimit(r.URL.Query().Get("limit"))
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	closed := p.server.Closed()
	page.JSON(w, http.StatusOK, map[string]any{"closed": append([]mux.ClosedConn{}, closed[:min(len(closed), limit)]...)})
}
