package pool

import (
	"errors"
	"fmt"
)

// Config is the section of the limits that hold for all protocols together.
type Config struct {
	// MaxConnections bounds all connections together. 0: no bound.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// PerAddress bounds the connections of one client address; see [Limits]. It
	// may be used only where the peer's address is the client's. 0: no bound.
	PerAddress int `apply:"runtime" yaml:"per_address"`
	// OnLimit says what happens at MaxConnections: [Refuse] or [Wait].
	OnLimit string `apply:"runtime" yaml:"on_limit"`
}

// The values of Config.OnLimit.
const (
	// Refuse accepts a connection that is too many and refuses it in the words of its
	// protocol.
	Refuse = "refuse"
	// Wait leaves it in the kernel's queue until there is room.
	Wait = "wait"
)

const (
	// maxDefaultConnections bounds the default of MaxConnections.
	maxDefaultConnections = 50_000
	// reservedFiles are the descriptors that the process needs for other things than
	// connections.
	reservedFiles = 64
	// usableFiles is the part of the rest, in tenths, that connections may have.
	usableFiles = 9
)

// DefaultConfig returns the defaults. MaxConnections is nine tenths of the
// descriptors that the process may open, less 64, and at most 50,000.
func DefaultConfig() Config {
	return Config{MaxConnections: defaultConnections(fileLimit()), OnLimit: Refuse}
}

func defaultConnections(files uint64) int {
	if files <= reservedFiles {
		return 1
	}
	return int(min((files-reservedFiles)/10*usableFiles, maxDefaultConnections))
}

// Validate reports every field that is out of range, each by its name in the file.
func (c Config) Validate() error {
	var faults []error
	if c.MaxConnections < 0 {
		faults = append(faults, fmt.Errorf("pool: limits.max_connections: %d must not be negative", c.MaxConnections))
	}
	if c.PerAddress < 0 {
		faults = append(faults, fmt.Errorf("pool: limits.per_address: %d must not be negative", c.PerAddress))
	}
	if c.OnLimit != Refuse && c.OnLimit != Wait {
		faults = append(faults, fmt.Errorf("pool: limits.on_limit: %q is not one of %s, %s", c.OnLimit, Refuse, Wait))
	}
	return errors.Join(faults...)
}
