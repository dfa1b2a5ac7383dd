// Package lifecycle takes a server from its start to its end: the phases it
// goes through, the drain that gets it from serving to stopped without losing
// what its clients are doing, and the ways in which the world outside takes
// part: signals, readiness probes and the service manager.
//
// # The drain
//
// A [Machine] runs one drain, in six steps, each with its own bound:
//
//	step              bound                      what it is for
//	announce          StepTimeout                tell balancers to choose another server
//	drain-delay       Delay                      they notice; new connections are still served
//	stop-accepting    StepTimeout + Spread       close the doors, tell every client to leave
//	wait-connections  what is left of Timeout    let what is under way end by itself
//	force-close       StepTimeout                cut what has not
//	cleanup           StepTimeout                hooks, timers, metrics; never skipped
//
// The first four share one absolute deadline, Timeout after the start. Where the context of
// [Machine.Drain] has an earlier one, that counts, and the bounds are shortened to fit. The
// last two begin at that deadline at the latest and have their own time after it, so that
// the longest drain is [Config.Longest].
//
// The package knows nothing of connections: the caller's [Actions] are what a step does.
// The package gives order, time, isolation, a [Report] and one log line a step.
//
// It imports the standard library only, and installs no signal handler unless
// [HandleSignals] is called.
package lifecycle
