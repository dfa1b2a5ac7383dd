package lifecycle_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/muxserve/muxserve/lifecycle"
)

// A plain net/http server that drains: readiness first, then the listener, then what is
// left.
func ExampleMachine() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{}
	cfg := lifecycle.DefaultConfig()
	cfg.Delay = 0 // There is no balancer that would have to notice.
	machine := lifecycle.New(cfg, lifecycle.Actions{
		WaitConnections: server.Shutdown,
		ForceClose:      func(context.Context) error { return server.Close() },
	}, nil)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	machine.SetServing()

	report, err := machine.Drain(context.Background())
	fmt.Println(<-served)
	fmt.Println(machine.Phase(), err)
	for _, step := range report.Steps {
		fmt.Println(step.Name, step.Status)
	}
	// Output:
	// http: Server closed
	// stopped <nil>
	// announce done
	// drain-delay done
	// stop-accepting done
	// wait-connections done
	// force-close done
	// cleanup done
}
