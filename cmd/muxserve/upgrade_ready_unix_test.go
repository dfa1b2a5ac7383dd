//go:build unix

package main

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the client's half of health checks

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// TestUpgradeKeepsReady: until they are told to leave, health checks on connections to the
// old process go on saying that the address is fit, because the new process serves it.
func TestUpgradeKeepsReady(t *testing.T) {
	t.Parallel()
	p := start(t, textLog, "--drain-delay=0", "--drain-spread=3s")
	p.endSuccessors(t)
	kept := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: patience}
	defer kept.CloseIdleConnections()
	readyz := p.service.JoinPath("readyz")
	// A client that gives up an address whose health service says NOT_SERVING.
	cc, err := grpc.NewClient(p.service.Host, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	echo := demov1.NewEchoClient(cc)
	look := func() {
		t.Helper()
		if err := ask(kept, readyz); err != nil {
			t.Fatalf("/readyz: %v", err)
		}
		if _, err := echo.Unary(t.Context(), &demov1.EchoRequest{Message: "x"}); err != nil {
			t.Fatalf("a call: %v", err)
		}
	}
	look()
	p.upgrade(t, p.cmd.Process.Pid)
	for !strings.Contains(p.stderr.String(), "phase=stopped") {
		look()
	}
}
