package transparency_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	gorillamux "github.com/gorilla/mux"
	"github.com/gorilla/websocket"
)

// gorilla is a program on gorilla/mux and gorilla/websocket.
func gorilla() program {
	var seen notes
	routes := gorillamux.NewRouter()
	routes.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Route", gorillamux.CurrentRoute(r).GetName())
			next.ServeHTTP(w, r)
		})
	})
	serve := func(u websocket.Upgrader) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, err := u.Upgrade(w, r, http.Header{"X-Upgraded": {"yes"}})
			if err != nil {
				seen.add("upgrade: %v", err)
				return
			}
			defer c.Close()
			c.SetReadLimit(100_000)
			c.SetPingHandler(func(data string) error {
				return c.WriteControl(websocket.PongMessage, []byte("pong of "+data), time.Now().Add(timeout))
			})
			for {
				kind, message, err := c.ReadMessage()
				if err != nil {
					seen.add("read: %v", errors.As(err, new(*websocket.CloseError)))
					return
				}
				switch string(message) {
				case "close":
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "of the program"), time.Now().Add(timeout))
					return
				case "drop":
					return
				case "panic":
					panic("of the program")
				case "connection":
					_, tcp := c.NetConn().(*net.TCPConn)
					message = fmt.Appendf(nil, "%v %v %v", c.RemoteAddr(), c.LocalAddr(), tcp)
				case "prepared":
					prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte("ready"))
					if err == nil {
						err = c.WritePreparedMessage(prepared)
					}
					if err == nil {
						continue
					}
				}
				if err := c.WriteMessage(kind, message); err != nil {
					return
				}
			}
		}
	}
	routes.Handle("/ws", serve(websocket.Upgrader{})).Name("ws")
	routes.Handle("/ws/{name}", serve(websocket.Upgrader{Subprotocols: []string{"mqtt", "stomp"}, EnableCompression: true})).Name("named")
	routes.Handle("/buffers", serve(websocket.Upgrader{ReadBufferSize: 16, WriteBufferSize: 16, HandshakeTimeout: timeout})).Name("buffers")
	routes.HandleFunc("/items/{id:[0-9]+}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, gorillamux.Vars(r)["id"])
	}).Methods("GET").Name("item")
	return program{handler: routes, seen: seen.text}
}

// gobwas is a program on gobwas/ws.
func gobwas() program {
	var seen notes
	routes := http.NewServeMux()
	serve := func(u ws.HTTPUpgrader) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, _, hs, err := u.Upgrade(r, w)
			if err != nil {
				seen.add("upgrade: %v", err)
				return
			}
			go func() { // gobwas' own examples leave the handler.
				defer c.Close()
				for {
					message, op, err := wsutil.ReadClientData(c)
					if err != nil {
						seen.add("read: %v %s", errors.As(err, new(wsutil.ClosedError)), hs.Protocol)
						return
					}
					switch string(message) {
					case "close":
						_ = ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(4001, "of the program")))
						return
					case "drop":
						return
					}
					if err := wsutil.WriteServerMessage(c, op, message); err != nil {
						return
					}
				}
			}()
		}
	}
	extension := wsflate.Extension{Parameters: wsflate.DefaultParameters}
	routes.HandleFunc("/ws", serve(ws.HTTPUpgrader{}))
	routes.HandleFunc("/ws/a", serve(ws.HTTPUpgrader{Protocol: func(p string) bool { return p == "mqtt" }, Negotiate: extension.Negotiate, Header: http.Header{"X-Upgraded": {"yes"}}}))
	return program{handler: routes, seen: seen.text}
}

// A step sends something on a WebSocket and says what came.
type step func(c *websocket.Conn) string

func message(text string) step {
	return func(c *websocket.Conn) string {
		err := c.WriteMessage(websocket.TextMessage, []byte(text))
		kind, got, readErr := c.ReadMessage()
		if readErr != nil {
			err = nil // Whether the server's end crosses the message is chance.
		}
		return fmt.Sprintf("%d %s%s%s\n", kind, digest(got), errText(err), errText(readErr))
	}
}

// dialed opens a WebSocket by gorilla's client and takes steps on it.
func dialed(path string, d websocket.Dialer, h http.Header, steps ...step) scenario {
	return func(t *testing.T, s *site) string {
		d := d
		d.TLSClientConfig, d.HandshakeTimeout = s.client, timeout
		c, resp, err := d.Dial(strings.Replace(s.url(path), "http", "ws", 1), h)
		text := errText(err)
		if resp != nil {
			resp.Header.Del("Sec-Websocket-Accept")
			text += responseHead(resp)
			if err != nil {
				body, _ := io.ReadAll(resp.Body)
				text += string(body)
			}
		}
		if err != nil {
			return text
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(timeout))
		c.SetPongHandler(func(data string) error { text += "pong " + data + "\n"; return nil })
		for _, take := range steps {
			text += take(c)
		}
		return text
	}
}

