package rfc6455

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// maxControl is the largest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// A frame is what the client sends, right or wrong.
type frame struct {
	opcode   byte
	payload  []byte
	more     bool  // FIN is not set.
	rsv      byte  // The three reserved bits, RSV1 the highest.
	unmasked bool  // A client must mask (section 5.1).
	wide     int   // 16 or 64: the length is written in that many bits although fewer would do.
	claim    int64 // Not 0: the length that is written, whatever the payload's is.
}

// Frames as they should be.
func text(s string) frame     { return frame{opcode: opText, payload: []byte(s)} }
func binaryOf(b []byte) frame { return frame{opcode: opBinary, payload: b} }
func ping(s string) frame     { return frame{opcode: opPing, payload: []byte(s)} }
func pong(s string) frame     { return frame{opcode: opPong, payload: []byte(s)} }
func rest(s string) frame     { return frame{opcode: opContinuation, payload: []byte(s)} }

// part is f as a fragment that is not the last.
func part(f frame) frame { f.more = true; return f }

// closing is a close frame.
func closing(code int, reason string) frame {
	return frame{opcode: opClose, payload: append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}
}

// maskKey is the key of every masked frame. A client should choose them at
// random; a test should be the same each time.
var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// encode returns the frame's bytes (section 5.2).
func (f frame) encode() []byte {
	const fin, masked = 0x80, 0x80
	first := f.rsv<<4 | f.opcode
	if !f.more {
		first |= fin
	}
	length := int64(len(f.payload))
	if f.claim != 0 {
		length = f.claim
	}
	b := []byte{first}
	switch {
	case f.wide == 64 || length < 0 || length > 0xFFFF:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
	case f.wide == 16 || length > maxControl:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	default:
		b = append(b, byte(length))
	}
	if f.unmasked {
		return append(b, f.payload...)
	}
	b[1] |= masked
	b = append(b, maskKey[:]...)
	start := len(b)
	b = append(b, f.payload...)
	for i := range f.payload {
		b[start+i] ^= maskKey[i%4]
	}
	return b
}

// readFrame reads a frame of the server's and holds it to the rules for servers.
func readFrame(r *bufio.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{opcode: head[0] & 0x0F, more: head[0]&0x80 == 0, rsv: head[0] >> 4 & 7}
	if f.rsv != 0 || head[1]&0x80 != 0 {
		return frame{}, fmt.Errorf("rfc6455: the server sent a frame with reserved bits or masked: % x", head)
	}
	length, err := readLength(r, head[1])
	if err != nil {
		return frame{}, err
	}
	if f.opcode >= opClose && (f.more || length > maxControl) {
		return frame{}, errors.New("rfc6455: the server sent a control frame that is fragmented or too long")
	}
	f.payload = make([]byte, length)
	_, err = io.ReadFull(r, f.payload)
	return f, err
}

// readLength reads what follows the seven bits of the length, which must be in
// its shortest form.
func readLength(r *bufio.Reader, short byte) (uint64, error) {
	var bits int
	var least uint64
	switch short {
	case 126:
		bits, least = 16, maxControl+1
	case 127:
		bits, least = 64, 1<<16
	default:
		return uint64(short), nil
	}
	var b [8]byte
	if _, err := io.ReadFull(r, b[8-bits/8:]); err != nil {
		return 0, err
	}
	length := binary.BigEndian.Uint64(b[:])
	if length < least || length > 1<<30 {
		return 0, fmt.Errorf("rfc6455: the server wrote the length %d in %d bits", length, bits)
	}
	return length, nil
}

// fragments splits a message into frames of at most n bytes.
func fragments(f frame, n int) []frame {
	var all []frame
	for piece := range slices.Chunk(f.payload, n) {
		opcode := byte(opContinuation)
		if all == nil {
			opcode = f.opcode
		}
		all = append(all, frame{opcode: opcode, payload: piece, more: true})
	}
	all[len(all)-1].more = false
	return all
}
