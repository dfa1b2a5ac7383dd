package upgrade

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Program is how to start this program once more.
type Program struct {
	Path string
	Args []string // with the name of the program
	Dir  string
}

// Current returns how this process was started. It is called at the start: later
// the file may have another name, and the system tells that one.
//
// The path is the one that the program was called by, if that leads to what runs,
// because it may be a symbolic link that a deployment turns to the next version. The
// system's answer has no links in it.
func Current() (Program, error) {
	path, err := os.Executable()
	if err != nil {
		return Program{}, errorf("%w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return Program{}, errorf("%w", err)
	}
	if called, ok := calledBy(os.Args[0], path); ok {
		path = called
	}
	return Program{Path: path, Args: os.Args, Dir: dir}, nil
}

// calledBy returns the path that a program's name stands for, if it leads to the file at path.
func calledBy(name, path string) (called string, ok bool) {
	called, err := exec.LookPath(name)
	if err != nil {
		return "", false
	}
	if called, err = filepath.Abs(called); err != nil {
		return "", false
	}
	a, aerr := os.Stat(called)
	b, berr := os.Stat(path)
	return called, aerr == nil && berr == nil && os.SameFile(a, b)
}
