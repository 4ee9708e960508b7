// Package sampledirtest is a sample directory in memory, on a disk that keeps
// no more than a disk promises: it loses what was not synced, in any order, and
// fails when told to. It knows no more of what the files mean than sampledir.
//
// Every operation is logged with its bytes. After any part of the log, At
// tells what the disk would owe after a power cut, and what may or may not be
// there; State chooses among it:
//
//	P1  what was appended and truncated before a Sync of the file that
//	    succeeded is there. The file itself is there only if its entry is.
//	P2  what was created and unlinked before a Sync of the directory that
//	    succeeded is as it was left.
//	P3  of the rest each operation has a fate of its own.
//	P4  appended bytes that were not synced are there, or not (a hole when
//	    others behind them are), or in part, or as zeros, or as garbage, or as
//	    what the same blocks held for another file before.
//	P5  an unlink that was not synced may be undone.
//	P6  of the meta file the old or the new content is there, never a mixture;
//	    while it is made it may be there without content.
//
// A Sync that failed has dropped what was to be synced: none of it becomes
// durable by a later Sync, though that succeeds, and it reads as if nothing had
// happened (reliability.md 2.1).
//
// The properties are those of nvr/design/storage.md.
package sampledirtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"

	"holdfast/nvr/store/internal/sampledir"
)

// Kind is what an operation does.
type Kind string

// The kinds of operations. Those of the second line change nothing, and
// ReadMeta and Foreign can fail only as Open does.
const (
	Create, Append, Truncate, Sync, DirSync, Unlink, WriteMeta, SyncMeta Kind = "create", "append", "truncate", "sync",
		"dirsync", "unlink", "writemeta", "syncmeta"
	Open, Recover, Read, Statfs, ReadMeta, Foreign Kind = "open", "recover", "read", "statfs", "readmeta", "foreign"
)

// Op is one operation as it happened.
type Op struct {
	Kind  Kind
	ID    int64          // of the recording; 0 for the directory
	Inode int            // which file of that name
	At    int64          // where it appended, or the size it cut to
	Data  []byte         // what got into the file, also when the operation failed
	Meta  sampledir.Meta // of WriteMeta
	Err   error
}

func (op Op) String() string {
	s := string(op.Kind)
	if op.ID != 0 {
		s += fmt.Sprintf(" %d/%d", op.ID>>32, int32(op.ID))
	}
	switch op.Kind {
	case Append:
		s += fmt.Sprintf(" %d bytes at %d", len(op.Data), op.At)
	case Truncate:
		s += fmt.Sprintf(" to %d", op.At)
	case WriteMeta:
		s += fmt.Sprintf(" complete %d in progress %d", op.Meta.CompleteOpen, op.Meta.InProgressOpen)
	}
	if op.Err != nil {
		s += ": " + op.Err.Error()
	}
	return s
}

// Dir is the directory. It may be used from any goroutine.
type Dir struct {
	// Before and After, if set, are called around each operation that changes
	// something, by the goroutine that does it. Set them before the first.
	Before, After func()

	begin State // as New was given it

	mu      sync.Mutex
	room    Room
	log     []Op
	reads   int
	entries map[int64]*inode
	taken   int64 // by the files of entries, in whole blocks
	inodes  int
	meta    *sampledir.Meta // nil: none
	badMeta bool            // there is a meta file without content
	faults  map[Kind]*fault
	open    int
	closed  bool
}

// BlockSize of the disk.
const BlockSize = 4096

// Room is how large the disk is, and who else has a part of it. No power cut
// changes it.
type Room struct {
	Capacity int64 // bytes that fit into the files, in whole blocks; 0: more than any test writes
	Foreign  int64 // bytes of them that others have taken
}

type inode struct {
	n    int
	id   int64
	data []byte
}

type fault struct {
	after int // operations of the kind that succeed before
	times int // how many fail then; below 0: all
	err   error
	hits  int
}

// State is what a directory holds.
type State struct {
	Files   map[int64][]byte
	Meta    *sampledir.Meta // nil: none
	BadMeta bool            // there is a meta file without content

	numbers map[int64]int // which inode a file is; nil: 1, 2, … in the order of their ids
}

// each calls f with each file, in the order of their ids, and its inode.
func (st *State) each(f func(id int64, n int)) {
	for i, id := range sortedIDs(st.Files) {
		if n, ok := st.numbers[id]; ok {
			f(id, n)
		} else {
			f(id, i+1)
		}
	}
}

