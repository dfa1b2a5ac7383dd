// Command oklogrun runs the server in a group of oklog/run: when one actor ends, all do.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/oklog/run"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

func main() {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes),
	)
	var g run.Group
	g.Add(s.ListenAndServe, func(error) { _ = s.Shutdown(context.Background()) })
	g.Add(run.SignalHandler(context.Background(), os.Interrupt, syscall.SIGTERM))
	if err := g.Run(); !errors.Is(err, run.ErrSignal) {
		log.Fatal(err)
	}
}
