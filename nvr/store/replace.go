package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dirsName is the file beside the database that names the sample directories
// outside of the data directory, one path a line, so that they are found when
// the database is not readable.
const dirsName = "sample-dirs"

// noteDirs keeps that file. It is a help and no more, so an error stops nothing.
func (s *Store) noteDirs() {
	var b strings.Builder
	for _, d := range s.dirs {
		if d.path != s.resolve(defaultDir) {
			b.WriteString(d.path + "\n")
		}
	}
	name := filepath.Join(s.cfg.Dir, dirsName)
	if old, _ := os.ReadFile(name); string(old) == b.String() {
		return
	}
	err := os.WriteFile(name+".new", []byte(b.String()), 0o600)
	if err == nil {
		err = syncFile(name + ".new")
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		s.log.Warn("the list of sample directories is not kept", "err", err)
	}
}

// knownDirs returns the sample directories of a data directory without its
// database, each once: its own, and those given or, when none is, in the list.
func knownDirs(data string, more ...string) []string {
	paths := []string{defaultDir}
	seen := map[string]bool{resolvePath(data, defaultDir): true}
	if b, err := os.ReadFile(filepath.Join(data, dirsName)); err == nil && len(more) == 0 {
		more = strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	for _, p := range more {
		if p == "" || seen[resolvePath(data, p)] {
			continue
		}
		seen[resolvePath(data, p)] = true
		paths = append(paths, p)
	}
	return paths
}

// replaceDatabase puts the database file from in the place of db, and keeps
// what was there as db.damaged-N. The caller holds the lock of db. In between
// there is no database, and a start refuses to make an empty one; so a power
// cut at any moment leaves the old one, none, or the new one.
func replaceDatabase(data, from string, at func(point string)) (kept string, err error) {
	path := filepath.Join(data, "db")
	passed(at, "made")
	if exists(path) || exists(path+"-wal") {
		kept = fmt.Sprintf("%s.damaged-%d", path, lastDamaged(data)+1)
		for _, suffix := range []string{"", "-wal"} {
			if err := os.Rename(path+suffix, kept+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
			passed(at, "renamed away db"+suffix)
		}
	}
	// An index of another log would be believed.
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := syncPath(data); err != nil {
		return "", err
	}
	passed(at, "directory synced")
	removeDatabase(from, true)
	if err := os.Rename(from, path); err != nil {
		return "", err
	}
	passed(at, "in its place")
	return kept, syncPath(data)
}

// passed calls at, if there is one.
func passed(at func(point string), point string) {
	if at != nil {
		at(point)
	}
}

// lastDamaged is the highest number of a database that was put aside, 0 when
// there is none.
func lastDamaged(data string) (last int) {
	names, _ := filepath.Glob(filepath.Join(data, "db.damaged-*")) // the pattern is good
	for _, name := range names {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(name), "db.damaged-%d", &n); err == nil {
			last = max(last, n)
		}
	}
	return last
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// removeDatabase removes a database file with all that stands beside it, or
// only the latter.
func removeDatabase(path string, keep bool) {
	for _, suffix := range []string{"-wal", "-shm", "-journal", ".lock"} {
		os.Remove(path + suffix)
	}
	if !keep {
		os.Remove(path)
	}
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncPath makes the entries of a directory durable.
func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
