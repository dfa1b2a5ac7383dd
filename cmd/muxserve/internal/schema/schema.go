package schema

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// node is a JSON Schema of draft 2020-12.
type node struct {
	Schema      string           `json:"$schema,omitempty"`
	Title       string           `json:"title,omitempty"`
	Description string           `json:"description,omitempty"`
	Type        []string         `json:"type,omitempty"`
	Enum        []any            `json:"enum,omitempty"`
	Pattern     string           `json:"pattern,omitempty"`
	Minimum     *json.Number     `json:"minimum,omitempty"`
	Above       *json.Number     `json:"exclusiveMinimum,omitempty"` //nolint:tagliatelle // JSON Schema calls it so.
	Maximum     *json.Number     `json:"maximum,omitempty"`
	Default     any              `json:"default,omitempty"`
	MinItems    int              `json:"minItems,omitempty"` //nolint:tagliatelle // JSON Schema calls it so.
	Items       *node            `json:"items,omitempty"`
	Properties  map[string]*node `json:"properties,omitempty"`
	Additional  *bool            `json:"additionalProperties,omitempty"` //nolint:tagliatelle // JSON Schema calls it so.
}

// jsonSchema returns the JSON Schema of the file. Every key may be null, which counts as
// missing. The schema does not check whether keys fit each other.
func jsonSchema(docs comments) ([]byte, error) {
	root := section()
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "muxserve.yaml"
	root.Description = "The configuration file of muxserve. `muxserve check --config FILE` reports its faults, and prints the effective configuration."
	// nodes are the sections by their paths, with [] for the elements of a list.
	nodes := map[string]*node{"": root}
	place := func(k settings.Key, n *node) {
		at := strings.LastIndexByte(k.Path, '.')
		nodes[k.Path[:max(at, 0)]].Properties[k.Path[at+1:]] = n
	}
	for _, k := range settings.Sections() {
		n := section()
		nodes[k.Path] = n
		if k.Type.Kind() == reflect.Slice {
			n.Type = []string{"object"}
			nodes[k.Path+"[]"] = n
			n = &node{Type: []string{"array", "null"}, MinItems: 1, Items: n}
			if k.Default == emptyList {
				n.MinItems = 0
			}
		}
		n.Description = docs.of(k, plain)
		place(k, n)
	}
	for _, k := range settings.Keys() {
		n, err := leaf(k)
		if err != nil {
			return nil, err
		}
		n.Description = docs.of(k, plain)
		place(k, n)
	}
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

// emptyList is the default of a list of sections that has no elements.
const emptyList = "[]"

// plain returns the name of a key unchanged.
func plain(name string) string { return name }

// section returns an empty schema of a section.
func section() *node {
	return &node{Type: []string{"object", "null"}, Properties: make(map[string]*node), Additional: new(bool)}
}

// leaf returns the schema of a key with a value.
func leaf(k settings.Key) (*node, error) {
	n := &node{}
	switch c := constraintsOf(k); {
	case isDuration(k):
		// A zero needs no unit, so it may be a number.
		n.Type, n.Pattern = []string{"string", "integer", "null"}, settings.DurationPattern
		n.Minimum, n.Maximum = number(0), number(0)
	case k.Type.Kind() == reflect.Slice:
		n.Type, n.Items = []string{"array", "null"}, &node{Type: []string{"string"}, Enum: enum(c.values)}
	case c.values != nil:
		n.Enum = append(enum(c.values), nil)
	case k.Type.Kind() == reflect.String:
		n.Type = []string{"string", "null"}
	case k.Type.Kind() == reflect.Bool:
		n.Type = []string{"boolean", "null"}
	case k.Type.Kind() == reflect.Float64:
		n.Type = []string{"number", "null"}
		n.bound(c)
	default:
		n.Type = []string{"integer", "null"}
		n.bound(c)
		if n.Maximum == nil {
			_, most := settings.WholeRange(k.Type)
			n.Maximum = number(float64(most))
		}
	}
	if k.Default == "" {
		return n, nil
	}
	// k.Default is YAML.
	if err := yaml.Unmarshal([]byte(k.Default), &n.Default); err != nil {
		return nil, fmt.Errorf("schema: default of %s: %w", k.Path, err)
	}
	return n, nil
}

func enum(values []string) (all []any) {
	for _, v := range values {
		all = append(all, v)
	}
	return all
}

func number(f float64) *json.Number {
	return new(json.Number(strconv.FormatFloat(f, 'f', -1, 64)))
}

func (n *node) bound(c constraints) {
	if c.least != nil {
		n.Minimum = number(*c.least)
	}
	if c.above {
		n.Minimum, n.Above = nil, n.Minimum
	}
	if c.most != nil {
		n.Maximum = number(*c.most)
	}
}

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

// known has the keys with other constraints than their types and their flags have. An empty
// text stands for the default.
var known = map[string]constraints{
	"listeners[].tls.max_version": oneOf("", "1.2", "1.3"),
	"listeners[].protocols":       oneOf(listeners.Config{}.Shown().Protocols...),
	"listeners[].reuse_port":      between(0, 1024),
	"sniff.max_bytes":             between(minHeadBytes, 1<<20),
	"limits.on_limit":             oneOf(pool.Refuse, pool.Wait),
	"http1.max_header_bytes":      atLeast(minHeadBytes),
	"http2.max_streams":           atLeast(1),
	"http2.max_header_list_bytes": atLeast(minHeadBytes),
	"http2.stream_window":         atLeast(minWindow),
	"http2.connection_window":     atLeast(minWindow),
	"http2.max_frame_bytes":       between(minFrame, maxFrame),
	"grpc.max_streams":            atLeast(1),
	"websocket.read_limit":        atLeast(-1),
	"websocket.compression": oneOf("", string(protocols.CompressionOff),
		string(protocols.CompressionTakeover), string(protocols.CompressionNoTakeover)),
	"health.degraded_above":   share(),
	"health.overloaded_above": share(),
	"drain.skip_steps":        oneOf(skippable()...),
}

// neverEmpty are the keys with a flag whose values do not include the empty text.
var neverEmpty = []string{"admin.protect", "log.level", "log.format"}

// skippable are the steps of the drain that can be skipped: all but the last.
func skippable() []string {
	return slices.DeleteFunc(lifecycle.Steps(), func(name string) bool { return name == lifecycle.StepCleanup })
}

// constraintsOf returns the constraints of a key. Its values are those of its flag.
func constraintsOf(k settings.Key) constraints {
	c := known[k.Path]
	for _, f := range settings.Flags() {
		if f.Key != k.Path || f.Choices == nil {
			continue
		}
		c.values = slices.Clone(f.Choices)
		if !slices.Contains(neverEmpty, k.Path) {
			c.values = slices.Insert(c.values, 0, "")
		}
	}
	if c.least == nil && k.Type.Kind() >= reflect.Int && k.Type.Kind() <= reflect.Uint64 {
		c.least = new(float64)
	}
	return c
}

// dynamicDefault describes the default of limits.max_connections, which depends on the
// machine and so is empty in [settings.Key].
const dynamicDefault = "0.9 x (open files - 64), at most 50000"

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

// named returns the values without the empty text, which stands for the default.
func named(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
}

// typeName describes the values of a key for people.
func typeName(k settings.Key) string {
	values := named(constraintsOf(k).values)
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
