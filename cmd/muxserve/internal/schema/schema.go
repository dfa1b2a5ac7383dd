package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// durationPattern matches the durations that the file accepts.
const durationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

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

// JSON returns the JSON Schema of the file. Every key may be null, which counts as
// missing. The schema does not check whether keys fit each other.
func JSON(docs Docs) ([]byte, error) {
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
		}
		n.Description = docs.Of(k, plain)
		place(k, n)
	}
	for _, k := range settings.Keys() {
		n, err := leaf(k)
		if err != nil {
			return nil, err
		}
		n.Description = docs.Of(k, plain)
		place(k, n)
	}
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

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
		n.Type, n.Pattern = []string{"string", "integer", "null"}, durationPattern
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
		bound(n, c)
	default:
		n.Type = []string{"integer", "null"}
		bound(n, c)
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

func enum(values []string) []any {
	var all []any
	for _, v := range values {
		all = append(all, v)
	}
	return all
}

func number(f float64) *json.Number {
	n := json.Number(fmt.Sprint(f))
	if f == math.Trunc(f) {
		n = json.Number(fmt.Sprintf("%.0f", f))
	}
	return &n
}

func bound(n *node, c constraints) {
	switch {
	case c.least != nil && c.above:
		n.Above = number(*c.least)
	case c.least != nil:
		n.Minimum = number(*c.least)
	}
	if c.most != nil {
		n.Maximum = number(*c.most)
	}
}
