package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir"
)

// Sample directories come and go beside the recording.

// InUseError: a sample directory cannot go, because of what is said here.
type InUseError struct{ Path, Why string }

func (e *InUseError) Error() string { return "sample directory " + e.Path + ": " + e.Why }

// dirPatience is how long is waited for a disk before a directory goes.
const dirPatience = 10 * time.Second

// AddDir takes a directory into use, and makes it where only its last element is
// missing. Streams name it by its path. It returns its id; a *ConfigError when it
// cannot be taken.
func (s *Store) AddDir(ctx context.Context, path string) (id int32, err error) {
	if !filepath.IsAbs(path) {
		return 0, &ConfigError{"path", fmt.Sprintf("is %q: it must be an absolute path", path)}
	}
	path = filepath.Clean(path)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	release, err := s.claim(path)
	if err != nil {
		return 0, &ConfigError{"path", err.Error()}
	}
	defer release()
	if s.dirAt(path) != nil {
		return 0, &ConfigError{"path", path + " is a sample directory already"}
	}
	// Nobody knows this disk: no flush waits for it.
	made, err := s.makeNew(path)
	if err == nil {
		err = s.checkDir(path)
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if s.dirAt(path) != nil {
		return 0, &ConfigError{"path", path + " is a sample directory already"} // of a camera that was changed meanwhile
	}
	if err == nil {
		err = s.takeDirs(context.WithoutCancel(ctx), []db.Dir{{Path: path}})
	} else {
		err = &ConfigError{"path", err.Error()}
	}
	if errors.Is(err, ErrPoisoned) {
		return 0, err // the next start knows whether it is one
	}
	if d := s.dirAt(path); d != nil {
		return d.id, nil // one that cannot be used after all shows that, and can be deleted
	}
	if made {
		err = errors.Join(err, os.Remove(path))
	}
	return 0, err
}

// claim keeps all others from a path that becomes a sample directory or was one,
// until it is released.
func (s *Store) claim(path string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.claimed[path]; twice {
		return nil, fmt.Errorf("%s is being added or deleted already, and its disk has not answered yet", path)
	}
	s.claimed[path] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.claimed, path)
	}, nil
}

// makeNew makes a directory where it may be and is missing. Its parent has to be
// there: what is mounted there may be away.
func (s *Store) makeNew(path string) (made bool, err error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil // checkDir says what it is
	}
	if err := s.allowed(path); err != nil {
		return false, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return false, err
	}
	return true, makeDir(path)
}

// allowed is an error when sample directories must not be at a path, wherever
// links on the way to it lead.
func (s *Store) allowed(path string) error {
	at := path
	real, err := filepath.EvalSymlinks(at)
	for errors.Is(err, fs.ErrNotExist) && at != "/" {
		at = filepath.Dir(at)
		real, err = filepath.EvalSymlinks(at)
	}
	if err != nil {
		return err
	}
	real = filepath.Join(real, strings.TrimPrefix(path, at)) // with what is missing
	if name := s.ownName(real); name != "" {
		return fmt.Errorf("%s is the recorder's own: sample directories must not be in it", filepath.Join(s.cfg.Dir, name))
	}
	if s.cfg.DirRoots == nil {
		return nil
	}
	for _, root := range s.cfg.DirRoots {
		if root, err = filepath.Abs(root); err == nil {
			root, err = filepath.EvalSymlinks(root)
		}
		if err != nil {
			continue // what is mounted there is away
		}
		if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
			return nil
		}
	}
	return fmt.Errorf("%s is not below %s, where sample directories may be", path, strings.Join(s.cfg.DirRoots, " or "))
}

// ownName is the entry of the data directory that a path is or is in, when the
// recorder has that for itself; "" when it has not. The first sample directory is one
// of them, and may be what it is.
func (s *Store) ownName(real string) string {
	data, err := filepath.Abs(s.cfg.Dir)
	if err == nil {
		data, err = filepath.EvalSymlinks(data)
	}
	if err != nil {
		return "" // nothing is in it
	}
	rel, err := filepath.Rel(data, real)
	if err != nil || !filepath.IsLocal(rel) || rel == defaultDir {
		return ""
	}
	name, _, _ := strings.Cut(rel, "/")
	if OwnName(name) || slices.Contains(s.cfg.OwnNames, name) {
		return name
	}
	return ""
}

// OwnName reports whether the store has an entry of the data directory for itself
// (storage.md, "Overview").
func OwnName(name string) bool {
	switch name {
	case "db", defaultDir, dirsName, "lost+found":
		return true
	}
	return strings.HasPrefix(name, "db-") || strings.HasPrefix(name, "db.")
}

// checkDir makes sure that a directory can be taken into use. One that was ours,
// and of which nothing is left but that it was, is made one that is nobody's.
func (s *Store) checkDir(path string) error {
	if err := s.allowed(path); err != nil {
		return err
	}
	dir, err := s.cfg.openDir(path)
	if fi, serr := os.Stat(path); err != nil && (serr != nil || !fi.IsDir()) {
		return fmt.Errorf("%s is not a directory", path)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if m, err := dir.ReadMeta(); err == nil {
		s.mu.RLock()
		used := ""
		for _, d := range s.dirs {
			if d.uuid == m.DirUUID {
				used = d.path
			}
		}
		s.mu.RUnlock()
		disk, ok := dir.(*sampledir.Disk)
		switch {
		case m.DatabaseUUID != s.db.UUID() || !ok:
			return fmt.Errorf("%s belongs to an installation already (database %s)", path, m.DatabaseUUID)
		case used != "":
			return fmt.Errorf("%s is a sample directory already, by the name %s", path, used)
		}
		if err := disk.Retire(m.DirUUID); err != nil {
			return fmt.Errorf("%w, of a time that the database does not know: nvr rebuild takes it in", err)
		}
	}
	names, err := dir.Foreign()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%s is not empty: it holds %s; give the recorder an empty directory", path, strings.Join(names, ", "))
	}
	return nil
}

