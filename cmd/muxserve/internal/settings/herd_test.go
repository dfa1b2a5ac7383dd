package settings

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHerd(t *testing.T) {
	t.Parallel()
	const certificate = "listeners: [{tls: {mode: self-signed}}]\n"
	tests := []struct {
		name       string
		file       string
		args       []string
		processors int
		want       []string
	}{
		{name: "the defaults", processors: 1},
		{name: "the defaults with TLS", args: []string{"--tls=self-signed"}, processors: 1},
		{name: "the profiles with TLS", args: []string{"--tls=self-signed", "--profile=edge", "--drain-profile=k8s"}, processors: 1},
		{name: "all at once, and nobody has said how many", args: []string{"--tls=self-signed", "--drain-spread=0s"}, processors: 1},
		{
			name: "TLS", file: certificate + "limits: {max_connections: 12000}\ndrain: {spread: 5s}", processors: 1,
			want: []string{"drain.spread 5s makes a herd: 12000 connections over 5s are 2400 reconnects a second, " +
				"and a replica (GOMAXPROCS 1) has time for 1511 TLS handshakes; drain.spread 8s or more spreads them"},
		},
		{name: "two processors", file: certificate + "limits: {max_connections: 12000}\ndrain: {spread: 5s}", processors: 2},
		{name: "what it takes", file: certificate + "limits: {max_connections: 12000}\ndrain: {spread: 8s}", processors: 1},
		{name: "plain", file: "limits: {max_connections: 12000}\ndrain: {spread: 5s}", processors: 1},
		{
			name: "a profile's spread", file: "limits: {max_connections: 60000}\ndrain: {profile: k8s}", processors: 1,
			want: []string{"drain.spread 6s makes a herd: 60000 connections over 6s are 10000 reconnects a second, " +
				"and a replica (GOMAXPROCS 1) has time for 7668 plain handshakes; drain.spread 8s or more spreads them"},
		},
		{
			name: "at once", file: "limits: {max_connections: 9000}\ndrain: {spread: 0s}", processors: 1,
			want: []string{"drain.spread 0s makes a herd: 9000 connections at once are 9000 reconnects a second, " +
				"and a replica (GOMAXPROCS 1) has time for 7668 plain handshakes; drain.spread 2s or more spreads them"},
		},
		{
			name: "nobody is told", file: "limits: {max_connections: 9000}\ndrain: {spread: 1m, timeout: 2m, skip_steps: [stop-accepting]}", processors: 1,
			want: []string{"drain.skip_steps with stop-accepting makes a herd: 9000 connections at once are 9000 reconnects a second, " +
				"and a replica (GOMAXPROCS 1) has time for 7668 plain handshakes; that step, and a drain.spread, spreads them"},
		},
		{
			name: "two pools", file: certificate + "limits: {max_connections: 0}\ngrpc: {max_connections: 4000}\nwebsocket: {max_connections: 8000}\ndrain: {spread: 5s}", processors: 1,
			want: []string{"drain.spread 5s makes a herd: 12000 connections over 5s are 2400 reconnects a second, " +
				"and a replica (GOMAXPROCS 1) has time for 1511 TLS handshakes; drain.spread 8s or more spreads them"},
		},
		{
			name: "pools that allow less than all", file: certificate + "profile: edge\nlimits: {max_connections: 12000}\ndrain: {spread: 5s}", processors: 1,
		},
		{
			name: "all that allow less than the pools", file: certificate + "limits: {max_connections: 1000}\nwebsocket: {max_connections: 12000}\ndrain: {spread: 5s}", processors: 1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := tt.args
			if tt.file != "" {
				name := filepath.Join(t.TempDir(), "muxserve.yaml")
				if err := os.WriteFile(name, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config="+name)
			}
			s, err := loadFrom(t, args, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, s.herd(tt.processors)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
