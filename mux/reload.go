package mux

import (
	"errors"
)

// The errors of [Server.Reload] that do not come from the configuration.
var (
	// ErrReloading says that another change is being made at the moment.
	ErrReloading = errors.New("mux: another change of the configuration is under way")
	// ErrNotServing says that the server has not begun to serve, or does not any more.
	ErrNotServing = errors.New("mux: the server is not serving")
)

// Config returns the configuration in force. It must not be changed.
func (s *Server) Config() Config { return s.live.Load().clone() }

// Plan returns the changes that Reload would make, or every fault of the configuration. It
// does not read certificates.
func (s *Server) Plan(c Config) ([]Change, error) { return s.live.plan(&c) }

// OnReload registers a function that takes part in every change of the configuration. It
// is called before anything changes, with the configuration in force and the next one,
// neither of which it may modify. Where it returns an error or panics, nothing changes.
// It may open what the next configuration needs, and says in a [ReloadPart] how that is
// put in force or given back.
//
// Keys of the caller's own travel in Config.Extra. Functions are called in the order of
// their registration, one change at a time, and must not call Reload.
func (s *Server) OnReload(prepare func(from, to Config) (ReloadPart, error)) {
	s.live.onReload(prepare)
}

// Reload puts another configuration in force while the server runs: whole, or not at all.
// origin names the caller in [Server.History].
//
// Keys that are [ApplyRuntime] take effect at once. The others ([ApplyRestart]) are applied
// without refusing or cutting a connection. New addresses are bound first. An address that
// stays keeps its socket, also one that was passed to [Server.Serve], and new protocol
// servers take its new connections. The clients of what was replaced are told to leave over
// Drain.Spread, as at a drain, and take the time they need. An address that is not in c is
// released once the connections in its kernel queue have been accepted. An address whose
// listener has failed is opened anew, in any change. Where neither Listen
// nor ListenAndServe was called, c.Listeners is not opened. Where Listen was called and
// ListenAndServe was not, addresses are opened and released, and served by none but
// ListenAndServe.
//
// The files of certificates, keys and ticket keys are read again. New handshakes use
// them; where they differ, that is a change with the path "certificates" for each
// certificate, with its subject and expiry. Where nothing differs, the [Version] is
// [OutcomeUnchanged].
//
// Reload returns [ErrReloading], [ErrNotServing], every fault of the configuration, or
// the error of an address, a certificate or a function of [Server.OnReload]. Then nothing
// has changed. The first two are not recorded in the history.
func (s *Server) Reload(c Config, origin string) (Version, error) {
	return s.live.reload(origin, func(Config) (Config, error) { return c, nil })
}

// ReloadFunc is [Server.Reload] of the configuration that load returns. load is called
// with the configuration in force, and no other change comes in between. Its error is
// returned and recorded in the history.
func (s *Server) ReloadFunc(origin string, load func(Config) (Config, error)) (Version, error) {
	return s.live.reload(origin, load)
}

// Rollback is [Server.Reload] of the configuration of an earlier version. It fails for a
// number that is not in the history, and for a version that was never in force.
func (s *Server) Rollback(number int, origin string) (Version, error) {
	return s.live.rollback(number, origin)
}

// History returns the last versions of the configuration.
func (s *Server) History() History { return s.live.snapshot() }

// prepareReload opens what a change needs, and returns how to put it in force. It is the
// reloader's last part, so it is never undone.
func (s *Server) prepareReload(from, to Config) (part ReloadPart, err error) {
	changes := planOf(&from, &to)
	t := s.topology
	next := t.backend.Load()
	if needsBackend(changes) {
		if next, err = s.services.newBackend(&to); err != nil {
			return part, err
		}
	}
	abort := func(err error) (ReloadPart, error) {
		if next != t.backend.Load() {
			next.close()
		}
		return part, err
	}
	t.lockChange() // Until the change is made.
	ch := &change{endpoints: t.configured()}
	defer func() {
		if part.Commit == nil { // It has failed, or there is a panic.
			err = errors.Join(err, undoEndpoints(ch.opened))
			t.unlockChange()
		}
	}()
	if len(changes) > 0 {
		if err = t.prepare(ch, &to, next); err != nil {
			return abort(err)
		}
	}
	renewed, certificates, err := ch.renew()
	if err == nil {
		err = t.openAll(ch)
	}
	if err != nil {
		return abort(err)
	}
	return ReloadPart{
		Changes: certificates,
		Commit: func() {
			defer t.unlockChange()
			for _, use := range renewed {
				use()
			}
			if len(changes) > 0 {
				s.setLimits(&to)
				t.apply(&to, ch)
			}
		},
	}, nil
}

// setLimits puts limits, drain and pings of c in force. Connections above a lowered limit
// stay, except WebSockets: the surplus is closed with 1013 (try again later).
func (s *Server) setLimits(c *Config) {
	s.books.conns.SetLimits(c.limits())
	s.departures.webSockets.CloseExcess(s.books.conns.Excess(webSocketTag))
	s.departures.webSockets.Configure(c.WebSocket, c.HTTP1.Progress.ProgressTimeout)
	_ = s.machine.Configure(c.Drain) // It fails once a drain has begun, which keeps its own.
}
