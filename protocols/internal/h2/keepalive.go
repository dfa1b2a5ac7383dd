package h2

import (
	"bytes"
	"cmp"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols/moments"
)

// A keepalive is what is known of the PINGs by which the server asks a silent client whether
// it is there, and of what the client has read. The writing goroutine begins the wait for an
// answer, and the reading one ends it.
type keepalive struct {
	// since is when the PING was written, or when the client was last heard behind it, counted
	// from clockStart; 0 where no answer is awaited.
	since atomic.Int64
	sent  atomic.Uint64 // SentData before that PING
	read  atomic.Uint64 // SentData before the last PING, also of AskRead, that the client has answered
	// goAway has the PING written that follows the first GOAWAY; nil before that.
	goAway atomic.Pointer[time.Timer]
}

// pings returns the connection's keepalive.
func (t *Track) pings() *keepalive {
	if t.keepalive.Load() == nil {
		t.keepalive.CompareAndSwap(nil, new(keepalive))
	}
	return t.keepalive.Load()
}

// reads notes that the client has read so much of SentData.
func (k *keepalive) reads(n uint64) { k.read.Store(max(k.read.Load(), n)) }

// clockStart is what keepalives count their times from.
var clockStart = time.Now()

// sinceStart returns the time of the process's own clock; never 0.
func sinceStart() time.Duration { return cmp.Or(time.Since(clockStart), 1) }

// isKeepalive reports whether a PING of the server, or the answer to one, is for keepalive.
// grpc-go's are all zeros; its others measure the bandwidth, or follow a GOAWAY. net/http's
// are random, and it has no others.
func (t *Track) isKeepalive(payload []byte) bool {
	if t.pace == nil {
		var zeros [PingLen]byte
		return string(payload) == string(zeros[:])
	}
	return string(payload) != string(goAwayPing[:]) && !bytes.HasPrefix(payload, []byte(readPing))
}

// notePing takes note of a PING of the server.
func (t *Track) notePing(payload []byte) {
	if !t.isKeepalive(payload) {
		return
	}
	if k := t.pings(); k.since.Load() == 0 {
		k.sent.Store(t.sentData.Load())
		k.since.Store(int64(sinceStart()))
	}
}

// noteHeard takes note that the client has sent something. Its answer is on the way behind
// that.
func (t *Track) noteHeard() {
	if k := t.keepalive.Load(); k != nil && k.since.Load() != 0 {
		k.since.Store(int64(sinceStart()))
	}
}

// notePong takes note of the client's answer to a PING.
func (t *Track) notePong(payload []byte) {
	if k := t.keepalive.Load(); k != nil && k.since.Load() != 0 && t.isKeepalive(payload) {
		k.reads(k.sent.Load())
		k.since.Store(0)
	}
}

// read returns how much of SentData the client has certainly read: what stands before a PING
// that it has answered. A WINDOW_UPDATE proves nothing, because clients also enlarge their
// windows by it while DATA is on its way to them.
func (t *Track) read() uint64 {
	if k := t.keepalive.Load(); k != nil {
		return k.read.Load()
	}
	return 0
}

// Unread returns how many bytes of SentData the client may not have read.
func (t *Track) Unread() uint64 {
	read := t.read() // Before sentData, which only grows.
	return t.sentData.Load() - read
}

// Reading returns a number that moves while the client reads: it answers PINGs of the server,
// or gives back to the connection's window.
func (t *Track) Reading() uint64 { return t.read() + uint64(t.returned.Load()) }

// silence returns for how long the client has owed the answer to the server's PING and has
// sent nothing; 0 where it owes none.
func (t *Track) silence() time.Duration {
	k := t.keepalive.Load()
	if k == nil {
		return 0
	}
	since := time.Duration(k.since.Load())
	if since == 0 {
		return 0
	}
	return max(1, sinceStart()-since)
}

// IsMute reports whether the client has owed the answer to the server's PING, and sent nothing,
// for [moments.PingTimeout] of the DATA before that PING which the client may not have read.
func (t *Track) IsMute(timeout time.Duration) bool {
	silence := t.silence()
	return silence >= timeout && silence > 0 && silence >= moments.PingTimeout(timeout, t.unreadBeforePing())
}

// unreadBeforePing is Unread for the DATA before the PING alone; 0 before the first PING.
func (t *Track) unreadBeforePing() uint64 {
	k := t.keepalive.Load()
	if k == nil {
		return 0
	}
	sent := k.sent.Load()
	return sent - min(sent, k.read.Load())
}
