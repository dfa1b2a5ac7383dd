package listeners

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/youmark/pkcs8"
)

// pkcs8Key returns the key as PBES2-encrypted PKCS#8.
func pkcs8Key(t *testing.T, a *authority, passphrase string) string {
	t.Helper()
	der, err := pkcs8.MarshalPrivateKey(a.key, []byte(passphrase), nil)
	if err != nil {
		t.Fatal(err)
	}
	return encode(pemEncryptedKey, der)
}

// legacyKey returns the key in the encrypted form of RFC 1421.
func legacyKey(t *testing.T, a *authority, passphrase string) string {
	t.Helper()
	plain, _ := pem.Decode([]byte(a.keyPEM(t)))
	return legacyBlock(t, pemPlainKey, plain.Bytes, passphrase)
}

func legacyBlock(t *testing.T, blockType string, der []byte, passphrase string) string {
	t.Helper()
	block, err := x509.EncryptPEMBlock(rand.Reader, blockType, der, []byte(passphrase), x509.PEMCipherAES256) //nolint:staticcheck // The form under test.
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func TestDecryptKey(t *testing.T) {
	server := newAuthority(t, "ca").server(t)
	ecParameters := encode("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7})
	tests := []struct {
		name       string
		text       string
		passphrase string
		encrypted  bool
		want       error
	}{
		{name: "plain", text: server.keyPEM(t)},
		{name: "plain after others", text: server.pem + ecParameters + server.keyPEM(t)},
		{name: "pkcs8", text: pkcs8Key(t, server, "right"), passphrase: "right", encrypted: true},
		{name: "pkcs8 wrong", text: pkcs8Key(t, server, "right"), passphrase: "wrong", want: errWrongPassphrase},
		{name: "pkcs8 none", text: pkcs8Key(t, server, "right"), want: errNeedPassphrase},
		{name: "pkcs8 garbage", text: encode(pemEncryptedKey, []byte("garbage")), passphrase: "right", want: errWrongPassphrase},
		{name: "pkcs8 half a cipher block", text: truncatedPKCS8(t, server), passphrase: "right", want: errWrongPassphrase},
		{name: "legacy", text: legacyKey(t, server, "right"), passphrase: "right", encrypted: true},
		{name: "legacy wrong", text: legacyKey(t, server, "right"), passphrase: "wrong", want: errWrongPassphrase},
		{name: "legacy none", text: legacyKey(t, server, "right"), want: errNeedPassphrase},
		{name: "legacy garbage", text: legacyBlock(t, pemECKey, []byte("garbage"), "right"), passphrase: "right", want: errWrongPassphrase},
		{name: "no key", text: server.pem, want: errNoKey},
		{name: "empty", want: errNoKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plain, encrypted, err := decryptKey([]byte(tt.text), tt.passphrase)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			if encrypted != tt.encrypted {
				t.Errorf("encrypted = %v, want %v", encrypted, tt.encrypted)
			}
			block, _ := pem.Decode(plain)
			if block == nil || !isKey(block.Type, block.Bytes) {
				t.Error("the result is not a plain key")
			}
		})
	}
}

// truncatedPKCS8 cuts the ciphertext in the middle of a block, on which the
// parser panics.
func truncatedPKCS8(t *testing.T, a *authority) string {
	t.Helper()
	block, _ := pem.Decode([]byte(pkcs8Key(t, a, "right")))
	var key struct {
		Algorithm asn1.RawValue
		Data      []byte
	}
	if _, err := asn1.Unmarshal(block.Bytes, &key); err != nil {
		t.Fatal(err)
	}
	key.Data = key.Data[:len(key.Data)-1]
	der, err := asn1.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode(pemEncryptedKey, der)
}

// TestDecryptLegacyPadding tries so many wrong passphrases that some get by the
// padding, which is the form's only check.
func TestDecryptLegacyPadding(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := legacyBlock(t, pemRSAKey, x509.MarshalPKCS1PrivateKey(key), "right")
	for i := range 2000 {
		if _, _, err := decryptKey([]byte(text), rand.Text()[:i%8+1]); !errors.Is(err, errWrongPassphrase) {
			t.Fatalf("error %v, want %v", err, errWrongPassphrase)
		}
	}
	if _, _, err := decryptKey([]byte(text), "right"); err != nil {
		t.Error(err)
	}
}

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
