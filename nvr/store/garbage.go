package store

import (
	"fmt"
	"time"
)

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
