package schema

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// constraints limit a key's values besides their type. A test compares them with the
// values that the packages accept.
type constraints struct {
	// values are all possible texts of the key or of its list's elements; nil for any.
	values []string
	// least and most bound a number; nil for the bounds of its type. The least integer is
	// 0 unless least is set.
	least, most *float64
	// above excludes least itself.
	above bool
}

func oneOf(values ...string) constraints { return constraints{values: values} }

func atLeast(least float64) constraints { return constraints{least: &least} }

func between(least, most float64) constraints { return constraints{least: &least, most: &most} }

// share is above 0 and at most 1.
func share() constraints {
	c := between(0, 1)
	c.above = true
	return c
}

// The smallest and largest values of HTTP/2's settings (RFC 9113 sections 6.5.2 and
// 6.9.2).
const (
	minWindow = 65535
	minFrame  = 1 << 14
	maxFrame  = 1<<24 - 1
)

// minHeadBytes is the smallest limit for the head of a request.
const minHeadBytes = 1024

// known has the keys with other constraints than their types have. An empty text stands
// for the default.
var known = map[string]constraints{
	"listeners[].tls.mode":            oneOf("", listeners.ModeOff, listeners.ModeSelfSigned, listeners.ModeAuto, listeners.ModeManual, listeners.ModeMutual),
	"listeners[].tls.min_version":     oneOf("", "1.2", "1.3"),
	"listeners[].tls.max_version":     oneOf("", "1.2", "1.3"),
	"listeners[].tls.client_auth":     oneOf("", "none", "request", "require", "verify-if-given", "require-and-verify"),
	"listeners[].proxy_protocol.mode": oneOf("", listeners.ProxyOff, listeners.ProxyOptional, listeners.ProxyRequired),
	"listeners[].protocols":           oneOf(listeners.Config{}.Shown().Protocols...),
	"listeners[].reuse_port":          between(0, 1024),
	"sniff.max_bytes":                 between(minHeadBytes, 1<<20),
	"limits.on_limit":                 oneOf(pool.Refuse, pool.Wait),
	"http1.max_header_bytes":          atLeast(minHeadBytes),
	"http2.max_streams":               atLeast(1),
	"http2.max_header_list_bytes":     atLeast(minHeadBytes),
	"http2.stream_window":             atLeast(minWindow),
	"http2.connection_window":         atLeast(minWindow),
	"http2.max_frame_bytes":           between(minFrame, maxFrame),
	"grpc.transport":                  oneOf("", string(protocols.TransportAuto), string(protocols.TransportNative), string(protocols.TransportShared)),
	"websocket.read_limit":            atLeast(-1),
	"websocket.compression": oneOf("", string(protocols.CompressionOff),
		string(protocols.CompressionTakeover), string(protocols.CompressionNoTakeover)),
	"health.degraded_above":   share(),
	"health.overloaded_above": share(),
	"drain.profile":           oneOf(append([]string{""}, lifecycle.Profiles()...)...),
	"drain.skip_steps":        oneOf(skippable()...),
	"log.level":               oneOf("debug", "info", "warn", "error"),
	"log.format":              oneOf(settings.FormatAuto, settings.FormatText, settings.FormatJSON),
}

// skippable are the steps of the drain that can be skipped: all but the last.
func skippable() []string {
	return slices.DeleteFunc(lifecycle.Steps(), func(name string) bool { return name == lifecycle.StepCleanup })
}

// constraintsOf returns the constraints of a key.
func constraintsOf(k settings.Key) constraints {
	c := known[k.Path]
	if c.least == nil && k.Type.Kind() >= reflect.Int && k.Type.Kind() <= reflect.Uint64 {
		c.least = new(float64)
	}
	return c
}

// dynamicDefaults describe the defaults that depend on the machine.
var dynamicDefaults = map[string]string{
	"limits.max_connections": "0.9 x (open files - 64), at most 50000",
}

// isSection reports whether there are keys below k.
func isSection(k settings.Key) bool {
	return k.Type.Kind() == reflect.Struct || k.Type.Kind() == reflect.Slice && k.Type.Elem().Kind() == reflect.Struct
}

func isDuration(k settings.Key) bool { return k.Type == reflect.TypeFor[time.Duration]() }

// rangeOf describes the constraints of a number for people.
func rangeOf(c constraints) string {
	switch {
	case c.above:
		return fmt.Sprintf(" above %v, at most %v", *c.least, *c.most)
	case c.least != nil && c.most != nil:
		return fmt.Sprintf(" from %.0f to %.0f", *c.least, *c.most)
	case c.least != nil && *c.least != 0:
		return fmt.Sprintf(" from %.0f", *c.least)
	default:
		return ""
	}
}

// typeName describes the values of a key for people.
func typeName(k settings.Key) string {
	values := slices.DeleteFunc(slices.Clone(constraintsOf(k).values), func(v string) bool { return v == "" })
	switch {
	case isDuration(k):
		return "time"
	case k.Type.Kind() == reflect.Slice && values != nil:
		return "list of " + strings.Join(values, ", ")
	case k.Type.Kind() == reflect.Slice:
		return "list"
	case values != nil:
		return strings.Join(values, ", ")
	case k.Type == reflect.TypeFor[slog.Level](), k.Type.Kind() == reflect.String:
		return "text"
	case k.Type.Kind() == reflect.Bool:
		return "true, false"
	case k.Type.Kind() == reflect.Float64:
		return "number" + rangeOf(constraintsOf(k))
	default:
		return "whole number" + rangeOf(constraintsOf(k))
	}
}
