package listeners

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"
)

// The types of PEM blocks with a private key.
const (
	pemEncryptedKey = "ENCRYPTED PRIVATE KEY" // PKCS#8, RFC 7468, section 11
	pemPlainKey     = "PRIVATE KEY"           // PKCS#8, RFC 7468, section 10
	pemRSAKey       = "RSA PRIVATE KEY"       // PKCS#1
	pemECKey        = "EC PRIVATE KEY"        // SEC 1, RFC 5915
)

var (
	errNoKey           = errors.New("no private key in PEM form")
	errNeedPassphrase  = errors.New("the key is encrypted: key_passphrase is needed")
	errWrongPassphrase = errors.New("cannot decrypt the key: wrong passphrase, or damaged")
)

// decryptKey returns the first private key of text as unencrypted PEM, and whether it was
// encrypted. Errors never show key or passphrase.
func decryptKey(text []byte, passphrase string) (plain []byte, encrypted bool, err error) {
	block := firstKeyBlock(text)
	switch {
	case block == nil:
		return nil, false, errNoKey
	case block.Type == pemEncryptedKey:
		plain, err = decryptPKCS8(block, passphrase)
		return plain, true, err
	case x509.IsEncryptedPEMBlock(block): //nolint:staticcheck // The legacy form is insecure but in use; refusing it would not change the file.
		plain, err = decryptLegacy(block, passphrase)
		return plain, true, err
	default:
		return pem.EncodeToMemory(block), false, nil
	}
}

// firstKeyBlock skips certificates and EC parameters, which many tools put in front.
func firstKeyBlock(text []byte) *pem.Block {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemPlainKey || strings.HasSuffix(block.Type, " "+pemPlainKey) {
			return block
		}
	}
	return nil
}

// decryptPKCS8 decrypts a PBES2 key (RFC 8018, section 6.2). The parser panics on some
// damaged files; a file that is being replaced must not end the process.
func decryptPKCS8(block *pem.Block, passphrase string) (plain []byte, err error) {
	if passphrase == "" {
		return nil, errNeedPassphrase
	}
	defer func() {
		if recover() != nil {
			plain, err = nil, errWrongPassphrase
		}
	}()
	key, _, err := pkcs8.ParsePrivateKey(block.Bytes, []byte(passphrase))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errWrongPassphrase, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPlainKey, Bytes: der}), nil
}

// decryptLegacy decrypts the form of RFC 1421. Its padding is no checksum: one wrong
// passphrase in 256 passes it, so the result must also parse as a key.
func decryptLegacy(block *pem.Block, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return nil, errNeedPassphrase
	}
	der, err := x509.DecryptPEMBlock(block, []byte(passphrase)) //nolint:staticcheck // See decryptKey.
	if err != nil || !isKey(block.Type, der) {
		return nil, errWrongPassphrase
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
}

func isKey(blockType string, der []byte) bool {
	var err error
	switch blockType {
	case pemRSAKey:
		_, err = x509.ParsePKCS1PrivateKey(der)
	case pemECKey:
		_, err = x509.ParseECPrivateKey(der)
	default:
		_, err = x509.ParsePKCS8PrivateKey(der)
	}
	return err == nil
}
