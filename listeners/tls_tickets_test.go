package listeners

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testKey returns a key of one repeated byte.
func testKey(b byte) (key [32]byte) {
	for i := range key {
		key[i] = b
	}
	return key
}

func hexKey(b byte) string {
	key := testKey(b)
	return hex.EncodeToString(key[:])
}

func TestParseTicketKeys(t *testing.T) {
	one := testKey(1)
	padded := base64.StdEncoding.EncodeToString(one[:])
	tests := []struct {
		name string
		text string
		want [][32]byte
		err  []string
	}{
		{name: "hex", text: hexKey(1), want: [][32]byte{one}},
		{name: "upper case", text: strings.ToUpper(hexKey(0xab)), want: [][32]byte{testKey(0xab)}},
		{name: "base64", text: padded + "\n", want: [][32]byte{one}},
		{name: "base64 without padding", text: strings.TrimRight(padded, "="), want: [][32]byte{one}},
		{name: "several", text: "# new\r\n" + hexKey(2) + "\r\n\n  " + hexKey(1) + "  ", want: [][32]byte{testKey(2), one}},
		{name: "empty", err: []string{"no key"}},
		{name: "comment alone", text: "# " + hexKey(1), err: []string{"no key"}},
		{name: "short", text: hexKey(1) + "\n" + hexKey(2)[2:], err: []string{"line 2: want 32 bytes"}},
		{name: "not hex", text: strings.Repeat("zz", 32), err: []string{"line 1: want 32 bytes"}},
		{name: "base64 of less", text: base64.StdEncoding.EncodeToString(one[:31]), err: []string{"line 1: want 32 bytes"}},
		{name: "zeros", text: hexKey(0), err: []string{"line 1: all zeros"}},
		{name: "too many", text: strings.Repeat(hexKey(1)+"\n", maxTicketKeys+1), err: []string{"line 33: more than 32 keys"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTicketKeys([]byte(tt.text))
			checkError(t, err, tt.err)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseTicketKeys(f *testing.F) {
	one := testKey(1)
	f.Add([]byte(hexKey(1) + "\n" + hexKey(2)))
	f.Add([]byte("# c\r\n" + base64.StdEncoding.EncodeToString(one[:])))
	f.Add([]byte(base64.RawStdEncoding.EncodeToString(one[:])))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseTicketKeys(text)
		if err != nil {
			if len(keys) != 0 {
				t.Fatalf("%d keys beside error %v", len(keys), err)
			}
			for line := range bytes.Lines(text) {
				if line = bytes.TrimSpace(line); len(line) > 16 && strings.Contains(err.Error(), string(line)) {
					t.Fatalf("error %v repeats a line", err)
				}
			}
			return
		}
		if len(keys) == 0 || len(keys) > maxTicketKeys {
			t.Fatalf("%d keys", len(keys))
		}
		// The canonical form of what was read reads as the same.
		var canonical strings.Builder
		for _, key := range keys {
			canonical.WriteString(hex.EncodeToString(key[:]) + "\n")
		}
		again, err := parseTicketKeys([]byte(canonical.String()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(keys, again); diff != "" {
			t.Fatalf("keys (-want +got):\n%s", diff)
		}
	})
}
