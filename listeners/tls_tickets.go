package listeners

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// maxTicketKeys bounds the file: crypto/tls tries every key on an unknown ticket, and a
// rotation needs two or three.
const maxTicketKeys = 32

// errTicketKey says what a line must be. It does not repeat the line, which is secret
// even where it is wrong.
var errTicketKey = errors.New("want 32 bytes in hex or base64")

// parseTicketKeys reads one key a line. It skips empty lines and lines that begin with
// "#".
func parseTicketKeys(text []byte) ([][32]byte, error) {
	var keys [][32]byte
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(keys) == maxTicketKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", number, maxTicketKeys)
		}
		key, err := parseTicketKey(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key")
	}
	return keys, nil
}

// parseTicketKey tells hex from base64 by the length: 32 bytes are 64 hex digits, or 44
// base64 characters, 43 without padding.
func parseTicketKey(line string) (key [32]byte, err error) {
	var decoded []byte
	switch len(line) {
	case hex.EncodedLen(len(key)):
		decoded, err = hex.DecodeString(line)
	case base64.StdEncoding.EncodedLen(len(key)):
		decoded, err = base64.StdEncoding.Strict().DecodeString(line)
	case base64.RawStdEncoding.EncodedLen(len(key)):
		decoded, err = base64.RawStdEncoding.Strict().DecodeString(line)
	}
	if err != nil || len(decoded) != len(key) {
		return key, errTicketKey
	}
	copy(key[:], decoded)
	if key == [32]byte{} {
		return key, errors.New("all zeros is no secret")
	}
	return key, nil
}

// holdsTicketKeys reports whether a value that should be a path is the keys themselves,
// which would otherwise appear in an error about a missing file.
func holdsTicketKeys(value string) bool {
	_, err := parseTicketKeys([]byte(value))
	return err == nil || source(value).inline()
}
