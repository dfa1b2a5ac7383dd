package pool_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// bench is a connection that costs nothing: it reads as much as it is asked for, and
// writes nowhere.
type bench struct{}

func (bench) Read(p []byte) (int, error)  { return len(p), nil }
func (bench) Write(p []byte) (int, error) { return len(p), nil }
func (bench) ReadFrom(r io.Reader) (int64, error) {
	return int64(r.(*bytes.Reader).Len()), nil
}
func (bench) Close() error                     { return nil }
func (bench) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (bench) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (bench) SetDeadline(time.Time) error      { return nil }
func (bench) SetReadDeadline(time.Time) error  { return nil }
func (bench) SetWriteDeadline(time.Time) error { return nil }

// above is bench above a socket, so that the system says what the peer takes.
type above struct {
	bench

	socket net.Conn
}

func (a above) NetConn() net.Conn { return a.socket }

// rawAndWrapped runs a benchmark without the account and with it.
func rawAndWrapped(b *testing.B, name string, connect func() net.Conn, loop func(*testing.B, net.Conn)) {
	b.Helper()
	b.Run(name+"/raw", func(b *testing.B) {
		b.ReportAllocs()
		loop(b, connect())
	})
	b.Run(name+"/wrapped", func(b *testing.B) {
		b.ReportAllocs()
		loop(b, add(new(pool.Set), connect()))
	})
}

// BenchmarkConn shows the cost of the account on each operation, over a connection that
// costs nothing and over the loopback.
func BenchmarkConn(b *testing.B) {
	buf := make([]byte, 512)
	nothing := func() net.Conn {
		_, server := pair(b)
		return above{socket: server}
	}
	rawAndWrapped(b, "null/read", nothing, func(b *testing.B, c net.Conn) {
		b.Helper()
		for b.Loop() {
			_, _ = c.Read(buf)
		}
	})
	rawAndWrapped(b, "null/write", nothing, func(b *testing.B, c net.Conn) {
		b.Helper()
		for b.Loop() {
			_, _ = c.Write(buf)
		}
	})
	rawAndWrapped(b, "null/readfrom", nothing, func(b *testing.B, c net.Conn) {
		b.Helper()
		source := bytes.NewReader(buf)
		for b.Loop() {
			_, _ = c.(io.ReaderFrom).ReadFrom(source)
		}
	})
	rawAndWrapped(b, "null/deadline", nothing, func(b *testing.B, c net.Conn) {
		b.Helper()
		t := time.Now().Add(time.Hour)
		for b.Loop() {
			_ = c.SetReadDeadline(t)
		}
	})
	var client net.Conn
	loopback := func() (server net.Conn) {
		client, server = pair(b)
		return server
	}
	rawAndWrapped(b, "loopback/exchange", loopback, func(b *testing.B, c net.Conn) {
		b.Helper()
		for b.Loop() {
			_, _ = client.Write(buf)
			_, _ = io.ReadFull(c, buf)
			_, _ = c.Write(buf)
			_, _ = io.ReadFull(client, buf)
		}
	})
	rawAndWrapped(b, "loopback/write", loopback, func(b *testing.B, c net.Conn) {
		b.Helper()
		peer := client
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, peer)
			close(done)
		}()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			_, _ = c.Write(buf)
		}
		_ = c.Close()
		<-done
	})
}

// BenchmarkLife is a connection from its accept to its close: Add, Move, Close. The
// operations of one life without an observer and with one differ by three events.
func BenchmarkLife(b *testing.B) {
	life := func(b *testing.B, set *pool.Set) {
		b.Helper()
		set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 1000}, PerTag: map[pool.Tag]int{"http1": 1000}})
		conns := make([]pool.Conn, 1)
		b.ReportAllocs()
		for b.Loop() {
			conns[0] = pool.Conn{}
			set.Add(&conns[0], bench{}, nil)
			set.MoveWithin(&conns[0], "http1")
			_ = conns[0].Close()
		}
	}
	b.Run("unobserved", func(b *testing.B) { life(b, new(pool.Set)) })
	b.Run("observed", func(b *testing.B) {
		var set pool.Set
		seen := 0
		set.Observe(func(pool.Event) { seen++ })
		life(b, &set)
	})
}

// BenchmarkMany is what asking costs while 10,000 connections are open, for each time.
func BenchmarkMany(b *testing.B) {
	const open = 10_000
	var set pool.Set
	conns := make([]pool.Conn, open)
	for i := range conns {
		set.Add(&conns[i], bench{}, nil)
		set.Move(&conns[i], "http1")
	}
	b.Run("stats", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = set.Stats()
		}
	})
	b.Run("stalled", func(b *testing.B) {
		var watch pool.StallWatch
		now := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Second)
			for i := range conns {
				_ = watch.Check(now, &conns[i])
			}
		}
	})
}
