package db

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// passwords sets those of both streams of the camera front.
func (h *house) passwords(main, sub string) {
	h.t.Helper()
	h.main.Username, h.main.Password, h.sub.Username, h.sub.Password = "admin", main, "admin", sub
	h.must(h.ApplyConfig(h.t.Context(), &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{h.main, h.sub}}}}))
}

// read are the passwords of the first two streams, or why they cannot be read.
func (h *house) read() (list []string) {
	h.t.Helper()
	for _, st := range h.state().Streams[:2] {
		list = append(list, st.Password+st.PasswordLost)
	}
	return list
}

// holding are the files of a directory that hold the text.
func holding(t testing.TB, dir, text string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPasswordsAreInNoFile(t *testing.T) {
	h := newHouse(t)
	h.passwords("MARKER-one", "MARKER-two")
	h.passwords("MARKER-three", "")
	for range 2 {
		if diff := cmp.Diff([]string{"MARKER-three", ""}, h.read()); diff != "" {
			t.Error(diff)
		}
		if names := holding(t, filepath.Dir(h.path), "MARKER"); len(names) > 0 {
			t.Errorf("in clear in %v", names)
		}
		h.reopen()
	}
	fi, err := os.Stat(filepath.Join(filepath.Dir(h.path), "db.key"))
	if err != nil || fi.Size() != 32 || fi.Mode() != 0o600 {
		t.Errorf("key file: %v, %v", fi, err)
	}
	// A copy of the database has no key in it.
	key, err := os.ReadFile(h.key.path)
	h.must(err)
	dir := t.TempDir()
	h.must(os.WriteFile(filepath.Join(dir, "copy"), nil, 0o600))
	h.must(h.Backup(t.Context(), filepath.Join(dir, "copy"), false, nil))
	for _, text := range []string{string(key), "MARKER"} {
		if names := holding(t, dir, text); len(names) > 0 {
			t.Errorf("copy holds %q", text)
		}
	}
}

// The same password is encrypted differently each time, and opens nowhere but at
// its place.
func TestSealedPasswordOpensAtItsPlaceOnly(t *testing.T) {
	k := keyBeside(filepath.Join(t.TempDir(), "db"))
	a, err := k.seal("geheim", "uuid", "main")
	b, err2 := k.seal("geheim", "uuid", "main")
	if err != nil || err2 != nil || bytes.Equal(a, b) {
		t.Fatalf("%v, %v, same: %t", err, err2, bytes.Equal(a, b))
	}
	if got, err := k.open(a, "uuid", "main"); got != "geheim" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, at := range [][2]string{{"uuid", "sub"}, {"other", "main"}} {
		if got, err := k.open(a, at[0], at[1]); err == nil || got != "" {
			t.Errorf("opened at %v: %q", at, got)
		}
	}
	for i := range a {
		c := bytes.Clone(a)
		c[i] ^= 1
		if got, err := k.open(c, "uuid", "main"); err == nil || got != "" {
			t.Errorf("byte %d changed: %q", i, got)
		}
	}
	for n := range len(a) - 1 {
		if got, err := k.open(a[:n+1], "uuid", "main"); err == nil || got != "" {
			t.Errorf("%d bytes: %q", n+1, got)
		}
	}
}

// Nothing is deleted when the key is not there or is another one: the database
// opens, what is set for the camera otherwise can change, the key can be put back,
// and a password that is set again is read again.
func TestPasswordsOutliveTheirKey(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		why   string
	}{
		"missing":   {os.Remove, "the key file db.key is missing"},
		"another":   {func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{7}, 32), 0o600) }, "the key file db.key is another one"},
		"truncated": {func(path string) error { return os.Truncate(path, 31) }, "the key file db.key is damaged: it has 31 bytes, expected 32"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.passwords("MARKER-main", "MARKER-sub")
			key, err := os.ReadFile(h.key.path)
			h.must(err)
			h.must(h.Close())
			h.must(c.spoil(h.key.path))
			var log bytes.Buffer
			h.DB, err = Open(t.Context(), Config{Path: h.path, Log: slog.New(slog.NewTextHandler(&log, nil))})
			h.must(err)
			if diff := cmp.Diff([]string{c.why, c.why}, h.read()); diff != "" {
				t.Fatal(diff)
			}
			if n := strings.Count(log.String(), "passwords of cameras cannot be read"); n != 1 || !strings.Contains(log.String(), "streams=2") {
				t.Errorf("log: %s", &log)
			}
			// Something else of it is changed.
			main := h.state().Streams[0]
			main.FlushIfSec = 30
			h.must(h.ApplyConfig(t.Context(), &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{main}}}}))
			h.must(h.Close())
			h.must(os.WriteFile(h.key.path, key, 0o600))
			h.reopen()
			if diff := cmp.Diff([]string{"MARKER-main", "MARKER-sub"}, h.read()); diff != "" {
				t.Fatalf("key put back: %s", diff)
			}
			h.must(h.Close())
			h.must(c.spoil(h.key.path))
			h.reopen()
			main.Password, main.PasswordLost = "MARKER-again", ""
			h.must(h.ApplyConfig(t.Context(), &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{main}}}}))
			for range 2 {
				if got := h.state().Streams; got[0].Password != "MARKER-again" || got[1].PasswordLost == "" {
					t.Errorf("set again: %+v", got[:2])
				}
				h.reopen()
			}
			if fi, err := os.Stat(h.key.path); err != nil || fi.Size() != 32 {
				t.Errorf("key file: %v, %v", fi, err)
			}
		})
	}
}