// New makes a directory that holds, durably, what st says.
func New(st State) *Dir {
	d := &Dir{entries: make(map[int64]*inode), faults: make(map[Kind]*fault), begin: st, meta: st.Meta, badMeta: st.BadMeta}
	st.each(func(id int64, n int) {
		d.entries[id] = &inode{n: n, id: id, data: slices.Clone(st.Files[id])}
		d.taken += blocks(int64(len(st.Files[id])))
		d.inodes = max(d.inodes, n)
	})
	return d
}

func (d *Dir) inode(id int64, data []byte) *inode {
	d.inodes++
	return &inode{n: d.inodes, id: id, data: data}
}

// Fail lets operations of a kind fail: the n-th from now, from 1, and those
// after it, times in all; times below 0: for ever.
func (d *Dir) Fail(kind Kind, n, times int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[kind] = &fault{after: n - 1, times: times, err: err}
}

// Heal ends all failures.
func (d *Dir) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = make(map[Kind]*fault)
}

// Failed counts the operations of a kind that failed because Fail said so.
func (d *Dir) Failed(kind Kind) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.faults[kind]; f != nil {
		return f.hits
	}
	return 0
}

// SetCapacity sets how many bytes fit into the files, in whole blocks; 0 is
// more than any test writes. What is there stays.
func (d *Dir) SetCapacity(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.Capacity = n
}

// Fill lets others have n bytes of the capacity, in place of what they had.
func (d *Dir) Fill(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.Foreign = n
}

// Room is what SetCapacity and Fill were given.
func (d *Dir) Room() Room {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.room
}

// SetRoom is SetCapacity and Fill at once: that of a disk before a power cut, for
// the one that is made of what it left.
func (d *Dir) SetRoom(r Room) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = r
}

// Len is how many operations are logged.
func (d *Dir) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// Reads is how many reads there were, which are not logged.
func (d *Dir) Reads() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

// Log returns the operations so far.
func (d *Dir) Log() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// OpenFiles is how many files were opened and not closed.
func (d *Dir) OpenFiles() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// Content is what reads see now.
func (d *Dir) Content() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := State{Files: make(map[int64][]byte), Meta: d.meta, BadMeta: d.badMeta}
	for id, in := range d.entries {
		st.Files[id] = slices.Clone(in.data)
	}
	return st
}

// do runs one operation: f makes it happen unless a fault does, and reports
// what to log.
func (d *Dir) do(kind Kind, id int64, f func(op *Op, fault error) error) error {
	return d.doIf(kind, id, func() bool { return true }, f)
}

// doIf is do where, under the lock, there is something to do.
func (d *Dir) doIf(kind Kind, id int64, needed func() bool, f func(op *Op, fault error) error) error {
	changes := kind != Open && kind != Recover && kind != Read && kind != Statfs && kind != ReadMeta && kind != Foreign
	if changes && d.Before != nil {
		d.Before()
	}
	d.mu.Lock()
	op := Op{Kind: kind, ID: id}
	if needed() {
		op.Err = f(&op, d.fault(kind))
		if kind == Read {
			d.reads++
		} else {
			d.log = append(d.log, op)
		}
	}
	d.mu.Unlock()
	if changes && d.After != nil {
		d.After()
	}
	return op.Err
}

