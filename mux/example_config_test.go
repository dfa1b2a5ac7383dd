package mux_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// A configuration starts from the defaults, and what is wrong with it is reported whole.
func ExampleConfigure() {
	s := mux.New(
		mux.Configure(mux.Edge), // For a port that strangers reach.
		mux.Configure(func(c *mux.Config) {
			c.HTTP1.MaxConnections = 5000
			c.HTTP1.MaxAge = -time.Second
			c.Limits.OnLimit = "shout"
		}),
	)
	fmt.Println(s.Listen())
	fmt.Println(s.Config().HTTP2.MaxConnections, s.Config().HTTP1.MaxConnections)
	// Output:
	// pool: limits.on_limit: "shout" is not one of refuse, wait
	// protocols: http1.max_age: -1s must be not negative
	// 1000 5000
}

// Several listeners: a TLS port for everything, and a Unix-domain socket for HTTP/1.1 alone,
// behind a proxy that sends a PROXY header.
func ExampleConfig() {
	c := mux.DefaultConfig()
	c.Listeners = []mux.ListenerConfig{
		{
			Address:      "0.0.0.0:443",
			TLS:          mux.TLSConfig{Cert: "server.pem", Key: "server.key"},
			TCPKeepalive: 15 * time.Second,
		},
		{
			Address:       "unix:/run/app.sock",
			Protocols:     []string{"http1"},
			ProxyProtocol: mux.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{listeners.TrustUnix}},
		},
	}
	c.Sniff.Timeout = 5 * time.Second
	c.GRPC.MaxRecvBytes = 16 << 20
	c.WebSocket.Compression = mux.CompressionNoTakeover
	c.Health.DegradedAbove = 0.7
	fmt.Println(c.Validate())
	// Output: <nil>
}

// A change of the configuration is planned, put in force and taken back while the server
// runs. Nothing is refused, and nothing in flight is cut.
func ExampleServer_Reload() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	background(s)

	next := s.Config()
	next.HTTP1.MaxAge = time.Hour
	next.HTTP1.IdleTimeout = time.Minute
	changes, err := s.Plan(next)
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range changes {
		fmt.Printf("%s: %s to %s, %t\n", c.Path, c.Old, c.New, c.Apply == mux.ApplyRuntime)
	}
	version, err := s.Reload(next, "an example")
	fmt.Println(version.Number, version.Outcome == mux.OutcomeApplied, err)
	_, err = s.Rollback(1, "an example")
	fmt.Println(s.Config().HTTP1.MaxAge, err)
	for _, v := range s.History().Versions {
		fmt.Println(v.Number, v.Origin, len(v.Changes))
	}
	// Output:
	// http1.idle_timeout: 2m0s to 1m0s, false
	// http1.max_age: 0s to 1h0m0s, true
	// 2 true <nil>
	// 0s <nil>
	// 1 start 0
	// 2 an example 2
	// 3 an example, rollback to 1 2
}

// ReloadFunc changes what is in force, so that two callers do not overwrite each other. A
// function that fails changes nothing.
func ExampleServer_ReloadFunc() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	background(s)
	version, err := s.ReloadFunc("an example", func(c mux.Config) (mux.Config, error) {
		c.Limits.MaxConnections = -1
		return c, nil
	})
	fmt.Println(version.Outcome == mux.OutcomeFailed, err)
	fmt.Println(s.History().Failing, s.History().Current)
	// Output:
	// true pool: limits.max_connections: -1 must not be negative
	// true 1
}

// Keys of the program's own take part in a change: whole, or not at all.
func ExampleServer_OnReload() {
	type settings struct{ Greeting string }
	greeting := "hello"
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Extra = settings{greeting}
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	s.OnReload(func(from, to mux.Config) (mux.ReloadPart, error) {
		before, after := from.Extra.(settings), to.Extra.(settings)
		if before == after {
			return mux.ReloadPart{}, nil
		}
		if after.Greeting == "" {
			return mux.ReloadPart{}, fmt.Errorf("greeting: must not be empty")
		}
		return mux.ReloadPart{
			Changes: []mux.Change{{Path: "greeting", Old: before.Greeting, New: after.Greeting, Apply: mux.ApplyRuntime, How: "at once"}},
			Commit:  func() { greeting = after.Greeting },
			Undo:    func() {}, // Would close what this function had opened.
		}, nil
	})
	background(s)
	for _, text := range []string{"good morning", ""} {
		version, err := s.ReloadFunc("an example", func(c mux.Config) (mux.Config, error) {
			c.Extra = settings{text}
			return c, nil
		})
		changes, _ := json.Marshal(version.Changes)
		fmt.Println(string(changes), err)
	}
	fmt.Println(greeting)
	// Output:
	// [{"path":"greeting","old":"hello","new":"good morning","apply":"runtime","how":"at once"}] <nil>
	// null greeting: must not be empty
	// good morning
}

// Sockets that a service manager has passed are served under the address "fd:NAME".
func ExampleWithListen() {
	sockets, err := listeners.Inherited(os.Getenv) // From LISTEN_FDS, or a predecessor of this process.
	if err != nil {
		log.Fatal(err)
	}
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithListen(func(ctx context.Context, address string) (net.Listener, error) {
			return sockets.Listen(ctx, address)
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	fmt.Println(s.Listen())
	// Output: <nil>
}
