package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/testdata/clients/process"
)

// startProcess runs muxserve itself, with that many streams on a connection.
func startProcess(ctx context.Context, s setup, streams int) (*process.Process, error) {
	binary := filepath.Join(s.dir, "muxserve")
	if _, err := os.Stat(binary); err != nil {
		if binary, err = process.Build(ctx, s.dir); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(s.dir, "muxserve.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "http2: {max_streams: %[1]d}\ngrpc: {max_streams: %[1]d}\n", streams), 0o600); err != nil {
		return nil, fmt.Errorf("mixed: %w", err)
	}
	return process.Start(ctx, process.Options{Binary: binary, Args: []string{"--config=" + file}})
}

// nativeRow lets a client of gRPC open many connections, each with a call in
// flight, and asks the admin pages which of them grpc-go serves itself.
type nativeRow struct {
	client string
	// hold opens the connections and keeps them until the context ends.
	hold func(ctx context.Context, addr string, n int) error
}

// nativeConnections is how many.
const nativeConnections = 100

func nativeRows() []nativeRow {
	return []nativeRow{
		{"grpc-go", holdGRPC},
		{"grpc-js", holdScript("node", "../clients/node/grpc.mjs")},
		{"C-core", holdScript("/usr/bin/python3", "../clients/python/ccore.py")},
	}
}

// String returns the row's beginning.
func (r nativeRow) String() string {
	return fmt.Sprintf("%-26s %-13s %-10s %-10s", r.client, "-", "muxserve", "100")
}

func (r nativeRow) run(ctx context.Context, s setup) *result {
	res := &result{sent: nativeConnections, logged: unlogged}
	started := time.Now()
	defer func() { res.duration = time.Since(started) }()
	server, err := startProcess(ctx, s, defaultStreams)
	if err != nil {
		res.fail(err)
		return res
	}
	holding, cancel := context.WithTimeout(ctx, rowTimeout)
	held := make(chan error, 1)
	go func() { held <- r.hold(holding, server.Addr, nativeConnections) }()
	protocols, err := busy(holding, server.Admin, nativeConnections, held)
	cancel()
	if err != nil {
		res.fail(err)
	}
	for _, protocol := range protocols {
		res.connections++
		if protocol == "grpc" {
			res.count(opUnary, byNative, nil)
		} else {
			res.fail(fmt.Errorf("a connection of %s", protocol))
		}
	}
	if err := server.Stop(); err != nil {
		res.fail(err)
	}
	return res
}

// busy waits until that many connections have had a call, and returns their
// protocols. It gives up when held has the error of the client.
func busy(ctx context.Context, admin string, n int, held <-chan error) ([]string, error) {
	for {
		conns, err := connections(ctx, admin)
		if err != nil {
			return nil, err
		}
		var protocols []string
		for _, c := range conns {
			if c.Requests > 0 {
				protocols = append(protocols, c.Protocol)
			}
		}
		if len(protocols) >= n {
			return protocols, nil
		}
		select {
		case err := <-held:
			return protocols, fmt.Errorf("the client ended: %w", err)
		case <-ctx.Done():
			return protocols, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

type connection struct {
	Protocol string `json:"protocol"`
	Requests int    `json:"requests"`
}

// connections returns what the admin pages show.
func connections(ctx context.Context, admin string) ([]connection, error) {
	body, err := get(ctx, "http://"+admin+"/connections?limit=1000")
	if err != nil {
		return nil, err
	}
	var answer struct{ Connections []connection }
	err = json.Unmarshal(body, &answer)
	return answer.Connections, err
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// holdGRPC is grpc-go.
func holdGRPC(ctx context.Context, addr string, n int) error {
	for range n {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		stream, err := demov1.NewEchoClient(conn).BidiStream(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&demov1.EchoRequest{Message: "hello"}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// heldHello is an EchoRequest that is answered in 120 s.
const heldHello = "0a0568656c6c6f" + "12020878"

// holdScript is a client of ../clients.
func holdScript(args ...string) func(context.Context, string, int) error {
	return func(ctx context.Context, addr string, n int) error {
		task, err := json.Marshal(map[string]any{
			"address": addr, "ca": "", "connections": n, "each": 1, "pause_ms": 1, "transport": byNative, "request": heldHello,
		})
		if err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, args[0], append(args[1:], string(task))...).CombinedOutput()
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("%s: %v\n%s", args[0], err, out)
	}
}

// scriptRow lets a client in another language call the handler's service behind the
// mux, after grpc-go's.
type scriptRow struct {
	client  string
	command []string
	impl    implementation
	form    form
}

func scriptRows() []scriptRow {
	var all []scriptRow
	for _, f := range []form{plaintext, overTLS} {
		all = append(all,
			scriptRow{"grpc-js", []string{"node", "../clients/node/grpc.mjs"}, byConnect, f},
			scriptRow{"C-core", []string{"/usr/bin/python3", "../clients/python/ccore.py"}, byConnect, f})
	}
	return all
}

const scriptConnections = 10

// String returns the row's beginning.
func (r scriptRow) String() string {
	return fmt.Sprintf("%-26s %-13s %-10s %-10d", r.client, r.impl.name, r.form, scriptConnections)
}

func (r scriptRow) run(ctx context.Context, s setup) *result {
	each := max(s.requests/scriptConnections, 2)
	res := &result{sent: each * scriptConnections}
	started := time.Now()
	defer func() { res.duration = time.Since(started) }()
	b, err := startBackend(r.impl, r.form, s.cert, s.key)
	if err != nil {
		res.fail(err)
		return res
	}
	ca := ""
	if r.form == overTLS {
		ca = s.cert
	}
	task, err := json.Marshal(map[string]any{
		"address": b.addr, "ca": ca, "connections": scriptConnections, "each": each, "pause_ms": 0, "transport": "",
		"calls": [][2]string{{demov1.Echo_Unary_FullMethodName, ""}, {handledUnary, byHandler}},
	})
	if err != nil {
		res.fail(err)
	}
	out, err := exec.CommandContext(ctx, r.command[0], append(r.command[1:], string(task))...).Output()
	var answer struct {
		Answered int
		Errors   []string
	}
	if err := errors.Join(err, json.Unmarshal(out, &answer)); err != nil {
		res.fail(fmt.Errorf("%s: %w", r.command[0], err))
	}
	res.answered, res.faults = answer.Answered, append(res.faults, answer.Errors...)
	if err := b.drain(ctx); err != nil {
		res.fail(err)
	}
	res.logged = int(b.logged.Load())
	return res
}
