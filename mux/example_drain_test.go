package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// A drain has six steps. Hooks run in them, and the account says how each went.
func ExampleServer_Drain() {
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay = 0 // There is no balancer that has to notice.
			c.Drain.Spread = 0
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	_ = s.OnDrain(mux.StepWaitConnections, "queue", func(context.Context) error {
		fmt.Println("the queue is flushed while requests end")
		return nil
	})
	_ = s.OnDrain(mux.StepCleanup, "database", func(context.Context) error {
		progress, begun := s.DrainProgress()
		fmt.Println("the database is closed, in step", progress.Step, begun, progress.Told)
		return errors.New("already closed")
	})
	background(s)

	report, err := s.Drain(context.Background())
	fmt.Println(err)
	for _, step := range report.Steps {
		fmt.Println(step.Name, step.Status)
	}
	fmt.Println(report.ForcedTotal(), s.Phase() == mux.PhaseStopped, s.Stats().Drain == report)
	// Output:
	// the queue is flushed while requests end
	// the database is closed, in step cleanup true 0
	// lifecycle: cleanup: hook database: already closed
	// announce done
	// drain-delay done
	// stop-accepting done
	// wait-connections done
	// force-close done
	// cleanup failed
	// 0 true true
}

// A server goes through its phases once.
func ExampleServer_OnPhase() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	s.OnPhase(func(p mux.Phase) { fmt.Println(p) })
	fmt.Println(s.Phase() == mux.PhaseNew)
	serving := make(chan struct{})
	s.OnPhase(func(p mux.Phase) {
		switch p {
		case mux.PhaseServing:
			close(serving) // Clients may come.
		case mux.PhaseDraining:
			fmt.Println("no more traffic, please")
		}
	})
	go func() { _ = s.ListenAndServe() }()
	<-serving
	_ = s.Close()
	// Output:
	// true
	// serving
	// draining
	// no more traffic, please
	// stopped
}

// A drain that has to cut connections says so.
func ExampleServer_Shutdown() {
	begun := make(chan struct{})
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay, c.Drain.Spread = 0, 0
			c.Drain.Timeout = 100 * time.Millisecond
		}),
		mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done() // A handler that does not heed the drain.
		})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	addr := background(s)
	go func() { _, _ = http.Get("http://" + addr) }()
	<-begun
	err := s.Shutdown(context.Background())
	fmt.Println(errors.Is(err, mux.ErrForced), s.Stats().Drain.Forced)
	fmt.Println(errors.Is(s.Listen(), mux.ErrServerClosed))
	// Output:
	// true map[http1:1]
	// true
}

// An event stream ends when its connection is to leave, so that a drain need not cut it.
func ExampleConn_Draining() {
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay, c.Drain.Spread = 0, 0
		}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: hello\n\n")
			_ = http.NewResponseController(w).Flush()
			conn, _ := mux.ConnOf(r.Context())
			select {
			case <-conn.Draining().Done(): // Or the client has gone.
				if context.Cause(conn.Draining()) == mux.ErrDraining {
					fmt.Fprint(w, "event: bye\n\n")
				}
			case <-time.After(time.Hour):
			}
		})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	resp, err := http.Get("http://" + background(s))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(s.Shutdown(context.Background()))
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s%v\n", body, err)
	// Output:
	// <nil>
	// data: hello
	//
	// event: bye
	//
	// <nil>
}

// The server wants traffic while each check agrees, and says so to /readyz, to gRPC's health
// service and to a listener of the program's own.
func ExampleServer_AddReadiness() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	checked := make(chan struct{})
	s.AddReadiness("database", func(context.Context) error {
		select {
		case <-checked:
		default:
			close(checked)
		}
		return errors.New("no connection")
	})
	addr := background(s)
	<-checked
	printGET("http://" + addr + "/readyz")

	operators := httptest.NewServer(s.ReadyHandler())
	defer operators.Close()
	printGET(operators.URL)
	// Output:
	// 503 not ready: database
	// 503 not ready: database
}

// A program takes itself out of its balancer, and a single gRPC service out of its clients'.
func ExampleServer_SetServing() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	background(s)
	s.SetServing("billing.v1.Invoices", false) // Other services go on.
	fmt.Println(s.Ready())
	s.SetServing("", false)
	fmt.Println(s.Ready())
	s.SetServing("", true)
	fmt.Println(s.Ready())
	// Output:
	// <nil>
	// switched off
	// <nil>
}

// The program answers the health paths itself.
func ExampleWithoutHealthPaths() {
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithoutHealthPaths(),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "of the program") })),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	printGET("http://" + background(s) + "/livez")
	// Output: 200 of the program
}
