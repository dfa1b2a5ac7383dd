package mux

import (
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
)

// The types of other packages that an embedder names.
type (
	// ListenerConfig is an element of [Config].Listeners.
	ListenerConfig = listeners.Config
	// TLSConfig is the TLS of a listener.
	TLSConfig = listeners.TLSConfig
	// ProxyConfig says from where a listener takes PROXY headers. [Conn].Proxy has the
	// [ProxyInfo] of a connection.
	ProxyConfig = listeners.ProxyConfig
	// ProxyInfo is what a PROXY header said besides the address.
	ProxyInfo = listeners.ProxyInfo
	// ConnInfo is the account of a connection, in a form that can be shown.
	ConnInfo = pool.Info
	// Health says how full a pool is.
	Health = pool.Health
	// Phase is where a server is in its life.
	Phase = lifecycle.Phase
	// Report is the account of a drain.
	Report = lifecycle.Report
)

// The values of [Phase], in their order.
const (
	PhaseNew      = lifecycle.PhaseNew
	PhaseServing  = lifecycle.PhaseServing
	PhaseDraining = lifecycle.PhaseDraining
	PhaseStopped  = lifecycle.PhaseStopped
)

// The steps of a drain, in their order, for [Server.OnDrain] and [Report].
const (
	StepAnnounce        = lifecycle.StepAnnounce
	StepDrainDelay      = lifecycle.StepDrainDelay
	StepStopAccepting   = lifecycle.StepStopAccepting
	StepWaitConnections = lifecycle.StepWaitConnections
	StepForceClose      = lifecycle.StepForceClose
	StepCleanup         = lifecycle.StepCleanup
)

// ErrForced is in the error of a drain that had to cut connections.
var ErrForced = lifecycle.ErrForced