// takeDirs takes directories that were checked into use. The caller holds
// flushing.
func (s *Store) takeDirs(ctx context.Context, rows []db.Dir) error {
	change := db.Change{Dirs: rows}
	if err := s.db.ApplyConfig(ctx, &change); err != nil {
		return s.verdict(err)
	}
	dirs, err := s.openDirs(ctx, change.Dirs)
	for _, d := range dirs {
		s.start(d) // of one that cannot be used now, it tries the rest again
	}
	if err != nil {
		return s.verdict(err)
	}
	for _, d := range dirs {
		if err := d.fault(); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDir takes a directory out of use. An *InUseError says why it cannot go;
// ErrNotFound. Of one that can be reached, nothing is left but an empty directory;
// of one that is away, the files are left as they are.
func (s *Store) DeleteDir(ctx context.Context, id int32) error {
	s.mu.RLock()
	d := s.directory(id)
	s.mu.RUnlock()
	if d == nil {
		return fmt.Errorf("sample directory %d: %w", id, ErrNotFound)
	}
	// Who adds it again at once gets it when what it was is gone from it.
	release, err := s.claim(d.path)
	if err != nil {
		return &InUseError{d.path, err.Error()}
	}
	defer release()
	if err := s.forget(ctx, d); err != nil {
		return err
	}
	d.stop()
	t := time.NewTimer(dirPatience)
	defer t.Stop()
	select {
	case <-d.ended:
	case <-t.C:
		s.log.Warn("sample directory is deleted, and its disk does not answer", "dir", d.path)
		return nil
	}
	lost := d.lost()
	dir, err := d.disk()
	if err != nil {
		return nil // it is away
	}
	d.mu.Lock()
	d.unavailable = fmt.Errorf("sample directory %s: %w", d.path, ErrNotFound)
	d.mu.Unlock()
	select {
	case d.copying <- struct{}{}: // and nobody begins one any more
		defer func() { <-d.copying }()
	case <-t.C:
		s.log.Warn("sample directory is deleted, and holds a copy of the database that does not come to its end", "dir", d.path)
		return nil
	}
	if disk, ok := dir.(*sampledir.Disk); ok {
		if err := disk.Retire(d.uuid); err != nil {
			s.log.Warn("sample directory is deleted, and still says that it is ours", "dir", d.path, "err", err)
		}
	}
	if err := dir.Close(); !lost {
		return err
	}
	return nil
}

// forget takes the rows of a directory out of the database when nothing is in it.
// What is garbage in it is unlinked first: no flush waits for its disk meanwhile.
func (s *Store) forget(ctx context.Context, d *directory) error {
	s.flushing.Lock()
	err := s.mayGo(ctx, d)
	s.flushing.Unlock()
	if err != nil {
		return err
	}
	if !d.lost() {
		step, cancel := context.WithTimeout(ctx, dirPatience)
		err = d.stepNow(step)
		cancel()
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := s.mayGo(ctx, d); err != nil {
		return err // something has come to it meanwhile
	}
	if !d.lost() {
		if err := s.empty(ctx, d, err); err != nil && !d.lost() {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// From here on it is brought to its end.
	if err := s.db.ApplyConfig(context.WithoutCancel(ctx), &db.Change{DeleteDirs: []int32{d.id}}); err != nil {
		return s.verdict(err)
	}
	s.mu.Lock()
	s.dirs = slices.DeleteFunc(slices.Clone(s.dirs), func(o *directory) bool { return o == d })
	s.notices.tell(Notice{Change: DirDeleted, Dir: d.info()})
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.noteDirs()
	return nil
}

// mayGo says why a directory cannot go, whatever its disk does. One flush is made for
// deleted streams that have rows in it. The caller holds flushing.
func (s *Store) mayGo(ctx context.Context, d *directory) error {
	s.mu.RLock()
	known := s.directory(d.id) == d
	s.mu.RUnlock()
	if !known {
		return fmt.Errorf("sample directory %d: %w", d.id, ErrNotFound)
	}
	var by []string
	for _, st := range s.streamsIn(d) {
		by = append(by, st.name.String()+" "+st.typ)
	}
	switch {
	case d.path == s.resolve(defaultDir):
		return &InUseError{d.path, "it is the recorder's own"}
	case len(by) > 0:
		return &InUseError{d.path, "it has the recordings of " + strings.Join(by, ", ") + ": delete these streams first"}
	}
	if s.goingIn(d) != "" {
		if err := s.flushLocked(context.WithoutCancel(ctx), "sample directory goes"); err != nil {
			return err
		}
		if why := s.goingIn(d); why != "" {
			return &InUseError{d.path, why}
		}
	}
	return nil
}

// empty has the rows of what is garbage in a directory go, after a step of it that
// unlinked that, or failed. The caller holds flushing.
func (s *Store) empty(ctx context.Context, d *directory, err error) error {
	if err == nil {
		err = s.flushLocked(context.WithoutCancel(ctx), "sample directory goes")
	}
	d.mu.Lock()
	n := len(d.held)
	d.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case n > 0 && err != nil && !errors.Is(err, context.DeadlineExceeded):
		return err
	case n > 0:
		return &InUseError{d.path, fmt.Sprintf("%d files of deleted recordings are still to be unlinked: try again in a minute", n)}
	}
	return nil
}
