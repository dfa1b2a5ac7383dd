package upgrade

import (
	"errors"
	"testing"
)

func TestUnfit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		pid, starter int
		starterName  string
		told, want   bool
	}{
		{"process 1", 1, 0, "", true, true},
		{"container's init", 7, 1, "tini", false, true},
		{"init below a shell", 9, 7, "docker-init", false, true},
		{"a script as process 1", 7, 1, "python3", false, true},
		{"systemd that is told", 400, 1, "systemd", true, false},
		{"systemd that is not", 400, 1, "systemd", false, true},
		{"systemd of a user that is not", 400, 99, "systemd", false, true},
		{"sysvinit", 400, 1, "init", false, false},
		{"a shell", 400, 300, "bash", false, false},
		{"a name that is not known", 400, 1, "", false, false},
	}
	for _, tt := range tests {
		err := unfit(tt.pid, tt.starter, tt.starterName, tt.told)
		if errors.Is(err, ErrUnfit) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
