// Package dbtest makes SQLite's own I/O fail, for the tests of what stands on
// it. It is a VFS (https://sqlite.org/vfs.html) around that of the operating
// system: it hands everything on to it, counts, and makes the n-th operation
// fail as the real one would report it. It also knows what of the files was
// synced, which is what a power cut leaves. No product imports it.
//
//	SQLite ─► VFS ─► SQLite's unix VFS ─► files
package dbtest

import (
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Kind is what an operation does.
type Kind string

// The kinds of operations that can fail.
const (
	Open     Kind = "open"
	Delete   Kind = "delete"
	Read     Kind = "read"
	Write    Kind = "write"
	Sync     Kind = "sync"
	Truncate Kind = "truncate"
	Size     Kind = "size"
	ShmMap   Kind = "shmmap"
)

// File is one of the files of a database.
type File string

// The files of a database. The index of the log counts as Shm, though SQLite
// reaches it through Main.
const (
	Main    File = "db"
	WAL     File = "wal"
	Journal File = "journal"
	Shm     File = "shm"
	other   File = "other" // of SQLite's temporary files, which are in memory
)

// Op is one kind of operation on one file.
type Op struct {
	Kind Kind
	File File
}

func (o Op) String() string { return string(o.Kind) + " " + string(o.File) }

// VFS is one registered with SQLite. Its methods may be called from any
// goroutine.
type VFS struct {
	name string
	keep []any   // the functions that SQLite has pointers to
	real uintptr // the VFS around which this one is

	mu     sync.Mutex
	counts map[Op]int
	faults []*fault
	failed int
	first  Op  // that failed
	later  int // operations that change files, after it
	dead   bool
	rots   map[File]bool
	delays map[Op]time.Duration
	synced map[string][]byte // by path: what a power cut leaves
	log    *Log              // nil: none is asked for
}

type fault struct {
	op    Op
	n     int // which one, from now on
	times int // that fail from there; -1: for ever
	err   syscall.Errno
}

// Unix names SQLite's own VFS, for connections that are to reach it though
// NewDefault has put another in its place.
const Unix = "unix"

// New registers a VFS. It must outlive the connections that use it.
func New(t testing.TB) *VFS { return register(t, 0) }

// NewDefault is New for connections that name no VFS, of the whole process,
// until the test ends.
func NewDefault(t testing.TB) *VFS { return register(t, 1) }

func register(t testing.TB, asDefault int32) *VFS {
	tls := libc.NewTLS()
	v := &VFS{counts: make(map[Op]int), rots: make(map[File]bool), delays: make(map[Op]time.Duration), synced: make(map[string][]byte)}
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		t.Fatalf("initialize SQLite: code %d", rc)
	}
	v.real = sqlite3.Xsqlite3_vfs_find(tls, 0)
	// What SQLite points to is no memory of Go's.
	p := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	methods := v.methods(libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{}))))
	v.name = "fault-" + strconv.FormatUint(uint64(p), 16)
	name, err := libc.CString(v.name)
	if err != nil {
		t.Fatal(err)
	}
	own := at[sqlite3.Tsqlite3_vfs](p)
	*own = *at[sqlite3.Tsqlite3_vfs](v.real) // the other methods look at no VFS
	own.FpNext, own.FzName = 0, name
	own.FszOsFile += int32(unsafe.Sizeof(file{}))
	own.FxOpen = v.pointer(func(tls *libc.TLS, _, name, f uintptr, flags int32, out uintptr) int32 {
		return v.open(tls, methods, name, f, flags, out)
	})
	own.FxDelete = v.pointer(v.delete)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, asDefault); rc != sqlite3.SQLITE_OK {
		t.Fatalf("register VFS %s: code %d", v.name, rc)
	}
	t.Cleanup(func() {
		sqlite3.Xsqlite3_vfs_unregister(tls, p)
		tls.Close()
		// p and methods stay: a connection that was never closed has them.
		v.keep = append(v.keep, p)
	})
	return v
}

