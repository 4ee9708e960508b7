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
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// suspectName is the file beside the database that says that damage was seen in
// it, so that the next start looks at all of it.
const suspectName = "db.suspect"

// unprovenName is the file beside the database that says when the process last ended
// for what nothing explains.
const unprovenName = "db.unproven"

// How damage is told from a disk that does not read for a while: SQLite calls
// both malformed.
const (
	unreadFor  = 10 * time.Minute // a sector that cannot be read for so long is lost
	unreadOnce = 5 * time.Minute  // without a look between two such errors they are of two times
	judgeEvery = 30 * time.Second
	soundFor   = 10 * time.Minute // after all of the database was seen to be well
	mostSound  = 3                // and something of it does not work all the same
	endEvery   = 24 * time.Hour   // for that the process ends
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
	cause   string        // for HealthChecks, as long as none is noted
	noted   error         // what the next start is told of
	copies  bool          // whether there may be a copy to go back to that is whole

	looks chan struct{} // filled while all of the database is looked at, which one does at a time
}

func (d *damage) init() { d.copies, d.looks = true, make(chan struct{}, 1) }

// startsWith takes what a start found damaged that it goes on with, as no copy takes
// its place.
func (d *damage) startsWith(found error) { d.noted, d.copies = found, false }

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
	unexplained := false
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
			d.sound++
			unexplained = d.sound >= mostSound
		}
		d.mu.Unlock()
	}
	if found == nil {
		s.log.Warn("the database is sound, though something in it could not be read", "met", err)
		if unexplained {
			s.unproven(err)
		}
		return
	}
	s.believe(found)
}

// unproven is told of what does not work though all of the database was looked at
// again and again and is sound. A copy would be no better. A process with other memory
// may be: this one ends, but once a day only, as footage is recorded without the
// database, too.
func (s *Store) unproven(met error) {
	d := &s.damage
	d.mu.Lock()
	d.cause = "something of the database does not work, though nothing damaged is found in it: " + met.Error() + "; if that stays, run nvr rebuild"
	d.mu.Unlock()
	if s.mayEnd(met) {
		s.poison(fmt.Errorf("the database does not work, and nothing explains it: %w", met))
	}
}

// mayEnd reports whether the process may end for what the next start may not mend,
// and notes that it does: once a day.
func (s *Store) mayEnd(met error) bool {
	now := media.TimeOf(s.now())
	var last media.Time
	if b, err := os.ReadFile(filepath.Join(s.cfg.Dir, unprovenName)); err == nil {
		if _, err := fmt.Sscan(string(b), &last); err == nil && now >= last && now.Sub(last).Std() < endEvery {
			return false
		}
	}
	if err := s.leave(unprovenName, fmt.Sprintf("%d %v", now, met)); err != nil {
		s.log.Error("a start anew might help, and nothing would bound how often: recording goes on", "err", err)
		return false
	}
	return true
}

// copyCame is told of a directory that was not there at the start. Where that went on
// with a damaged database, the next one may find the copy in it whole.
func (s *Store) copyCame(dir sampledir.Dir) {
	d := &s.damage
	d.mu.Lock()
	damage, none := d.noted, !d.copies
	d.mu.Unlock()
	if disk, ok := dir.(*sampledir.Disk); ok && damage != nil && none && len(disk.Backups()) > 0 && s.mayEnd(damage) {
		s.poison(fmt.Errorf("database is damaged, and a directory with a copy of it came: %w", damage))
	}
}

// judge looks at all of the database. damage says what is damaged, err why
// nobody knows: it cannot be read at the moment, which the look takes for damage.
func (s *Store) judge(ctx context.Context) (damage, err error) {
	select {
	case s.damage.looks <- struct{}{}:
		defer func() { <-s.damage.looks }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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

func (d *damage) isNoted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.noted != nil
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
	d.cause = ""
}

// fault says for HealthChecks what is wrong with the database.
func (d *damage) fault() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.noted == nil:
		return d.cause
	case !d.copies:
		return "the database is damaged, and no copy of it is whole: " + d.noted.Error() + "; run nvr rebuild"
	}
	return "the database is damaged: " + d.noted.Error()
}

// believe notes damage of the database. Where there is a copy to go back to the
// process ends, because the next start restores it; where there is none
// recording goes on, and what is durable waits for a rebuild.
func (s *Store) believe(found error) {
	if s.note(found) && s.copied() {
		s.poison(fmt.Errorf("database is damaged, the next start restores it: %w", found))
	}
}

// copied reports whether there is a copy of the database to go back to. A disk that
// hangs is waited for only when no other has one.
func (s *Store) copied() bool {
	s.damage.mu.Lock()
	none := !s.damage.copies
	s.damage.mu.Unlock()
	if none {
		return false
	}
	s.mu.RLock()
	dirs := s.dirs
	s.mu.RUnlock()
	has := make(chan bool, len(dirs))
	for _, d := range dirs {
		go func() {
			dir, _ := d.disk()
			disk, ok := dir.(*sampledir.Disk)
			has <- ok && len(disk.Backups()) > 0
		}()
	}
	for range dirs {
		select {
		case one := <-has:
			if one {
				return true
			}
		case <-s.run.Done():
			return false
		}
	}
	return false
}

// note keeps that damage is certain, and tells the next start.
func (s *Store) note(found error) bool {
	d := &s.damage
	d.mu.Lock()
	if d.noted != nil {
		d.mu.Unlock()
		return true
	}
	d.noted = found
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
	err := s.leave(suspectName, found.Error())
	if err != nil {
		s.log.Error("the next start is not told of the damage", "err", err)
	}
	return err
}

// leave makes a file for the next start, durable: the page cache is dropped before it.
func (s *Store) leave(file, text string) error {
	name := filepath.Join(s.cfg.Dir, file)
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(name), syncPath(s.cfg.Dir))
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
