package demo

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/muxserve/muxserve/pool"
)

// maxOpen is for how many requests at a time files stay open until the client has taken them: a
// quarter of the descriptors that connections leave, because an index takes two.
func maxOpen() int { return max(1, pool.DefaultConfig().MaxConnections/36) }

// serveFiles serves files. Those of n requests at a time stay open; clients that take nothing
// keep no more descriptors. For other requests each read opens the file anew, which costs the
// system more.
func serveFiles(files http.FileSystem, n int) http.Handler {
	places := make(chan struct{}, n)
	open, shut := http.FileServer(files), http.FileServer(shutFiles{files})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			open.ServeHTTP(w, r)
		default:
			shut.ServeHTTP(w, r)
		}
	})
}

// Files is a directory as a file system. No link leads out of it. Unlike the files of
// os.Root.FS, its files are *os.File, for which net/http can use sendfile.
type Files struct {
	Root *os.Root
	// Listings lets clients see the names in a directory without an index.html.
	Listings bool
	// DotFiles lets clients see what a dot at the beginning of a name hides. Links that lead
	// there are followed all the same.
	DotFiles bool
}

var _ http.FileSystem = Files{}

// Open implements [http.FileSystem]; name is a clean path that begins with a slash.
func (f Files) Open(name string) (http.File, error) {
	if !f.DotFiles && strings.Contains(name, "/.") {
		return nil, fs.ErrNotExist
	}
	if strings.ContainsRune(name, 0) {
		return nil, fs.ErrNotExist // The system's error would be answered by 500.
	}
	file, err := f.Root.Open(cmp.Or(strings.TrimPrefix(name, "/"), "."))
	if err != nil {
		return nil, noFile(err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		return f.directory(file, name)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// directory returns a directory for net/http, which lists one whose index.html it cannot
// open, for whatever reason.
func (f Files) directory(file *os.File, name string) (http.File, error) {
	if f.Listings {
		return directory{file, f}, nil
	}
	index, err := f.Open(path.Join(name, "index.html"))
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	_ = index.Close()
	return directory{file, f}, nil
}

// noFile returns [fs.ErrNotExist] where an error says that the root has no file of the name.
// net/http answers others by 500. os.Root's error for a link that leads out has no type.
func noFile(err error) error {
	var number syscall.Errno
	if errors.Is(err, fs.ErrNotExist) || !errors.As(err, &number) || number == syscall.ENOTDIR || number == syscall.ELOOP || number == syscall.ENAMETOOLONG {
		return fs.ErrNotExist
	}
	return err
}

// directory is one whose listing has what files shows.
type directory struct {
	*os.File
	files Files
}

// ReadDir implements [fs.ReadDirFile].
func (d directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.files.Listings {
		return nil, fs.ErrPermission
	}
	entries, err := d.File.ReadDir(n)
	if !d.files.DotFiles {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	}
	return entries, err
}

// shutFiles are files that are open only while they are read.
type shutFiles struct{ files http.FileSystem }

// Open implements [http.FileSystem].
func (s shutFiles) Open(name string) (http.File, error) {
	f := &shutFile{files: s.files, name: name}
	return f, f.with(func(file http.File) (err error) {
		f.info, err = file.Stat()
		return err
	})
}

// shutFile is one of shutFiles.
type shutFile struct {
	files  http.FileSystem
	name   string
	info   fs.FileInfo // of when it was asked for
	offset int64
}

var (
	_ http.File      = (*shutFile)(nil)
	_ fs.ReadDirFile = (*shutFile)(nil)
)

// errReplaced is the error of a read where the name has become another file's, or that has
// changed. A part of it would not fit to what was read.
var errReplaced = errors.New("the file was replaced while it was sent")

// with calls do with the file, which is open meanwhile.
func (f *shutFile) with(do func(http.File) error) error {
	file, err := f.files.Open(f.name)
	if err != nil {
		return err
	}
	defer file.Close()
	if f.info != nil {
		switch info, err := file.Stat(); {
		case err != nil:
			return err
		case !os.SameFile(info, f.info), info.Size() != f.info.Size(), !info.ModTime().Equal(f.info.ModTime()):
			return fmt.Errorf("%s: %w", f.name, errReplaced)
		}
	}
	return do(file)
}

// Read implements [io.Reader].
func (f *shutFile) Read(p []byte) (n int, err error) {
	err = f.with(func(file http.File) error {
		if _, err := file.Seek(f.offset, io.SeekStart); err != nil {
			return err
		}
		n, err = file.Read(p)
		f.offset += int64(n)
		return err
	})
	return n, err
}

// Seek implements [io.Seeker].
func (f *shutFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.info.Size()
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	f.offset = offset
	return offset, nil
}

// Stat implements [fs.File].
func (f *shutFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// Readdir implements [http.File].
func (f *shutFile) Readdir(n int) (infos []fs.FileInfo, err error) {
	err = f.with(func(file http.File) error {
		infos, err = file.Readdir(n)
		return err
	})
	return infos, err
}

// ReadDir implements [fs.ReadDirFile].
func (f *shutFile) ReadDir(n int) (entries []fs.DirEntry, err error) {
	err = f.with(func(file http.File) error {
		directory, ok := file.(fs.ReadDirFile)
		if !ok {
			return fs.ErrInvalid
		}
		entries, err = directory.ReadDir(n)
		return err
	})
	return entries, err
}

// Close implements [io.Closer].
func (f *shutFile) Close() error { return nil }
