package listeners

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPassedSockets(t *testing.T) {
	const pid = 4711
	own := strconv.Itoa(pid)
	type env = map[string]string
	tests := []struct {
		name string
		env  env
		want []passedSocket
		err  []string
	}{
		{"nothing", nil, nil, nil},
		{"service manager", env{envListenPID: own, envListenFDs: "2", envListenNames: "web:admin"}, []passedSocket{
			{Address: "fd:web", Manager: "fd:web", activated: true}, {Address: "fd:admin", Manager: "fd:admin", activated: true},
		}, nil},
		{"no names", env{envListenPID: own, envListenFDs: "1"}, []passedSocket{{Address: "fd:unknown", Manager: "fd:unknown", activated: true}}, nil},
		{"an empty name", env{envListenPID: own, envListenFDs: "2", envListenNames: ":b"}, []passedSocket{
			{Address: "fd:unknown", Manager: "fd:unknown", activated: true}, {Address: "fd:b", Manager: "fd:b", activated: true},
		}, nil},
		{"no sockets", env{envListenPID: own, envListenFDs: "0"}, []passedSocket{}, nil},
		{"another process's", env{envListenPID: "4712", envListenFDs: "x"}, nil, nil},
		{"half of it", env{envListenFDs: "1"}, nil, nil},
		{"no process", env{envListenPID: "me", envListenFDs: "1"}, nil, []string{envListenPID, `"me"`}},
		{"no number", env{envListenPID: own, envListenFDs: "-1"}, nil, []string{envListenFDs, `"-1"`}},
		{"too many", env{envListenPID: own, envListenFDs: "65537"}, nil, []string{envListenFDs, "65536"}},
		{"too few names", env{envListenPID: own, envListenFDs: "3", envListenNames: "a:b"}, nil, []string{envListenNames, "2 names for 3"}},
		{"upgrade", env{envInherit: `[{"address":"127.0.0.1:0"},{"address":"unix:/x","unlink":true,"later":1}]`}, []passedSocket{
			{Address: "127.0.0.1:0"}, {Address: "unix:/x", Unlink: true},
		}, nil},
		{"upgrade before service manager", env{envInherit: `[{"address":":1"}]`, envListenPID: own, envListenFDs: "1"}, []passedSocket{{Address: ":1"}}, nil},
		{"no list", env{envInherit: `{`}, nil, []string{envInherit}},
		{"no address", env{envInherit: `[{"address":":1"},{}]`}, nil, []string{envInherit, "element 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := passedSockets(func(name string) string { return tt.env[name] }, pid)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(passedSocket{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.err != nil) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				checkError(t, err, tt.err)
			}
		})
	}
}
