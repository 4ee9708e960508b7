package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir"
)

// suspectName is the file beside the database that says that damage was seen in
// it, so that the next start looks at all of it.
const suspectName = "db.suspect"

// How damage is told from a disk that does not read for a while: SQLite calls
// both malformed.
const (
	unreadFor  = 10 * time.Minute // a sector that cannot be read for so long is lost
	unreadOnce = 5 * time.Minute  // without a look between two such errors they are of two times
	judgeEvery = 30 * time.Second
	soundFor   = 10 * time.Minute // after all of the database was seen to be well
	mostSound  = 3                // and something of it does not work all the same
)

// damage is what is known of damage of the database.
type damage struct {
	mu      sync.Mutex // a leaf
	judging bool
	judged  time.Time
	wait    time.Duration // after judged, before the next time
	sound   int           // how often all was well since a flush was whole
	unread  time.Time     // since when its files cannot be read, or zero
	told    time.Time     // when that was last seen
	line    time.Time     // when the log last said so
	cause   string        // for HealthChecks
	noted   error         // what the next start is told of
}

// suspect takes an error that says that the database is damaged, from whoever
// met it, and has that looked into: it waits for nothing. While the store opens
// or closes it is the next start that looks.
func (s *Store) suspect(err error) {
	d := &s.damage
	if s.run == nil || s.run.Err() != nil {
		s.tellNext(err) // nothing is proved
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.judging || !d.judged.IsZero() && time.Since(d.judged) < d.wait {
		return
	}
	d.judging, d.wait = true, judgeEvery
	s.running.Go(func() {
		s.look(s.run, err)
		d.mu.Lock()
		d.judging, d.judged = false, time.Now()
		d.mu.Unlock()
	})
}

// look finds out whether the database is damaged as err says.
func (s *Store) look(ctx context.Context, err error) {
	d := &s.damage
	d.mu.Lock()
	found := d.noted
	d.mu.Unlock()
	if found == nil {
		var unknown error
		if found, unknown = s.judge(ctx); ctx.Err() != nil {
			return
		} else if unknown != nil {
			if d.tells() {
				s.log.Error("the database cannot be read; trying again", "err", unknown, "met", err)
			}
			return
		}
		d.mu.Lock()
		if found == nil {
			d.wait = soundFor
			if d.sound++; d.sound >= mostSound {
				found = err
			}
		}
		d.mu.Unlock()
	}
	if found == nil {
		s.log.Warn("the database is sound, though something in it could not be read", "met", err)
		return
	}
	s.believe(found)
}

// judge looks at all of the database. damage says what is damaged, err why
// nobody knows: it cannot be read at the moment, which the look takes for damage.
func (s *Store) judge(ctx context.Context) (damage, err error) {
	damage, err = damageOf(ctx, s.db)
	if damage == nil && !db.Unread(err) {
		return nil, err
	}
	if lost, unknown := s.unreadable(ctx); lost != nil || unknown != nil {
		return lost, unknown
	}
	return damageOf(ctx, s.db) // it may have been the disk, until just now
}

// unreadable is an error when the files of the database cannot be read, and
// damage when that has been so for long.
func (s *Store) unreadable(ctx context.Context) (damage, err error) {
	err = s.cfg.readable(ctx, s.db.Path())
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	d := &s.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.unread, d.cause = time.Time{}, ""
		return nil, nil
	}
	now := time.Now()
	if d.unread.IsZero() || now.Sub(d.told) > unreadOnce {
		d.unread = now
	}
	d.told = now
	d.cause = "the database cannot be read: " + err.Error()
	if now.Sub(d.unread) >= unreadFor {
		return err, nil
	}
	return nil, err
}

// tells reports whether it is time for a line about a database that cannot be read.
func (d *damage) tells() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.line.IsZero() || time.Since(d.line) >= unreadFor
	if first {
		d.line = time.Now()
	}
	return first
}

// whole notes that a flush met nothing that looked damaged.
func (d *damage) whole() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sound = 0
	if d.noted == nil {
		d.cause = ""
	}
}

// fault says for HealthChecks what is wrong with the database.
func (d *damage) fault() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cause
}

// believe notes damage of the database. Where there is a copy to go back to the
// process ends, because the next start restores it; where there is none
// recording goes on, and what is durable waits for a rebuild.
func (s *Store) believe(found error) {
	if !s.note(found) {
		return
	}
	s.mu.RLock()
	dirs := s.dirs
	s.mu.RUnlock()
	for _, d := range dirs {
		dir, _ := d.disk()
		if disk, ok := dir.(*sampledir.Disk); ok && len(disk.Backups()) > 0 {
			s.poison(fmt.Errorf("database is damaged, the next start restores it: %w", found))
			return
		}
	}
}

// note keeps that damage is certain, and tells the next start.
func (s *Store) note(found error) bool {
	d := &s.damage
	d.mu.Lock()
	if d.noted != nil {
		d.mu.Unlock()
		return true
	}
	d.noted, d.cause = found, "the database is damaged: "+found.Error()
	d.mu.Unlock()
	if err := s.tellNext(found); err != nil {
		d.mu.Lock()
		d.noted = nil
		d.mu.Unlock()
		return false
	}
	return true
}

// tellNext has the next start look at all of the database.
func (s *Store) tellNext(found error) error {
	name := filepath.Join(s.cfg.Dir, suspectName)
	if err := os.WriteFile(name, []byte(found.Error()+"\n"), 0o600); err != nil {
		s.log.Error("the next start is not told of the damage", "err", err)
		return err
	}
	if err := errors.Join(syncFile(name), syncPath(s.cfg.Dir)); err != nil {
		s.log.Error("the next start may not be told of the damage", "err", err)
	}
	return nil
}

// damageOf looks at all of a database and says what is damaged, nil when nothing
// is. err says why nobody knows.
func damageOf(ctx context.Context, d *db.DB) (damage, err error) {
	found, err := d.Integrity(ctx)
	switch {
	case db.Damaged(err):
		return err, nil
	case err != nil:
		return nil, err
	case len(found) > 0:
		return fmt.Errorf("%s (and %d more)", found[0], len(found)-1), nil
	}
	return nil, nil
}