func (d *Dir) fault(kind Kind) error {
	f := d.faults[kind]
	if f == nil || f.times == 0 {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	if f.times > 0 {
		f.times--
	}
	f.hits++
	return f.err
}

func failed(op string, id int64, err error) error {
	return fmt.Errorf("%s sample file %s: %w", op, sampledir.Name(id), err)
}

func (d *Dir) Create(id int64) (sampledir.File, error) {
	var out *file
	err := d.do(Create, id, func(op *Op, fault error) error {
		if fault != nil {
			return failed("create", id, fault)
		}
		if d.entries[id] != nil {
			return failed("create", id, fs.ErrExist)
		}
		in := d.inode(id, nil)
		op.Inode = in.n
		d.entries[id] = in
		out = d.handle(in, true)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Dir) Open(id int64) (sampledir.File, error)    { return d.openFile(Open, id) }
func (d *Dir) Recover(id int64) (sampledir.File, error) { return d.openFile(Recover, id) }

func (d *Dir) openFile(kind Kind, id int64) (sampledir.File, error) {
	var out *file
	err := d.do(kind, id, func(op *Op, fault error) error {
		in := d.entries[id]
		switch {
		case fault != nil:
			return failed("open", id, fault)
		case in == nil:
			return failed("open", id, fs.ErrNotExist)
		}
		out = d.handle(in, kind == Recover)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Dir) Unlink(id int64) error {
	return d.do(Unlink, id, func(op *Op, fault error) error {
		switch {
		case fault != nil:
			return failed("unlink", id, fault)
		case d.entries[id] == nil:
			return failed("unlink", id, fs.ErrNotExist)
		}
		op.Inode = d.entries[id].n
		d.taken -= blocks(int64(len(d.entries[id].data)))
		delete(d.entries, id)
		return nil
	})
}

// SyncEach syncs one file after the other, whatever becomes of those before it, for a
// directory that has no better way.
func SyncEach(files []sampledir.File) []error {
	errs := make([]error, len(files))
	for i, f := range files {
		errs[i] = f.Sync()
	}
	return errs
}

// SyncFiles syncs one after the other, and the directory behind two or more, as a
// sync of the whole file system does. Where one of the files fails, every other time
// that fails, too, and where the directory's is about to fail: then the directory is
// left to the caller.
func (d *Dir) SyncFiles(files []sampledir.File) (errs []error, entries bool) {
	errs = SyncEach(files)
	if len(files) < 2 || errors.Join(errs...) != nil && d.Len()%2 == 0 {
		return errs, false
	}
	entries = true
	d.doIf(DirSync, 0, func() bool {
		f := d.faults[DirSync]
		entries = f == nil || f.after > 0 || f.times == 0
		return entries && d.unsynced()
	}, func(*Op, error) error { return nil })
	return errs, entries
}

// unsynced reports whether there is anything for Sync to do. It is asked under the
// lock.
func (d *Dir) unsynced() bool {
	for _, op := range slices.Backward(d.log) {
		switch op.Kind {
		case Create, Unlink:
			return true
		case DirSync:
			return false
		}
	}
	return false
}

func (d *Dir) Sync() error {
	return d.do(DirSync, 0, func(op *Op, fault error) error {
		if fault != nil {
			return fmt.Errorf("sync sample directory: %w", fault)
		}
		return nil
	})
}

func (d *Dir) ReadMeta() (m sampledir.Meta, err error) {
	err = d.do(ReadMeta, 0, func(_ *Op, fault error) error {
		switch {
		case fault != nil:
			return fmt.Errorf("open meta: %w", fault)
		case d.meta != nil:
			m = *d.meta
			return nil
		case d.badMeta:
			return fmt.Errorf("%w: meta holds no valid slot", sampledir.ErrMeta)
		}
		return fmt.Errorf("open meta: %w", fs.ErrNotExist)
	})
	return m, err
}

func (d *Dir) WriteMeta(m sampledir.Meta) error {
	created := false
	err := d.do(WriteMeta, 0, func(op *Op, fault error) error {
		switch {
		case fault != nil:
			return fmt.Errorf("write meta: %w", fault)
		case d.badMeta && len(d.entries) > 0:
			return fmt.Errorf("%w: meta holds no valid slot", sampledir.ErrMeta)
		}
		created = d.meta == nil
		d.meta, d.badMeta = &m, false
		op.Meta = m
		return nil
	})
	if err == nil {
		err = d.do(SyncMeta, 0, func(_ *Op, fault error) error {
			if fault != nil {
				return fmt.Errorf("sync meta: %w", fault)
			}
			return nil
		})
	}
	if err == nil && created {
		err = d.Sync()
	}
	if err != nil && created {
		return fmt.Errorf("%w: %w", sampledir.ErrUnsynced, err)
	}
	return err
}

func (d *Dir) Foreign() (names []string, err error) {
	err = d.do(Foreign, 0, func(_ *Op, fault error) error {
		if fault != nil {
			return fmt.Errorf("list sample directory: %w", fault)
		}
		for _, id := range slices.Sorted(maps.Keys(d.entries)) {
			if len(names) < 3 {
				names = append(names, sampledir.Name(id))
			}
		}
		return nil
	})
	return names, err
}

func (d *Dir) Space() (s sampledir.Space, err error) {
	err = d.do(Statfs, 0, func(_ *Op, fault error) error {
		if fault != nil {
			return fmt.Errorf("statfs sample directory: %w", fault)
		}
		s = sampledir.Space{Total: d.total(), BlockSize: BlockSize}
		s.Free = max(0, s.Total-d.used())
		return nil
	})
	return s, err
}

// Moved is false: the directory has no path.
func (d *Dir) Moved() bool { return false }

func (d *Dir) total() int64 {
	if d.room.Capacity > 0 {
		return d.room.Capacity
	}
	return 1 << 40
}

func (d *Dir) used() int64 { return d.room.Foreign + d.taken }

// set gives a file other content. One that has no name takes no room.
func (d *Dir) set(in *inode, data []byte) {
	if d.entries[in.id] == in {
		d.taken += blocks(int64(len(data))) - blocks(int64(len(in.data)))
	}
	in.data = data
}

func blocks(n int64) int64 { return (n + BlockSize - 1) / BlockSize * BlockSize }

// Fork is the directory as another process finds it when the one that used it
// was killed after n operations: nothing is lost, and what was not synced
// still is not.
func (d *Dir) Fork(n int) *Dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := New(d.begin)
	files := make(map[int]*inode)
	for _, in := range next.entries {
		files[in.n] = in
	}
	for _, op := range d.log[:n] {
		switch in := files[op.Inode]; op.Kind {
		case Create:
			if op.Err == nil {
				files[op.Inode] = &inode{n: op.Inode, id: op.ID}
				next.entries[op.ID] = files[op.Inode]
				next.inodes = op.Inode
			}
		case Append, Truncate:
			if op.Kind == Append && len(op.Data) > 0 {
				next.set(in, append(in.data, op.Data...))
			} else if op.Kind == Truncate && op.Err == nil {
				next.set(in, cut(in.data, op.At))
			}
		case Unlink:
			if in := next.entries[op.ID]; op.Err == nil && in != nil {
				next.taken -= blocks(int64(len(in.data)))
				delete(next.entries, op.ID)
			}
		case WriteMeta:
			if op.Err == nil {
				next.meta, next.badMeta = &op.Meta, false
			}
		}
	}
	next.log, next.room = slices.Clone(d.log[:n]), d.room
	return next
}

// Reopen is the directory for the next store after Close.
func (d *Dir) Reopen() *Dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = false
	return d
}

func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fs.ErrClosed
	}
	d.closed = true
	return nil
}

// file is an open file.
type file struct {
	d      *Dir
	in     *inode
	write  bool
	closed bool
}

func (d *Dir) handle(in *inode, write bool) *file {
	d.open++
	return &file{d: d, in: in, write: write}
}

// usable is asked under the directory's lock.
func (f *file) usable(write bool) error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case write && !f.write:
		return syscall.EBADF
	}
	return nil
}

