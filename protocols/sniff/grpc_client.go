package sniff

import (
	"encoding/binary"
	"hash/maphash"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// A clientOpening is what an HTTP/2 client sends before its first HEADERS.
type clientOpening struct {
	settings []byte // The payload of its first SETTINGS.
	acked    bool   // It has acknowledged the server's SETTINGS.
}

// isGRPCLibrary reports whether the opening is that of one of the gRPC libraries that
// userAgent names. A proxy passes a client's user agent on, but opens its connections with
// SETTINGS of its own. The libraries wait for the server's SETTINGS before they make a call;
// proxies and transports that look like them otherwise do not. The directory
// testdata/openings has what both send.
//
// Where the library and a proxy have the same HTTP/2 below them, as grpc-dotnet and YARP
// or tonic and linkerd, there is no telling, and the answer is no.
func (o clientOpening) isGRPCLibrary(userAgent string) bool {
	if !o.acked {
		return false
	}
	for product := range strings.FieldsSeq(userAgent) {
		name, _, _ := strings.Cut(product, "/")
		switch name {
		case "grpc-go", "grpc-node-js", "grpc-java-okhttp":
			return o.only(http2.SettingInitialWindowSize, http2.SettingMaxFrameSize, http2.SettingMaxHeaderListSize)
		case "grpc-java-netty":
			// A client that allows the server no streams at all, though it takes no push.
			return o.has(http2.SettingMaxConcurrentStreams, 0)
		case "grpc-c":
			return o.has(settingTrueBinaryMetadata, 1)
		}
	}
	return false
}

// settingTrueBinaryMetadata is GRPC_ALLOW_TRUE_BINARY_METADATA of gRPC's C-core.
const settingTrueBinaryMetadata http2.SettingID = 0xfe03

// each calls f for each setting until that returns false, and reports whether it never did.
func (o clientOpening) each(f func(http2.SettingID, uint32) bool) bool {
	for p := o.settings; len(p) >= h2.SettingLen; p = p[h2.SettingLen:] {
		if !f(http2.SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])) {
			return false
		}
	}
	return true
}

// only reports whether the client sends no other settings than ids.
func (o clientOpening) only(ids ...http2.SettingID) bool {
	return o.each(func(id http2.SettingID, _ uint32) bool { return slices.Contains(ids, id) })
}

// has reports whether the client sends the setting with the value.
func (o clientOpening) has(id http2.SettingID, value uint32) bool {
	return !o.each(func(i http2.SettingID, v uint32) bool { return i != id || v != value })
}

// A Watch says which calls the native gRPC server serves, and hears of clients that ask it
// for something else, or reset too many streams. All methods may be called concurrently.
type Watch struct {
	frames h2.Watch
	mixed  mixedClients
}

// NewWatch returns a Watch. The function has reports by a call's path whether the native
// server has its service. Each of the others is called once for a connection, by the
// goroutine that reads it, when its client was told by a GOAWAY to leave. It gets the
// connection that [Conn.Init] was given.
//
//   - mixed: on a connection of the native server, a stream was refused that was not for it:
//     a call to another service, or no call. The client's next connections go to the shared
//     server.
//   - flood: the client has reset more streams than [Config].MaxResetsPerMinute.
//   - smallerTable: on a connection of net/http, the client wants a smaller HPACK table than
//     the server's encoder uses, which it can have on its next connection.
func NewWatch(has func(path string) bool, mixed func(inner net.Conn, isCall bool), flood, smallerTable func(inner net.Conn)) *Watch {
	w := &Watch{frames: h2.Watch{IsContentType: protocols.IsGRPCContentType, HasService: has, OnFlood: flood, OnSmallerTable: smallerTable}}
	w.frames.OnRefused = func(inner net.Conn, settings uint32, r h2.Request) {
		w.mixed.add(newMixedClient(inner.RemoteAddr(), settings))
		mixed(inner, r.IsCall())
	}
	return w
}

// mixedClients remembers clients, up to maxMixedClients. The oldest is forgotten first. The
// zero value is empty.
//
// Others may have the address and the library of such a client, as behind a balancer or a
// NAT, and are served by the slower shared server as well. So what it has taught holds for
// a time and for some connections. A client that goes on mixing has one in so many refused.
type mixedClients struct {
	mu    sync.Mutex
	known map[mixedClient]*mixedNext
	order []mixedClient // A ring of what is in known.
	next  int
}

// mixedNext is which of a client's next connections are shared.
type mixedNext struct {
	until time.Time
	count int // of those before until
}

const (
	// mixedTime is for how long a client is remembered.
	mixedTime = time.Minute
	// mixedCount is how many of its next connections are shared. One of them brings what was
	// refused, once more: a client of grpc-js makes no third attempt. The others may come
	// first, where many clients of one address begin at once.
	mixedCount = 64
)

const maxMixedClients = 1024

// mixedClient is a client by its address, without the port, and the SETTINGS with which it
// opens its connections.
type mixedClient struct {
	addr     netip.Addr
	name     string // Where there is no address: a Unix-domain socket's.
	settings uint32
}

func newMixedClient(addr net.Addr, settings uint32) mixedClient {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return mixedClient{addr: tcp.AddrPort().Addr().Unmap(), settings: settings}
	}
	return mixedClient{name: hostOf(addr), settings: settings}
}

var settingsSeed = maphash.MakeSeed()

func settingsHash(settings []byte) uint32 { return uint32(maphash.Bytes(settingsSeed, settings)) }

func hostOf(addr net.Addr) string {
	if addr == nil {
		return "" // An embedder's listener may not know.
	}
	host := addr.String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// add notes that a client was refused.
func (m *mixedClients) add(c mixedClient) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if before := m.known[c]; before != nil {
		if !now.Before(before.until) {
			before.count = 0
		}
		before.count += mixedCount
		before.until = now.Add(mixedTime)
		return
	}
	if m.known == nil {
		m.known = make(map[mixedClient]*mixedNext)
	}
	m.known[c] = &mixedNext{now.Add(mixedTime), mixedCount}
	if len(m.order) < maxMixedClients {
		m.order = append(m.order, c)
		return
	}
	delete(m.known, m.order[m.next])
	m.order[m.next] = c
	m.next = (m.next + 1) % maxMixedClients
}

// take reports whether the next connection of a client is shared. It is called once for each.
func (m *mixedClients) take(c mixedClient) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.known[c]
	if next == nil || next.count == 0 || !time.Now().Before(next.until) {
		return false
	}
	next.count--
	return true
}
