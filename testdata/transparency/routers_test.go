package transparency_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
)

// item is what the routers' programs are about.
type item struct {
	ID   string `json:"id" xml:"id" form:"id" query:"id"`
	Name string `json:"name" xml:"name" form:"name" query:"name" binding:"required"`
}

// siteFiles are the files that the routers serve.
var siteFiles = fstest.MapFS{"a.txt": {Data: []byte(strings.Repeat("0123456789", 500))}, "sub/index.html": {Data: []byte("<p>index")}}

// routed are the same program on each router, below the middleware that it comes with.
var routed = map[string]func() program{
	"chi":  func() program { return program{handler: onChi()} },
	"gin":  func() program { return program{handler: onGin()} },
	"echo": func() program { return program{handler: onEcho()} },
}

// quiet is a log of chi's that drops everything. Without one its Recoverer writes to standard
// error.
type quiet struct{}

func (quiet) NewLogEntry(*http.Request) middleware.LogEntry         { return quiet{} }
func (quiet) Write(_, _ int, _ http.Header, _ time.Duration, _ any) {}
func (quiet) Panic(any, []byte)                                     {}

func writeJSON(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

func onChi() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.RealIP, middleware.RequestLogger(quiet{}), middleware.Recoverer, middleware.Timeout(20*time.Millisecond),
		middleware.Compress(5), middleware.StripSlashes, middleware.GetHead, middleware.Heartbeat("/ping"), middleware.NoCache)
	r.Route("/items", func(r chi.Router) {
		r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, fmt.Sprintf(`{"id":%q,"name":%q,"remote":%q}`, chi.URLParam(r, "id"), r.FormValue("name"), r.RemoteAddr))
		})
		r.With(middleware.AllowContentType("application/json")).Post("/", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			w.Header().Set("Location", "/items/1")
			writeJSON(w, http.StatusCreated, string(body))
		})
	})
	r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("of the program") })
	r.Get("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	r.Get("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/items/1", http.StatusSeeOther) })
	r.Get("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r.Get("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.CopyN(w, letters{}, 300_000)
	})
	r.Post("/form", func(w http.ResponseWriter, r *http.Request) {
		f, head, err := r.FormFile("f")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		n, _ := io.Copy(io.Discard, f)
		fmt.Fprint(w, head.Filename, n)
	})
	r.With(middleware.BasicAuth("realm", map[string]string{"user": "password"})).Get("/private", mirror)
	r.Mount("/debug", middleware.Profiler())
	r.Handle("/files/*", http.StripPrefix("/files", http.FileServerFS(siteFiles)))
	return r
}

func onGin() http.Handler {
	e := gin.New()
	e.Use(gin.Logger(), gin.Recovery())
	e.HandleMethodNotAllowed = true
	e.GET("/items/:id", func(c *gin.Context) {
		c.JSON(http.StatusOK, gin.H{"id": c.Param("id"), "name": c.Query("name"), "ip": c.ClientIP(), "remote": c.Request.RemoteAddr})
	})
	e.POST("/items", func(c *gin.Context) {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 1000)
		var i item
		if err := c.ShouldBind(&i); err != nil {
			c.AbortWithStatusJSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
		c.Header("Location", "/items/1")
		c.IndentedJSON(http.StatusCreated, i)
	})
	e.GET("/panic", func(*gin.Context) { panic("of the program") })
	e.GET("/abort", func(*gin.Context) { panic(http.ErrAbortHandler) })
	e.GET("/redirect", func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/items/1") })
	e.GET("/large", func(c *gin.Context) {
		c.DataFromReader(http.StatusOK, 300_000, "text/plain", io.LimitReader(letters{}, 300_000), nil)
	})
	e.GET("/written", func(c *gin.Context) {
		c.Status(http.StatusAccepted)
		c.Writer.WriteHeaderNow()
		fmt.Fprint(c.Writer, c.Writer.Size(), c.Writer.Written(), c.Writer.Status())
		c.Writer.Flush()
		fmt.Fprint(c.Writer, c.Writer.Size())
	})
	e.POST("/form", func(c *gin.Context) {
		head, err := c.FormFile("f")
		if err != nil {
			c.String(http.StatusBadRequest, err.Error())
			return
		}
		c.String(http.StatusOK, "%s%d", head.Filename, head.Size)
	})
	e.GET("/private", gin.BasicAuth(gin.Accounts{"user": "password"}), gin.WrapF(mirror))
	e.GET("/xml", func(c *gin.Context) { c.XML(http.StatusOK, item{ID: "1", Name: "n"}) })
	e.StaticFS("/files", http.FS(siteFiles))
	return e
}

func onEcho() http.Handler {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.Use(echomiddleware.RequestLoggerWithConfig(echomiddleware.RequestLoggerConfig{LogValuesFunc: func(echo.Context, echomiddleware.RequestLoggerValues) error { return nil }}),
		echomiddleware.Recover(), echomiddleware.Gzip(), echomiddleware.CORS(), echomiddleware.Secure(), echomiddleware.BodyLimit("1K"),
		echomiddleware.ContextTimeout(20*time.Millisecond))
	e.GET("/items/:id", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"id": c.Param("id"), "name": c.QueryParam("name"), "ip": c.RealIP(), "scheme": c.Scheme()})
	})
	e.POST("/items", func(c echo.Context) error {
		var i item
		if err := c.Bind(&i); err != nil {
			return err
		}
		c.Response().Header().Set("Location", "/items/1")
		return c.JSON(http.StatusCreated, i)
	})
	e.GET("/panic", func(echo.Context) error { panic("of the program") })
	e.GET("/abort", func(echo.Context) error { panic(http.ErrAbortHandler) })
	e.GET("/error", func(echo.Context) error { return errors.New("of the program") })
	e.GET("/teapot", func(echo.Context) error { return echo.NewHTTPError(http.StatusTeapot, "short") })
	e.GET("/redirect", func(c echo.Context) error { return c.Redirect(http.StatusSeeOther, "/items/1") })
	e.GET("/slow", func(c echo.Context) error { <-c.Request().Context().Done(); return c.Request().Context().Err() })
	e.GET("/large", func(c echo.Context) error {
		return c.Stream(http.StatusOK, "text/plain", io.LimitReader(letters{}, 300_000))
	})
	e.GET("/written", func(c echo.Context) error {
		c.Response().Before(func() { c.Response().Header().Set("X-Before", "1") })
		c.Response().WriteHeader(http.StatusAccepted)
		_, err := fmt.Fprint(c.Response(), c.Response().Size, c.Response().Committed)
		return err
	})
	e.POST("/form", func(c echo.Context) error {
		head, err := c.FormFile("f")
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, fmt.Sprint(head.Filename, head.Size))
	})
	e.GET("/private", echo.WrapHandler(http.HandlerFunc(mirror)), echomiddleware.BasicAuth(func(name, password string, _ echo.Context) (bool, error) {
		return name == "user" && password == "password", nil
	}))
	e.StaticFS("/files", siteFiles)
	return e
}

