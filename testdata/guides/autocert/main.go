// Command autocert serves with certificates that x/crypto's autocert gets by ACME, over the
// port itself (tls-alpn-01).
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
	"os/signal"
	"syscall"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

func main() {
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist(os.Getenv("DOMAIN")),
		Cache:      autocert.DirCache(os.Getenv("CACHE")),
		Client:     &acme.Client{DirectoryURL: os.Getenv("ACME_DIRECTORY")}, // Empty: Let's Encrypt.
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, r.Proto, n)
	})
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), ":443")),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithTLS(manager.TLSConfig()), // It offers acme-tls/1 beside h2 and http/1.1.
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
