//go:build unix

package pool_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// scripted is a connection whose operations fail as they are told to.
type scripted struct {
	above

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

// TestCloseReasons: why a connection was closed is what somebody said first, or what its
// last errors say.
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
	replace := func(old, reason string) func(*pool.Conn, *scripted) {
		return func(c *pool.Conn, _ *scripted) { c.ReplaceCloseReason(old, reason) }
	}
	reset, broken := opError(os.NewSyscallError("read", syscall.ECONNRESET), "read"), opError(os.NewSyscallError("write", syscall.EPIPE), "write")
	timeout := opError(os.ErrDeadlineExceeded, "read")
	_, socket := pair(t)
	type steps []func(*pool.Conn, *scripted)
	for _, tt := range []struct {
		name  string
		steps steps
		want  string
		kind  pool.EventKind // of the event before EventRemoved; empty for none
	}{
		{"nothing", nil, "server_closed", ""},
		{"end of stream", steps{read(io.EOF)}, "peer_closed", ""},
		{"end of stream, then a close here", steps{read(io.EOF), read(opError(net.ErrClosed, "read"))}, "peer_closed", ""},
		{"end of stream, then an answer", steps{read(io.EOF), write(nil)}, "peer_closed", ""},
		{"end of stream, then a write breaks", steps{read(io.EOF), write(broken)}, "peer_closed", ""},
		{"end of stream, then a write stands still", steps{read(io.EOF), write(timeout)}, "timeout", pool.EventTimeout},
		{"read reset", steps{read(reset)}, "reset", pool.EventError},
		{"write reset", steps{read(nil), write(broken)}, "reset", pool.EventError},
		{"closed here", steps{read(opError(net.ErrClosed, "read")), write(io.ErrClosedPipe)}, "server_closed", ""},
		{"unknown error", steps{read(errors.New("something"))}, "server_closed", ""},
		{"read timeout", steps{read(timeout)}, "timeout", pool.EventTimeout},
		{"read timeout, then an answer", steps{read(timeout), write(nil)}, "timeout", pool.EventTimeout},
		{"read timeout, then read on", steps{read(timeout), read(nil)}, "server_closed", ""},
		{"write timeout", steps{write(timeout)}, "timeout", pool.EventTimeout},
		{"write timeout, then written on", steps{write(timeout), write(nil)}, "server_closed", ""},
		{"kernel gave up", steps{read(opError(os.NewSyscallError("read", syscall.ETIMEDOUT), "read"))}, "timeout", pool.EventTimeout},
		{"read woken", steps{deadline((*pool.Conn).SetReadDeadline, -time.Hour), read(timeout)}, "server_closed", ""},
		{"read woken by both", steps{deadline((*pool.Conn).SetDeadline, 0), read(timeout), write(timeout)}, "server_closed", ""},
		{"read woken, write too slow", steps{deadline((*pool.Conn).SetReadDeadline, 0), write(timeout)}, "timeout", pool.EventTimeout},
		{"write woken", steps{deadline((*pool.Conn).SetWriteDeadline, 0), write(timeout)}, "server_closed", ""},
		{"woken and set anew", steps{
			deadline((*pool.Conn).SetDeadline, 0), deadline((*pool.Conn).SetDeadline, time.Hour), read(timeout),
		}, "timeout", pool.EventTimeout},
		{"copy in, ended", steps{writeTo(nil)}, "peer_closed", ""},
		{"copy in, reset", steps{writeTo(opError(syscall.ECONNRESET, "read", "writeto"))}, "reset", pool.EventError},
		{"copy in, its target reset", steps{writeTo(opError(syscall.EPIPE, "write", "writeto"))}, "server_closed", ""},
		{"copy out, ended", steps{readFrom(nil)}, "server_closed", ""},
		{"copy out, reset", steps{readFrom(opError(os.NewSyscallError("sendfile", syscall.EPIPE), "readfrom"))}, "reset", pool.EventError},
		{"copy out, its source reset", steps{readFrom(opError(syscall.ECONNRESET, "read", "readfrom"))}, "server_closed", ""},
		{"copy out, its source ended early", steps{readFrom(io.ErrUnexpectedEOF)}, "server_closed", ""},
		{"said", steps{read(io.EOF), say("drain"), say("forced")}, "drain", ""},
		{"nothing said", steps{say(""), read(io.EOF)}, "peer_closed", ""},
		{"own word", steps{say("tired")}, "tired", ""},
		{"idle", steps{say("idle_timeout")}, "idle_timeout", pool.EventTimeout},
		{"header", steps{say("header_timeout")}, "header_timeout", pool.EventTimeout},
		{"slow body", steps{say("slow_body")}, "slow_body", pool.EventTimeout},
		{"stalled", steps{say("write_stalled")}, "write_stalled", pool.EventTimeout},
		{"ping", steps{say("ping_timeout")}, "ping_timeout", pool.EventTimeout},
		{"sniff", steps{say("sniff_timeout")}, "sniff_timeout", pool.EventTimeout},
		{"age", steps{say("max_age"), read(timeout)}, "max_age", ""},
		{"told, then cut", steps{say("drain"), replace("drain", "forced")}, "forced", ""},
		{"cut for another reason", steps{say("max_age"), replace("drain", "forced")}, "max_age", ""},
		{"cut without a reason", steps{replace("drain", "forced")}, "server_closed", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set pool.Set
			set.SetTimeouts("idle_timeout", "header_timeout", "slow_body", "write_stalled", "ping_timeout", "sniff_timeout")
			raw := &scripted{above: above{socket: socket}}
			c := add(&set, raw)
			if _, _, known := c.SendQueue(); !known && strings.HasPrefix(tt.name, "copy out") {
				t.Skip("it is written by steps")
			}
			set.Move(c, "http1")
			events, cancel := record(&set)
			defer cancel()
			for _, step := range tt.steps {
				step(c, raw)
			}
			_ = c.Close()
			c.SetCloseReason("too late")
			want := []pool.Event{{Kind: pool.EventRemoved, Conn: c, Tag: "http1", Reason: tt.want}}
			if tt.kind != "" {
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
		{"closes", func(client *net.TCPConn, _ *pool.Conn) { _ = client.Close() }, "peer_closed"},
		{"resets", func(client *net.TCPConn, _ *pool.Conn) {
			_ = client.SetLinger(0)
			_ = client.Close()
		}, "reset"},
		{"says nothing", func(_ *net.TCPConn, c *pool.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) }, "timeout"},
		{"is not waited for", func(_ *net.TCPConn, c *pool.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, "server_closed"},
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
