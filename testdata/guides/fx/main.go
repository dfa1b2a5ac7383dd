// Command fx has fx start and stop the server.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"go.uber.org/fx"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

func newRoutes() *http.ServeMux {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	return routes
}

func newServer(life fx.Lifecycle, app fx.Shutdowner, routes *http.ServeMux) *mux.Server {
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes),
	)
	start := func() error {
		if err := s.Listen(); err != nil {
			return err // Such as: the address is in use. The application does not start.
		}
		go func() {
			if err := s.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
				_ = app.Shutdown(fx.ExitCode(1))
			}
		}()
		return nil
	}
	life.Append(fx.StartStopHook(start, s.Shutdown))
	return s
}

func main() {
	fx.New(
		fx.Provide(newRoutes, newServer),
		fx.Invoke(func(*mux.Server) {}),
		fx.StopTimeout(mux.DefaultConfig().Drain.Longest()), // fx's own is 15 s, shorter than a drain may be.
	).Run()
}
