package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"holdfast/nvr/store/internal/sampledir"
)

// ballastName is a file beside the database that takes room and holds nothing.
const ballastName = "db.ballast"

// ballast gives the database room on a disk that is full: enough to commit the
// deletion that makes more. It goes once, when a transaction finds no room, and
// comes back when the disk has its floor free again.
type ballast struct {
	path string
	log  *slog.Logger

	spent atomic.Bool // it was given up, and is not back; read while a disk hangs

	mu    sync.Mutex // held while the file is made or removed; nothing else is locked under it
	off   bool       // none is kept
	there bool
	size  int64 // as wanted; 0 before the disk was asked
	mute  bool  // that there is none was said
}

// largestBallast is that of a disk of a gigabyte and more; a smaller one gives a
// sixteenth.
const largestBallast = 64 << 20

// keep makes the file if it is missing and there is room for it.
func (b *ballast) keep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off || b.there {
		return
	}
	err := b.make()
	switch {
	case err == nil:
		b.there, b.mute = true, false
		b.spent.Store(false)
		b.log.Info("room is reserved for the database", "path", b.path, "bytes", b.size)
	case errors.Is(err, errors.ErrUnsupported):
		b.off = true
		b.log.Info("no room is reserved for the database: its file system cannot", "path", b.path)
	case !b.mute:
		b.mute = true
		b.log.Warn("no room is reserved for the database yet", "path", b.path, "err", err)
	}
}

func (b *ballast) make() error {
	dir := filepath.Dir(b.path)
	sp, err := sampledir.SpaceAt(dir)
	if err != nil {
		return err
	}
	b.size = min(largestBallast, sp.Total/16)
	if sampledir.Reserved(b.path, b.size) {
		return nil // by a process before this one
	}
	if sp.Free-b.size < floorOf(sp.Total) {
		return fmt.Errorf("%d of %d MB are free", sp.Free>>20, sp.Total>>20)
	}
	if err := sampledir.Reserve(b.path, b.size); err != nil {
		return err
	}
	return syncPath(dir)
}

// release removes the file. It reports whether there was one, so whether there
// is room now that there was not before.
func (b *ballast) release(cause error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off {
		return false
	}
	b.there = false
	b.spent.Store(true)
	err := os.Remove(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = syncPath(filepath.Dir(b.path)) // the blocks are free when the removal is durable
	}
	if err != nil {
		b.log.Error("the room reserved for the database cannot be used", "err", err)
		return false
	}
	b.log.Warn("the database found no room on its disk; what was reserved for it is used", "path", b.path, "cause", cause)
	return true
}

// missing is how many bytes the file would take that is not there.
func (b *ballast) missing() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off || b.there {
		return 0
	}
	return b.size
}

// fault says that the file was given up, "" while it was not. It waits for no
// disk.
func (b *ballast) fault() string {
	if !b.spent.Load() {
		return ""
	}
	return "the disk of the database was full, and the room reserved for it is used up: " + b.path
}
