package dbtest

import (
	"os"
	"slices"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// Change is an operation that changed a file of the database, or a sync that
// made durable what those before it did to that file.
type Change struct {
	Kind Kind // Write, Truncate, Sync or Delete
	File File
	at   int64 // of Write: where; of Truncate: the new size
	data []byte
}

// Log is what SQLite did to the files of one database, in its order.
type Log struct {
	Changes []Change

	base map[File][]byte // before the first of them, durable
}

// Kept is what a power cut leaves of a sector.
type Kept int

// What there may be. Garbage is only behind what was durable: elsewhere a sector
// that was not written is the old one.
const (
	Lost Kept = iota
	Written
	Garbage
)

// Fate says what becomes of a sector of a change that was not synced when the
// power failed: i counts those changes of a file, from 0, and sector those of its
// data. Deletions and truncations have one sector.
type Fate func(i, sector int) Kept

// Record begins a log of the database at path, of which all is durable.
func (v *VFS) Record(path string) {
	l := &Log{base: make(map[File][]byte)}
	for f, suffix := range map[File]string{Main: "", WAL: "-wal"} {
		l.base[f], _ = os.ReadFile(path + suffix)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log = l
}

// Recorded is the log, and how far it is. Its changes must not be read before
// the database is closed.
func (v *VFS) Recorded() (l *Log, changes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.log == nil {
		return nil, 0
	}
	return v.log, len(v.log.Changes)
}

// changed takes down a change that has succeeded. Those of one connection are in
// their order; another one, at the same time, would not be.
func (v *VFS) changed(kind Kind, f File, at int64, data []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.log != nil && f != other && !v.dead {
		v.log.Changes = append(v.log.Changes, Change{kind, f, at, slices.Clone(data)})
	}
}

// Unsynced counts the changes of a file, of the first n of the log, that a power
// cut may undo.
func (l *Log) Unsynced(f File, n int) (changes int) {
	for _, c := range l.Changes[:n] {
		switch {
		case c.File != f:
		case c.Kind == Sync:
			changes = 0
		default:
			changes++
		}
	}
	return changes
}

// Left is what a power cut behind the first n changes leaves of a file.
func (l *Log) Left(f File, n int, fate Fate) []byte {
	b := slices.Clone(l.base[f])
	var waiting []Change
	for _, c := range l.Changes[:n] {
		switch {
		case c.File != f:
		case c.Kind == Sync:
			for _, c := range waiting {
				b = c.apply(b, 0, func(int) Kept { return Written })
			}
			waiting = waiting[:0]
		default:
			waiting = append(waiting, c)
		}
	}
	durable := int64(len(b))
	for i, c := range waiting {
		b = c.apply(b, durable, func(sector int) Kept { return fate(i, sector) })
	}
	return b
}

// apply makes what was kept of a change, in a file of which so much is durable.
func (c *Change) apply(b []byte, durable int64, kept func(sector int) Kept) []byte {
	switch {
	case c.Kind == Delete:
		if kept(0) == Written {
			return nil
		}
	case c.Kind == Truncate:
		if kept(0) == Written {
			return resize(b, c.at)
		}
	default:
		for from, n := 0, 0; from < len(c.data); n++ { // to the next boundary of the disk's
			at := c.at + int64(from)
			to := min(len(c.data), from+sector-int(at%sector))
			data := c.data[from:to]
			switch k := kept(n); {
			case k == Garbage && at >= durable:
				data = garbage[:len(data)]
				fallthrough
			case k == Written:
				b = resize(b, max(int64(len(b)), at+int64(len(data))))
				copy(b[at:], data)
			}
			from = to
		}
	}
	return b
}

// garbage is what a sector may hold that was never written.
var garbage = slices.Repeat([]byte{0xa5, 0x00, 0xff, 0x37}, sector/4)

// resize cuts a file, or adds zeros to it.
func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
