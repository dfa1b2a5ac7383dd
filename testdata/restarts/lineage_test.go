package main

import "testing"

func TestOutcomeIn(t *testing.T) {
	const (
		serving  = `{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"phase change","phase":"serving"}` + "\n"
		upgraded = `{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"` + logUpgraded + ` a new process serves","pid":6,"new_pid":7}` + "\n"
		failed   = `{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"` + logFailed + `"}` + "\n"
	)
	tests := []struct {
		name   string
		log    string
		pid    int
		failed bool
	}{
		{"nothing yet", serving, 0, false},
		{"upgraded", serving + upgraded, 7, false},
		{"failed", serving + failed, 0, true},
		{"the first counts", failed + upgraded, 0, true},
		{"behind a line that the new process has begun", `  gRPC  grpcurl -d '{"message": "hello"}' ws` + upgraded + "\n", 7, false},
		{"half an entry", upgraded[:len(upgraded)/2], 0, false},
	}
	for _, tt := range tests {
		if pid, failed := outcomeIn([]byte(tt.log)); pid != tt.pid || failed != tt.failed {
			t.Errorf("%s: %d, failed %v; want %d, %v", tt.name, pid, failed, tt.pid, tt.failed)
		}
	}
}
