package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir"
)

// A disk may be missing at the start, go, and come back. Nothing is written to a
// directory before it has said that it is the right one, each time anew
// (storage.md rules 17 and 18).

// An unusable directory is tried again after 10 s, and after a minute once it has
// been away for longer.
const (
	absentRetry  = 10 * time.Second
	absentRetry2 = time.Minute
	absentLong   = 2 * time.Minute
)

// fault is why the directory is not used at all, nil when it is.
func (d *directory) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unavailable
}

// disk is the directory on its disk. Only its goroutine changes it, and needs
// not ask.
func (d *directory) disk() (sampledir.Dir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unavailable != nil {
		return nil, d.unavailable
	}
	return d.dir, nil
}

// lost reports whether the disk of a directory is taken for gone: it is not used,
// is not at its path, or has done nothing for a minute but fail or hang.
func (d *directory) lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	long := func(since time.Time) bool { return !since.IsZero() && time.Since(since) > stuckAfter }
	return d.unavailable != nil || d.away || long(d.failing) || long(d.working)
}

// await tries an unusable directory until it can be used. It reports whether
// that has come.
func (d *directory) await(ctx context.Context) bool {
	began := time.Now()
	t := time.NewTicker(absentRetry)
	defer t.Stop()
	tried := began
	for d.fault() != nil {
		select {
		case <-ctx.Done():
			return false
		case done := <-d.wake:
			close(done)
		case <-t.C:
			now := time.Now()
			if errors.Is(d.fault(), sampledir.ErrUnsynced) || now.Before(d.notBefore) {
				continue
			}
			if now.Sub(began) < absentLong || now.Sub(tried) >= absentRetry2 {
				tried = now
				d.arrive(ctx)
			}
		}
	}
	return true
}

// arrive takes an unusable directory into use, if it can be now: as the start
// does, in the same order.
func (d *directory) arrive(ctx context.Context) {
	s := d.store
	if s.poisoned.Load() {
		return
	}
	err := d.open(ctx)
	if err == nil {
		s.copyCame(d.dir)
		err = d.adoptLate(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.refuse(err)
		return
	}
	d.mu.Lock()
	d.unavailable = nil
	d.mu.Unlock()
	s.log.Info("sample directory is used from now on", "dir", d.path)
	s.plan(nil, earlierPlan, time.Now()) // no commit holds up what is recorded from now on
}

// open makes sure that the directory is the right one, and that it and the
// database agree on this open.
func (d *directory) open(ctx context.Context) error {
	s := d.store
	state, err := s.db.State(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(state.Dirs, func(row db.Dir) bool { return row.ID == d.id })
	if i < 0 {
		return fmt.Errorf("sample directory %s: %w", d.path, ErrNotFound)
	}
	m, disk, err := s.identify(d.path, state.Dirs[i])
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.dir = disk
	d.mu.Unlock()
	if sp, ok := d.askRoom(disk); ok {
		d.blockSize.Store(sp.BlockSize)
	}
	if err := s.db.CompleteOpen(ctx, s.open.ID, d.id); err != nil {
		return s.verdict(err)
	}
	m.CompleteOpen, m.InProgressOpen = s.open.ID, 0
	return disk.WriteMeta(m)
}

// adoptLate brings in what an earlier process left in the directory. Its streams
// have recorded nothing since the start. No flush waits for the disk.
func (d *directory) adoptLate(ctx context.Context) error {
	steps := d.store.clock.steps.Load()
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		found, unsynced := st.found(), errors.Is(st.unusable, sampledir.ErrUnsynced)
		st.mu.Unlock()
		if unsynced {
			continue // by an earlier try
		}
		if err := d.store.adoptFew(ctx, found); err != nil {
			return err
		}
		d.store.flushing.Lock() // its camera may be on its way out
		if d.store.clock.steps.Load() != steps {
			d.store.flushing.Unlock()
			return errors.New("clock was set while recordings were adopted")
		}
		st.mu.Lock()
		if !st.removing && !st.removed {
			st.takeOver(found)
		}
		st.mu.Unlock()
		d.store.flushing.Unlock()
	}
	return nil
}

// diskFull reports whether an error says that there is no room: the directory is
// there, then.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// prove makes sure, after an error, that the directory is still the right one.
// When its path leads elsewhere now, the disk was away: if it is the right one
// that is back, the directory is opened anew.
func (d *directory) prove() error {
	if !d.dir.Moved() {
		return d.isOurs(d.dir)
	}
	disk, err := d.store.cfg.openDir(d.path)
	if err != nil {
		return err
	}
	if err := d.isOurs(disk); err != nil {
		disk.Close()
		return err
	}
	d.replace(disk)
	return nil
}

// isOurs reads who a directory is. It has completed this open, or another one
// has been put in its place.
func (d *directory) isOurs(disk sampledir.Dir) error {
	s := d.store
	m, err := disk.ReadMeta()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("sample directory %s has no meta file: its disk is not mounted, or it is another one", d.path)
	case err != nil:
		return err
	case m.DatabaseUUID != s.db.UUID():
		return fmt.Errorf("sample directory %s belongs to another installation (database %s, ours is %s)", d.path, m.DatabaseUUID, s.db.UUID())
	case m.DirUUID != d.uuid:
		return fmt.Errorf("sample directory %s is another one of this installation (%s, expected %s)", d.path, m.DirUUID, d.uuid)
	case m.CompleteOpen != s.open.ID:
		return fmt.Errorf("sample directory %s is an old copy (its last open is %d, this one is %d)", d.path, m.CompleteOpen, s.open.ID)
	}
	return nil
}

// replace goes on with a directory whose disk was away. What its files did not
// make durable is written again to others: nobody knows what became of it.
func (d *directory) replace(disk sampledir.Dir) {
	old := d.dir
	d.mu.Lock()
	d.dir = disk
	d.mu.Unlock()
	old.Close()
	for _, f := range d.files {
		f.Close() // the disk that it was on is gone
	}
	open := d.files
	d.files = make(map[int64]*writeFile)
	failed := make(map[*recording]int64) // and how much of their files counts; -1: the recording knows
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		for _, rec := range slices.Clone(st.recent) {
			if _, ok := open[rec.id()]; ok && rec.broken && !rec.settled {
				failed[rec] = -1 // it waits for the one that has its end again
			} else if ok && !rec.settled {
				failed[rec] = rec.durableSize()
				st.syncAgain = time.Time{}
				if st.rewrite(rec, errors.New("the disk was away")) == nil {
					rec.broken = true
					st.shorten(rec, rec.durable, reasonDiskError)
					rec.lost = note{rec.start, DiskError, "the disk was away"}
					if rec.sealed {
						st.settled(rec)
					}
				}
			}
		}
		st.mu.Unlock()
	}
	for rec, size := range failed {
		d.reopen(rec, size)
	}
	d.store.log.Warn("sample directory is back", "dir", d.path, "files", len(open))
}

// reopen opens the file of a recording that failed with its disk, so that what
// does not count is cut off it: behind size now, and when another file holds its
// end again, behind where that begins.
func (d *directory) reopen(rec *recording, size int64) {
	f, err := d.dir.Recover(rec.id())
	if errors.Is(err, os.ErrNotExist) {
		return // its entry had not reached the disk
	}
	if err != nil {
		d.store.log.Warn("sample file keeps a tail that does not count", "recording", idString(rec.id()), "err", err)
		return
	}
	d.files[rec.id()] = &writeFile{File: f}
	if size >= 0 {
		d.truncate(rec, d.files[rec.id()], size)
	}
}
