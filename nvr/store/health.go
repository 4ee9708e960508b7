package store

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// stuckAfter is how long the disk or the database may take before the recorder
// calls itself unwell. SD cards are known to stall for tens of seconds.
const stuckAfter = time.Minute

// probeTime is how long Healthy waits for the database: less than any
// supervisor waits for Healthy.
const probeTime = 2 * time.Second

// pulse is what Healthy needs to know of goroutines that may hang.
type pulse struct {
	mu         sync.Mutex // a leaf
	flushes    int        // under way or waiting for their turn
	flushSince time.Time  // since when there has been one all the time, or none ended
	turned     time.Time  // when the flusher last looked at its plans

	probing    bool
	probeSince time.Time
	probed     error // how the last probe ended
}

// beginFlush notes a flush; call what it returns at its end.
func (p *pulse) beginFlush() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushes++; p.flushes == 1 {
		p.flushSince = time.Now()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.flushes--
		p.flushSince = time.Now() // for those that wait still
	}
}

// turnOfFlusher notes that the flusher's goroutine lives.
func (p *pulse) turnOfFlusher() {
	p.mu.Lock()
	p.turned = time.Now()
	p.mu.Unlock()
}

// Healthy reports whether recording makes progress: what the streams deliver
// becomes durable, their recording loops move, every directory comes to the end
// of its steps, the flusher does its work, and the database answers. A camera
// that delivers nothing is no fault, nor is a disk that is slow for less than a
// minute, nor one that is full or gives errors, nor a flush that fails: they are
// shown and tried again, and a restart would only lose what memory holds. It
// answers within seconds, whatever hangs. It must not be called after Close.
func (s *Store) Healthy(ctx context.Context) error {
	s.mu.RLock()
	dirs := s.dirs
	s.mu.RUnlock()
	for _, d := range dirs {
		if err := d.stuck(); err != nil {
			return err
		}
	}
	for _, st := range s.allStreams() {
		if err := st.moves(); err != nil {
			return err
		}
	}
	if err := s.flusherAlive(); err != nil {
		return err
	}
	return s.probe(ctx)
}

// moves reports a stream whose units go nowhere. It takes no lock of the
// stream: whoever has it may be what hangs.
func (st *Stream) moves() error {
	now := time.Since(st.store.opened)
	if since := st.undurable.Load(); since > 0 && st.dir.problem() == "" {
		if d := now - time.Duration(since); d > stuckAfter {
			return fmt.Errorf("%s %s: pictures come, and none has become durable for %v", st.name, st.typ, d.Round(time.Second))
		}
	}
	// A session without pictures ends after seconds, and its loop says so.
	if d := now - time.Duration(st.stirred.Load()); st.records.Load() && d > stuckAfter {
		return fmt.Errorf("%s %s: its recording loop has not moved for %v", st.name, st.typ, d.Round(time.Second))
	}
	return nil
}

// stuck is an error when the directory hangs.
func (d *directory) stuck() error {
	if took := d.hangs(); took > stuckAfter {
		return fmt.Errorf("sample directory %s: the disk has not answered for %v", d.path, took.Round(time.Second))
	}
	return nil
}

// HealthCheck is one thing that recording needs, and what is wrong with it.
type HealthCheck struct {
	Name  string // database, or directory and the id of a sample directory
	Cause string // "": nothing
}

// HealthChecks says of the database and of each sample directory whether they are at
// fault: the database had no room on its disk, is damaged or cannot be read; a directory is not used, does not
// take writes now, hangs, or its garbage only grows. It asks no disk.
func (s *Store) HealthChecks() []HealthCheck {
	s.mu.RLock()
	dirs := s.dirs
	s.mu.RUnlock()
	checks := []HealthCheck{{"database", cmp.Or(s.ballast.fault(), s.damage.fault(), s.pulse.unread())}}
	for _, d := range dirs {
		c := HealthCheck{Name: fmt.Sprintf("directory %d", d.id)}
		at := "sample directory " + d.path
		if err := d.stuck(); err != nil {
			c.Cause = err.Error()
		} else if problem := d.problem(); strings.HasPrefix(problem, at) {
			c.Cause = problem
		} else if problem != "" {
			c.Cause = at + ": " + problem
		} else if alarm := d.alarmed(); alarm != "" {
			c.Cause = at + ": " + alarm
		}
		checks = append(checks, c)
	}
	return checks
}

// Restored says in a sentence that this start found the database lost, why, and
// what its copy does not bring back; "" when it did not.
func (s *Store) Restored() string { return s.restored }

// flusherAlive tells a flusher that hangs from one that waits.
func (s *Store) flusherAlive() error {
	plan, planned := s.plans.next()
	p := &s.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushes > 0 {
		if d := time.Since(p.flushSince); d > stuckAfter {
			return fmt.Errorf("a flush has been under way for %v", d.Round(time.Second))
		}
		return nil
	}
	// The plan is looked at when it is due, or, after a failure, a minute
	// later; either is a turn.
	if planned {
		due := plan.at
		if p.turned.After(due) {
			due = p.turned.Add(flushRetry)
		}
		if d := time.Since(due); d > stuckAfter {
			return fmt.Errorf("a flush is past due for %v", d.Round(time.Second))
		}
	}
	return nil
}

// probe asks the database for something, and is an error when no answer comes. One
// that says that it cannot be read is an answer, which HealthChecks shows: a
// restart would not read better, and lose what memory holds. One question is under
// way at a time, and an answer that is late is waited for by the next call.
func (s *Store) probe(ctx context.Context) error {
	p := &s.pulse
	p.mu.Lock()
	if p.probing {
		d := time.Since(p.probeSince)
		p.mu.Unlock()
		if d > stuckAfter {
			return fmt.Errorf("the database has not answered for %v", d.Round(time.Second))
		}
		return nil
	}
	p.probing, p.probeSince = true, time.Now()
	p.mu.Unlock()
	answered := make(chan struct{})
	s.running.Go(func() {
		_, err := s.db.State(s.run)
		p.mu.Lock()
		p.probing, p.probed = false, err
		p.mu.Unlock()
		close(answered)
	})
	t := time.NewTimer(probeTime)
	defer t.Stop()
	select {
	case <-answered:
	case <-t.C:
		return nil // not yet
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// unread says why the database could not be read when it was last asked, "" when
// it could.
func (p *pulse) unread() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probed == nil {
		return ""
	}
	return "the database cannot be read: " + p.probed.Error()
}
