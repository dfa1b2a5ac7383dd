package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// greeting is the body of the answer to every small request.
const greeting = "hello\n"

// downloadName is the file in the common directory that is downloaded.
const downloadName = "download"

// handlers are what every form serves.
type handlers struct {
	dir string
	hub hub
}

func newHandlers(dir string) *handlers {
	h := &handlers{dir: dir}
	h.hub.joined = sync.NewCond(&h.hub.mu)
	h.hub.members = make(map[*websocket.Conn]struct{})
	return h
}

// routes returns the HTTP side. The two handlers of WebSockets are the form's own, around
// echo and join.
func (h *handlers) routes(accept func(func(context.Context, *websocket.Conn) error) http.Handler) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, greeting)
	})
	routes.HandleFunc("GET /download", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream") // Else net/http would look for it.
		http.ServeFile(w, r, filepath.Join(h.dir, downloadName))
	})
	routes.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, greeting)
	})
	routes.HandleFunc("GET /zeros/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.ParseInt(r.PathValue("count"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", r.PathValue("count"))
		_, _ = io.CopyN(w, zeros{}, count)
	})
	routes.Handle("/echo", accept(echo))
	routes.Handle("/transfer", accept(transferMessages))
	routes.Handle("/join", accept(h.hub.join))
	return routes
}

// acceptPlain accepts WebSockets as a server does that has nobody to do it for it.
func acceptPlain(handle func(context.Context, *websocket.Conn) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // It has answered.
		}
		defer c.CloseNow() //nolint:errcheck // Who closes gives up what is closed.
		if handle(r.Context(), c) == nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	})
}

// echo answers each message by itself.
func echo(ctx context.Context, c *websocket.Conn) error {
	for {
		kind, message, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, kind, message); err != nil {
			return err
		}
	}
}

// transferMessages takes binary messages. To a text, which is a number, it answers with as many bytes, and a text that says how many
// it has got.
func transferMessages(ctx context.Context, c *websocket.Conn) error {
	var got int
	message := make([]byte, transferMessage)
	for {
		kind, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			got += len(text)
			continue
		}
		count, err := strconv.Atoi(string(text))
		if err != nil {
			return err
		}
		for range count / transferMessage {
			if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
				return err
			}
		}
		if err := c.Write(ctx, websocket.MessageText, strconv.AppendInt(nil, int64(got), 10)); err != nil {
			return err
		}
	}
}

// hub holds the WebSockets that a broadcast goes to.
type hub struct {
	mu      sync.Mutex // guards members
	joined  *sync.Cond
	members map[*websocket.Conn]struct{}
}

// join keeps c as a member until it is closed.
func (h *hub) join(ctx context.Context, c *websocket.Conn) error {
	h.mu.Lock()
	h.members[c] = struct{}{}
	h.mu.Unlock()
	h.joined.Broadcast()
	defer func() {
		h.mu.Lock()
		delete(h.members, c)
		h.mu.Unlock()
	}()
	_, _, err := c.Read(ctx) // Members have nothing to say.
	return err
}

// broadcastTimeout bounds one message to one member.
const broadcastTimeout = 5 * time.Second

// broadcast sends a message to every member, when there are count of them.
func (h *hub) broadcast(count int) error {
	h.mu.Lock()
	for len(h.members) < count {
		h.joined.Wait()
	}
	members := make([]*websocket.Conn, 0, len(h.members))
	for c := range h.members {
		members = append(members, c)
	}
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), broadcastTimeout)
	defer cancel()
	for _, c := range members {
		if err := c.Write(ctx, websocket.MessageBinary, message[:]); err != nil {
			return fmt.Errorf("broadcast: %w", err)
		}
	}
	return nil
}

// message is what goes through a WebSocket, and text through a call.
var message [64]byte

const text = "sixty-four bytes of text, as many as there are in a WebSocket..."

// echoService answers calls.
type echoService struct {
	demov1.UnimplementedEchoServer
}

// Unary implements [demov1.EchoServer].
func (echoService) Unary(_ context.Context, r *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	return &demov1.EchoResponse{Message: r.GetMessage()}, nil
}

// ClientStream implements [demov1.EchoServer].
func (echoService) ClientStream(stream grpc.ClientStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	for count := uint64(0); ; count++ {
		if _, err := stream.Recv(); err == io.EOF { //nolint:errorlint // grpc-go returns it bare.
			return stream.SendAndClose(&demov1.EchoResponse{Sequence: count})
		} else if err != nil {
			return err
		}
	}
}

// ServerStream implements [demov1.EchoServer].
func (echoService) ServerStream(r *demov1.EchoRequest, stream grpc.ServerStreamingServer[demov1.EchoResponse]) error {
	for range r.GetRepeat() {
		if err := stream.Send(&demov1.EchoResponse{Message: r.GetMessage()}); err != nil {
			return err
		}
	}
	return nil
}

// BidiStream implements [demov1.EchoServer].
func (echoService) BidiStream(stream grpc.BidiStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // grpc-go returns it bare.
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&demov1.EchoResponse{Message: r.GetMessage()}); err != nil {
			return err
		}
	}
}

// writeDownload makes the file of that size, of zeros on the disk, so that reading it costs the copy alone.
func writeDownload(dir string, size int64) error {
	file, err := os.Create(filepath.Join(dir, downloadName))
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer file.Close()
	if _, err := io.CopyN(file, zeros{}, size); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// zeros is an endless source of them.
type zeros struct{}

// Read implements [io.Reader].
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
