package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir"
)

// defaultDir is the sample directory within the data directory. Its path is
// kept relative, so that a data directory may be moved.
const defaultDir = "sample"

// openDirs opens sample directories of the database. See sampledir.Meta for
// the order of writes. One that cannot be used is marked, not an error; all are
// when the database does not take that they are open, and that is one.
func (s *Store) openDirs(ctx context.Context, rows []db.Dir) ([]*directory, error) {
	var dirs []*directory
	var ready []int32
	metas := make(map[*directory]sampledir.Meta)
	for _, row := range rows {
		d := &directory{
			store: s, id: row.ID, path: s.resolve(row.Path),
			files: make(map[int64]*writeFile), wake: make(chan chan struct{}), held: make(map[int64]time.Time),
			copying: make(chan struct{}, 1),
		}
		dirs = append(dirs, d)
		if row.Path == defaultDir {
			if err := makeDir(d.path); err != nil {
				return nil, fmt.Errorf("create sample directory: %w", err)
			}
		}
		d.uuid = row.UUID
		if err := d.mayBeTried(); err != nil {
			d.refuse(err)
			continue
		}
		m, disk, err := s.identify(d.path, row)
		if err != nil {
			d.refuse(err)
			continue
		}
		d.dir = disk
		if sp, ok := d.askRoom(d.dir); ok {
			d.blockSize.Store(sp.BlockSize)
		}
		metas[d] = m
		ready = append(ready, row.ID)
	}
	s.mu.Lock()
	s.dirs = append(s.dirs, dirs...)
	s.mu.Unlock()
	s.noteDirs()
	if err := s.db.CompleteOpen(ctx, s.open.ID, ready...); err != nil {
		for d := range metas {
			d.refuse(err)
		}
		return dirs, err
	}
	for d, m := range metas {
		m.CompleteOpen, m.InProgressOpen = s.open.ID, 0
		if err := d.dir.WriteMeta(m); err != nil {
			d.refuse(err)
		}
	}
	return dirs, nil
}

// oldCopy reports whether a sample directory, which is not newer than the database,
// is none that was there at its last open.
func oldCopy(m sampledir.Meta, row db.Dir) bool {
	return row.LastCompleteOpen != 0 && m.CompleteOpen < row.LastCompleteOpen && m.InProgressOpen != row.LastCompleteOpen
}

// identify opens a sample directory after making sure that it is the one the
// database means, and notes in it that an open is in progress.
func (s *Store) identify(path string, row db.Dir) (sampledir.Meta, sampledir.Dir, error) {
	disk, err := s.cfg.openDir(path)
	if err != nil {
		return sampledir.Meta{}, nil, err
	}
	m, err := disk.ReadMeta()
	switch {
	case row.LastCompleteOpen == 0 && (errors.Is(err, os.ErrNotExist) || errors.Is(err, sampledir.ErrMeta)):
		names, ferr := disk.Foreign()
		if ferr == nil && len(names) > 0 {
			ferr = fmt.Errorf("sample directory %s is not empty: it holds %s; give the recorder an empty one", path, strings.Join(names, ", "))
		}
		err = ferr
	case errors.Is(err, os.ErrNotExist):
		err = fmt.Errorf("sample directory %s has no meta file: its disk is not mounted, or it is another one; nothing is recorded there until the right one is back", path)
	case err != nil:
	case m.DatabaseUUID != s.db.UUID():
		err = fmt.Errorf("sample directory %s belongs to another installation (database %s, ours is %s); nothing is recorded there: bring back its own, or start with an empty data directory", path, m.DatabaseUUID, s.db.UUID())
	case m.DirUUID != row.UUID:
		err = fmt.Errorf("sample directory %s is another one of this installation (%s, expected %s): were two disks swapped?", path, m.DirUUID, row.UUID)
	case m.CompleteOpen > row.LastCompleteOpen: // there at the start of the recorder, it would have been seen
		err = fmt.Errorf("sample directory %s is newer than the database (directory: open %d, database: open %d): restart the recorder with it in place, which brings the database up",
			path, m.CompleteOpen, row.LastCompleteOpen)
	case oldCopy(m, row):
		err = fmt.Errorf("sample directory %s is an old copy (directory: open %d, database: open %d): bring back its newest disk, or delete the directory and add it again when it is empty",
			path, m.CompleteOpen, row.LastCompleteOpen)
	}
	if err == nil {
		m = sampledir.Meta{
			DatabaseUUID: s.db.UUID(), DirUUID: row.UUID,
			CompleteOpen: row.LastCompleteOpen, InProgressOpen: s.open.ID,
		}
		err = disk.WriteMeta(m)
	}
	if err != nil {
		disk.Close()
		return sampledir.Meta{}, nil, err
	}
	return m, disk, nil
}

func (s *Store) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(s.cfg.Dir, path)
}

// makeDir makes a directory durably: its entry is synced, too, also when an
// earlier process made it and did not come to that.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(path)))
	if errors.Is(err, os.ErrPermission) {
		return nil // not ours, so neither did we make anything in it
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}
