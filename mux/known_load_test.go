package mux_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// The known load: the number of requests of each protocol, and their rate, which does not
// depend on earlier requests. Two busy processors can carry it.
const (
	loadRequests = 400
	loadInterval = 10 * time.Millisecond
	// loadTolerance is how far a figure may be from the load.
	loadTolerance = 0.05
	// bucketTolerance is how far a quantile may be from the recorded durations.
	bucketTolerance = 0.025
)

// loadSleep returns how long the handler of request i sleeps. Of a hundred requests 90
// take the shortest time, 8 the next and 2 the longest, well mixed, because 37 and 100
// have no common factor. The median, P95 and P99 each lie in the middle of a step. 5 % of
// each time is more than a goroutine waits for a busy processor.
func loadSleep(i int) time.Duration {
	switch place := i * 37 % 100; {
	case place < 90:
		return 50 * time.Millisecond
	case place < 98:
		return 150 * time.Millisecond
	default:
		return 400 * time.Millisecond
	}
}

// loadFails reports whether request i fails: each tenth does.
func loadFails(i int) bool { return i%10 == 3 }

// loadService is the gRPC handler of the known load. The requested size is the request's
// number.
type loadService struct {
	testService

	ledger *ledger
}

func (s loadService) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if s.ledger.handle(int(r.GetResponseSize())) {
		return nil, status.Error(codes.Internal, "this one fails")
	}
	return &testpb.SimpleResponse{}, nil
}

// knownLoad is a server under the known load.
type knownLoad struct {
	*running
	began   interval           // when the server was made, from which its statistics number their seconds
	ledgers map[string]*ledger // by the tag of the book
	accepts *acceptLedger
}

func newKnownLoad(t *testing.T) *knownLoad {
	t.Helper()
	l := &knownLoad{
		ledgers: map[string]*ledger{"http1": {}, "http2": {}, "grpc": {}},
		accepts: &acceptLedger{Listener: listen(t)},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.URL.Query().Get("i"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if l.ledgers["http"+strconv.Itoa(r.ProtoMajor)].handle(i) {
			http.Error(w, "this one fails", http.StatusInternalServerError)
		}
	})
	l.began.after = time.Now()
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(handler),
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			testpb.RegisterTestServiceServer(r, loadService{ledger: l.ledgers["grpc"]})
		}))
	l.began.before = time.Now()
	l.running = serveOn(t, m, l.accepts)
	return l
}

// start begins the load. The channel is closed when every request has its answer.
// HTTP/1.1 opens a connection for each request, so that the rate of connections is known
// too.
func (l *knownLoad) start(t *testing.T) <-chan struct{} {
	t.Helper()
	var wg sync.WaitGroup
	for version := 1; version <= 2; version++ {
		client := l.client(t, version)
		client.Transport.(*http.Transport).DisableKeepAlives = version == 1
		wg.Go(func() {
			l.ledgers["http"+strconv.Itoa(version)].generate(func(i int) { l.get(t, client, i) })
		})
	}
	calls := testpb.NewTestServiceClient(l.grpcClient(t))
	wg.Go(func() {
		l.ledgers["grpc"].generate(func(i int) {
			_, err := calls.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: int32(i)})
			if failed := status.Code(err) == codes.Internal; failed != loadFails(i) || err != nil && !failed {
				t.Errorf("call %d: %v", i, err)
			}
		})
	})
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	return done
}

func (l *knownLoad) get(t *testing.T, client *http.Client, i int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.addr+"/?i="+strconv.Itoa(i), nil)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("request %d: %v", i, err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	want := http.StatusOK
	if loadFails(i) {
		want = http.StatusInternalServerError
	}
	if resp.StatusCode != want {
		t.Errorf("request %d: %s, want %d", i, resp.Status, want)
	}
}

// sample returns the statistics of one moment, and the number of the running second,
// counted from began.
func (l *knownLoad) sample(began interval) (stats mux.Stats, second int) {
	for {
		first := int(time.Since(began.before) / time.Second)
		stats = l.Stats()
		if last := int(time.Since(began.after) / time.Second); last == first {
			return stats, last
		}
	}
}