// A key that cannot be read is not replaced: the next start may read it.
func TestKeyThatCannotBeReadIsNotReplaced(t *testing.T) {
	h := newHouse(t)
	h.passwords("MARKER-main", "")
	h.must(h.Close())
	h.must(os.Rename(h.key.path, h.key.path+".away"))
	h.must(os.Symlink(keyName, h.key.path)) // a link to itself: reading it is an error, renaming over it none
	h.reopen()
	if got := h.read(); !strings.Contains(got[0], "too many levels of symbolic links") {
		t.Errorf("%q", got)
	}
	main := h.state().Streams[0]
	main.Password = "MARKER-again"
	err := h.ApplyConfig(t.Context(), &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{main}}}})
	if err == nil || strings.Contains(err.Error(), "MARKER") {
		t.Errorf("set: %v", err)
	}
	h.must(h.Close())
	h.must(os.Remove(h.key.path))
	h.must(os.Rename(h.key.path+".away", h.key.path))
	h.reopen()
	if diff := cmp.Diff([]string{"MARKER-main", ""}, h.read()); diff != "" {
		t.Error(diff)
	}
}

// The key is on the disk before anything that it has encrypted is in the
// database, at each point of an upgrade.
func TestUpgradeMakesTheKeyBeforeItEncrypts(t *testing.T) {
	dir := fixture(t, 3)
	at := make(map[string]bool)
	d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "db"), at: func(point string) {
		_, err := os.Stat(filepath.Join(dir, keyName))
		at[point] = err == nil
		if there := err == nil; there != (point != "checked" && point != "copied" && point != "copy kept" && point != "begun" && point != "statement") && !at["rows"] {
			t.Errorf("%s: key is there: %t", point, there)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !at["rows"] {
		t.Error("not at the rows")
	}
}

// After the upgrade the passwords that were in clear, those set long ago and those of
// cameras that are gone too, are in no file but the copy that is kept.
func TestUpgradeOverwritesPasswordsInClear(t *testing.T) {
	old := databaseOf(t, 3)
	if n := bytes.Count(old, []byte("MARKER")); n < 80 {
		t.Fatalf("%d in the fixture", n)
	}
	check := func(t *testing.T, dir string) {
		h := upgraded(t, dir)
		if diff := cmp.Diff([]string{"MARKER-main", "MARKER-sub"}, h.read()); diff != "" {
			t.Error(diff)
		}
		h.sane()
		h.must(h.Close())
		for _, name := range holding(t, dir, "MARKER") {
			if name != "db.v3" && name != "db.v4" { // the second after a kill
				t.Errorf("in clear in %s", name)
			}
		}
	}
	dir := fixture(t, 3)
	// In the log, too.
	p, err := openPool(writerDSN(filepath.Join(dir, "db")), 1, (&DB{}).setUpWriter)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if _, err := p.Exec(`UPDATE stream SET total_file_bytes = total_file_bytes, password = ? WHERE id = 1`, fmt.Sprintf("MARKER-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []string{`UPDATE stream SET password = 'MARKER-main' WHERE id = 1`, `PRAGMA journal_size_limit = -1`} {
		if _, err := p.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if names := holding(t, dir, "MARKER"); len(names) != 2 {
		t.Fatalf("before: %v", names)
	}
	var crashes []string
	h := &house{t: t, path: filepath.Join(dir, "db")}
	h.DB, err = Open(t.Context(), Config{Path: h.path, at: func(string) { crashes = append(crashes, copyAll(t, dir)) }})
	h.must(err)
	h.must(h.Close())
	check(t, dir)
	for i, dir := range crashes {
		t.Run(fmt.Sprint("killed at point ", i), func(t *testing.T) { check(t, dir) })
	}
}

// A log is not believed from the first write on that overwrites it, whichever of
// the later ones a power cut lets through.
func TestHeaderOfTheLogIsOverwrittenFirst(t *testing.T) {
	name := filepath.Join(t.TempDir(), "db-wal")
	log := bytes.Repeat([]byte{1}, 3<<20)
	if err := os.WriteFile(name, log, 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := overwriteLog(name, func(string) {
		b, err := os.ReadFile(name)
		if err != nil || len(b) != len(log) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if n++; n == 1 && (!bytes.Equal(b[:32], make([]byte, 32)) || !bytes.Equal(b[32:], log[32:])) {
			t.Error("the first write is not that of the header")
		}
		if n == 2 && !bytes.Equal(b, make([]byte, len(b))) {
			t.Error("not all is zero")
		}
	})
	if err != nil || n != 2 {
		t.Errorf("%d writes, %v", n, err)
	}
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	if err := overwriteLog(name, func(string) { t.Error("wrote to an empty one") }); err != nil {
		t.Error(err)
	}
}

// A file that is not as it should be is left as it is from there on.
func TestOverwriteRefusesADamagedFile(t *testing.T) {
	whole := databaseOf(t, 3)
	refused := 0
	for page := range len(whole) / pageSize {
		b := bytes.Clone(whole)
		for i := range 12 {
			if page > 0 || i > 0 {
				b[page*pageSize+i] ^= 0xff
			}
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for root := range uint32(len(whole)/pageSize) + 2 {
			if err := overwriteFree(path, []uint32{root}, func() {}); err != nil {
				refused++
				if _, ok := errors.AsType[*poisonError](err); ok {
					t.Errorf("page %d: %v", page, err)
				}
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}
