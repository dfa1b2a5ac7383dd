package transparency_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/grpchealth"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxtest"
)

// TestConnectHealth: Connect's health service follows a drain by the line that stands at
// Server.AddReadiness.
func TestConnectHealth(t *testing.T) {
	checker := grpchealth.NewStaticChecker("a.Service")
	routes := http.NewServeMux()
	routes.Handle(grpchealth.NewHandler(checker))
	s := muxtest.New(t, mux.WithHandler(routes))
	var asked []string
	ask := func() {
		resp, err := s.Client().Post(s.URL+"/grpc.health.v1.Health/Check", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, string(b))
	}
	if err := s.OnDrain(mux.StepAnnounce, "health", func(context.Context) error {
		checker.SetStatus("", grpchealth.StatusNotServing)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.OnDrain(mux.StepDrainDelay, "ask", func(context.Context) error {
		ask()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ask()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{`{"status":"SERVING_STATUS_SERVING"}`, `{"status":"SERVING_STATUS_NOT_SERVING"}`}, asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