func (f *file) ReadAt(b []byte, at int64) (n int, err error) {
	err = f.d.do(Read, f.in.id, func(_ *Op, fault error) error {
		if err := errors.Join(fault, f.usable(false)); err != nil {
			return failed("read", f.in.id, err)
		}
		if at < int64(len(f.in.data)) {
			n = copy(b, f.in.data[at:])
		}
		if n < len(b) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *file) Append(at int64, bufs ...[]byte) (int64, error) {
	var done int64
	err := f.d.do(Append, f.in.id, func(op *Op, fault error) error {
		if err := f.usable(true); err != nil {
			return failed("write", f.in.id, err)
		}
		in, data := f.in, slices.Concat(bufs...)
		if at != int64(len(in.data)) {
			panic(fmt.Sprintf("sampledirtest: append to %s at %d, it ends at %d", sampledir.Name(in.id), at, len(in.data)))
		}
		if room := f.d.total() - f.d.used() + blocks(at) - at; fault == nil && int64(len(data)) > room {
			data, fault = data[:max(0, room)], syscall.ENOSPC
		} else if fault != nil {
			data = data[:len(data)/3] // it fails in the middle
		}
		op.Inode, op.At, op.Data = in.n, at, data
		f.d.set(in, append(in.data, data...))
		done = int64(len(data))
		if fault != nil {
			return failed("write", in.id, fault)
		}
		return nil
	})
	return done, err
}

func (f *file) Sync() error {
	return f.d.do(Sync, f.in.id, func(op *Op, fault error) error {
		op.Inode = f.in.n
		if err := errors.Join(f.usable(true), fault); err != nil {
			return failed("sync", f.in.id, err)
		}
		return nil
	})
}

func (f *file) Truncate(size int64) error {
	return f.d.do(Truncate, f.in.id, func(op *Op, fault error) error {
		in := f.in
		if err := errors.Join(f.usable(true), fault); err != nil {
			return failed("truncate", in.id, err)
		}
		op.Inode, op.At = in.n, size
		f.d.set(in, cut(in.data, size))
		return nil
	})
}

// cut brings b to a size; what was handed out of it stays.
func cut(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(slices.Clip(b), make([]byte, size-int64(len(b)))...)
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.usable(false); err != nil {
		return 0, err
	}
	return int64(len(f.in.data)), nil
}

func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	f.d.open--
	return nil
}
