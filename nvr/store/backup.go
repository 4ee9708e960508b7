package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// When the database is copied to the sample directories.
const (
	backupEvery = 24 * time.Hour
	backupFirst = 10 * time.Minute // after a start, when the newest copy is old
	backupRetry = time.Hour

	// copyPatience is how long one copy waits for another: longer than any takes
	// whose disk answers.
	copyPatience = time.Hour
)

// copies are those of the database that are under way. One is made at a time, as
// long as disks answer.
type copies struct {
	mu    sync.Mutex    // a leaf
	ended chan struct{} // closed when the one whose turn it is has ended; nil: none
	sound time.Time     // when a copy was damaged and the database was not
}

// turn waits until it is a copy's turn; call what it returns at its end. A disk
// that hangs never comes to an end: nobody waits longer than copyPatience for the
// same copy, which counts no more then.
func (c *copies) turn(ctx context.Context) (end func(), err error) {
	t := time.NewTimer(copyPatience)
	defer t.Stop()
	var late chan struct{} // the one that was waited for in vain
	for {
		c.mu.Lock()
		before := c.ended
		if before == nil || before == late {
			mine := make(chan struct{})
			c.ended = mine
			c.mu.Unlock()
			return func() { c.end(mine) }, nil
		}
		c.mu.Unlock()
		t.Reset(copyPatience)
		select {
		case <-before:
		case <-t.C:
			late = before
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *copies) end(mine chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == mine {
		c.ended = nil
	}
	close(mine)
}

// doubts reports whether the database may be damaged where a copy is, for all that
// is known: it was not found sound within a day.
func (c *copies) doubts() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sound.IsZero() || time.Since(c.sound) >= backupEvery
}

func (c *copies) foundSound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sound = time.Now()
}

// copies is the goroutine that copies the database to the directory once a day. It
// has no part in flushes and waits for none. Each directory has its own: a disk
// that hangs keeps its copy from nobody else.
func (d *directory) copies(ctx context.Context) {
	t := time.NewTimer(backupFirst)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		wait := d.copyIfOld(ctx)
		if ctx.Err() != nil {
			return
		}
		t.Reset(wait)
	}
}

// copyIfOld copies the database to the directory if its newest copy is a day old,
// and says when it is to be looked again.
func (d *directory) copyIfOld(ctx context.Context) (wait time.Duration) {
	s := d.store
	dir, err := d.disk()
	disk, ok := dir.(*sampledir.Disk)
	if err != nil || s.poisoned.Load() {
		return backupRetry
	}
	if !ok || s.damage.isNoted() { // of a damaged one there is no whole copy
		return backupEvery
	}
	if b := disk.Backups(); len(b) > 0 {
		age := media.TimeOf(s.now()).Sub(media.Time(b[0].Time)).Std()
		if age >= 0 && age < backupEvery {
			return backupEvery - age
		}
	}
	err = d.backup(ctx)
	if ctx.Err() != nil {
		return 0 // the recorder ends, or the directory goes
	}
	d.copyWants(s.copySize(), err)
	if err != nil {
		s.log.Error("database is not backed up; trying again in an hour", "dir", d.path, "err", err)
		return backupRetry
	}
	return backupEvery
}

// backup copies the database to a directory. One that is deleted meanwhile ends
// that by ctx, and begins to empty it no sooner.
func (d *directory) backup(ctx context.Context) error {
	select {
	case d.copying <- struct{}{}:
		defer func() { <-d.copying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	end, err := d.store.copies.turn(ctx)
	if err != nil {
		return err
	}
	defer end()
	dir, err := d.disk()
	if err != nil {
		return err
	}
	return d.store.backup(ctx, dir.(*sampledir.Disk)) // the caller has asked
}

// backup makes the newer generation of a directory. A copy that is damaged is
// not kept.
func (s *Store) backup(ctx context.Context, disk *sampledir.Disk) (err error) {
	began := time.Now()
	size := s.copySize()
	sp, err := disk.Space()
	if err != nil {
		return err
	}
	if err := roomFor(sp, size); err != nil {
		return err
	}
	path, err := disk.BeginBackup()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, disk.DropBackup())
		}
	}()
	at := media.TimeOf(s.now())
	if err := s.db.Backup(ctx, path, true, nil); err != nil {
		return s.copyFailed(ctx, err)
	}
	if _, err := db.Verify(ctx, path, s.db.UUID()); err != nil {
		return s.copyFailed(ctx, err)
	}
	b := sampledir.Backup{Time: int64(at), Open: s.open.ID, DatabaseUUID: s.db.UUID()}
	if err := disk.KeepBackup(b, ctx.Err); err != nil {
		return err
	}
	s.log.Info("backed up database", "dir", disk.Path(), "bytes", size, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// copyFailed judges an error of a copy that was being written or read back. It
// is no verdict on the database, of which a copy only reads: what failed is
// nearly always the disk of the directory. Where something looks damaged the
// database itself is asked, once a day at most, before that is believed of it.
func (s *Store) copyFailed(ctx context.Context, err error) error {
	if !db.Damaged(err) || ctx.Err() != nil || !s.copies.doubts() {
		return err
	}
	damage, asked := s.judge(ctx)
	switch {
	case damage != nil:
		s.believe(damage)
		return damage
	case asked != nil:
		return errors.Join(err, asked)
	}
	s.copies.foundSound()
	return fmt.Errorf("the database is sound, and its copy is not what was written: %w", err)
}

// copySize is about what a copy of the database takes.
func (s *Store) copySize() int64 { return fileSize(s.db.Path()) + fileSize(s.db.Path()+"-wal") }

// copyWants has flushes make room for a copy that found none, up to the next try.
func (d *directory) copyWants(size int64, err error) {
	if !diskFull(err) && !db.Full(err) {
		size = 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.forCopy = size
}

// roomFor refuses a copy that would bring the disk near to where recording
// pauses. It may take a part of the floor, for which old recordings then go: a
// disk that streams share never has more than that free for long.
func roomFor(sp sampledir.Space, size int64) error {
	if left := floorOf(sp.Total) / 4 * 3; sp.Free-size < left {
		return fmt.Errorf("%d MB are free, a copy takes %d MB and has to leave %d MB for recordings: %w",
			sp.Free>>20, size>>20, left>>20, syscall.ENOSPC)
	}
	return nil
}

func fileSize(name string) int64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Backup copies the database of a data directory, whose recorder does not run,
// to a file, in the place of what is there.
func Backup(ctx context.Context, data, to string, progress func(done, total int)) error {
	d, err := db.Inspect(ctx, db.Config{Path: filepath.Join(data, "db")})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Load(ctx); err != nil {
		return err
	}
	temp := to + ".new"
	if err := os.Remove(temp); err != nil && !os.IsNotExist(err) {
		return err
	}
	// It says who may sign in, and where the cameras are.
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Close(), d.Backup(ctx, temp, false, progress))
	if err == nil {
		_, err = db.Verify(ctx, temp, d.UUID())
	}
	var rotten error // but better than none
	if errors.Is(err, db.ErrRotten) {
		rotten, err = fmt.Errorf("%s is made, and is damaged as the database is: %w", to, err), nil
	}
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return errors.Join(rotten, syncPath(filepath.Dir(to)))
}
