package main

import (
	"context"
	"net/http"
	"strconv"

	"github.com/coder/websocket"
)

// webSockets opens WebSockets for messengers.
type webSockets struct {
	t       *tally
	address func() string
}

// open opens a WebSocket on a connection of its own.
func (w *webSockets) open(ctx context.Context, _ int) (session, error) {
	d := &dialer{t: w.t, address: w.address}
	tr := &http.Transport{DialContext: d.dial}
	opening, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	//nolint:bodyclose // The package's documentation says that the body need not be closed.
	c, _, err := websocket.Dial(opening, "ws://muxserve.test/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		return nil, err
	}
	return &webSocket{ctx: ctx, conn: c}, nil
}

// webSocket is the session of a WebSocket. The library answers a close frame.
type webSocket struct {
	ctx  context.Context
	conn *websocket.Conn
}

var _ session = (*webSocket)(nil)

func (w *webSocket) send(n uint64) error {
	return w.conn.Write(w.ctx, websocket.MessageText, []byte(strconv.FormatUint(n, 10)))
}

func (w *webSocket) receive() (uint64, error) {
	_, text, err := w.conn.Read(w.ctx)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

func (w *webSocket) told() <-chan struct{} { return nil }

func (w *webSocket) isGoingAway(err error) bool {
	return websocket.CloseStatus(err) == websocket.StatusGoingAway
}

// leave closes the WebSocket from this side. The reader gets the answer.
func (w *webSocket) leave() {
	go func() { _ = w.conn.Close(websocket.StatusNormalClosure, "") }()
}

func (w *webSocket) close() { _ = w.conn.CloseNow() }
