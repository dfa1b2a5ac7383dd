package admin

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/pool"
)

// The bounds of the parameter limit. All connections of a full server, 50,000, would be
// 20 MB.
const (
	defaultLimit = 100
	maxLimit     = 10_000
)

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
