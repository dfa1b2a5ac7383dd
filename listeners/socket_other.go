//go:build !unix

package listeners

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

const (
	hasFileOwners = false
	hasBacklog    = false
)

// identify does not tell files apart here.
func identify(fs.FileInfo) fileID { return fileID{} }

func ownerOf(fs.FileInfo) (uid, gid int) { return -1, -1 }

// adopt fails: sockets are not inherited by their number here.
func adopt(int, string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// duplicate fails, for the same reason.
func duplicate(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func setBacklog(syscall.RawConn, int) error { return errors.ErrUnsupported }