// Name is what a database is opened with.
func (v *VFS) Name() string { return v.name }

// Fail makes the n-th operation of a kind from now on, 1 being the next, fail,
// and those after it up to times of them, -1 being all.
func (v *VFS) Fail(op Op, n, times int, err syscall.Errno) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = append(v.faults, &fault{op, n, times, err})
}

// Rot makes a file read back as zeros behind its first 4 KiB.
func (v *VFS) Rot(f File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rots[f] = true
}

// Delay makes each operation of a kind take so long before it begins.
func (v *VFS) Delay(op Op, d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.delays[op] = d
}

// Heal ends all faults.
func (v *VFS) Heal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = nil
	clear(v.rots)
	clear(v.delays)
}

// Die ends what a process does to its files: from now on nothing changes them,
// so that a database can be closed of which the process would just end.
func (v *VFS) Die() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dead = true
}

// Failed returns how many operations failed.
func (v *VFS) Failed() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

// Later returns how many operations have changed files, or would have, since
// the first one failed.
func (v *VFS) Later() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.later
}

// Counts returns how many operations there were.
func (v *VFS) Counts() map[Op]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.counts)
}

// Synced returns what is certain to be left of a file after a power cut: its
// bytes at the last sync, and those it has when it was never opened.
func (v *VFS) Synced(path string) []byte {
	v.keepSynced(path, true)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.synced[path]
}

// Forget lets go of what is known of the files, for a test that makes thousands: all
// else goes when the test ends.
func (v *VFS) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.synced)
	v.log = nil
}

// fails counts an operation and says how it fails, 0 when it does not.
func (v *VFS) fails(op Op) syscall.Errno {
	v.mu.Lock()
	delay := v.delays[op]
	v.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.counts[op]++
	changes := op.Kind == Write || op.Kind == Sync || op.Kind == Truncate || op.Kind == Delete
	if v.dead {
		if changes {
			return syscall.EIO
		}
		return 0
	}
	if changes && v.failed > 0 {
		v.later++
	}
	for _, f := range v.faults {
		if f.op != op {
			continue
		}
		if f.n--; f.n > 0 || f.times == 0 {
			continue
		}
		if f.times > 0 {
			f.times--
		}
		if v.failed++; v.failed == 1 {
			v.first = op
		}
		return f.err
	}
	return 0
}

func (v *VFS) rotten(f File) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rots[f]
}

// keepSynced takes down what a power cut leaves of a file from now on.
func (v *VFS) keepSynced(path string, onlyNew bool) {
	v.mu.Lock()
	_, known := v.synced[path]
	v.mu.Unlock()
	if known && onlyNew {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.synced[path] = b
}

// file is in front of the real one, in SQLite's memory.
type file struct {
	methods uintptr
	kind    int32   // index of files
	_       int32   // so that the real one is aligned
	name    uintptr // of the file; SQLite keeps it as long as the file
}

var files = [...]File{other, Main, WAL, Journal}

func (f *file) file() File { return files[f.kind] }

// inner is the real file behind p.
func inner(p uintptr) (real uintptr, methods *sqlite3.Tsqlite3_io_methods) {
	real = p + unsafe.Sizeof(file{})
	return real, at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](real).FpMethods)
}

func (v *VFS) open(tls *libc.TLS, methods, name, p uintptr, flags int32, out uintptr) int32 {
	f := at[file](p)
	*f = file{name: name}
	switch {
	case flags&sqlite3.SQLITE_OPEN_MAIN_DB != 0:
		f.kind = 1
	case flags&sqlite3.SQLITE_OPEN_WAL != 0:
		f.kind = 2
	case flags&sqlite3.SQLITE_OPEN_MAIN_JOURNAL != 0:
		f.kind = 3
	}
	if v.fails(Op{Open, f.file()}) != 0 {
		return sqlite3.SQLITE_CANTOPEN
	}
	real := p + unsafe.Sizeof(file{})
	rc := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](
		at[sqlite3.Tsqlite3_vfs](v.real).FxOpen)(tls, v.real, name, real, flags, out)
	if at[sqlite3.Tsqlite3_file](real).FpMethods != 0 {
		f.methods = methods
	}
	if rc == sqlite3.SQLITE_OK && f.kind != 0 {
		v.keepSynced(libc.GoString(name), true)
	}
	return rc
}

