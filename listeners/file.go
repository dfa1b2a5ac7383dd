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
	path    string
	id      fileID
	private bool // it was made by makePrivate
}

// fileOf returns the file at the path of a socket that was bound a moment ago. An abstract
// socket has none.
func fileOf(path string) socketFile {
	info, err := os.Lstat(path)
	if path == "" || strings.HasPrefix(path, "@") || err != nil {
		return socketFile{}
	}
	return socketFile{path: path, id: identify(info)}
}

// isThere reports whether the file is still at its path, and not another socket's.
func (f socketFile) isThere() bool {
	_, ok := f.state()
	return ok
}

// isGone reports whether there is nothing at the file's path.
func (f socketFile) isGone() bool {
	_, err := os.Lstat(f.path)
	return f.path != "" && errors.Is(err, fs.ErrNotExist)
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
	memory

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

// fileState is what unix_mode and unix_owner are about.
type fileState struct {
	Mode fs.FileMode `json:"mode"`
	// Private says that Mode is none but what the socket was bound with because unix_mode
	// was set.
	Private bool `json:"private,omitempty"`
	UID     int  `json:"uid"`
	GID     int  `json:"gid"`
}

// newFileState is what the file of a new socket has.
func newFileState() *fileState {
	return &fileState{Private: true, UID: os.Geteuid(), GID: os.Getegid()}
}

// state returns the state of the file. It reports false where the file is gone.
func (f socketFile) state() (s fileState, ok bool) {
	info, err := os.Lstat(f.path)
	if f.path == "" || err != nil || identify(info) != f.id {
		return s, false
	}
	s.Mode = info.Mode().Perm()
	s.UID, s.GID = ownerOf(info)
	return s, true
}

// set changes the state of the file from what it is now. It leaves alone what is right
// already: another user could not set even that.
func (f socketFile) set(now, want fileState) error {
	if uid, gid := changed(now.UID, want.UID), changed(now.GID, want.GID); uid >= 0 || gid >= 0 {
		if err := os.Lchown(f.path, uid, gid); err != nil {
			return fmt.Errorf("unix_owner: %w", err)
		}
	}
	if now.Mode == want.Mode {
		return nil
	}
	if err := os.Chmod(f.path, want.Mode); err != nil {
		return fmt.Errorf("unix_mode: %w", err)
	}
	return nil
}

// changed returns the id for chown(2) to set.
func changed(now, want int) int {
	if now == want {
		return -1
	}
	return want
}

// setsFile reports whether a key of the file of a Unix socket is set.
func (c Config) setsFile() bool { return c.UnixMode != "" || c.UnixOwner != "" }

// setFile sets the owner and the permissions of a Unix socket's file.
func (c Config) setFile(o *Opening, l net.Listener, a *altered) error {
	if !c.setsFile() && a.File == nil {
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
	now, ok := file.state()
	if !ok && c.setsFile() {
		return errors.New("unix_mode, unix_owner: the socket's file is gone")
	}
	first := a.File
	if a.File = nil; c.setsFile() {
		if first == nil {
			first = &fileState{now.Mode, file.private, now.UID, now.GID}
		}
		a.File = first
	}
	if !ok {
		return nil
	}
	want, err := c.stateOf(*first)
	if err != nil {
		return err
	}
	o.undo = append(o.undo, func() error {
		if then, ok := file.state(); ok {
			return file.set(then, now)
		}
		return nil
	})
	return file.set(now, want)
}

// stateOf returns the state that c asks for: what the file had first, and the keys.
func (c Config) stateOf(first fileState) (want fileState, err error) {
	want = first
	uid, gid, err := lookUpOwner(c.UnixOwner)
	if err != nil {
		return want, fmt.Errorf("unix_owner: %w", err)
	}
	if uid >= 0 {
		want.UID = uid
	}
	if gid >= 0 {
		want.GID = gid
	}
	switch {
	case c.UnixMode != "":
		want.Mode, err = c.fileMode()
	case first.Private:
		want.Mode, err = umask()
		want.Mode = fs.ModePerm &^ want.Mode
	}
	if err != nil {
		return want, fmt.Errorf("unix_mode: %w", err)
	}
	return want, nil
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
