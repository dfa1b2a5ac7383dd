package rfc6455

import (
	"slices"
	"testing"
)

// TestFragmentation is family 5.
func TestFragmentation(t *testing.T) {
	one, two := part(text("fragment1")), rest("fragment2")
	whole := text("fragment1fragment2")
	between := []frame{one, ping("ping payload"), two}
	wantBetween := echoes(ping("ping payload"), whole)
	stray := []frame{rest("non-continuation payload"), text("Hello, world!")}
	strayPart := []frame{part(rest("non-continuation payload")), text("Hello, world!")}
	// Both messages are whole before the stray fragment comes.
	afterWhole := []frame{one, two, part(rest("fragment3")), text("fragment4")}
	twice := []frame{part(rest("fragment1")), text("fragment2"), part(rest("fragment3")), text("fragment4")}
	many := []frame{
		part(text("fragment1")), part(rest("fragment2")), ping("pongme 1!"),
		part(rest("fragment3")), ping("pongme 2!"), part(rest("fragment4")), rest("fragment5"),
	}
	wantMany := echoes(ping("pongme 1!"), ping("pongme 2!"), text("fragment1fragment2fragment3fragment4fragment5"))
	runCases(t, []wsCase{
		{name: "5.1", send: []frame{part(ping("fragment1")), two}, code: protocolError},
		{name: "5.2", send: []frame{part(pong("fragment1")), two}, code: protocolError},
		{name: "5.3", send: []frame{one, two}, want: echoes(whole)},
		{name: "5.4", send: []frame{one, two}, chop: 7, want: echoes(whole)},
		{name: "5.5", send: []frame{one, two}, chop: 1, want: echoes(whole)},
		{name: "5.6", send: between, want: wantBetween},
		{name: "5.7", send: between, chop: 7, want: wantBetween},
		{name: "5.8", send: between, chop: 1, want: wantBetween},
		{name: "5.9", send: stray, code: protocolError},
		{name: "5.10", send: stray, chop: 7, code: protocolError},
		{name: "5.11", send: stray, chop: 1, code: protocolError},
		{name: "5.12", send: strayPart, code: protocolError},
		{name: "5.13", send: strayPart, chop: 7, code: protocolError},
		{name: "5.14", send: strayPart, chop: 1, code: protocolError},
		{name: "5.15", send: afterWhole, want: echoes(whole), code: protocolError},
		{name: "5.16", send: twice, code: protocolError},
		{name: "5.17", send: []frame{rest("fragment1"), text("fragment2"), rest("fragment3")}, code: protocolError},
		{name: "5.18", send: []frame{one, text("fragment2")}, code: protocolError},
		{name: "5.19", send: many, want: wantMany},
		{name: "5.20", send: slices.Clone(many), chop: 1, want: wantMany},
	})
}

// TestAutoFragmentation is family 10: a message in frames of an odd size.
func TestAutoFragmentation(t *testing.T) {
	message := text(string(slices.Repeat([]byte("*"), 65536)))
	runCases(t, []wsCase{{name: "10.1.1", send: fragments(message, 1300), want: echoes(message)}})
}