// TestRouters: what chi, gin and echo are used for, below their own middleware.
func TestRouters(t *testing.T) {
	t.Parallel()
	const form = "--b\r\nContent-Disposition: form-data; name=f; filename=f.txt\r\n\r\nfile\r\n--b--\r\n"
	json, gzipped := field("Content-Type", "application/json"), field("Accept-Encoding", "gzip")
	for name, start := range routed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenarios := map[string]scenario{
				"item":        get("/items/17?name=n%20m"),
				"slash":       get("/items/17/"),
				"forwarded":   get("/items/17", field("X-Forwarded-For", "192.0.2.1"), field("X-Real-Ip", "192.0.2.2"), field("X-Forwarded-Proto", "https")),
				"create":      request("POST", "/items", `{"id":"1","name":"n"}`, json),
				"no JSON":     request("POST", "/items", `{`, json),
				"incomplete":  request("POST", "/items", `{}`, json),
				"other type":  request("POST", "/items", "id=1&name=n", field("Content-Type", "application/x-www-form-urlencoded")),
				"too long":    request("POST", "/items", `{"name":"`+strings.Repeat("n", 2000)+`"}`, json),
				"unsized":     request("POST", "/items", `{"name":"`+strings.Repeat("n", 2000)+`"}`, json, unsized),
				"HEAD":        request("HEAD", "/items/17", ""),
				"OPTIONS":     request("OPTIONS", "/items/17", "", field("Origin", "http://elsewhere.example"), field("Access-Control-Request-Method", "GET")),
				"bad method":  request("DELETE", "/items/17", ""),
				"no route":    get("/none"),
				"ping":        get("/ping"),
				"panic":       get("/panic"),
				"abort":       get("/abort"),
				"error":       get("/error"),
				"teapot":      get("/teapot"),
				"redirect":    get("/redirect"),
				"slow":        get("/slow"),
				"large":       get("/large"),
				"large, gzip": get("/large", gzipped),
				"written":     get("/written"),
				"XML":         get("/xml"),
				"form":        request("POST", "/form", form, field("Content-Type", "multipart/form-data; boundary=b")),
				"no form":     request("POST", "/form", "x", field("Content-Type", "text/plain")),
				"private":     get("/private"),
				"allowed":     get("/private", func(r *http.Request) { r.SetBasicAuth("user", "password") }),
				"file":        get("/files/a.txt"),
				"file, gzip":  get("/files/a.txt", gzipped),
				"range":       get("/files/a.txt", field("Range", "bytes=5-14")),
				"directory":   get("/files/sub"),
				"no file":     get("/files/b.txt"),
				"profile":     get("/debug/pprof/cmdline"),
			}
			everyWay(t, start, scenarios)
		})
	}
}

// TestCloseNotify: gin's handlers hear of a client that leaves.
func TestCloseNotify(t *testing.T) {
	t.Parallel()
	start := func() program {
		var seen notes
		e := gin.New()
		e.GET("/gone", func(c *gin.Context) {
			c.Writer.Flush()
			<-c.Writer.CloseNotify()
			seen.add("left")
		})
		return program{handler: e, seen: seen.text}
	}
	everyWay(t, start, map[string]scenario{"leaves": clientLeaves})
}
