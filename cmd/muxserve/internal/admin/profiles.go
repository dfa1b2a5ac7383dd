package admin

import (
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"
)

// pprofRoot has the list of the profiles.
const pprofRoot = "/debug/pprof/"

// addProfiles adds /debug/pprof/ without its cmdline, because a command line may contain
// a private key.
func (p *Pages) addProfiles(routes *http.ServeMux) {
	routes.Handle(pprofRoot, p.profile(pprof.Index, 0))
	routes.Handle(pprofRoot+"profile", p.profile(pprof.Profile, 30)) // The defaults are those of net/http/pprof.
	routes.HandleFunc(pprofRoot+"symbol", pprof.Symbol)
	routes.Handle(pprofRoot+"trace", p.profile(pprof.Trace, 1))
	routes.Handle(pprofRoot+"cmdline", http.NotFoundHandler())
}

// profile serves profiles, one of each kind at a time: those that take time, and
// snapshots, which take the memory that describes a whole process. A profiler that nearly
// always takes a CPU profile gets its snapshots beside it. seconds is the default of a
// profile that takes time, and 0 for a snapshot.
func (p *Pages) profile(next http.HandlerFunc, seconds float64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takes, kind := seconds, &p.snapshots
		if seconds > 0 {
			kind = &p.timed
		}
		if given := r.FormValue("seconds"); given != "" {
			kind = &p.timed
			var err error
			if takes, err = strconv.ParseFloat(given, 64); err != nil || !(takes >= 0 && takes <= p.bounds.profile.Seconds()) {
				http.Error(w, "muxserve: seconds must be a number from 0 to "+
					strconv.FormatFloat(p.bounds.profile.Seconds(), 'f', -1, 64), http.StatusBadRequest)
				return
			}
			takes = max(takes, seconds) // pprof takes its default for 0, and for a fraction.
		}
		if r.URL.Path != pprofRoot {
			if !kind.TryLock() {
				w.Header().Set("Retry-After", "10")
				http.Error(w, "muxserve: another profile of this kind is being taken", http.StatusServiceUnavailable)
				return
			}
			defer kind.Unlock()
			stay(r)
			end := time.Now().Add(time.Duration(takes*float64(time.Second)) + p.bounds.answer)
			_ = http.NewResponseController(w).SetWriteDeadline(end)
		}
		next(w, r)
	})
}
