package sampledir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is a sample directory on a real file system. All names are resolved
// below the opened directory, so a disk that is unmounted under it cannot lead
// the recorder to write somewhere else.
type Disk struct {
	path  string
	root  *os.Root
	dir   *os.File
	ext4  bool
	whole bool // the file system can be synced as a whole: an ext4 with a journal
}

// OpenDisk opens an existing directory.
func OpenDisk(path string) (*Disk, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open sample directory: %w", err)
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("open sample directory %s: %w", path, err)
	}
	d := &Disk{path: path, root: root, dir: dir}
	var s unix.Statfs_t
	d.ext4 = unix.Fstatfs(int(dir.Fd()), &s) == nil && int64(s.Type) == unix.EXT4_SUPER_MAGIC
	d.whole = d.ext4 && syncfsTells() && hasJournal(dir)
	return d, nil
}

// syncfsTells reports whether syncfs tells of all that it could not make durable: so
// in Linux since 5.17. Before, it passed on what it met in files (5.8), and not what
// the file system said of itself, of its journal for one.
func syncfsTells() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 17)
}

// hasJournal reports whether an ext4 has a journal. Without one, or as ext2, syncfs
// flushes the disk before it has written all that names files.
func hasJournal(dir *os.File) bool {
	var s unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &s) != nil {
		return false
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "journal_task"))
	return err == nil && strings.TrimSpace(string(task)) != "<none>"
}

// SyncsWhole reports whether SyncFiles syncs several files at the cost of one, which
// tests of that cost have to know.
func (d *Disk) SyncsWhole() bool { return d.whole }

// Path is where the directory was opened.
func (d *Disk) Path() string { return d.path }

func (d *Disk) Create(id int64) (File, error) {
	f, err := d.root.OpenFile(Name(id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, d.fail("create", Name(id), err)
	}
	return &diskFile{f: f, fd: int(f.Fd())}, nil
}

func (d *Disk) Open(id int64) (File, error)    { return d.open(id, os.O_RDONLY) }
func (d *Disk) Recover(id int64) (File, error) { return d.open(id, os.O_RDWR) }

func (d *Disk) open(id int64, flag int) (File, error) {
	f, err := d.root.OpenFile(Name(id), flag, 0)
	if err != nil {
		return nil, d.fail("open", Name(id), err)
	}
	return &diskFile{f: f, fd: int(f.Fd())}, nil
}

func (d *Disk) Unlink(id int64) error {
	if err := d.root.Remove(Name(id)); err != nil {
		return d.fail("unlink", Name(id), err)
	}
	return nil
}

func (d *Disk) Sync() error {
	err := bare(d.dir.Sync())
	if err == nil {
		err = d.alive()
	}
	if err != nil {
		return fmt.Errorf("sync sample directory %s: %w", d.path, err)
	}
	return nil
}

// SyncFiles syncs the whole file system where there is more than one file: each
// fdatasync has the disk flush its cache twice, 32 times for 16 streams, and syncfs
// behind writeOut twice for all (BenchmarkSync), with their entries. What it cannot say
// is which file it failed for. That is asked of each, once, as if there had been no
// syncfs: the kernel reports a failed write to each open file that has not seen it
// (errseq).
func (d *Disk) SyncFiles(files []File) (errs []error, entries bool) {
	errs = make([]error, len(files))
	if d.whole && len(files) > 1 {
		writeOut(files, errs)
		entries = d.syncWhole() == nil
	}
	for i, f := range files {
		if !entries && errs[i] == nil {
			errs[i] = f.Sync()
		}
	}
	if len(files) == 0 {
		return errs, false
	}
	if dead := d.alive(); dead != nil {
		entries = false
		for i, err := range errs {
			if err == nil {
				errs[i] = fmt.Errorf("sync sample directory %s: %w", d.path, dead)
			}
		}
	}
	return errs, entries
}

// writeOut has the bytes of all files written, and waits for that, which makes nothing
// durable. Where they are is in ext4's journal when they are written, so that syncfs
// commits it once for all: by itself it writes them between two commits. An error is
// that of a Sync, as the kernel reports it to an open file once.
func writeOut(files []File, errs []error) {
	for i, f := range files { // all are begun before one is waited for
		errs[i] = f.(*diskFile).writeOut(unix.SYNC_FILE_RANGE_WRITE)
		if errors.Is(errs[i], unix.ENOMEM) {
			errs[i] = nil // nothing is lost, and the second time the kernel waits for memory
		}
	}
	for i, f := range files {
		if errs[i] == nil {
			errs[i] = f.(*diskFile).writeOut(unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER)
		}
	}
}

func (d *Disk) syncWhole() error {
	for {
		if err := unix.Syncfs(int(d.dir.Fd())); err != unix.EINTR {
			return err
		}
	}
}

func (d *Disk) Space() (Space, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(d.dir.Fd()), &s); err != nil {
		return Space{}, fmt.Errorf("statfs sample directory %s: %w", d.path, err)
	}
	return spaceOf(&s), nil
}

func (d *Disk) Moved() bool {
	held, err := d.dir.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(d.path)
	return err != nil || !os.SameFile(held, there)
}

func (d *Disk) Close() error { return errors.Join(d.dir.Close(), d.root.Close()) }

func (d *Disk) fail(op, name string, err error) error {
	return fmt.Errorf("%s sample file %s: %w", op, filepath.Join(d.path, name), bare(err))
}

// bare takes the path and the call out of an error of package os: the caller
// says them better.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

type diskFile struct {
	f  *os.File
	fd int
}

// File gives the open file to who sends it with the help of the kernel.
func (f *diskFile) File() *os.File { return f.f }

func (f *diskFile) ReadAt(b []byte, at int64) (int, error) { return f.f.ReadAt(b, at) }
func (f *diskFile) Truncate(size int64) error              { return f.f.Truncate(size) }
func (f *diskFile) Close() error                           { return f.f.Close() }

func (f *diskFile) fail(op string, err error) error {
	return fmt.Errorf("%s sample file %s: %w", op, f.f.Name(), err)
}

// maxVectors is what one pwritev takes (IOV_MAX).
const maxVectors = 1024

func (f *diskFile) Append(at int64, bufs ...[]byte) (int64, error) {
	var done int64
	vec := make([][]byte, 0, min(len(bufs), maxVectors))
	skip := 0 // bytes of bufs[0] already written
	for len(bufs) > 0 {
		vec = vec[:0]
		for i, b := range bufs {
			if len(vec) == maxVectors {
				break
			}
			if i == 0 {
				b = b[skip:]
			}
			if len(b) > 0 {
				vec = append(vec, b)
			}
		}
		if len(vec) == 0 {
			return done, nil
		}
		n, err := unix.Pwritev(f.fd, vec, at+done)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, f.fail("write", err)
		}
		done += int64(n)
		for len(bufs) > 0 && n >= len(bufs[0])-skip {
			n -= len(bufs[0]) - skip
			bufs, skip = bufs[1:], 0
		}
		skip += n
	}
	return done, nil
}

func (f *diskFile) writeOut(flags int) error {
	if err := unix.SyncFileRange(f.fd, 0, 0, flags); err != nil {
		return f.fail("sync", err)
	}
	return nil
}

func (f *diskFile) Sync() error {
	for {
		err := unix.Fdatasync(f.fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return f.fail("sync", err)
		}
	}
}

func (f *diskFile) Size() (int64, error) {
	s, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return s.Size(), nil
}
