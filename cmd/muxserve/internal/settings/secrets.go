package settings

import (
	"errors"
	"strings"
)

// maxSecretBytes bounds a file with one secret.
const maxSecretBytes = 64 << 10

// readSecret returns the content of a file, and the same without the end of its last line.
func readSecret(name string) (data []byte, secret string, err error) {
	if data, err = ReadFile(name, maxSecretBytes); err != nil {
		return nil, "", err
	}
	if secret = strings.TrimRight(string(data), "\r\n"); secret == "" {
		return nil, "", errors.New("the file is empty")
	}
	return data, secret, nil
}

// ReadToken returns the admin token as it is now: where a file has it, the file is read anew.
func (s *Settings) ReadToken() (string, error) {
	if s.Admin.TokenFile == "" {
		return s.Admin.Token, nil
	}
	_, token, err := readSecret(s.Admin.TokenFile)
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
		s.read[file], s.Admin.Token, err = readSecret(file)
	}
	if err != nil {
		return s.locate([]fault{{path: "admin.token_file", text: err.Error()}})
	}
	s.origins["admin.token"] = origin{name: "file " + printable(file)}
	return nil
}
