package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// defaultProbeTimeout is shorter than the usual interval between probes.
const defaultProbeTimeout = 5 * time.Second

var probeFlags = []cli.Flag{
	{Name: "path", Value: "PATH", Help: "path to GET", Default: "/readyz"},
	{Name: "grpc", Help: "ask by grpc.health.v1.Health instead of HTTP"},
	{Name: "service", Value: "NAME", Help: "the service to ask about, with --grpc; all if not given"},
	{Name: "tls", Help: "speak TLS"},
	{Name: "insecure", Help: "with --tls, take any certificate"},
	{Name: "timeout", Value: "TIME", Help: "how long the answer may take", Default: defaultProbeTimeout.String()},
}

// prober is one probe.
type prober struct {
	target

	path    string
	service string
	tls     *tls.Config // nil for plaintext
}

// probe asks a server once whether it is healthy. The exit code is the answer.
func probe(ctx context.Context, args []string, env environment) int {
	parsed, err := cli.Parse(probeFlags, args)
	if err == nil && parsed.Help {
		fmt.Fprint(env.stdout, "muxserve probe [flags] ADDR asks a server once whether it is healthy.\n\n")
		_ = cli.WriteFlags(env.stdout, probeFlags) // As in help.go.
		return exitOK
	}
	var p *prober
	var timeout time.Duration
	if err == nil {
		p, timeout, err = newProber(parsed)
	}
	if err != nil {
		return usageError(env, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ask := p.http
	if parsed.On("grpc") {
		ask = p.grpc
	}
	answer, err := ask(ctx)
	if err != nil {
		return failure(env, fmt.Errorf("probe %s: %w", parsed.Args[0], err))
	}
	fmt.Fprintln(env.stdout, answer)
	return exitOK
}

func newProber(parsed cli.Parsed) (*prober, time.Duration, error) {
	if len(parsed.Args) != 1 {
		return nil, 0, errors.New("probe needs one address: HOST:PORT or unix:PATH")
	}
	p := &prober{path: "/readyz"}
	var err error
	if p.target, err = targetOf(parsed.Args[0]); err != nil {
		return nil, 0, err
	}
	if path, given := parsed.Last("path"); given {
		p.path = path
	}
	if !strings.HasPrefix(p.path, "/") {
		return nil, 0, fmt.Errorf("--path: %q does not begin with a slash", p.path)
	}
	p.service, _ = parsed.Last("service")
	switch {
	case parsed.On("tls"):
		p.tls = &tls.Config{InsecureSkipVerify: parsed.On("insecure")} //nolint:gosec // Only with --insecure.
	case parsed.On("insecure"):
		return nil, 0, errors.New("--insecure has no effect without --tls")
	}
	if p.service != "" && !parsed.On("grpc") {
		return nil, 0, errors.New("--service has no effect without --grpc")
	}
	timeout, err := timeoutOf(parsed, defaultProbeTimeout)
	return p, timeout, err
}

// timeoutOf returns the value of --timeout, or its default.
func timeoutOf(parsed cli.Parsed, standard time.Duration) (time.Duration, error) {
	value, given := parsed.Last("timeout")
	if !given {
		return standard, nil
	}
	timeout, err := time.ParseDuration(value)
	if err != nil || timeout <= 0 {
		return 0, fmt.Errorf("--timeout: %q is not a time such as 500ms or 5s", value)
	}
	return timeout, nil
}

// target is the address of a server, for net.Dial.
type target struct{ network, address string }

// targetOf parses HOST:PORT, where an empty host is localhost, or unix:PATH.
func targetOf(address string) (target, error) {
	if path, ok := strings.CutPrefix(address, settings.UnixPrefix); ok && path != "" {
		return target{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return target{}, fmt.Errorf("%q is not HOST:PORT, such as 127.0.0.1:8080, nor unix:PATH", address)
	}
	if host == "" {
		host = "localhost"
	}
	return target{"tcp", net.JoinHostPort(host, port)}, nil
}

// authority returns the host for requests and certificates.
func (t target) authority() string {
	if t.network == "unix" {
		return "localhost"
	}
	return t.address
}

func (t target) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, t.network, t.address)
}

// maxProbeAnswer bounds the printed answer, in bytes.
const maxProbeAnswer = 1 << 10

// http asks over HTTP. Any status from 200 to 299 is healthy.
func (p *prober) http(ctx context.Context) (string, error) {
	client := &http.Client{
		Transport: &http.Transport{DialContext: p.dial, TLSClientConfig: p.tls, DisableKeepAlives: true},
		// A redirect is not a healthy answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	scheme := "http"
	if p.tls != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+p.authority()+p.path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeAnswer))
	if err != nil {
		return "", err
	}
	answer := strings.TrimSpace(fmt.Sprintf("%s %s", resp.Status, strings.TrimSpace(string(body))))
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		return "", errors.New(answer)
	}
	return answer, nil
}

// grpc asks grpc.health.v1.Health. The status SERVING is healthy.
func (p *prober) grpc(ctx context.Context) (string, error) {
	creds := insecure.NewCredentials()
	if p.tls != nil {
		creds = credentials.NewTLS(p.tls)
	}
	conn, err := grpc.NewClient("passthrough:///"+p.authority(),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx, "", "") }),
	)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.service})
	if err != nil {
		return "", err
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return "", errors.New(resp.GetStatus().String())
	}
	return resp.GetStatus().String(), nil
}
