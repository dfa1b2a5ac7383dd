package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// Transfers over a link, each by a connection of its own and a client that others use as well: what is measured is the time, which
// windows decide about. Every one of them moves [sizes].transfer bytes, unless its name says otherwise.
func transfers() []operation {
	return []operation{
		{name: "h1-upload", open: transfer(httpUpload((*http.Protocols).SetHTTP1, portHTTP1))},
		{name: "h1-download", open: transfer(httpDownload((*http.Protocols).SetHTTP1, portHTTP1))},
		{name: "h2-upload", open: transfer(httpUpload((*http.Protocols).SetUnencryptedHTTP2, portHTTP2)), without: formCmux},
		{name: "h2-download", open: transfer(httpDownload((*http.Protocols).SetUnencryptedHTTP2, portHTTP2)), without: formCmux},
		{name: "grpc-client-stream", open: transfer(grpcUpload)},
		{name: "grpc-server-stream", open: transfer(grpcDownload)},
		{name: "grpc-unary-3.5MB", open: transfer(grpcLongUnary)},
		{name: "ws-upload", open: transfer(webSocketUpload)},
		{name: "ws-download", open: transfer(webSocketDownload)},
		{name: "h1-download-slow", open: transfer(httpDownload((*http.Protocols).SetHTTP1, portHTTP1)), way: way{client: readSlowly}},
		{name: "h2-download-slow", open: transfer(httpDownload((*http.Protocols).SetUnencryptedHTTP2, portHTTP2)), way: way{client: readSlowly}, without: formCmux},
		{name: "grpc-server-stream-slow", open: transfer(grpcDownload), way: way{client: readSlowly}},
		{name: "ws-download-slow", open: transfer(webSocketDownload), way: way{client: readSlowly}},
		{name: "h2-upload-late", open: transfer(httpUpload((*http.Protocols).SetUnencryptedHTTP2, portHTTP2)), way: way{client: answerLate}, without: formCmux},
		{name: "grpc-client-stream-late", open: transfer(grpcUpload), way: way{client: answerLate}},
	}
}

// roundTrips are those of the links.
func roundTrips() []time.Duration {
	return []time.Duration{time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond}
}

// overLinks returns operations over each link.
func overLinks(all []operation) []operation {
	var linked []operation
	for _, roundTrip := range roundTrips() {
		for _, o := range all {
			o.name, o.way.roundTrip, o.bulk = fmt.Sprintf("%s@%v", o.name, roundTrip), roundTrip, true
			linked = append(linked, o)
		}
	}
	return linked
}

// transfer makes a worker of a function that connects and moves so many bytes.
func transfer(move func(context.Context, *process, int64) error) func(context.Context, *process, sizes) (*session, error) {
	return oneWorker(func(ctx context.Context, p *process, s sizes) (worker, func(), error) {
		return func() (int, error) { return 1, move(ctx, p, s.transfer) }, func() {}, nil
	})
}

// slowConn is read at slowBytesPerSecond.
type slowConn struct {
	net.Conn
	next time.Time
}

const (
	slowBytesPerSecond = 50_000_000
	slowRead           = 32 << 10
)

func readSlowly(c net.Conn) net.Conn { return &slowConn{Conn: c, next: time.Now()} }

// Read implements [net.Conn].
func (c *slowConn) Read(p []byte) (int, error) {
	time.Sleep(time.Until(c.next))
	n, err := c.Conn.Read(p[:min(len(p), slowRead)])
	c.next = c.next.Add(time.Duration(n) * time.Second / slowBytesPerSecond)
	if now := time.Now(); c.next.Before(now.Add(-lateness)) {
		c.next = now // It has waited for the server, and does not make up for that.
	}
	return n, err
}

// lateConn reads nothing for a while after it has connected, so that what the server wants an answer to gets that late.
type lateConn struct {
	net.Conn
	from time.Time
}

const lateness = 100 * time.Millisecond

func answerLate(c net.Conn) net.Conn { return &lateConn{Conn: c, from: time.Now().Add(lateness)} }

// Read implements [net.Conn].
func (c *lateConn) Read(p []byte) (int, error) {
	time.Sleep(time.Until(c.from))
	return c.Conn.Read(p)
}

// httpClient returns net/http's client of a port.
func httpClient(p *process, port string, set func(*http.Protocols, bool)) (*http.Client, func()) {
	protocols := new(http.Protocols)
	set(protocols, true)
	transport := &http.Transport{
		Protocols:   protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, p, port) },
	}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

func httpUpload(set func(*http.Protocols, bool), port string) func(context.Context, *process, int64) error {
	return func(ctx context.Context, p *process, count int64) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bench/upload", io.LimitReader(zeros{}, count))
		if err != nil {
			return err
		}
		r.ContentLength = count
		return exchange(p, port, set, r, int64(len(greeting)))
	}
}

