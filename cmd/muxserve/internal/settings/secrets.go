package settings

import (
	"errors"
	"strings"
)

// maxSecretBytes bounds a file with one secret.
const maxSecretBytes = 64 << 10

// readSecret returns the content of a file without the end of its last line.
func readSecret(name string) (string, error) {
	data, err := ReadFile(name, maxSecretBytes)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", errors.New("the file is empty")
	}
	return secret, nil
}

// ReadToken returns the admin token as it is now: where a file has it, the file is read anew.
func (s *Settings) ReadToken() (string, error) {
	if s.Admin.TokenFile == "" {
		return s.Admin.Token, nil
	}
	token, err := readSecret(s.Admin.TokenFile)
	if err != nil {
		return "", s.report(s.locate([]fault{{path: "admin.token_file", text: err.Error()}}))
	}
	return token, nil
}

// loadToken sets the token that stands in a file of its own.
func (s *Settings) loadToken() []fault {
	file := s.Admin.TokenFile
	if file == "" {
		return nil
	}
	err := errors.New("admin.token is set, too; leave one of them out")
	if s.Admin.Token == "" {
		s.Admin.Token, err = readSecret(file)
	}
	if err != nil {
		return s.locate([]fault{{path: "admin.token_file", text: err.Error()}})
	}
	s.origins["admin.token"] = origin{name: "file " + printable(file)}
	return nil
}
