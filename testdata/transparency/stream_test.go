package transparency_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/donovanhide/eventsource"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"
)

// streamed has a router send three events.
var streamed = map[string]http.Handler{
	"gin": func() http.Handler {
		gin.SetMode(gin.ReleaseMode) // It is before TestMain.
		e := gin.New()
		e.GET("/", func(c *gin.Context) {
			n := 0
			c.Stream(func(w io.Writer) bool {
				n++
				c.SSEvent("tick", n)
				return n < 3
			})
		})
		return e
	}(),
	"chi": func() http.Handler {
		r := chi.NewRouter()
		r.Use(middleware.RequestID, middleware.RealIP, middleware.Recoverer, middleware.Compress(5))
		r.Get("/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for n := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", n)
				w.(http.Flusher).Flush()
			}
		})
		return r
	}(),
	"echo": func() http.Handler {
		e := echo.New()
		e.GET("/", func(c echo.Context) error {
			c.Response().Header().Set("Content-Type", "text/event-stream")
			for n := range 3 {
				fmt.Fprintf(c.Response(), "data: %d\n\n", n)
				c.Response().Flush()
			}
			return nil
		})
		return e
	}(),
}

// TestStreams: an event stream of each router is the same in both versions of HTTP. gin's
// asks for [http.CloseNotifier].
func TestStreams(t *testing.T) {
	t.Parallel()
	for name, program := range streamed {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s HTTP/%d", name, version), func(t *testing.T) {
				if got := alike(t, handled(program), version, get("/")); !strings.Contains(got, "200 OK") || strings.Count(got, "data:") != 3 {
					t.Errorf("%q", got)
				}
			})
		}
	}
}

// event is an event of eventsource.
type event struct{}

func (event) Id() string    { return "1" } //nolint:revive,staticcheck // It is eventsource's name.
func (event) Event() string { return "tick" }
func (event) Data() string  { return "data" }

// TestEventSource: donovanhide/eventsource asserts [http.CloseNotifier].
func TestEventSource(t *testing.T) {
	t.Parallel()
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			srv := eventsource.NewServer()
			defer srv.Close()
			repository := eventsource.NewSliceRepository()
			repository.Add("ticks", event{})
			srv.Register("ticks", repository)
			srv.ReplayAll = true
			got := alike(t, handled(srv.Handler("ticks")), version, func(t *testing.T, s *site) string {
				resp, err := s.httpClient(t).Get(s.url("/"))
				if err != nil {
					return err.Error()
				}
				defer resp.Body.Close()
				first := make([]byte, len("id: 1\n"))
				_, err = io.ReadFull(resp.Body, first)
				return resp.Status + " " + string(first) + errText(err)
			})
			if got != "200 OK id: 1\n" {
				t.Errorf("%q", got)
			}
		})
	}
}
