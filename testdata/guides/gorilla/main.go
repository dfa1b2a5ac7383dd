// Command gorilla serves WebSockets of gorilla/websocket, which hijacks its connections. The
// server drains them with the others, and tells their owner when they are to leave.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

var upgrader = websocket.Upgrader{}

func echo(w http.ResponseWriter, r *http.Request) {
	conn, _ := mux.ConnOf(r.Context())
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	// The connection is to leave: say so, as WebSockets of mux do by themselves. The client
	// answers, and ReadMessage returns.
	stop := context.AfterFunc(conn.Draining(), func() {
		bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "the server stops")
		_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
	})
	defer stop()
	for {
		kind, message, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, message); err != nil {
			return
		}
	}
}

func main() {
	routes := http.NewServeMux()
	routes.HandleFunc("/ws", echo)
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes),
	)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	err := s.ListenAndServe()
	stop()
	if !errors.Is(err, mux.ErrServerClosed) {
		log.Fatal(err)
	}
}
