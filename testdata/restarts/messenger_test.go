package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// script is a session of a test: what it does with each message, and how it ends.
type script struct {
	// echoes is how often a message is answered: 1 is what a server does.
	echoes int
	// dies is how many messages it takes before it ends with err; 0 for no end.
	dies int
	err  error
	// goAway says that GOAWAY came before the end.
	goAway bool
}

var errGoingAway = errors.New("close code 1001")

// fakeSession plays a script.
type fakeSession struct {
	script script
	toldCh chan struct{}
	out    chan reception
	seen   int
}

func newFakeSession(s script) *fakeSession {
	return &fakeSession{script: s, toldCh: make(chan struct{}), out: make(chan reception, 100)}
}

func (f *fakeSession) send(n uint64) error {
	for range f.script.echoes {
		f.out <- reception{number: n}
	}
	if f.seen++; f.seen == f.script.dies {
		if f.script.goAway {
			close(f.toldCh)
		}
		f.out <- reception{err: f.script.err}
	}
	return nil
}

func (f *fakeSession) receive() (uint64, error) {
	r := <-f.out
	return r.number, r.err
}

func (f *fakeSession) told() <-chan struct{}      { return f.toldCh }
func (f *fakeSession) leave()                     { f.out <- reception{err: io.EOF} }
func (f *fakeSession) isGoingAway(err error) bool { return errors.Is(err, errGoingAway) }
func (f *fakeSession) close()                     {}

// figures are what a test looks at, by the names of the table.
type figures map[string]int64

func (t *tally) figures() figures {
	got := make(figures)
	for i, c := range t.columns() {
		if n := c.Load(); n != 0 {
			got[columnNames[i].(string)] = n
		}
	}
	return got
}

func TestMessenger(t *testing.T) {
	good := script{echoes: 1}
	tests := []struct {
		name    string
		scripts []script // of the sessions, one after the other
		want    figures
	}{
		{"answered", []script{good}, figures{"sent": 3, "answered": 3}},
		{"told by GOAWAY", []script{{echoes: 1, dies: 1, err: io.EOF, goAway: true}, good}, figures{"sent": 3, "answered": 3, "GOAWAY": 1}},
		{"told by 1001 before the answer", []script{{dies: 1, err: errGoingAway}, good}, figures{"sent": 3, "answered": 3, "resent": 1, "1001": 1}},
		{"told by GOAWAY before the answer", []script{{dies: 1, err: io.EOF, goAway: true}, good}, figures{"sent": 3, "answered": 3, "resent": 1, "GOAWAY": 1}},
		{"cut after GOAWAY", []script{{echoes: 1, dies: 1, err: io.ErrUnexpectedEOF, goAway: true}, good}, figures{"sent": 3, "answered": 3, "GOAWAY": 1, "failed": 1}},
		{"ended without a word", []script{{echoes: 1, dies: 1, err: io.EOF}, good}, figures{"sent": 3, "answered": 3, "untold": 1}},
		{"answered twice", []script{{echoes: 2}}, figures{"sent": 3, "answered": 3, "doubled": 3}},
		{"never answered", []script{{}}, figures{"sent": 3, "lost": 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				row := &tally{kind: tt.name}
				next := 0
				m := newMessages(t.Context(), row, 1, func(context.Context, int) (session, error) {
					next++
					return newFakeSession(tt.scripts[min(next, len(tt.scripts))-1]), nil
				}, nil)
				for n := range uint64(3) {
					done := make(chan struct{})
					m.begin(t.Context(), n, func() { close(done) })
					<-done
				}
				synctest.Wait()
				m.close()
				if diff := cmp.Diff(tt.want, row.figures()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if ok := len(row.faults) == 0; row.ok() != ok {
					t.Errorf("ok is %v with faults %q", row.ok(), row.faults)
				}
			})
		})
	}
}

// TestMessengerReopens: a session that cannot be opened is a failure, and the
// message goes out over the next one.
func TestMessengerReopens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		row := new(tally)
		refused := true
		m := newMessages(t.Context(), row, 1, func(context.Context, int) (session, error) {
			if refused {
				refused = false
				return nil, errors.New("refused")
			}
			return newFakeSession(script{echoes: 1}), nil
		}, nil)
		done := make(chan struct{})
		m.begin(t.Context(), 1, func() { close(done) })
		<-done
		m.close()
		if diff := cmp.Diff(figures{"sent": 1, "answered": 1, "failed": 1}, row.figures()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
