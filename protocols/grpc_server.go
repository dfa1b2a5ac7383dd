package protocols

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// GRPCServers are the grpc-go servers behind one set of services: Native
// serves connections itself, at its own speed; Shared answers the gRPC streams
// of connections that net/http serves, through its ServeHTTP. Native does not do that too,
// because a server that is stopped gracefully cuts the streams of its ServeHTTP.
type GRPCServers struct {
	Native     *grpc.Server
	Shared     *grpc.Server
	identified *grpc.Server                // Shared for clients that have a SPIFFE ID.
	services   map[string]grpc.ServiceInfo // By name.
	methods    map[string]bool             // By path; true for a stream.
	unknown    bool                        // An option has set a handler of unknown services.
	maxSend    int                         // How long an answer may be.
	maxRecv    int                         // How long a message of a client may be.
	window     int                         // How much grpc-go may hold for a handler of Shared.
	ping       time.Duration               // See PingTimeoutOfOption.

	countsTaken bool                                // Shared tells by a takenCounter what its handlers take.
	windowsOf   func(context.Context) StreamWindows // As in GRPCCalls.
}

// streamWorkers is how many goroutines the native server keeps for its calls. They have
// the stack that a call needs already; a new goroutine's would grow twice, which is a
// sixth of what a small call costs (grpc-unary). A call that finds all of them busy gets
// a goroutine of its own. They end with the server.
//
// More of them would cost others: a new goroutine begins with as much stack as goroutines
// use on average, and idle ones use little. With 32, tls-h1-keepalive costs 6 % more.
const streamWorkers = 16

// NewGRPCServers makes the servers. The options come after the section's own, so that they
// win. The error is for options that cannot take effect: transport credentials, because TLS is
// finished before a connection comes here, grpc.InTapHandle, and with [TransportShared] those
// of grpc-go's own transport. calls is told of the calls.
//
// A client's socket options are among what channelz shows only if services has channelz.
func NewGRPCServers(c GRPCConfig, h2 HTTP2Config, services *GRPCServices, calls GRPCCalls, options ...grpc.ServerOption) (*GRPCServers, error) {
	asked := grpc.NewServer(options...) // To see what was asked for.
	defer asked.Stop()
	if err := checkOptions(c.Transport, asked); err != nil {
		return nil, err
	}
	creds := &handshaken{TransportCredentials: insecure.NewCredentials(), sockets: services.has(channelzService)}
	outer := slices.Concat(c.options(h2), calls.Interceptors)
	options = append(slices.Clip(options), grpc.Creds(creds))
	bodies, countsTaken := boundBodies(options)
	// What the caller's stats handlers and grpc.StreamInterceptor see needs an identifier.
	// Without them interceptors do, which cost less.
	of := addrOf(calls.AddrOf)
	identify, needed := grpc.StatsHandler(identifier{of}), countsTaken || hasStatsHandler(asked)
	if needed {
		of = nil
	}
	shared := slices.Concat(outer, []grpc.ServerOption{advertisingStreams(of), bodies}, calls.Shared, options)
	identified := slices.Concat([]grpc.ServerOption{identify}, shared)
	if needed {
		shared = identified
	}
	s := &GRPCServers{services: services.GetServiceInfo(), window: c.callWindow(), countsTaken: countsTaken, windowsOf: calls.WindowsOf}
	s.methods = methodsOf(s.services)
	s.Native = grpc.NewServer(slices.Concat([]grpc.ServerOption{grpc.NumStreamWorkers(streamWorkers), s.tapFor(calls)}, outer, options)...)
	s.Shared = grpc.NewServer(shared...)
	s.identified = grpc.NewServer(identified...)
	for _, a := range services.added {
		s.Native.RegisterService(s.around(a.desc, calls), a.impl)
		desc := s.around(advertising(a.desc, of), calls)
		s.Shared.RegisterService(desc, a.impl)
		s.identified.RegisterService(desc, a.impl)
	}
	s.unknown = handlesUnknown(s.Native)
	s.maxSend, s.maxRecv = lengthOf(s.Native, "maxSendMessageSize"), lengthOf(s.Native, "maxReceiveMessageSize")
	s.ping = pingTimeoutOf(asked)
	return s, nil
}

