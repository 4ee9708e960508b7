package db

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// databaseOf is a database as the program of an older version left it
// (testdata).
func databaseOf(t testing.TB, version int) []byte {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("testdata/v%d.db.gz", version))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upgraded opens a database of an older version in dir.
func upgraded(t testing.TB, dir string) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(dir, "db")}
	h.reopen()
	h.readHouse()
	return h
}

// readHouse finds what newHouse made.
func (h *house) readHouse() {
	h.t.Helper()
	s := h.state()
	h.dirs, h.front, h.main, h.sub = s.Dirs, s.Cameras[0], s.Streams[0], s.Streams[1]
	h.open = OpenRow{ID: 1}
}

// fixtures are the versions of which testdata has one. Version 4 is that of a process
// that was killed on the way to 5.
var fixtures = []int{1, 2, 3, 5}

func fixture(t testing.TB, version int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "db"), databaseOf(t, version), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// about is all that tells one database from another but its rows: the text of
// the schema as SQLite reads it, the columns, keys and indexes it makes of it,
// and the settings that are kept in the file.
func (h *house) about() (lines []string) {
	h.t.Helper()
	lines, err := schemaOf(h.t.Context(), h.reader)
	h.must(err)
	var tables, indexes []string
	h.must(query(h.t.Context(), h.reader, `SELECT type, name FROM sqlite_schema ORDER BY name`, nil, func(scan func(...any) error) error {
		var typ, name string
		err := scan(&typ, &name)
		if typ == "table" {
			tables = append(tables, name)
		} else {
			indexes = append(indexes, name)
		}
		return err
	}))
	pragma := func(call string) {
		rows, err := h.reader.Query("PRAGMA " + call)
		h.must(err)
		defer rows.Close()
		columns, err := rows.Columns()
		h.must(err)
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			h.must(rows.Scan(values...))
			line := call
			for i := range values {
				line += fmt.Sprintf(" %s=%v", columns[i], *values[i].(*any))
			}
			lines = append(lines, line)
		}
	}
	for _, name := range tables {
		for _, p := range []string{"table_xinfo", "foreign_key_list", "index_list"} {
			pragma(fmt.Sprintf("%s(%q)", p, name))
		}
	}
	for _, name := range indexes {
		pragma(fmt.Sprintf("index_xinfo(%q)", name))
	}
	for _, name := range []string{"application_id", "user_version", "page_size", "auto_vacuum", "encoding", "journal_mode"} {
		pragma(name)
	}
	return lines
}

// R57. Fails with a step that forgets an index, a check or a column.
func TestUpgradedDatabaseIsAsAFreshOne(t *testing.T) {
	fresh := newHouse(t)
	dir := fixture(t, 1)
	h := upgraded(t, dir)
	if diff := cmp.Diff(fresh.about(), h.about()); diff != "" {
		t.Errorf("upgraded is not as fresh: %s", diff)
	}
	h.sane()
	if diff := cmp.Diff([]int32{2, 3, 4, 5, 6, 7, 8}, h.numbers(h.main)); diff != "" {
		t.Error(diff)
	}
	// 2 to 4, 5 to 7 of the second run, and 8, which overlaps it.
	spans := h.spans(h.main, 0, 1<<60, 1<<31-1)
	if len(spans) != 3 || spans[0].FirstNo != 2 || spans[0].LastNo != 4 || spans[1].EndReason != "camera closed" || !spans[2].TrailingZero {
		t.Errorf("spans are %+v", spans)
	}
	var versions []string
	h.must(query(t.Context(), h.reader, `SELECT id, notes FROM version ORDER BY id`, nil, func(scan func(...any) error) error {
		var id int
		var notes string
		err := scan(&id, &notes)
		versions = append(versions, fmt.Sprint(id, " ", notes))
		return err
	}))
	if diff := cmp.Diff([]string{"1 created", "2 gaps, spans, retention by days", "3 users, sessions, tokens",
		"4 passwords of cameras encrypted", "5 passwords in clear overwritten",
		"6 deleted cameras go by and by, preferences of users"}, versions); diff != "" {
		t.Error(diff)
	}
	if got := h.Upgraded(); len(got) != 5 || got[0].ID != 2 || got[4].ID != 6 {
		t.Errorf("upgraded %+v", got)
	}
	// It goes on from there, and nothing is upgraded a second time.
	h.add(h.main, 9, 11)
	h.must(h.Flush(t.Context(), &Batch{OpenID: 1, Delete: []int64{CompositeID(h.main.ID, 2), CompositeID(h.main.ID, 3)},
		Gaps: []Gap{{h.sub.ID, testEpoch.Add(60 * media.Minute), testEpoch.Add(70 * media.Minute), "other", ""}}}))
	h.reopen()
	h.sane()
	if got := h.Upgraded(); len(got) != 0 {
		t.Errorf("upgraded again: %+v", got)
	}
	// What was there is kept.
	kept, err := os.ReadFile(h.path + ".v1")
	h.must(err)
	if !bytes.Equal(kept, databaseOf(t, 1)) {
		t.Error("the copy is not the database as it was")
	}
}

