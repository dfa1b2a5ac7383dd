package protocols

import (
	"context"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// GRPCRegistrar is what a gRPC service is registered with. It is what the
// reflection package needs as well.
type GRPCRegistrar interface {
	grpc.ServiceRegistrar
	GetServiceInfo() map[string]grpc.ServiceInfo
}

// GRPCServices are gRPC services, which any number of [GRPCServers] serve. So a service is
// made once, though several servers stand behind it. All methods may be called concurrently.
type GRPCServices struct {
	registry *grpc.Server // Never serves. It checks registrations, and answers GetServiceInfo.
	added    []addedService
	complete bool // So nothing more is registered.
	ready    readiness
}

type addedService struct {
	desc *grpc.ServiceDesc
	impl any
}

// NewGRPCServices returns what the functions register; nil ones are left out. Where none
// registers grpc.health.v1.Health, grpc-go's implementation is added, with the status SERVING
// for the server and for each service.
func NewGRPCServices(register ...func(GRPCRegistrar)) *GRPCServices {
	s := &GRPCServices{registry: grpc.NewServer()}
	defer s.registry.Stop() // channelz forgets it.
	for _, f := range register {
		if f != nil {
			f(s)
		}
	}
	if !s.has(healthpb.Health_ServiceDesc.ServiceName) {
		own := health.NewServer()
		healthpb.RegisterHealthServer(s, own)
		for name := range s.GetServiceInfo() {
			own.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
		}
	}
	s.complete = true
	return s
}

// RegisterService implements [grpc.ServiceRegistrar]. As with a *grpc.Server, a second service
// of the same name ends the process. It panics once NewGRPCServices has returned.
func (s *GRPCServices) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if s.complete {
		panic("protocols: the gRPC service " + desc.ServiceName + " was registered too late")
	}
	s.registry.RegisterService(desc, impl)
	if inner, ok := impl.(healthpb.HealthServer); ok && desc.ServiceName == healthpb.Health_ServiceDesc.ServiceName {
		impl = &readyHealth{inner, &s.ready}
	}
	s.added = append(s.added, addedService{desc, impl})
}

// GetServiceInfo returns the services, as a *grpc.Server does.
func (s *GRPCServices) GetServiceInfo() map[string]grpc.ServiceInfo {
	return s.registry.GetServiceInfo()
}

// has reports whether a service is registered.
func (s *GRPCServices) has(name string) bool {
	_, ok := s.GetServiceInfo()[name]
	return ok
}

// SetReady sets whether the server wants traffic, which it does at first. While it does not,
// the health service answers NOT_SERVING for it and for every service, whatever the
// registered implementation says.
func (s *GRPCServices) SetReady(ready bool) { s.ready.setDown("", !ready) }

// SetServing sets whether a service wants traffic, which each does at first.
func (s *GRPCServices) SetServing(service string, serving bool) { s.ready.setDown(service, !serving) }

// readiness is what stands above a health service. The zero value is ready.
type readiness struct {
	mu      sync.Mutex
	down    map[string]bool // by service; "" for all of them
	changed chan struct{}   // closed at the next change; nil while nobody waits
}

func (r *readiness) setDown(service string, down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[service] == down {
		return
	}
	if r.down == nil {
		r.down = make(map[string]bool)
	}
	r.down[service] = down
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// over returns the status of a service whose implementation says said, and a channel that is
// closed when that may have changed.
func (r *readiness) over(service string, said healthpb.HealthCheckResponse_ServingStatus) (healthpb.HealthCheckResponse_ServingStatus, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	if said == healthpb.HealthCheckResponse_SERVING && (r.down[""] || r.down[service]) {
		said = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return said, r.changed
}

// readyHealth is a health service below readiness.
type readyHealth struct {
	healthpb.HealthServer
	ready *readiness
}

// Check implements [healthpb.HealthServer].
func (h *readyHealth) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	resp, err := h.HealthServer.Check(ctx, req)
	if err != nil {
		return nil, err
	}
	status, _ := h.ready.over(req.GetService(), resp.GetStatus())
	return &healthpb.HealthCheckResponse{Status: status}, nil
}

// List implements [healthpb.HealthServer].
func (h *readyHealth) List(ctx context.Context, req *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	resp, err := h.HealthServer.List(ctx, req)
	if err != nil {
		return nil, err
	}
	statuses := maps.Clone(resp.GetStatuses())
	for name, said := range statuses {
		status, _ := h.ready.over(name, said.GetStatus())
		statuses[name] = &healthpb.HealthCheckResponse{Status: status}
	}
	return &healthpb.HealthListResponse{Statuses: statuses}, nil
}

// Watch implements [healthpb.HealthServer].
func (h *readyHealth) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	w := &readyWatch{Health_WatchServer: stream, ready: h.ready, service: req.GetService(), said: make(chan struct{}, 1)}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait() // Nothing may be sent once Watch has returned.
	defer close(ended)
	wg.Go(func() { w.follow(ended) })
	return h.HealthServer.Watch(req, w)
}

// readyWatch is the stream of one Watch.
type readyWatch struct {
	healthpb.Health_WatchServer
	ready   *readiness
	service string
	said    chan struct{} // receives when the implementation has sent a status

	mu   sync.Mutex
	last []healthpb.HealthCheckResponse_ServingStatus // of the implementation, or none
	sent []healthpb.HealthCheckResponse_ServingStatus // to the client, or none
}

// Send implements [healthpb.Health_WatchServer].
func (w *readyWatch) Send(resp *healthpb.HealthCheckResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = []healthpb.HealthCheckResponse_ServingStatus{resp.GetStatus()}
	select {
	case w.said <- struct{}{}:
	default:
	}
	_, err := w.send()
	return err
}

// send sends the status, if the client does not know it. The caller holds mu.
func (w *readyWatch) send() (changed <-chan struct{}, err error) {
	status, changed := w.ready.over(w.service, w.last[0])
	if slices.Equal(w.sent, []healthpb.HealthCheckResponse_ServingStatus{status}) {
		return changed, nil
	}
	w.sent = []healthpb.HealthCheckResponse_ServingStatus{status}
	return changed, w.Health_WatchServer.Send(&healthpb.HealthCheckResponse{Status: status})
}

// follow sends what changes above the implementation, until ended is closed.
func (w *readyWatch) follow(ended <-chan struct{}) {
	var changed <-chan struct{}
	for {
		select {
		case <-ended:
			return
		case <-w.said:
		case <-changed:
		}
		w.mu.Lock()
		var err error
		changed, err = w.send()
		w.mu.Unlock()
		if err != nil {
			return // The implementation's next Send fails as well, or its context has ended.
		}
	}
}