func httpDownload(set func(*http.Protocols, bool), port string) func(context.Context, *process, int64) error {
	return func(ctx context.Context, p *process, count int64) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://bench/zeros/%d", count), nil)
		if err != nil {
			return err
		}
		return exchange(p, port, set, r, count)
	}
}

// exchange makes a request, whose answer has count bytes.
func exchange(p *process, port string, set func(*http.Protocols, bool), r *http.Request, count int64) error {
	client, end := httpClient(p, port, set)
	defer end()
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || n != count) {
		err = fmt.Errorf("%w: %s with %d bytes of %d", errAnswer, answer.Status, n, count)
	}
	return err
}

// transferMessage is how long a message is that is part of a transfer.
const transferMessage = 16 << 10

var transferText = strings.Repeat("x", transferMessage)

// withEcho connects for one call.
func withEcho(p *process, call func(demov1.EchoClient) error) error {
	conn, err := dialGRPC(p)
	if err != nil {
		return err
	}
	return errors.Join(call(demov1.NewEchoClient(conn)), conn.Close())
}

func grpcUpload(ctx context.Context, p *process, count int64) error {
	return withEcho(p, func(client demov1.EchoClient) error {
		stream, err := client.ClientStream(ctx)
		if err != nil {
			return err
		}
		messages := count / transferMessage
		for range messages {
			if err := stream.Send(&demov1.EchoRequest{Message: transferText}); err != nil {
				return err
			}
		}
		answer, err := stream.CloseAndRecv()
		if err == nil && answer.GetSequence() != uint64(messages) {
			err = fmt.Errorf("%w: %d messages of %d", errAnswer, answer.GetSequence(), messages)
		}
		return err
	})
}

func grpcDownload(ctx context.Context, p *process, count int64) error {
	return withEcho(p, func(client demov1.EchoClient) error {
		messages := count / transferMessage
		stream, err := client.ServerStream(ctx, &demov1.EchoRequest{Message: transferText, Repeat: uint32(messages)})
		if err != nil {
			return err
		}
		for got := int64(0); ; got++ {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) && got == messages {
				return nil
			} else if err != nil {
				return fmt.Errorf("message %d of %d: %w", got, messages, err)
			}
		}
	})
}

// grpcLongUnary echoes a message that is nearly as long as servers take, of 3.5 MB in the real run.
func grpcLongUnary(ctx context.Context, p *process, count int64) error {
	return withEcho(p, func(client demov1.EchoClient) error {
		message := strings.Repeat("x", int(count*35/160))
		answer, err := client.Unary(ctx, &demov1.EchoRequest{Message: message})
		if err == nil && answer.GetMessage() != message {
			err = fmt.Errorf("%w: %d bytes of %d", errAnswer, len(answer.GetMessage()), len(message))
		}
		return err
	})
}

// withWebSocket connects for one transfer. What the server has received it says in a text, and nothing comes after that.
func withWebSocket(ctx context.Context, p *process, received, sent int64, move func(*websocket.Conn) error) error {
	client, end := httpClient(p, portWebSocket, (*http.Protocols).SetHTTP1)
	defer end()
	c, answer, err := websocket.Dial(ctx, "ws://bench/transfer", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return err
	}
	if answer.Body != nil {
		defer answer.Body.Close()
	}
	defer c.CloseNow() //nolint:errcheck // Who closes gives up what is closed.
	if err := move(c); err != nil {
		return err
	}
	for rest := received; ; {
		kind, message, err := c.Read(ctx)
		switch {
		case err != nil:
			return err
		case kind == websocket.MessageBinary:
			rest -= int64(len(message))
			continue
		case rest != 0 || string(message) != strconv.FormatInt(sent, 10):
			return fmt.Errorf("%w: %d bytes are missing, and the server has got %s of %d", errAnswer, rest, message, sent)
		}
		return c.Close(websocket.StatusNormalClosure, "")
	}
}

func webSocketUpload(ctx context.Context, p *process, count int64) error {
	return withWebSocket(ctx, p, 0, count, func(c *websocket.Conn) error {
		message := make([]byte, transferMessage)
		for range count / transferMessage {
			if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
				return err
			}
		}
		return c.Write(ctx, websocket.MessageText, []byte("0"))
	})
}

func webSocketDownload(ctx context.Context, p *process, count int64) error {
	return withWebSocket(ctx, p, count, 0, func(c *websocket.Conn) error {
		return c.Write(ctx, websocket.MessageText, strconv.AppendInt(nil, count, 10))
	})
}
