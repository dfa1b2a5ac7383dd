package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
)

// fileID tells a file from others, also in another process. While a socket is open, the
// system gives the number of its file to no other one.
type fileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// socketFile is the file of a Unix socket. The zero value is no file.
type socketFile struct {
	path string
	id   fileID
}

// fileOf returns the file at the path of a socket that was bound a moment ago. An abstract
// socket has none.
func fileOf(path string) socketFile {
	info, err := os.Lstat(path)
	if path == "" || strings.HasPrefix(path, "@") || err != nil {
		return socketFile{}
	}
	return socketFile{path, identify(info)}
}

// isThere reports whether the file is still at its path, and not another socket's.
func (f socketFile) isThere() bool {
	info, err := os.Lstat(f.path)
	return f.path != "" && err == nil && identify(info) == f.id
}

// remove removes the file. It leaves a file alone that another socket has put there.
func (f socketFile) remove() error {
	if !f.isThere() {
		return nil
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fileListener is a Unix socket that removes its own file when it is closed. Package net's
// removes whatever is at the path.
type fileListener struct {
	*net.UnixListener

	file    socketFile
	removal sync.Once
}

// Close removes the file first: once the socket is closed, another one may have begun to
// listen there, with a file of the same number.
func (l *fileListener) Close() error {
	var err error
	l.removal.Do(func() { err = l.file.remove() })
	return errors.Join(err, l.UnixListener.Close())
}

// setFile sets the owner and the permissions of a Unix socket's file.
func (c Config) setFile(l net.Listener) error {
	if c.UnixMode == "" && c.UnixOwner == "" {
		return nil
	}
	file := socketFile{}
	switch l := l.(type) {
	case *fileListener:
		file = l.file
	case *socket:
		file = l.file
	}
	if file.path == "" {
		file = fileOf(l.Addr().String())
	}
	if !file.isThere() {
		return errors.New("unix_mode, unix_owner: the socket's file is gone")
	}
	if c.UnixOwner != "" {
		uid, gid, err := lookUpOwner(c.UnixOwner)
		if err != nil {
			return fmt.Errorf("unix_owner: %w", err)
		}
		if err := chown(file.path, uid, gid); err != nil {
			return fmt.Errorf("unix_owner: %w", err)
		}
	}
	if c.UnixMode != "" {
		mode, err := c.fileMode()
		if err != nil {
			return fmt.Errorf("unix_mode: %w", err)
		}
		if err := os.Chmod(file.path, mode); err != nil {
			return fmt.Errorf("unix_mode: %w", err)
		}
	}
	return nil
}

// lookUpOwner returns the numbers of "USER:GROUP", and -1 for what is not given.
func lookUpOwner(owner string) (uid, gid int, err error) {
	name, group, _ := strings.Cut(owner, ":")
	uid, gid = -1, -1
	if name != "" {
		if uid, err = number(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return 0, 0, err
		}
	}
	if group != "" {
		gid, err = number(group, func() (string, error) {
			g, err := user.LookupGroup(group)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	return uid, gid, err
}

// number returns the number of a user or group: text itself, or what lookUp finds.
func number(text string, lookUp func() (string, error)) (int, error) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return int(n), nil
	}
	found, err := lookUp()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(found)
}
