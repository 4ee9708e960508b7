package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
)

// backups is the goroutine that copies the database to each sample directory
// once a day. It has no part in flushes and waits for none.
func (s *Store) backups(ctx context.Context) {
	t := time.NewTimer(backupFirst)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		wait := backupEvery
		s.mu.RLock()
		dirs := s.dirs
		s.mu.RUnlock()
		for _, d := range dirs {
			dir, err := d.disk()
			disk, ok := dir.(*sampledir.Disk)
			if !ok || err != nil || s.poisoned.Load() {
				continue
			}
			age := backupEvery
			if b := disk.Backups(); len(b) > 0 {
				age = media.TimeOf(s.now()).Sub(media.Time(b[0].Time)).Std()
			}
			if age >= 0 && age < backupEvery {
				wait = min(wait, backupEvery-age)
				continue
			}
			err = d.backup(ctx)
			if ctx.Err() != nil {
				return
			}
			if errors.Is(d.fault(), ErrNotFound) {
				continue // it was deleted meanwhile
			}
			d.copyWants(s.copySize(), err)
			if err != nil {
				s.log.Error("database is not backed up; trying again in an hour", "dir", d.path, "err", err)
				wait = min(wait, backupRetry)
			}
		}
		t.Reset(wait)
	}
}

// backup copies the database to a directory. One that is deleted meanwhile ends
// that, and begins to empty it no sooner.
func (d *directory) backup(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case d.copying <- struct{}{}:
		defer func() { <-d.copying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	dir, err := d.dir, d.unavailable
	d.endCopy = cancel
	d.mu.Unlock()
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
	if !db.Damaged(err) || ctx.Err() != nil || !s.sound.IsZero() && time.Since(s.sound) < backupEvery {
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
	s.sound = time.Now()
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
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return syncPath(filepath.Dir(to))
}
