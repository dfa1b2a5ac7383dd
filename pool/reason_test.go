//go:build unix

package pool_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// scripted is a connection whose operations fail as they are told to.
type scripted struct {
	bench

	err error
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

func (s *scripted) Write(p []byte) (int, error) { return s.Read(p) }

func (s *scripted) ReadFrom(io.Reader) (int64, error) {
	_, err := s.Read(nil)
	return 0, err
}

func (s *scripted) WriteTo(io.Writer) (int64, error) { return s.ReadFrom(nil) }

// opError is err the way package net wraps it, once for each operation.
func opError(err error, ops ...string) error {
	for _, op := range ops {
		err = &net.OpError{Op: op, Net: "tcp", Err: err}
	}
	return err
}

// TestCloseReasons: why a connection was closed is what somebody said first, or what its last errors say.
func TestCloseReasons(t *testing.T) {
	read := func(err error) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, raw *scripted) {
			raw.err = err
			_, _ = c.Read(make([]byte, 1))
		}
	}
	write := func(err error) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, raw *scripted) {
			raw.err = err
			_, _ = c.Write(make([]byte, 1))
		}
	}
	readFrom := func(err error) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, raw *scripted) {
			raw.err = err
			_, _ = c.ReadFrom(new(bytes.Reader))
		}
	}
	writeTo := func(err error) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, raw *scripted) {
			raw.err = err
			_, _ = c.WriteTo(io.Discard)
		}
	}
	deadline := func(set func(*pool.Conn, time.Time) error, after time.Duration) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, _ *scripted) { _ = set(c, time.Now().Add(after)) }
	}
	say := func(reason string) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, _ *scripted) { c.SetCloseReason(reason) }
	}
	reset, broken := opError(os.NewSyscallError("read", syscall.ECONNRESET), "read"), opError(os.NewSyscallError("write", syscall.EPIPE), "write")
	timeout := opError(os.ErrDeadlineExceeded, "read")
	type steps []func(*pool.Conn, *scripted)
	for _, tt := range []struct {
		name  string
		steps steps
		want  string
		kind  pool.EventKind // of the event before EventRemoved; 0 for none
	}{
		{"nothing", nil, pool.ReasonServer, 0},
		{"end of stream", steps{read(io.EOF)}, pool.ReasonPeer, 0},
		{"end of stream, then a close here", steps{read(io.EOF), read(opError(net.ErrClosed, "read"))}, pool.ReasonPeer, 0},
		{"end of stream, then an answer", steps{read(io.EOF), write(nil)}, pool.ReasonPeer, 0},
		{"end of stream, then a write breaks", steps{read(io.EOF), write(broken)}, pool.ReasonPeer, 0},
		{"end of stream, then a write stands still", steps{read(io.EOF), write(timeout)}, pool.ReasonTimeout, pool.EventTimeout},
		{"read reset", steps{read(reset)}, pool.ReasonReset, pool.EventError},
		{"write reset", steps{read(nil), write(broken)}, pool.ReasonReset, pool.EventError},
		{"closed here", steps{read(opError(net.ErrClosed, "read")), write(io.ErrClosedPipe)}, pool.ReasonServer, 0},
		{"unknown error", steps{read(errors.New("something"))}, pool.ReasonServer, 0},
		{"read timeout", steps{read(timeout)}, pool.ReasonTimeout, pool.EventTimeout},
		{"read timeout, then an answer", steps{read(timeout), write(nil)}, pool.ReasonTimeout, pool.EventTimeout},
		{"read timeout, then read on", steps{read(timeout), read(nil)}, pool.ReasonServer, 0},
		{"write timeout", steps{write(timeout)}, pool.ReasonTimeout, pool.EventTimeout},
		{"write timeout, then written on", steps{write(timeout), write(nil)}, pool.ReasonServer, 0},
		{"kernel gave up", steps{read(opError(os.NewSyscallError("read", syscall.ETIMEDOUT), "read"))}, pool.ReasonTimeout, pool.EventTimeout},
		{"read woken", steps{deadline((*pool.Conn).SetReadDeadline, -time.Hour), read(timeout)}, pool.ReasonServer, 0},
		{"read woken by both", steps{deadline((*pool.Conn).SetDeadline, 0), read(timeout), write(timeout)}, pool.ReasonServer, 0},
		{"read woken, write too slow", steps{deadline((*pool.Conn).SetReadDeadline, 0), write(timeout)}, pool.ReasonTimeout, pool.EventTimeout},
		{"write woken", steps{deadline((*pool.Conn).SetWriteDeadline, 0), write(timeout)}, pool.ReasonServer, 0},
		{"woken and set anew", steps{
			deadline((*pool.Conn).SetDeadline, 0), deadline((*pool.Conn).SetDeadline, time.Hour), read(timeout),
		}, pool.ReasonTimeout, pool.EventTimeout},
		{"copy in, ended", steps{writeTo(nil)}, pool.ReasonPeer, 0},
		{"copy in, reset", steps{writeTo(opError(syscall.ECONNRESET, "read", "writeto"))}, pool.ReasonReset, pool.EventError},
		{"copy in, its target reset", steps{writeTo(opError(syscall.EPIPE, "write", "writeto"))}, pool.ReasonServer, 0},
		{"copy out, ended", steps{readFrom(nil)}, pool.ReasonServer, 0},
		{"copy out, reset", steps{readFrom(opError(os.NewSyscallError("sendfile", syscall.EPIPE), "readfrom"))}, pool.ReasonReset, pool.EventError},
		{"copy out, its source reset", steps{readFrom(opError(syscall.ECONNRESET, "read", "readfrom"))}, pool.ReasonServer, 0},
		{"copy out, its source ended early", steps{readFrom(io.ErrUnexpectedEOF)}, pool.ReasonServer, 0},
		{"said", steps{read(io.EOF), say(pool.ReasonDrain), say(pool.ReasonForced)}, pool.ReasonDrain, 0},
		{"nothing said", steps{say(""), read(io.EOF)}, pool.ReasonPeer, 0},
		{"own word", steps{say("tired")}, "tired", 0},
		{"idle", steps{say(pool.ReasonIdle)}, pool.ReasonIdle, pool.EventTimeout},
		{"header", steps{say(pool.ReasonHeader)}, pool.ReasonHeader, pool.EventTimeout},
		{"slow body", steps{say(pool.ReasonSlowBody)}, pool.ReasonSlowBody, pool.EventTimeout},
		{"stalled", steps{say(pool.ReasonStalled)}, pool.ReasonStalled, pool.EventTimeout},
		{"ping", steps{say(pool.ReasonPing)}, pool.ReasonPing, pool.EventTimeout},
		{"sniff", steps{say(pool.ReasonSniff)}, pool.ReasonSniff, pool.EventTimeout},
		{"age", steps{say(pool.ReasonAge), read(timeout)}, pool.ReasonAge, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set pool.Set
			raw := new(scripted)
			c := add(&set, raw)
			set.Move(c, "http1")
			events, cancel := record(&set)
			defer cancel()
			for _, step := range tt.steps {
				step(c, raw)
			}
			_ = c.Close()
			c.SetCloseReason("too late")
			want := []pool.Event{{Kind: pool.EventRemoved, Conn: c, Tag: "http1", Reason: tt.want}}
			if tt.kind != 0 {
				want = append([]pool.Event{{Kind: tt.kind, Conn: c, Tag: "http1", Reason: tt.want}}, want...)
			}
			got := events()
			if got[0].Kind == pool.EventError {
				if got[0].Err == nil {
					t.Error("an error without an error")
				}
				got[0].Err = nil
			}
			if diff := cmp.Diff(want, got, ignoreTime); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if c.CloseReason() != tt.want {
				t.Errorf("afterwards the reason is %q, want %q", c.CloseReason(), tt.want)
			}
		})
	}
}

// TestCloseReasonsOnTheWire: a real peer's ways to leave.
func TestCloseReasonsOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave func(client *net.TCPConn, c *pool.Conn)
		want  string
	}{
		{"closes", func(client *net.TCPConn, _ *pool.Conn) { _ = client.Close() }, pool.ReasonPeer},
		{"resets", func(client *net.TCPConn, _ *pool.Conn) {
			_ = client.SetLinger(0)
			_ = client.Close()
		}, pool.ReasonReset},
		{"says nothing", func(_ *net.TCPConn, c *pool.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) }, pool.ReasonTimeout},
		{"is not waited for", func(_ *net.TCPConn, c *pool.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, pool.ReasonServer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set pool.Set
			client, raw := pair(t)
			c := add(&set, raw)
			tt.leave(client.(*net.TCPConn), c)
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
			if got := c.CloseReason(); got != tt.want {
				t.Errorf("closed for %q, want %q", got, tt.want)
			}
		})
	}
}
