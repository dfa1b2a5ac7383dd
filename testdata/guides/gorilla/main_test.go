package main

import (
	"testing"

	"github.com/gorilla/websocket"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestGorilla(t *testing.T) {
	p := guide.Start(t)
	c, resp, err := websocket.DefaultDialer.Dial("ws://"+p.Addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.ReadMessage(); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	p.Draining()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("at the drain: %v", err)
	}
	p.Stop()
}