func (v *VFS) delete(tls *libc.TLS, _, name uintptr, syncDir int32) int32 {
	f := Main
	switch path := libc.GoString(name); {
	case strings.HasSuffix(path, "-wal"):
		f = WAL
	case strings.HasSuffix(path, "-journal"):
		f = Journal
	}
	if v.fails(Op{Delete, f}) != 0 {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	rc := function[func(*libc.TLS, uintptr, uintptr, int32) int32](at[sqlite3.Tsqlite3_vfs](v.real).FxDelete)(tls, v.real, name, syncDir)
	if rc == sqlite3.SQLITE_OK {
		v.mu.Lock()
		delete(v.synced, libc.GoString(name))
		v.mu.Unlock()
		v.changed(Delete, f, 0, nil)
	}
	return rc
}

// Signatures of the methods of a file.
type (
	plain  = func(tls *libc.TLS, f uintptr) int32
	number = func(tls *libc.TLS, f uintptr, n int32) int32
	result = func(tls *libc.TLS, f, out uintptr) int32
	bytes  = func(tls *libc.TLS, f, buf uintptr, n int32, at int64) int32
)

// methods fills the table at p. Results are those of SQLite's unix VFS for the
// same error.
func (v *VFS) methods(p uintptr) uintptr {
	m := at[sqlite3.Tsqlite3_io_methods](p)
	m.FiVersion = 3
	m.FxClose = v.pointer(func(tls *libc.TLS, p uintptr) int32 {
		f, m := inner(p)
		return function[plain](m.FxClose)(tls, f)
	})
	m.FxRead = v.pointer(func(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
		switch v.fails(Op{Read, at[file](p).file()}) {
		case 0:
		case syscall.EIO:
			return sqlite3.SQLITE_IOERR_CORRUPTFS
		default:
			return sqlite3.SQLITE_IOERR_READ
		}
		f, m := inner(p)
		rc := function[bytes](m.FxRead)(tls, f, buf, n, offset)
		if offset >= 4096 && v.rotten(at[file](p).file()) {
			clear(unsafe.Slice(at[byte](buf), n))
		}
		return rc
	})
	m.FxWrite = v.pointer(func(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
		f, m := inner(p)
		switch v.fails(Op{Write, at[file](p).file()}) {
		case 0:
			rc := function[bytes](m.FxWrite)(tls, f, buf, n, offset)
			if rc == sqlite3.SQLITE_OK {
				v.changed(Write, at[file](p).file(), offset, unsafe.Slice(at[byte](buf), n))
			}
			return rc
		case syscall.ENOSPC:
			return sqlite3.SQLITE_FULL
		}
		return sqlite3.SQLITE_IOERR_WRITE
	})
	m.FxTruncate = v.pointer(func(tls *libc.TLS, p uintptr, size int64) int32 {
		if v.fails(Op{Truncate, at[file](p).file()}) != 0 {
			return sqlite3.SQLITE_IOERR_TRUNCATE
		}
		f, m := inner(p)
		rc := function[func(*libc.TLS, uintptr, int64) int32](m.FxTruncate)(tls, f, size)
		if rc == sqlite3.SQLITE_OK {
			v.changed(Truncate, at[file](p).file(), size, nil)
		}
		return rc
	})
	m.FxSync = v.pointer(func(tls *libc.TLS, p uintptr, flags int32) int32 {
		if v.fails(Op{Sync, at[file](p).file()}) != 0 {
			return sqlite3.SQLITE_IOERR_FSYNC
		}
		f, m := inner(p)
		rc := function[number](m.FxSync)(tls, f, flags)
		if own := at[file](p); rc == sqlite3.SQLITE_OK && own.kind != 0 {
			v.keepSynced(libc.GoString(own.name), false)
			v.changed(Sync, own.file(), 0, nil)
		}
		return rc
	})
	m.FxFileSize = v.pointer(func(tls *libc.TLS, p, out uintptr) int32 {
		if v.fails(Op{Size, at[file](p).file()}) != 0 {
			return sqlite3.SQLITE_IOERR_FSTAT
		}
		f, m := inner(p)
		return function[result](m.FxFileSize)(tls, f, out)
	})
	m.FxLock = v.pointer(func(tls *libc.TLS, p uintptr, level int32) int32 {
		f, m := inner(p)
		return function[number](m.FxLock)(tls, f, level)
	})
	m.FxUnlock = v.pointer(func(tls *libc.TLS, p uintptr, level int32) int32 {
		f, m := inner(p)
		return function[number](m.FxUnlock)(tls, f, level)
	})
	m.FxCheckReservedLock = v.pointer(func(tls *libc.TLS, p, out uintptr) int32 {
		f, m := inner(p)
		return function[result](m.FxCheckReservedLock)(tls, f, out)
	})
	m.FxFileControl = v.pointer(func(tls *libc.TLS, p uintptr, op int32, arg uintptr) int32 {
		f, m := inner(p)
		return function[func(*libc.TLS, uintptr, int32, uintptr) int32](m.FxFileControl)(tls, f, op, arg)
	})
	m.FxSectorSize = v.pointer(func(tls *libc.TLS, p uintptr) int32 {
		f, m := inner(p)
		return function[plain](m.FxSectorSize)(tls, f)
	})
	m.FxDeviceCharacteristics = v.pointer(func(tls *libc.TLS, p uintptr) int32 {
		f, m := inner(p)
		return function[plain](m.FxDeviceCharacteristics)(tls, f)
	})
	m.FxShmMap = v.pointer(func(tls *libc.TLS, p uintptr, region, size, extend int32, out uintptr) int32 {
		switch v.fails(Op{ShmMap, Shm}) {
		case 0:
		case syscall.ENOSPC:
			return sqlite3.SQLITE_IOERR_SHMSIZE
		default:
			return sqlite3.SQLITE_IOERR_SHMMAP
		}
		f, m := inner(p)
		return function[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](m.FxShmMap)(tls, f, region, size, extend, out)
	})
	m.FxShmLock = v.pointer(func(tls *libc.TLS, p uintptr, offset, n, flags int32) int32 {
		f, m := inner(p)
		return function[func(*libc.TLS, uintptr, int32, int32, int32) int32](m.FxShmLock)(tls, f, offset, n, flags)
	})
	m.FxShmBarrier = v.pointer(func(tls *libc.TLS, p uintptr) {
		f, m := inner(p)
		function[func(*libc.TLS, uintptr)](m.FxShmBarrier)(tls, f)
	})
	m.FxShmUnmap = v.pointer(func(tls *libc.TLS, p uintptr, remove int32) int32 {
		f, m := inner(p)
		return function[number](m.FxShmUnmap)(tls, f, remove)
	})
	m.FxFetch = v.pointer(func(tls *libc.TLS, p uintptr, offset int64, n int32, out uintptr) int32 {
		f, m := inner(p)
		return function[func(*libc.TLS, uintptr, int64, int32, uintptr) int32](m.FxFetch)(tls, f, offset, n, out)
	})
	m.FxUnfetch = v.pointer(func(tls *libc.TLS, p uintptr, offset int64, page uintptr) int32 {
		f, m := inner(p)
		return function[func(*libc.TLS, uintptr, int64, uintptr) int32](m.FxUnfetch)(tls, f, offset, page)
	})
	return p
}

// pointer is what translated C calls f by. The VFS keeps f.
func (v *VFS) pointer(f any) uintptr {
	v.keep = append(v.keep, f)
	return (*[2]uintptr)(unsafe.Pointer(&f))[1]
}

// function is what pointer was made of.
func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

// at is what lies at an address of SQLite's memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }
