package protocols

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestConnIsSmall: there is one Conn for each connection, most of which are idle.
func TestConnIsSmall(t *testing.T) {
	if strconv.IntSize != 64 {
		t.Skip("the sizes are those of a 64-bit platform")
	}
	for _, tt := range []struct {
		value any
		most  uintptr
	}{
		{Conn{}, 48},
		{compactVerdict{}, 16},
		{http2Track{}, 240}, // An HTTP/2 connection has one more.
	} {
		typ := reflect.TypeOf(tt.value)
		t.Logf("%s: %d bytes", typ, typ.Size())
		if typ.Size() > tt.most {
			t.Errorf("%s has %d bytes, want %d at most", typ, typ.Size(), tt.most)
		}
	}
}

// TestVerdictsAreKept takes the texts from the source, because one that is not in its table would be lost.
func TestVerdictsAreKept(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "protocol.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var reasons, failures []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		switch name := spec.Names[0].Name; {
		case strings.HasPrefix(name, "reason"):
			reasons = append(reasons, text)
		case strings.HasPrefix(name, "Failure"):
			failures = append(failures, text)
		}
		return true
	})
	if len(reasons) < 20 || len(failures) < 5 {
		t.Fatalf("found %d reasons and %d failures", len(reasons), len(failures))
	}
	for _, p := range []Protocol{Unknown, HTTP1, HTTP2, GRPC, WebSocket, TLS} {
		for _, reason := range reasons {
			for _, failure := range failures {
				want := Verdict{p, reason, failure, 1 << 20, time.Hour}
				if got := want.compact().expand(); got != want {
					t.Fatalf("kept %+v, want %+v", got, want)
				}
			}
		}
	}
}

// TestEarlyStateIsGivenBack: what is needed until the verdict goes back to its
// pool with the last byte of it, and the methods that may come later find it gone.
func TestEarlyStateIsGivenBack(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	c := newConn(server)
	defer c.Close()
	const head = "GET / HTTP/1.1\r\n"
	go func() { _, _ = io.WriteString(client, head) }()
	v := c.Sniff(nil)
	late := c.PeekReader()
	early := c.early.Load()
	if _, err := io.ReadFull(c, make([]byte, len(head))); err != nil {
		t.Fatal(err)
	}
	if c.early.Load() != nil {
		t.Fatal("the state is still there")
	}
	if early.conn != nil || early.peek.b != nil {
		t.Error("the state was not cleared")
	}
	c.SetPeek(nil)
	c.EndWait()
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, ErrPeekFull) {
		t.Errorf("late peek: %v, want %v", err, ErrPeekFull)
	}
	for _, got := range []Verdict{c.Verdict(), c.Sniff(nil)} {
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("late verdict (-want +got):\n%s", diff)
		}
	}
}

// TestLateEndWait: an EndWait that comes for a connection which has given its
// state back does not touch the one that has it now.
func TestLateEndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(slices.Concat(testSettings, ackFrame()))
		synctest.Wait()
		s.conn.early.Load().endWait(new(Conn))
		time.Sleep(time.Second)
		s.send(firstRequest())
		s.decided(grpcVerdict)
	})
}
