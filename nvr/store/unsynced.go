package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/store/internal/sampledir"
)

// A sync of a directory that fails leaves a page cache that may show what the
// disk does not hold, and a second one proves nothing. While recording it ends
// the process (storage.md rule 14). At the start, where nothing was taken for
// durable yet, only the directory is left alone, up to the next process, which is
// asked for after a while; and one that ended several processes in a row is tried
// later and later, so that the others record.

// endsName is the file beside the database that says which sample directories
// ended the recorder, and how often in a row: a uuid and a number a line.
const endsName = "db.unsynced"

// A directory that ended more processes in a row than endsFree is first tried so
// long after the start, and twice as long for each further one. They are in a
// row as long as it did not do well for endsOver.
const (
	endsFree  = 2
	endsPause = 10 * time.Minute
	mostPause = 24 * time.Hour
	endsOver  = time.Hour
)

// startEnds is the line of that file for the processes that left something alone
// at their start. They ask to be ended after endsPause, and twice as long for each
// further one in a row; where nothing records meanwhile, after aloneEnds, and an
// hour at most.
const (
	startEnds = "start"
	aloneEnds = time.Minute
	mostAlone = time.Hour
)

// doubtEnds is the line of that file for a process that left something alone at
// its start and has not said so at its end yet: it may be killed.
const doubtEnds = "doubt"

// endings is that file.
type endings struct {
	path string
	mu   sync.Mutex
}

// of is how many processes in a row a directory has ended.
func (e *endings) of(uuid string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.read()[uuid]
}

// read reads the file. One that is not readable says nothing: it is a help.
func (e *endings) read() map[string]int {
	counts := make(map[string]int)
	b, err := os.ReadFile(e.path)
	if err != nil {
		return counts
	}
	for line := range strings.Lines(string(b)) {
		var uuid string
		var n int
		if got, _ := fmt.Sscan(line, &uuid, &n); got == 2 {
			counts[uuid] = n
		}
	}
	return counts
}

