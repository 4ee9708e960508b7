package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// missedEvery is how often the log names files that were gone already.
const missedEvery = time.Hour

// reportMissed says which files were gone before the recorder deleted them.
func (d *directory) reportMissed() {
	if d.missed == 0 || time.Since(d.saidMissed) < missedEvery {
		return
	}
	d.store.log.Warn("files of deleted recordings were gone already, and the recorder did not delete them",
		"dir", d.path, "files", d.missed, "recordings", listed(d.missedIDs, mostListed)+more(d.missed-len(d.missedIDs)))
	d.missed, d.missedIDs, d.saidMissed = 0, nil, time.Now()
}

// unlinksPerStep keeps a big clean-up from delaying the next sync.
const unlinksPerStep = 64

// collect unlinks garbage: files whose garbage rows are committed. Their rows
// go with the next flush, after the directory was synced. A file that is gone
// already counts as unlinked; where its row was deleted just now, somebody else
// has taken it, and the log says so (R30).
func (d *directory) collect() error {
	ids, had := d.toUnlink()
	if len(ids) == 0 {
		return nil
	}
	var done, left []int64
	var failed error
	for _, id := range ids {
		d.close(id)
		switch err := d.dir.Unlink(id); {
		case errors.Is(err, fs.ErrNotExist):
			if had[id] {
				d.missed++
				if len(d.missedIDs) < mostListed {
					d.missedIDs = append(d.missedIDs, id)
				}
			}
		case err != nil:
			left, failed = append(left, id), err
			continue
		}
		done = append(done, id)
	}
	if len(done) > 0 {
		if err := d.sync(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.gone = append(d.gone, done...)
	// What could not be unlinked waits behind the rest.
	d.garbage = append(slices.Clone(d.garbage[len(ids):]), left...)
	d.mu.Unlock()
	return failed
}

// toUnlink is garbage for one step, and which of it lost its row in this process.
func (d *directory) toUnlink() (ids []int64, had map[int64]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids, had = d.garbage[:min(len(d.garbage), unlinksPerStep)], make(map[int64]bool)
	for _, id := range ids {
		_, had[id] = d.room.sizes[id]
	}
	return ids, had
}

// discard gives the directory files to unlink. Their garbage rows must be
// committed.
func (d *directory) discard(ids ...int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.hold(id)
	}
}

// hold takes a file to unlink over, and reports false when it has it already.
// The caller holds mu.
func (d *directory) hold(id int64) bool {
	if _, twice := d.held[id]; twice {
		return false
	}
	d.held[id] = time.Now()
	d.garbage = append(d.garbage, id)
	return true
}

// collected forgets the first n files that are gone: their rows are, too.
func (d *directory) collected(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.gone[:n] {
		delete(d.held, id)
	}
	d.gone = slices.Clone(d.gone[n:])
}

// garbageOld is how long a garbage row may be there while its directory is
// well. A store that is full always has some: each is there for seconds, and
// up to the next flush. Where nothing is recorded that is the hourly one.
const garbageOld = ageEvery + ageEvery/2

// garbageLook is how often it is looked for such.
const garbageLook = time.Minute

// lookAtGarbage raises the alarm of the directory when garbage only grows, and
// ends it. Its own goroutine calls it, at the end of a step.
func (d *directory) lookAtGarbage() {
	if time.Since(d.looked) < garbageLook {
		return
	}
	d.looked = time.Now()
	failing := d.store.plans.failing()
	d.mu.Lock()
	// A directory that comes back has much to do; that it does not do it
	// counts from then.
	old := func(ids []int64) (n int, longest time.Duration) {
		for _, id := range ids {
			since := d.held[id]
			if since.Before(d.well) {
				since = d.well
			}
			if age := time.Since(since); age > garbageOld {
				n, longest = n+1, max(longest, age)
			}
		}
		return n, longest.Round(time.Minute)
	}
	gone, goneFor := old(d.gone)
	left, leftFor := old(d.garbage)
	alarm := ""
	switch {
	case d.err != nil: // which is shown, and says why
	case gone > 0 && failing != nil:
		alarm = fmt.Sprintf("%d files are gone and their garbage rows are not, for up to %v: flush: %v", gone, goneFor, failing)
	case gone > 0:
		alarm = fmt.Sprintf("%d files are gone and their garbage rows are not, for up to %v: no flush takes them away", gone, goneFor)
	case left > 0:
		alarm = fmt.Sprintf("%d files that are to go are still there, for up to %v: the disk unlinks them slower than they come", left, leftFor)
	}
	d.alarm = alarm
	raised := alarm != "" && !d.raised
	ended := d.raised && gone == 0 && left == 0
	if raised || ended {
		d.raised = raised
	}
	d.mu.Unlock()
	switch {
	case raised:
		d.store.log.Error("garbage only grows", "dir", d.path, "cause", alarm)
	case ended:
		d.store.log.Info("garbage goes again", "dir", d.path)
	}
}

// alarmed says why the garbage of the directory only grows, "" when it does
// not.
func (d *directory) alarmed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.alarm
}

// collectable reports whether there are garbage rows that a flush would take
// away, and nobody has flushed for long.
func (s *Store) collectable() bool {
	if time.Since(s.plans.flushed()) < ageEvery/4 {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.dirs {
		d.mu.Lock()
		n := len(d.gone)
		d.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}
