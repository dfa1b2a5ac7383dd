package listeners

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// parseVersion returns the number of a TLS version, or unset for "".
func parseVersion(name string, unset uint16) (uint16, error) {
	switch name {
	case "":
		return unset, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	case "1.0", "1.1":
		return 0, fmt.Errorf("%q is not offered: RFC 8996 forbids it, and HTTP/2 needs 1.2 (RFC 9113, section 9.2)", name)
	default:
		return 0, fmt.Errorf(`unknown %q; want "1.2" or "1.3"`, name)
	}
}

// clientAuthNames are the values of TLSConfig.ClientAuth.
var clientAuthNames = map[string]tls.ClientAuthType{
	"":                   tls.NoClientCert,
	"none":               tls.NoClientCert,
	"request":            tls.RequestClientCert,
	"require":            tls.RequireAnyClientCert,
	"verify-if-given":    tls.VerifyClientCertIfGiven,
	"require-and-verify": tls.RequireAndVerifyClientCert,
}

func parseClientAuth(name string) (tls.ClientAuthType, error) {
	auth, ok := clientAuthNames[name]
	if !ok {
		return 0, fmt.Errorf("unknown %q; want none, request, require, verify-if-given or require-and-verify", name)
	}
	return auth, nil
}

// parseCipherSuites returns the suites of the names that are right and an error
// for each that is not.
func parseCipherSuites(names []string) ([]*tls.CipherSuite, []error) {
	var suites []*tls.CipherSuite
	var errs []error
	for _, name := range names {
		named := func(s *tls.CipherSuite) bool { return s.Name == name }
		if i := slices.IndexFunc(tls.CipherSuites(), named); i >= 0 {
			suites = append(suites, tls.CipherSuites()[i])
			continue
		}
		if slices.ContainsFunc(tls.InsecureCipherSuites(), named) {
			errs = append(errs, fmt.Errorf("%q is insecure", name))
			continue
		}
		errs = append(errs, fmt.Errorf("unknown %q; names are those of Go's crypto/tls", name))
	}
	return suites, errs
}

func anyForTLS12(suites []*tls.CipherSuite) bool {
	return slices.ContainsFunc(suites, func(s *tls.CipherSuite) bool {
		return slices.Contains(s.SupportedVersions, tls.VersionTLS12)
	})
}