// set notes the count of a directory; 0 forgets it.
func (e *endings) set(uuid string, n int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := e.read()
	if counts[uuid] = n; n == 0 {
		delete(counts, uuid)
	}
	if len(counts) == 0 {
		if err := os.Remove(e.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncPath(filepath.Dir(e.path))
	}
	var b strings.Builder
	for uuid, n := range counts {
		fmt.Fprintln(&b, uuid, n)
	}
	next := e.path + ".new"
	if err := os.WriteFile(next, []byte(b.String()), 0o600); diskFull(err) && n == 0 {
		// Without room what the others did is forgotten, too.
		return errors.Join(os.Remove(e.path), syncPath(filepath.Dir(e.path)))
	} else if err != nil {
		return err
	}
	if err := errors.Join(syncFile(next), os.Rename(next, e.path)); err != nil {
		return err
	}
	return syncPath(filepath.Dir(e.path))
}

// doubt says what the data directory has of processes that a sync ended: each line
// in doubt, and what is known of the others. dirs are the sample directories' paths by uuid.
func (e *endings) doubt(dirs map[string]string, found, note func(what, object, format string, args ...any)) {
	counts := e.read()
	for _, uuid := range slices.Sorted(maps.Keys(counts)) {
		switch n, path := counts[uuid], dirs[uuid]; {
		case uuid == doubtEnds:
			found("doubt", e.path, "%v; start the recorder, which sees to that, or restart the machine and remove this file", errDoubt)
		case uuid == startEnds:
			note("doubt", e.path, "the last %d starts in a row left something alone that did not sync", n)
		case path != "":
			note("doubt", path, "its sync failed and ended the recorder %d times in a row", n)
		}
	}
}

// mayBeTried is an error as long as the directory is to be left alone because
// it ended the processes before this one.
func (d *directory) mayBeTried() error {
	if d.ends = d.store.ends.of(d.uuid); d.ends <= endsFree {
		return nil
	}
	pause := doubled(endsPause, mostPause, d.ends-endsFree-1)
	d.notBefore = time.Now().Add(pause)
	return fmt.Errorf("sample directory %s: its sync failed and ended the recorder %d times in a row; it is tried again %v after the start", d.path, d.ends, pause)
}

// sync makes what was created and unlinked durable. When that fails, the process
// ends, and the next one is told who ended it.
func (d *directory) sync() error {
	if err := d.dir.Sync(); err != nil {
		d.failed(err)
		return err
	}
	d.synced()
	return nil
}

// synced is told that entries of the directory became durable: after a while that
// counts for the next start.
func (d *directory) synced() {
	s := d.store
	if d.ends > 0 && time.Since(d.began) >= endsOver {
		d.ends = 0
		if err := s.ends.set(d.uuid, 0); err != nil {
			s.log.Warn("the next start is not told that a directory does well", "dir", d.path, "err", err)
		}
	}
}

// failed ends the process, and tells the next one which directory it was.
func (d *directory) failed(err error) {
	s := d.store
	// Nothing is committed while that is noted, and one end of the process counts once.
	if !s.poisoned.Swap(true) {
		if err := s.ends.set(d.uuid, s.ends.of(d.uuid)+1); err != nil {
			s.log.Warn("the next start is not told which directory failed", "dir", d.path, "err", err)
		}
	}
	s.poison(err)
}

// refuse leaves the directory alone, and says why. After a sync that failed that
// is for as long as the process lives.
func (d *directory) refuse(err error) {
	if errors.Is(err, sampledir.ErrUnsynced) {
		d.store.doubts(err)
		err = fmt.Errorf("sample directory %s is not used before the next start: %w", d.path, err)
	}
	d.mu.Lock()
	was := d.unavailable
	if d.unavailable = err; d.dir != nil {
		d.dir.Close()
		d.dir = nil
	}
	d.mu.Unlock()
	if was == nil || err.Error() != was.Error() {
		d.store.log.Error("sample directory is not used", "dir", d.path, "err", err)
	}
}

// doubts notes a sync that failed at the start. The end of the process, whenever
// it is, asks for an empty page cache: the next start would take for durable what
// only that holds. One that is killed cannot ask, so the next one does at its start.
func (s *Store) doubts(err error) {
	if !s.unsynced.CompareAndSwap(nil, &err) {
		return
	}
	if err := s.ends.set(doubtEnds, 1); err != nil {
		s.log.Warn("the next start is not told that a sync failed at this one", "err", err)
	}
	close(s.doubted)
}

// inDoubt adds ErrPoisoned to how the store ends, when a sync failed at the start.
func (s *Store) inDoubt(err error) error {
	if doubt := s.unsynced.Load(); doubt != nil {
		return errors.Join(err, fmt.Errorf("%w: %w", ErrPoisoned, *doubt))
	}
	return err
}

// errDoubt is why nobody believes the page cache: see doubts.
var errDoubt = fmt.Errorf("%w: a sync failed at the start of a recorder that was then killed, so files may be seen that are not on the disk", ErrPoisoned)

// settleDoubt is the last that a process does which ends with ErrPoisoned: the
// page cache is dropped now, and the next one need not ask for that.
func (s *Store) settleDoubt() {
	if s.cfg.ByHand || s.ends.of(doubtEnds) == 0 {
		return
	}
	if err := s.ends.set(doubtEnds, 0); err != nil {
		s.log.Warn("the next start asks for another one", "err", err)
	}
}

// Again delivers an error of kind ErrPoisoned when another process could do what
// this one must not: use what did not sync at the start. The process should end
// in order then, with Close, and with that error.
func (s *Store) Again() <-chan error { return s.again }

// askAgain waits for a doubt, and then for as long as others should record
// without being interrupted for it.
func (s *Store) askAgain(ctx context.Context) {
	n := s.ends.of(startEnds)
	over := time.NewTimer(endsOver)
	defer over.Stop()
	for doubted := false; !doubted; {
		select {
		case <-ctx.Done():
			return
		case <-s.doubted:
			doubted = true
		case <-over.C:
			if n > 0 {
				n = 0
				s.noteStarts(0)
			}
		}
	}
	s.noteStarts(n + 1)
	pause := doubled(aloneEnds, mostAlone, n)
	s.mu.RLock()
	dirs := s.dirs
	s.mu.RUnlock()
	for _, d := range dirs {
		if d.fault() == nil {
			pause = doubled(endsPause, mostPause, n)
		}
	}
	s.log.Warn("a restart is asked for, to try again what did not sync", "in", pause, "err", *s.unsynced.Load())
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		s.again <- fmt.Errorf("%w: after %v it is tried again: %w", ErrPoisoned, pause, *s.unsynced.Load())
	}
}

func (s *Store) noteStarts(n int) {
	if err := s.ends.set(startEnds, n); err != nil {
		s.log.Warn("the next start is not told how often a start left a directory alone", "err", err)
	}
}

// doubled is d, n times doubled, and not more than most.
func doubled(d, most time.Duration, n int) time.Duration {
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	return min(d, most)
}