// The same from version 2: nothing of what was there changes, and users can come.
func TestUpgradeToUsersKeepsAllThatWasThere(t *testing.T) {
	dir := fixture(t, 2)
	before, err := openPool(dsn(filepath.Join(dir, "db"), "mode", "ro", "immutable", "1"), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := &house{t: t, DB: &DB{reader: before}}
	var tables []string
	old.must(query(t.Context(), before, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'version' ORDER BY name`, nil,
		func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			tables = append(tables, name)
			return err
		}))
	// Of what there is no more, there was nothing in any row.
	rows := strings.Split(strings.ReplaceAll(strings.Join(old.rows(tables...), "\n"), " password=", ""), "\n")
	old.must(before.Close())

	h := upgraded(t, dir)
	if diff := cmp.Diff(newHouse(t).about(), h.about()); diff != "" {
		t.Errorf("upgraded is not as fresh: %s", diff)
	}
	now := strings.Split(strings.NewReplacer(" sealed_password=<nil>", "", " deleted=0", "").Replace(strings.Join(h.rows(tables...), "\n")), "\n")
	if diff := cmp.Diff(rows, now); diff != "" || len(rows) < 20 {
		t.Errorf("%d rows before: %s", len(rows), diff)
	}
	if got := h.Upgraded(); len(got) != 4 || got[0].ID != 3 {
		t.Errorf("upgraded %+v", got)
	}
	h.sane()
	if differences, err := h.SchemaDifferences(t.Context()); err != nil || len(differences) > 0 {
		t.Errorf("%v, %v", differences, err)
	}
	h.must(h.ApplyAccess(t.Context(), &AccessChange{Users: []User{{Name: "a", Cameras: map[int32]uint8{h.front.ID: 1}}}}))
	kept, err := os.ReadFile(h.path + ".v2")
	h.must(err)
	if !bytes.Equal(kept, databaseOf(t, 2)) {
		t.Error("the copy is not the database as it was")
	}
}

// The same from version 5: users have preferences, and cameras are not deleted.
func TestUpgradeToDeletedCamerasKeepsAllThatWasThere(t *testing.T) {
	h := upgraded(t, fixture(t, 5))
	if diff := cmp.Diff(newHouse(t).about(), h.about()); diff != "" {
		t.Errorf("upgraded is not as fresh: %s", diff)
	}
	if got := h.Upgraded(); len(got) != 1 || got[0].ID != 6 {
		t.Errorf("upgraded %+v", got)
	}
	h.sane()
	s := h.state()
	users, _ := h.access()
	if len(s.Cameras) != 2 || len(s.Streams) != 4 || len(s.Deleted) != 0 || len(users) != 2 || len(users[1].Cameras) != 2 {
		t.Errorf("cameras %v, streams %v, deleted %v, users %v", s.Cameras, s.Streams, s.Deleted, users)
	}
	if diff := cmp.Diff([]int32{1, 2, 3, 4}, h.numbers(h.main)); diff != "" {
		t.Error(diff)
	}
	for value, ok := range map[string]bool{`{"a":[1]}`: true, `[]`: false, `{`: false, `{"a":"` + strings.Repeat("x", 16<<10) + `"}`: false} {
		if _, err := h.writer.Exec(`UPDATE user SET preferences = ?`, value); (err == nil) != ok {
			t.Errorf("preferences %.10s: %v", value, err)
		}
	}
}

// The copy goes a week after the upgrade, not before.
func TestCopyOfOldDatabaseIsKeptForAWeek(t *testing.T) {
	dir := fixture(t, 1)
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		after time.Duration
		kept  bool
	}{{0, true}, {6 * 24 * time.Hour, true}, {8 * 24 * time.Hour, false}} {
		d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "db"), Now: func() time.Time { return now.Add(c.after) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "db.v1")); (err == nil) != c.kept {
			t.Errorf("after %v: %v", c.after, err)
		}
	}
}

// copyAll copies the files of a database as a kill would leave them: what a
// process wrote is there, whether synced or not.
func copyAll(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".lock") || strings.HasSuffix(e.Name(), "-shm") {
			continue // gone with the process, or made again
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// rows of the database without what differs between two upgrades; passwords as
// they are read.
func (h *house) content() string {
	rows := slices.DeleteFunc(h.dump(), func(s string) bool { return strings.HasPrefix(s, "version ") })
	for i := range rows {
		rows[i] = regexp.MustCompile(` sealed_password=\S.*`).ReplaceAllString(rows[i], "")
	}
	for _, st := range h.state().Streams {
		rows = append(rows, fmt.Sprintf("password of stream %d: %q %q", st.ID, st.Password, st.PasswordLost))
	}
	return strings.Join(append(rows, h.about()...), "\n")
}

// R56: a kill at any point of an upgrade, then a start: the same end. Fails when
// the step commits in the middle, or when the copy is not replaced.
func TestUpgradeGoesOnAfterAKillAtAnyPoint(t *testing.T) {
	for _, version := range fixtures {
		t.Run(fmt.Sprintf("from version %d", version), func(t *testing.T) {
			want := upgraded(t, fixture(t, version)).content()
			dir := fixture(t, version)
			crashes := make(map[string]string)
			d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "db"), at: func(point string) {
				crashes[fmt.Sprintf("%02d %s", len(crashes), point)] = copyAll(t, dir)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if len(crashes) < 7 {
				t.Fatalf("%d points: %v", len(crashes), slices.Sorted(maps.Keys(crashes)))
			}
			for _, point := range slices.Sorted(maps.Keys(crashes)) {
				h := upgraded(t, crashes[point])
				if diff := cmp.Diff(want, h.content()); diff != "" {
					t.Errorf("killed at %s: %s", point, diff)
				}
				h.sane()
				if left, err := filepath.Glob(h.path + ".v*.new"); err != nil || len(left) > 0 {
					t.Errorf("killed at %s: half a copy is left: %v, %v", point, left, err)
				}
				h.must(h.Close())
			}
		})
	}
}

// The same for every write to the log: it is cut behind each of its pages, and
// within them, as a kill or a power cut leaves it. The version is the old one up
// to the last page and the new one with it, and the end is the same.
func TestUpgradeGoesOnAfterACutOfTheLogAnywhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, version := range fixtures {
		t.Run(fmt.Sprintf("from version %d", version), func(t *testing.T) {
			cutLogAnywhere(t, version, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func cutLogAnywhere(t *testing.T, version int, random *rand.Rand) {
	want := upgraded(t, fixture(t, version)).content()
	dir := fixture(t, version)
	var committed string
	overwritten := false
	d, err := Open(t.Context(), Config{Path: filepath.Join(dir, "db"), at: func(point string) {
		if overwritten = overwritten || point == "free overwritten"; point == "committed" && !overwritten {
			committed = copyAll(t, dir) // with the log of all steps so far
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(committed, "db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(filepath.Join(committed, "db"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(committed, keyName)) // durable before the log
	if err != nil && (version < 4 || !errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	const header, frame = 32, 24 + 4096
	pages := (len(log) - header) / frame
	if pages < 4 {
		t.Fatalf("%d pages in the log", pages)
	}
	old := 0
	for i := range pages + 1 {
		for _, size := range []int{header + i*frame, header + i*frame + 1 + random.IntN(frame-1)} {
			size = min(size, len(log))
			dir := t.TempDir()
			for name, b := range map[string][]byte{"db": base, "db-wal": log[:size], keyName: key} {
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h := upgraded(t, dir)
			if len(h.Upgraded()) == schemaVersion-version {
				old++
			}
			if diff := cmp.Diff(want, h.content()); diff != "" {
				t.Errorf("log cut at %d of %d bytes: %s", size, len(log), diff)
			}
			h.must(h.Close())
		}
	}
	if old == 0 || old == 2*(pages+1) {
		t.Errorf("%d of %d cuts left the old version", old, 2*(pages+1))
	}
	t.Logf("%d pages in the log, %d of %d cuts left the old version", pages, old, 2*(pages+1))
}

// A step that fails leaves the database as it was, and what was found before it
// stops it before the first change.
func TestUpgradeThatCannotBeDoneChangesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, b []byte) []byte
		free  int64
		want  string
	}{
		"no room": {free: 1 << 20, want: "1048576 bytes are free beside the database"},
		"damaged": {free: 1 << 40, want: "table recording is damaged", spoil: func(t *testing.T, b []byte) []byte {
			// Page 1 of the table's b-tree says how many rows there are.
			at := bytes.Index(b, []byte("recorder stopped"))
			page := b[at/4096*4096:][:4096]
			if page[0] != 0x0d && page[0] != 0x0a {
				t.Fatalf("page of type %#x", page[0])
			}
			for i := range len(b) / 4096 {
				if p := b[i*4096:][:4096]; i > 0 && p[0] == 0x0d && bytes.Contains(p, []byte("recorder stopped")) {
					copy(p[8:], []byte{0xff, 0xff, 0xff, 0xff})
				}
			}
			return b
		}},
		"changed by hand": {free: 1 << 40, want: "it has \"index mine of garbage", spoil: func(t *testing.T, b []byte) []byte {
			path := filepath.Join(t.TempDir(), "db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := openPool(writerDSN(path), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Exec(`CREATE INDEX mine ON garbage (composite_id)`); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if b, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			return b
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := databaseOf(t, 1)
			if c.spoil != nil {
				b = c.spoil(t, b)
			}
			path := filepath.Join(dir, "db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Config{Path: path, free: func(string) (int64, error) { return c.free, nil }})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "upgrade from version 1") {
				t.Fatalf("got %v, expected …%s…", err, c.want)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("the file changed (%v)", err)
			}
		})
	}
}

// Where there is room for the step and none for a copy, there is none.
func TestUpgradeGoesWithoutACopyWhenThereIsNoRoom(t *testing.T) {
	dir := fixture(t, 1)
	path := filepath.Join(dir, "db")
	d, err := Open(t.Context(), Config{Path: path, free: func(string) (int64, error) { return leastRoom + 100_000, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.Stat(path + ".v1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("copy: %v", err)
	}
}

func TestCancelledUpgradeCanBeTriedAgain(t *testing.T) {
	dir := fixture(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Open(ctx, Config{Path: filepath.Join(dir, "db"), at: func(point string) {
		if point == "rows" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	upgraded(t, dir).sane()
}
