package lifecycle

import "slices"

// A Phase is where a server stands in its life. A server only ever moves
// forward through [Phases]; it may leave phases out (one that is drained
// before it served goes from new to draining).
type Phase string

// The phases, in their order.
const (
	// PhaseNew is a server that has not begun to serve.
	PhaseNew Phase = "new"
	// PhaseServing is a server that wants traffic.
	PhaseServing Phase = "serving"
	// PhaseDraining is a server that wants no more traffic but still serves
	// what it has, and in its first moments what still comes.
	PhaseDraining Phase = "draining"
	// PhaseStopped is a server whose drain has ended. It does not come back.
	PhaseStopped Phase = "stopped"
)

// Phases returns all phases in the order a server goes through them. The slice
// is the caller's own.
func Phases() []Phase {
	return []Phase{PhaseNew, PhaseServing, PhaseDraining, PhaseStopped}
}

// before reports whether p comes before q in a server's life. A phase that
// does not exist comes before all others.
func (p Phase) before(q Phase) bool {
	order := Phases()
	return slices.Index(order, p) < slices.Index(order, q)
}