// checkRates compares the rates with the records of the handlers, the clients and the
// listener for the same full seconds.
func (l *knownLoad) checkRates(r reporter) {
	stats, now := l.sample(l.began)
	for tag, ledger := range l.ledgers {
		got := stats.Requests[tag]
		nearRates(r, tag+" requests", got.PerSecond, got.PerMinute, now, func(from int) (least, most float64) {
			return ledger.bounds(l.began, from, now)
		})
	}
	got := stats.Pools[string(pool.Sniffing)] // Each connection begins in this pool.
	nearRates(r, "connections", got.AcceptedPerSecond, got.AcceptedPerMinute, now, func(from int) (least, most float64) {
		return l.accepts.bounds(l.began, from, now)
	})
}

// nearRates compares the rates at the second now with the bounds of the events since
// another second.
func nearRates(r reporter, what string, perSecond, perMinute float64, now int, bounds func(from int) (least, most float64)) {
	least, most := bounds(now - 1)
	near(r, what+" a second", perSecond, least*(1-loadTolerance), most*(1+loadTolerance))
	least, most = bounds(0)
	toMinute := 60 / float64(now)
	near(r, what+" a minute", perMinute, least*toMinute*(1-loadTolerance), most*toMinute*(1+loadTolerance))
}

func near(r reporter, what string, got, least, most float64) {
	if got < least || got > most {
		r.Errorf("%s: %.4g, want %.4g to %.4g", what, got, least, most)
	}
}

// A reporter takes what is wrong.
type reporter interface {
	Errorf(format string, args ...any)
}

// reports are a reporter that keeps what is wrong.
type reports []string

func (r *reports) Errorf(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

// checkTotals compares the totals when the load is over.
func (l *knownLoad) checkTotals(t *testing.T) {
	t.Helper()
	stats := l.Stats()
	for tag, ledger := range l.ledgers {
		got := stats.Requests[tag]
		if got.Total != loadRequests || got.Failed != ledger.failed || ledger.failed != loadRequests/10 {
			t.Errorf("%s: %d requests and %d failures, want %d and %d", tag, got.Total, got.Failed, loadRequests, loadRequests/10)
		}
		near(t, tag+" error rate", got.ErrorRate, 0.1*(1-loadTolerance), 0.1*(1+loadTolerance))
		for p, quantile := range map[float64]float64{0.50: got.P50, 0.95: got.P95, 0.99: got.P99} {
			nearQuantile(t, fmt.Sprintf("%s P%v", tag, 100*p), quantile, ledger, p)
		}
	}
}

// nearQuantile reports a quantile that is further from the handlers' than the tolerance.
// Where the machine has delayed a request between two clocks, it may be as long as the
// clients'.
func nearQuantile(t *testing.T, what string, got float64, l *ledger, p float64) {
	t.Helper()
	handled, waited := l.quantile(p)
	near(t, what, got, handled*(1-loadTolerance), max(handled*(1+loadTolerance), waited*(1+bucketTolerance)))
}

// TestKnownLoad: the statistics of a known load are right: totals exactly, rates and
// quantiles within 5 %. The handlers measure the latencies, because sleeps are too long
// on a busy machine.
func TestKnownLoad(t *testing.T) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		l := newKnownLoad(t)
		wrong := l.run(t)
		if len(wrong) == 0 || attempt == attempts {
			for _, w := range wrong {
				t.Error(w)
			}
			return
		}
		t.Log("the machine was too busy for rates to the second: ", wrong)
	}
}

// run runs the load, checks what must hold on any machine, and returns which rates were
// wrong. A sweep that comes late counts some requests in the second before.
func (l *knownLoad) run(t *testing.T) (wrong reports) {
	t.Helper()
	done := l.start(t)
	for _, at := range []time.Duration{2500 * time.Millisecond, 3500 * time.Millisecond} {
		<-time.After(time.Until(l.began.after.Add(at))) // The middle of a second, far from where the next one is counted.
		l.checkRates(&wrong)
	}
	within(t, "the end of the load", done)
	eventually(t, "nothing in flight", func() bool {
		for _, r := range l.Stats().Requests {
			if r.InFlight != 0 {
				return false
			}
		}
		return true
	})
	l.checkTotals(t)
	return wrong
}
