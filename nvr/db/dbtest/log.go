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

// Fate says what becomes of a sector of a change that was not synced when the
// power failed: i counts those changes of a file, from 0, and sector those of its
// data. Deletions and truncations have one sector.
type Fate func(i, sector int) (kept bool)

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

// changed takes down a change that has succeeded.
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
				b = c.apply(b, func(int) bool { return true })
			}
			waiting = waiting[:0]
		default:
			waiting = append(waiting, c)
		}
	}
	for i, c := range waiting {
		b = c.apply(b, func(sector int) bool { return fate(i, sector) })
	}
	return b
}

// apply makes the part of a change that was kept.
func (c *Change) apply(b []byte, kept func(sector int) bool) []byte {
	switch {
	case c.Kind == Delete:
		if kept(0) {
			return nil
		}
	case c.Kind == Truncate:
		if kept(0) {
			return resize(b, c.at)
		}
	default:
		for from, n := 0, 0; from < len(c.data); n++ { // to the next boundary of the disk's
			to := min(len(c.data), from+sector-int((c.at+int64(from))%sector))
			if kept(n) {
				b = resize(b, max(int64(len(b)), c.at+int64(to)))
				copy(b[c.at+int64(from):], c.data[from:to])
			}
			from = to
		}
	}
	return b
}

// resize cuts a file, or adds zeros to it.
func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