// Serves reports whether the servers have the service of the call to path: it is
// registered, or [grpc.UnknownServiceHandler] takes all that are not. Of a service that is
// registered the servers have every method, since they know best which there are not.
func (s *GRPCServers) Serves(path string) bool {
	if s.unknown {
		return true
	}
	service, ok := ServiceOf(path)
	if ok {
		_, ok = s.services[service]
	}
	return ok
}

// ServiceOf returns the service of the gRPC call to path, as grpc-go splits it. It reports
// false for a path that names no method.
func ServiceOf(path string) (service string, ok bool) {
	path = strings.TrimPrefix(path, "/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", false
	}
	return path[:i], true
}

// ServeHTTP has Shared serve a call. It shows a client's SPIFFE ID, as Native does, and reads
// the body as the handler takes it, but for GRPCConfig.StreamWindow.
func (s *GRPCServers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path := CallPath(r); path != r.URL.Path { // grpc-go looks at the latter.
		r = r.WithContext(r.Context())
		r.URL = &url.URL{Path: path}
	}
	r, body := s.bound(r)
	defer body.end()
	if r.TLS != nil && spiffeID(r.TLS.PeerCertificates) != nil {
		s.identified.ServeHTTP(w, r)
		return
	}
	s.Shared.ServeHTTP(w, r)
}

func (s *GRPCServers) all() []*grpc.Server {
	return []*grpc.Server{s.Native, s.Shared, s.identified}
}

// Stop ends the servers at once, and what they serve.
func (s *GRPCServers) Stop() {
	for _, srv := range s.all() {
		srv.Stop()
	}
}

// handshakeTimeout bounds the time that grpc-go waits for a client's preface. It
// was recognised before, so this never runs out but for a peer that dies.
const handshakeTimeout = 10 * time.Second

func (c GRPCConfig) options(h2 HTTP2Config) []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxRecvMsgSize(orUnlimited(c.MaxRecvBytes)),
		grpc.MaxSendMsgSize(orUnlimited(c.MaxSendBytes)),
		// grpc-go does not announce the largest number, which means no bound to it. The
		// client may have been told less before, so it has to be announced.
		grpc.MaxConcurrentStreams(min(c.MaxStreams, math.MaxUint32-1)),
		grpc.MaxHeaderListSize(h2.MaxHeaderListBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     c.MaxIdle,
			MaxConnectionAge:      c.MaxAge,
			MaxConnectionAgeGrace: c.MaxAgeGrace,
			Time:                  orForever(c.PingInterval),
			Timeout:               c.PingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             max(c.MinPingInterval, 1), // 0 means five minutes to grpc-go.
			PermitWithoutStream: true,
		}),
	}
	if stream, connection := c.windows(); stream != 0 {
		options = append(options, grpc.InitialWindowSize(stream), grpc.InitialConnWindowSize(connection))
	}
	return options
}

// windows returns the windows that are set, or 0 for grpc-go's estimate. Each of its
// options ends the estimate of both.
func (c GRPCConfig) windows() (stream, connection int32) {
	return cmp.Or(c.StreamWindow, c.ConnectionWindow), cmp.Or(c.ConnectionWindow, c.StreamWindow)
}

// callWindow returns how many bytes grpc-go may hold for the handler of a call on a
// connection that net/http serves.
func (c GRPCConfig) callWindow() int {
	window, _ := c.windows()
	return int(cmp.Or(window, defaultStreamWindow))
}

// orUnlimited translates "0: no bound" to grpc-go, which counts to its largest number.
func orUnlimited(n int) int {
	if n == 0 {
		return math.MaxInt32
	}
	return n
}

// orForever translates "0: never" to grpc-go, where a ping interval of 0 means two hours.
func orForever(d time.Duration) time.Duration {
	if d == 0 {
		return math.MaxInt64
	}
	return d
}

// GracefulStop stops the native server: its clients are told by GOAWAY, and its
// calls end by themselves. When ctx ends first it returns ctx's error and goes on
// waiting in the background, until Stop.
func (s *GRPCServers) GracefulStop(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.Native.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
