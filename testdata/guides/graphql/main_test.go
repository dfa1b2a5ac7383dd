package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestGraphQL(t *testing.T) {
	p := guide.Start(t)
	resp, err := http.Post("http://"+p.Addr+"/graphql", "application/json", strings.NewReader(`{"query":"{ hello }"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := guide.Body(t, resp); got != `{"data":{"hello":"world"}}` {
		t.Errorf("query: %s", got)
	}
	c, _, err := websocket.Dial(t.Context(), "ws://"+p.Addr+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, message := range []string{`{"type":"connection_init"}`, `{"id":"1","type":"subscribe","payload":{"query":"subscription { count }"}}`} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	read := func() error {
		var message struct{ Type string }
		err := wsjson.Read(t.Context(), c, &message)
		if message.Type == "next" {
			count++
		}
		return err
	}
	for count < 3 {
		if err := read(); err != nil {
			t.Fatal(err)
		}
	}
	p.Draining()
	for err = read(); err == nil; err = read() {
	}
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("at the drain: %v", err)
	}
	p.Stop()
}
