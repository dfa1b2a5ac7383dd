package h2spec

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

const (
	// caseTimeout is how long a case waits for the frame it expects; it is the
	// h2spec command's own value. It must be longer than the second for which
	// net/http keeps a connection open behind its last GOAWAY.
	caseTimeout = 2 * time.Second
	// maxHeaderLength is the h2spec command's own value.
	maxHeaderLength = 4000
	// wantCases is how many cases h2spec has, without those that its -strict adds.
	wantCases = 145
)

// namedCase is a case of h2spec's and the name that its command knows it by.
type namedCase struct {
	name string // "http2/6.9.1/2", say
	*spec.TestCase
}

// cases returns all cases in h2spec's order.
func cases() []namedCase {
	var all []namedCase
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		all = appendCases(all, group)
	}
	return all
}

func appendCases(all []namedCase, group *spec.TestGroup) []namedCase {
	for i, c := range group.Tests {
		if !c.Strict {
			all = append(all, namedCase{fmt.Sprintf("%s/%d", group.ID(), i+1), c})
		}
	}
	for _, g := range group.Groups {
		all = appendCases(all, g)
	}
	return all
}

// configFor returns h2spec's configuration for a server.
func configFor(t *testing.T, s served.Server) *config.Config {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Config{
		Host:         host,
		Port:         number,
		Path:         "/",
		Timeout:      caseTimeout,
		MaxHeaderLen: maxHeaderLength,
		TLS:          s.Roots != nil,
		Insecure:     true, // h2spec cannot be given roots; the certificate is not its subject.
	}
}

// run runs one case on a connection of its own. Not the case's Test method,
// which prints as it goes and ends the process when it cannot connect.
func (c namedCase) run(config *config.Config) error {
	conn, err := spec.Dial(config)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	return c.Run(config, conn)
}