func responseHead(resp *http.Response) string {
	var b strings.Builder
	fmt.Fprintln(&b, resp.Proto, resp.Status)
	_ = resp.Header.Write(&b)
	return b.String()
}

func ping(c *websocket.Conn) string {
	_ = c.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(timeout))
	return message("after a ping")(c)
}

// closing ends a WebSocket by the client.
func closing(code int) step {
	return func(c *websocket.Conn) string {
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "of the client"), time.Now().Add(timeout))
		_, _, err := c.ReadMessage()
		return errText(err)
	}
}

// pieces sends a message in frames.
func pieces(c *websocket.Conn) string {
	w, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return errText(err)
	}
	for range 5 {
		_, _ = w.Write(bytes.Repeat([]byte("f"), 3000))
	}
	_ = w.Close()
	_, got, err := c.ReadMessage()
	return digest(got) + errText(err)
}

// TestWebSocketLibraries: gorilla's client against servers of gorilla and of gobwas.
func TestWebSocketLibraries(t *testing.T) {
	t.Parallel()
	flate := websocket.Dialer{EnableCompression: true, Subprotocols: []string{"wamp", "mqtt"}}
	large := strings.Repeat("large ", 10_000)
	for name, start := range map[string]func() program{"gorilla": gorilla, "gobwas": gobwas} {
		scenarios := map[string]scenario{
			"messages":     dialed("/ws", websocket.Dialer{}, nil, message("one"), message("two"), message(""), message(large)),
			"pieces":       dialed("/ws", websocket.Dialer{WriteBufferSize: 1024}, nil, pieces),
			"ping":         dialed("/ws", websocket.Dialer{}, nil, ping),
			"too long":     dialed("/ws", websocket.Dialer{}, nil, message(strings.Repeat("l", 200_000))),
			"close":        dialed("/ws", websocket.Dialer{}, nil, message("close")),
			"drop":         dialed("/ws", websocket.Dialer{}, nil, message("drop")),
			"client 1000":  dialed("/ws", websocket.Dialer{}, nil, message("one"), closing(1000)),
			"client 4000":  dialed("/ws", websocket.Dialer{}, nil, closing(4000)),
			"subprotocol":  dialed("/ws/a", websocket.Dialer{Subprotocols: []string{"wamp", "mqtt"}}, nil, message("one")),
			"no protocol":  dialed("/ws/a", websocket.Dialer{Subprotocols: []string{"wamp"}}, nil, message("one")),
			"compression":  dialed("/ws/a", flate, nil, closing(1000)),
			"own origin":   dialed("/ws", websocket.Dialer{}, http.Header{"Origin": {"http://localhost"}}, message("one")),
			"origin":       dialed("/ws", websocket.Dialer{}, http.Header{"Origin": {"http://elsewhere.example"}}, message("one")),
			"no websocket": get("/ws"),
			"POST":         request("POST", "/ws", "", field("Connection", "Upgrade"), field("Upgrade", "websocket"), field("Sec-WebSocket-Version", "13"), field("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")),
			"old version":  get("/ws", field("Connection", "Upgrade"), field("Upgrade", "websocket"), field("Sec-WebSocket-Version", "8"), field("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")),
			"bad key":      get("/ws", field("Connection", "Upgrade"), field("Upgrade", "websocket"), field("Sec-WebSocket-Version", "13"), field("Sec-WebSocket-Key", "short")),
			"no route":     dialed("/none", websocket.Dialer{}, nil),
		}
		if name == "gorilla" {
			scenarios["panic"] = dialed("/ws", websocket.Dialer{}, nil, message("panic"))
			scenarios["connection"] = dialed("/ws", websocket.Dialer{}, nil, message("connection"))
			scenarios["prepared"] = dialed("/ws", websocket.Dialer{}, nil, message("prepared"))
			scenarios["compressed"] = dialed("/ws/a", flate, nil, message(large), message("one"))
			scenarios["buffers"] = dialed("/buffers", websocket.Dialer{}, nil, message(large))
			scenarios["route"] = get("/items/17")
			scenarios["no item"] = get("/items/x")
			scenarios["method"] = request("POST", "/items/17", "x")
		}
		for _, form := range []string{"plaintext", "TLS"} {
			t.Run(name+" "+form, func(t *testing.T) {
				alikeEach(t, func() program {
					p := start()
					p.seen = nil // Its last note is later than the client's.
					if form == "TLS" {
						p.tls = serverTLS()
					}
					return p
				}, 1, scenarios)
			})
		}
	}
}

// TestWebSocketNotes: what a server's handler hears at the end of a WebSocket.
func TestWebSocketNotes(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() program{"gorilla": gorilla, "gobwas": gobwas} {
		for end, take := range map[string]step{
			"close": closing(1000),
			"gone":  func(c *websocket.Conn) string { _ = c.NetConn().Close(); return "" },
		} {
			t.Run(name+" "+end, func(t *testing.T) {
				alike(t, start, 1, withNote(dialed("/ws", websocket.Dialer{}, nil, message("one"), take)))
			})
		}
	}
}
