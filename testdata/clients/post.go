package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// postBytes is the length of the bodies that the server does not read. No window holds it.
const postBytes = 10_000_000

// postLoad is what each client posts.
var postLoad = load{connections: 3, each: 2}

// postRows are clients that post to a handler that does not read the body: each gets its
// answer, whether it looks at answers before it has sent everything or not.
func postRows(s serverName) []row {
	h2, undici, java := "--http2", "h2", "HTTP/2"
	if s == plaintext {
		// Java's client does not speak HTTP/2 in plaintext but by an upgrade.
		h2, undici, java = "--http2-prior-knowledge", "h2c", "HTTP/1.1"
	}
	rows := []row{
		{client: "curl", form: "HTTP/1.1", ask: curlPost("--http1.1", "1.1")},
		{client: "curl", form: "HTTP/2", ask: curlPost(h2, "2")},
		{client: "node http2", form: "HTTP/2", ask: node("post.mjs", "node")},
		{client: "undici", form: "HTTP/2", ask: node("post.mjs", undici)},
		{client: "Go", form: "HTTP/2", ask: goPost},
		{client: "httpx", form: "HTTP/2", ask: python("post.py")},
		{client: "Java", form: java, ask: javaPost(java)},
	}
	for i := range rows {
		rows[i].form += ", 10 MB unread"
		rows[i].server, rows[i].load = s, postLoad
	}
	return rows
}

// unreadPath is a path whose handler answers a POST with 405 and does not read it.
const unreadPath = "/livez"

// unread returns the URL for the posts.
func (t target) unread() string { return strings.TrimSuffix(t.url(), "/echo") + unreadPath }

// curlPost is curl with that option, which says what to speak; version is what the
// answers then have to be in.
func curlPost(option, version string) client {
	return func(ctx context.Context, t target) (int, error) {
		body, err := os.CreateTemp("", "muxserve-clients-")
		if err != nil {
			return 0, err
		}
		defer os.Remove(body.Name())
		defer body.Close()
		if err := body.Truncate(postBytes); err != nil {
			return 0, err
		}
		args := []string{
			"--silent", "--show-error", option, "--noproxy", "*", "--output", "/dev/null",
			"--data-binary", "@" + body.Name(), "--write-out", `%{http_code} %{http_version}\n`,
		}
		if t.ca != "" {
			args = append(args, "--cacert", t.ca)
		}
		t.load = curlReuse(option, t.load)
		args = append(args, fmt.Sprintf("%s?n=[1-%d]", t.unread(), t.load.each))
		return perConnection(t.load, func() (int, error) {
			out, err := command(ctx, "curl", args...)
			return strings.Count(out, "405 "+version+"\n"), err
		})
	}
}

// goPost is net/http's client.
func goPost(ctx context.Context, t target) (int, error) {
	roots := x509.NewCertPool()
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return 0, err
		}
		roots.AppendCertsFromPEM(pem)
	}
	body := make([]byte, postBytes)
	return perConnection(t.load, func() (answered int, err error) {
		transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: roots}}
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		defer transport.CloseIdleConnections()
		var errs []error
		for range t.load.each {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.unread(), bytes.NewReader(body))
			if err != nil {
				return answered, err
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			_, err = io.Copy(io.Discard, resp.Body)
			errs = append(errs, err, resp.Body.Close())
			if err == nil && resp.StatusCode == http.StatusMethodNotAllowed && resp.ProtoMajor == 2 {
				answered++
			}
		}
		return answered, errors.Join(errs...)
	})
}

// javaPost is the HTTP client of Java's standard library; proto is what the answers have
// to be in.
func javaPost(proto string) client {
	return func(ctx context.Context, t target) (int, error) {
		out, err := command(ctx, "java", "java/Post.java", t.unread(), fmt.Sprint(postBytes),
			fmt.Sprint(t.load.connections), fmt.Sprint(t.load.each), t.ca)
		return strings.Count(out, "405 "+proto+"\n"), err
	}
}
