package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/db/dbtest"
	"holdfast/nvr/store/internal/sampledir"
)

// aDay records short runs for more than a day, so that a copy of the database is
// made, and goes on for hours after it. The stop is a kill when flush is false.
func aDay(t *testing.T) (f *footage, wanted map[string][]int32) {
	t.Helper()
	f = &footage{T: t}
	b := newBench(t, nil)
	f.dir = b.dir
	front := b.camera("front", plenty, 60)
	back := b.camera("back", 16<<20, 60)
	play := func(n int) {
		for range n {
			x, y := newFeed(front.Begin(nil)), newFeed(back.Begin(nil))
			y.size = 200 << 10 // retention at work
			for range 8 {
				x.one()
				y.one()
				time.Sleep(100 * time.Millisecond)
			}
			x.run.End("test")
			y.run.End("test")
			time.Sleep(10 * time.Minute)
		}
	}
	play(6)
	if !strings.Contains(b.log.String(), "backed up database") {
		t.Fatal("no copy after an hour")
	}
	// A restart, so that there is an open that the copy does not know.
	b.stop()
	b.start()
	front, back = b.again("front"), b.again("back")
	play(30)
	wanted = make(map[string][]int32)
	for _, st := range []*Stream{front, back} {
		for _, r := range list(t, st) {
			wanted[st.name.String()] = append(wanted[st.name.String()], r.No)
		}
	}
	if wanted["back"][0] < 6 {
		t.Fatalf("retention has not taken what the copy knows: %v", wanted["back"])
	}
	b.stop()
	// What is in the log as well is not damaged by damage of the file.
	f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
	return f, wanted
}

func (f *footage) db(suffix string) string { return filepath.Join(f.dir, "db"+suffix) }

// lose is what can happen to a database.
var lose = map[string]func(f *footage){
	"header":     func(f *footage) { f.write(f.db(""), 0, make([]byte, 100)) },
	"first page": func(f *footage) { f.write(f.db(""), 100, bytes.Repeat([]byte{0x55}, 3996)) },
	"page":       func(f *footage) { f.write(f.db(""), f.page("stream"), bytes.Repeat([]byte{0xaa}, 4096)) },
	"page of rows": func(f *footage) {
		f.write(f.db(""), f.page("recording_cover"), bytes.Repeat([]byte{0xaa}, 4096))
	},
	"cut": func(f *footage) {
		f.must(os.Truncate(f.db(""), f.size(f.db(""))/2/4096*4096))
	},
	"cut in a page": func(f *footage) { f.must(os.Truncate(f.db(""), 5000)) },
	"empty":         func(f *footage) { f.must(os.Truncate(f.db(""), 0)) },
	"missing":       func(f *footage) { f.must(os.Remove(f.db(""))) },
	"missing, its log left": func(f *footage) {
		f.must(os.Rename(f.db(""), f.db("-wal")))
	},
	"missing after a cut in a restore": func(f *footage) {
		f.must(os.Remove(f.db("")))
		f.must(os.WriteFile(f.db(".restoring"), []byte("half"), 0o600))
		f.must(os.WriteFile(f.db(".restoring-wal"), []byte("half"), 0o600))
		f.must(os.WriteFile(filepath.Join(f.dir, "sample/db.backup-new"), []byte("half"), 0o600))
	},
	"missing after a cut between the generations": func(f *footage) {
		f.must(os.Remove(f.db("")))
		older := filepath.Join(f.dir, "sample/db.backup-1")
		if err := os.Rename(filepath.Join(f.dir, "sample/db.backup-0"), older); !errors.Is(err, os.ErrNotExist) { // where there is no copy
			f.must(err)
			f.must(os.WriteFile(filepath.Join(f.dir, "sample/db.backup-new"), f.read(older), 0o600))
		}
	},
	"damage seen before": func(f *footage) {
		f.write(f.db(""), f.page("recording_playback"), bytes.Repeat([]byte{0xaa}, 4096))
		f.must(os.WriteFile(f.db(".suspect"), nil, 0o600))
	},
}

func TestLostDatabaseComesBackFromItsCopy(t *testing.T) {
	var original *footage
	var wanted map[string][]int32
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		f, w := aDay(t)
		original, wanted = f.copy(t, dir), w
	})
	for name, damage := range lose {
		if testing.Short() && name != "page" && name != "missing" {
			continue // one after the other, and slow under the race detector
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := original.copy(t, inMemory(t))
				damage(f)
				b := &bench{T: t, dir: f.dir, log: new(journal)}
				b.start()
				if n := strings.Count(b.log.String(), "database restored from a copy"); n != 1 {
					t.Errorf("%d lines about it", n)
				}
				if strings.Contains(b.log.String(), "rows_without_files=0") {
					t.Error("retention has deleted files since, and no row goes")
				}
				// It goes on at once, under an open of its own.
				g := newFeed(b.again("front").Begin(nil))
				g.play(t, 3*time.Second)
				g.run.End("test")
				adopted(t, b.s)
				wanted := maps.Clone(wanted)
				front := wanted["front"]
				wanted["front"] = append(slices.Clone(front), front[len(front)-1]+1)
				for camera, want := range wanted {
					st := b.again(camera)
					if err := st.Unavailable(); err != nil {
						t.Error(err)
					}
					var got []int32
					for _, r := range list(t, st) {
						got = append(got, r.No)
						numbers(t, st, r.No)
					}
					slices.Sort(got) // the clock is behind
					if !slices.Equal(got, want) {
						t.Errorf("%s: recordings %v, were %v", camera, got, want)
					}
				}
				b.stop()
				f.clean()
				kept, _ := filepath.Glob(f.db(".damaged-1*"))
				if (len(kept) == 0) != (strings.HasPrefix(name, "missing") && !strings.Contains(name, "log")) {
					t.Errorf("the old one is kept as %v", kept)
				}
				b.log = new(journal)
				b.start()
				if strings.Contains(b.log.String(), "restored") {
					t.Error("restored again")
				}
				b.stop()
			})
		})
		t.Run(name+" without a copy", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := original.copy(t, inMemory(t))
				for _, n := range []string{"0", "1"} {
					os.Remove(filepath.Join(f.dir, "sample/db.backup-"+n))
				}
				damage(f)
				before, _ := os.ReadFile(f.db(""))
				s, err := Open(t.Context(), Config{Dir: f.dir})
				if name == "damage seen before" {
					f.must(err)
					f.must(s.Close(t.Context()))
					startsWithDamage(t, f) // of what a flush writes
					return
				}
				if !errors.Is(err, ErrDatabaseLost) || !strings.Contains(err.Error(), "run nvr rebuild -data "+f.dir) {
					t.Errorf("got %v", err)
				}
				if after, _ := os.ReadFile(f.db("")); !bytes.Equal(before, after) {
					t.Error("the database was changed")
				}
				if res, _, err := f.rebuild(RebuildConfig{}); err != nil || res.Recordings != len(wanted["front"])+len(wanted["back"]) {
					t.Errorf("rebuild: %+v, %v", res, err)
				}
				f.clean()
			})
		})
	}
}

// startsWithDamage starts and records, again and again, with a database that takes
// nothing and has no copy, and rebuilds it.
func startsWithDamage(t *testing.T, f *footage) {
	t.Helper()
	b := &bench{T: t, dir: f.dir, log: new(journal)}
	for _, minutes := range []int{4, 20, 20} { // so that the second start adopts before it records
		b.log = new(journal)
		b.start()
		if !strings.Contains(b.log.String(), "run nvr rebuild -data "+f.dir) {
			t.Error("the log names no remedy")
		}
		g := newFeed(b.again("front").Begin(nil))
		for range minutes / 4 {
			g.play(t, 4*time.Minute) // copies would be made, damage be looked into
			if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "no copy of it is whole") || !strings.Contains(got[0], "run nvr rebuild") {
				t.Errorf("it is shown as %q", got)
			}
		}
		select {
		case err := <-b.s.Fatal():
			t.Errorf("it ends: %v", err)
		default:
		}
		g.run.End("test")
		time.Sleep(3 * time.Second)
		if err := b.s.Close(t.Context()); !db.Damaged(err) {
			t.Errorf("close: %v: the test proves nothing", err)
		}
		b.s = nil
	}
	if files := b.files(); len(files) < 44 {
		t.Errorf("%d files", len(files))
	}
	if res, _, err := f.rebuild(RebuildConfig{}); err != nil || res.Recordings != len(b.files()) {
		t.Errorf("rebuild of %d files: %+v, %v", len(b.files()), res, err)
	}
	f.clean()
}

// kills copies the data directory at each point that it is called with, as a kill
// there would leave it.
type kills struct {
	t      *testing.T // outside of any bubble
	f      *footage
	points []string
	left   map[string]*footage // by point
}

func (k *kills) at(point string) {
	point = fmt.Sprintf("%02d %s", len(k.points)+1, point)
	k.points = append(k.points, point)
	if k.left == nil {
		k.left = make(map[string]*footage)
	}
	k.left[point] = k.f.copy(k.t, inMemory(k.t))
}

// each calls f with what the kill at each point left.
func (k *kills) each(t *testing.T, atLeast int, f func(t *testing.T, left *footage)) {
	if len(k.points) < atLeast {
		t.Fatalf("only %d points: %q", len(k.points), k.points)
	}
	for _, point := range k.points {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := *k.left[point]
				left.T = t
				f(t, &left)
			})
		})
	}
}

// nothingHalf fails the test when something is left of a database that was being
// made.
func (f *footage) nothingHalf() {
	f.Helper()
	for _, name := range []string{".restoring", ".rebuilding"} {
		if left, err := filepath.Glob(f.db(name + "*")); err != nil || len(left) > 0 {
			f.Errorf("left is %v, %v", left, err)
		}
	}
}

// A kill at any point of a restore, then a start: nothing is lost, and the
// damaged database is kept.
func TestRestoreGoesOnAfterAKillAtAnyPoint(t *testing.T) {
	if testing.Short() {
		t.Skip("a day of recordings: slow under the race detector")
	}
	var wanted map[string][]int32
	k := &kills{t: t}
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		f, w := aDay(t)
		k.f, wanted = f.copy(t, dir), w
	})
	k.f.T = t
	lose["page"](k.f)
	damaged := k.f.read(k.f.db(""))
	k.f.must(os.WriteFile(k.f.db("-wal"), nil, 0o600)) // renamed away, too
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, dir: dir, log: new(journal), hook: func(cfg *Config) { cfg.at = k.at }}
		b.start()
		b.stop()
	})
	k.each(t, 9, func(t *testing.T, f *footage) {
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		adopted(t, b.s)
		for camera, want := range wanted {
			var got []int32
			for _, r := range list(t, b.again(camera)) {
				got = append(got, r.No)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: recordings %v, were %v", camera, got, want)
			}
		}
		b.stop()
		f.clean()
		f.nothingHalf()
		if !bytes.Equal(f.read(f.db(".damaged-1")), damaged) {
			t.Error("the damaged database is not kept as it was")
		}
	})
}

// A kill at any point of a rebuild: a start goes on with the old database, with
// the new one, or names the rebuild; and a rebuild gives what it would have given.
func TestRebuildGoesOnAfterAKillAtAnyPoint(t *testing.T) {
	k := &kills{t: t}
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) { k.f = newFootage(t).copy(t, dir) })
	k.f.T = t
	k.f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
	original := k.f.copy(t, inMemory(t)).db("")
	synctest.Test(t, func(t *testing.T) {
		k.f.T = t
		if _, _, err := k.f.rebuild(RebuildConfig{at: k.at}); err != nil {
			t.Fatal(err)
		}
	})
	k.each(t, 6, func(t *testing.T, f *footage) {
		g := f.copy(t, inMemory(t))
		if exists(g.db("")) {
			b := &bench{T: t, dir: g.dir, log: new(journal)}
			b.start()
			b.stop()
			g.clean()
		} else if _, err := Open(t.Context(), Config{Dir: g.dir}); !errors.Is(err, ErrDatabaseLost) || !strings.Contains(err.Error(), "run nvr rebuild -data "+g.dir) {
			t.Errorf("the start says %v", err)
		}
		if res, found, err := f.rebuild(RebuildConfig{}); err != nil || len(found) > 0 || res.Recordings != len(f.ids) {
			t.Errorf("rebuild: %+v, %q, %v", res, found, err)
		}
		f.clean()
		f.nothingHalf()
		f.compare(original, f.db(""))
	})
}

// A copy whose bytes have rotted is passed over for the one before it.
func TestOlderCopyIsTakenWhenTheNewerIsDamaged(t *testing.T) {
	if testing.Short() {
		t.Skip("two days without a camera: slow under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		time.Sleep(12 * time.Hour)
		b.stop()
		b.start()
		time.Sleep(time.Hour)
		if n := strings.Count(b.log.String(), "backed up database"); n != 1 {
			t.Errorf("%d copies after 13 hours and a restart, expected 1", n)
		}
		time.Sleep(36 * time.Hour)
		if n := strings.Count(b.log.String(), "backed up database"); n != 3 {
			t.Errorf("%d copies in 49 hours, expected 3", n)
		}
		b.stop()
		newer := filepath.Join(f.dir, "sample/db.backup-0")
		f.write(newer, f.size(newer)/2, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
		f.must(os.Remove(f.db("")))
		b.log = new(journal)
		b.start()
		if l := b.log.String(); !strings.Contains(l, "a copy of the database is not usable") || !strings.Contains(l, "checksum is") ||
			!strings.Contains(l, "db.backup-1") {
			t.Error("the log does not tell")
		}
		b.stop()
		f.clean()
	})
}

// A copy of a damaged database does not push out a good one, and the next start
// restores.
func TestDamageFoundByTheDailyCopyIsRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("a day without a camera: slow under the race detector")
	}
	for _, tt := range []struct {
		name, says string
		damage     func(f *footage)
	}{
		{"a page", "malformed", func(f *footage) {
			f.write(f.db(""), f.page("recording_playback"), bytes.Repeat([]byte{0xaa}, 4096))
		}},
		{"an index", "missing from index", (*footage).rot},
	} {
		t.Run(tt.name, func(t *testing.T) { damageFoundByTheDailyCopy(t, tt.damage, tt.says) })
	}
}

func damageFoundByTheDailyCopy(t *testing.T, damage func(f *footage), says string) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		time.Sleep(time.Hour)
		b.stop()
		f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
		copies := f.read(filepath.Join(f.dir, "sample/db.backup-0"))
		damage(f)
		s, err := Open(t.Context(), Config{Dir: f.dir, Log: slog.New(slog.NewTextHandler(io.MultiWriter(b.log, b.Output()), nil))})
		f.must(err)
		time.Sleep(25 * time.Hour)
		select {
		case err := <-s.Fatal():
			if !strings.Contains(err.Error(), "the next start restores it") {
				t.Error(err)
			}
		default:
			t.Error("the process goes on")
		}
		s.stop()
		s.running.Wait()
		for _, d := range s.dirs {
			d.dir.Close()
		}
		s.poisoned.Store(false)
		f.must(s.db.Close())
		if !bytes.Equal(copies, f.read(filepath.Join(f.dir, "sample/db.backup-0"))) {
			t.Error("a damaged copy was kept")
		}
		b.log = new(journal)
		b.start()
		if !strings.Contains(b.log.String(), "database restored from a copy") {
			t.Error("not restored")
		}
		if said := b.s.Restored(); !strings.Contains(said, says) || !strings.Contains(said, "is restored from its copy of 20") {
			t.Errorf("it says %q", said)
		}
		b.stop()
		b.start()
		if said := b.s.Restored(); said != "" {
			t.Errorf("a start later it says %q", said)
		}
		b.stop()
		f.clean()
	})
}

// rot has an index say other things than its table, which a quick check does not see.
func (f *footage) rot() {
	f.Helper()
	const index = `PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = `
	f.sql(index + `sql || ' WHERE 0' WHERE name = 'recording_cover'`)
	f.sql(`UPDATE recording SET prev_runs = prev_runs + 1`)
	f.sql(index + `replace(sql, ' WHERE 0', '') WHERE name = 'recording_cover'`)
	f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
}

// No copy is better than the database, and a start can begin with that: it does, shows
// it, and neither replaces it nor ends again and again to do so. When the database is
// lost such a copy is better than none.
func TestDamageInAllCopiesCostsNoFootage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		g := newFeed(b.camera("front", plenty, 60).Begin(nil))
		g.play(t, 5*time.Minute)
		g.run.End("test")
		open := b.s.OpenID()
		f := &footage{T: t, dir: b.dir}
		b.stop()
		f.rot()
		disk, err := sampledir.OpenDisk(filepath.Join(f.dir, "sample"))
		f.must(err)
		for n := range int64(2) {
			path, err := disk.BeginBackup()
			f.must(err)
			f.must(os.WriteFile(path, f.read(f.db("")), 0o600))
			m, err := disk.ReadMeta()
			f.must(err)
			f.must(disk.KeepBackup(sampledir.Backup{Time: 1<<40 + n, Open: open, DatabaseUUID: m.DatabaseUUID}, t.Context().Err))
		}
		f.must(disk.Close())
		f.must(os.WriteFile(f.db(".suspect"), nil, 0o600))
		for range 2 {
			b.log = new(journal)
			b.start()
			if n := strings.Count(b.log.String(), "a copy of the database is not usable"); n != 2 || b.s.Restored() != "" {
				t.Errorf("%d copies are not usable; %s", n, b.s.Restored())
			}
			g := newFeed(b.again("front").Begin(nil))
			g.play(t, backupFirst)
			b.s.suspect(errors.New("malformed"))
			g.play(t, 4*time.Minute)
			select {
			case err := <-b.s.Fatal():
				t.Errorf("it ends: %v", err)
			default:
			}
			if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "missing from index") {
				t.Errorf("it is shown as %q", got)
			}
			if strings.Contains(b.log.String(), "database is not backed up") {
				t.Error("a damaged database is copied")
			}
			g.run.End("test")
			b.stop()
		}
		copied := filepath.Join(t.TempDir(), "copy")
		if err := Backup(t.Context(), f.dir, copied, nil); !errors.Is(err, db.ErrRotten) {
			t.Errorf("a backup by hand: %v", err)
		}
		_, err = Restore(t.Context(), f.dir, copied, slog.New(slog.DiscardHandler))
		f.must(err)

		wanted := len(b.files())
		f.must(os.Remove(f.db("")))
		os.Remove(f.db(".suspect"))
		for i := range 2 {
			b.log = new(journal)
			b.start()
			if got := b.s.Restored(); (i == 0) != strings.Contains(got, "is restored from its copy") {
				t.Errorf("start %d says %q", i, got)
			}
			if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "missing from index") {
				t.Errorf("it is shown as %q", got)
			}
			adopted(t, b.s)
			if got := len(list(t, b.again("front"))); got != wanted {
				t.Errorf("%d recordings, there were %d", got, wanted)
			}
			b.stop()
		}
		res, _, err := f.rebuild(RebuildConfig{})
		if err != nil || res.Recordings != len(b.files()) {
			t.Errorf("rebuild of %d files: %+v, %v", len(b.files()), res, err)
		}
		f.clean()
	})
}

// What keeps a copy from the place of a damaged database keeps nobody from recording.
func TestRestoreThatFailsCostsNoFootage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, g := copied(t, dbtest.New(t), nil)
		g.run.End("test")
		f := &footage{T: t, dir: b.dir}
		b.stop()
		f.rot()
		f.must(os.MkdirAll(f.db(".restoring/in the way"), 0o700))
		f.must(os.WriteFile(f.db(".suspect"), nil, 0o600))
		b.start()
		g = newFeed(b.again("front").Begin(nil))
		g.play(t, 3*time.Second)
		g.run.End("test")
		if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "missing from index") {
			t.Errorf("it is shown as %q", got)
		}
		b.stop()
		f.must(os.RemoveAll(f.db(".restoring")))
		b.start()
		if got := b.s.Restored(); !strings.Contains(got, "missing from index") || len(faults(b.s)) > 0 {
			t.Errorf("it says %q, faults %q", got, faults(b.s))
		}
		adopted(t, b.s)
		b.stop()
		f.clean()
	})
}

// A copy that is newer than the database and cannot be restored leaves it that.
func TestOlderDatabaseIsBroughtUpWhenItsCopyCannotBeRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		old := f.read(f.db(""))
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		g := newFeed(b.again("front").Begin(nil))
		g.play(t, backupFirst+time.Minute)
		g.run.End("test")
		want := len(list(t, b.again("front")))
		b.stop()
		f.must(os.Remove(f.db("-wal")))
		f.must(os.WriteFile(f.db(""), old, 0o600))
		f.must(os.MkdirAll(f.db(".restoring/in the way"), 0o700))
		b.log = new(journal)
		b.start()
		if l := b.log.String(); !strings.Contains(l, "database was older than its sample directories") || b.s.Restored() == "" {
			t.Errorf("it says %q", b.s.Restored())
		}
		if got := faults(b.s); len(got) > 0 {
			t.Errorf("it is shown as %q", got)
		}
		adopted(t, b.s)
		if got := len(list(t, b.again("front"))); got != want {
			t.Errorf("%d recordings, there were %d", got, want)
		}
		b.stop()
		f.must(os.RemoveAll(f.db(".restoring")))
		f.clean()
	})
}

// older records under three opens more, and puts the database of before back.
func (f *footage) older() *bench {
	f.Helper()
	f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
	old := f.read(f.db(""))
	b := &bench{T: f.T, dir: f.dir, log: new(journal)}
	for range 3 {
		b.start()
		g := newFeed(b.again("front").Begin(nil))
		g.play(f.T, 3*time.Second)
		g.run.End("test")
		b.stop()
	}
	f.must(os.Remove(f.db("-wal")))
	f.must(os.WriteFile(f.db(""), old, 0o600))
	return b
}

// A database that is damaged and older than its directory is brought up before a start
// begins with it, so that the directory takes what is recorded.
func TestDamagedDatabaseIsBroughtUpToItsDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		f.rot()
		b := f.older()
		f.must(os.WriteFile(f.db(".suspect"), nil, 0o600))
		b.start()
		if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "missing from index") {
			t.Errorf("it is shown as %q", got)
		}
		if n := b.s.OpenID(); n < 5 {
			t.Errorf("the open has number %d, which another one had", n)
		}
		adopted(t, b.s)
		if got := len(list(t, b.again("front"))); got != 9 {
			t.Errorf("%d recordings, there were 9", got)
		}
		b.stop()
	})
}

// A directory that comes late with a copy lets the process end for it once a day.
func TestCopyThatComesLateIsGoneBackTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, f := copied(t, dbtest.New(t), nil)
		dir := b.s.dirs[0].dir
		ends := func() bool {
			b.s.copyCame(dir)
			select {
			case err := <-b.s.Fatal():
				return strings.Contains(err.Error(), "a directory with a copy of it came")
			default:
				return false
			}
		}
		for i, want := range []bool{false, true, false, true} {
			switch i {
			case 1:
				b.s.damage.startsWith(errors.New("page 7"))
			case 3:
				time.Sleep(endEvery)
			}
			if got := ends(); got != want {
				t.Errorf("time %d: it ends: %v", i, got)
			}
		}
		b.end(f)
	})
}

// A sample directory that is an old copy lacks files that its own disk may have: a
// restore keeps their rows.
func TestRestoreDropsNothingForAnOldCopyOfADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		here, own, copied := filepath.Join(f.dir, "sample"), filepath.Join(f.dir, "own"), filepath.Join(t.TempDir(), "copy")
		old := t.TempDir()
		f.must(os.CopyFS(old, os.DirFS(here)))
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		g := newFeed(b.again("front").Begin(nil))
		g.play(t, 3*time.Second)
		g.run.End("test")
		want := len(list(t, b.again("front")))
		b.stop()
		f.must(Backup(t.Context(), f.dir, copied, nil))
		f.must(os.Rename(here, own))
		f.must(os.CopyFS(here, os.DirFS(old)))
		f.must(os.Remove(f.db("")))
		_, err := Restore(t.Context(), f.dir, copied, slog.New(slog.NewTextHandler(b.log, nil)))
		f.must(err)
		if !strings.Contains(b.log.String(), "sample directory is an old copy") {
			t.Error("the log does not tell")
		}
		f.must(errors.Join(os.RemoveAll(here), os.Rename(own, here)))
		b.start()
		adopted(t, b.s)
		if got := len(list(t, b.again("front"))); got != want {
			t.Errorf("%d recordings, there were %d", got, want)
		}
		b.stop()
		f.clean()
	})
}

// A disk that does not take a copy, or does not give back what it took, costs the
// copy and nothing else, and an hour after it is well there is one.
func TestDiskThatFailsUnderACopyCostsTheCopyOnly(t *testing.T) {
	write, read := dbtest.Op{Kind: dbtest.Write, File: dbtest.Main}, dbtest.Op{Kind: dbtest.Read, File: dbtest.Main}
	for _, tt := range []struct {
		name, says string
		fault      func(*dbtest.VFS)
		room       bool // recordings are to make room
	}{
		{"does not write", "disk I/O error", func(v *dbtest.VFS) { v.Fail(write, 1, -1, syscall.EIO) }, false},
		{"is full", "database or disk is full", func(v *dbtest.VFS) { v.Fail(write, 1, -1, syscall.ENOSPC) }, true},
		{"does not read back", "disk I/O error", func(v *dbtest.VFS) { v.Fail(read, 1, -1, syscall.EIO) }, false},
		{"reads back something else", "the database is sound", func(v *dbtest.VFS) { v.Rot(dbtest.Main) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := dbtest.NewDefault(t) // under the copies
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(cfg *Config) {
					cfg.openDB = func(ctx context.Context, c db.Config) (*db.DB, error) {
						c.VFS = dbtest.Unix
						return db.Open(ctx, c)
					}
				})
				st := b.camera("front", plenty, 60)
				f := newFeed(st.Begin(nil))
				tt.fault(v)
				f.play(t, backupFirst+3*time.Minute)
				select {
				case err := <-b.s.Fatal():
					t.Fatalf("the process ends: %v", err)
				default:
				}
				if l := b.log.String(); !strings.Contains(l, "database is not backed up") || !strings.Contains(l, tt.says) {
					t.Error("the log does not tell")
				}
				if _, err := os.Stat(filepath.Join(b.dir, suspectName)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the database is taken for damaged: %v", err)
				}
				d := st.dir
				if n := len(d.dir.(*sampledir.Disk).Backups()); n != 0 {
					t.Errorf("%d copies", n)
				}
				d.mu.Lock()
				if (d.room.forCopy > 0) != tt.room {
					t.Errorf("%d bytes are made free for the copy", d.room.forCopy)
				}
				d.mu.Unlock()
				v.Heal()
				f.play(t, backupRetry)
				if !strings.Contains(b.log.String(), "backed up database") {
					t.Error("no copy an hour after the disk is well")
				}
				f.run.End("test")
				b.stop()
				if fs, _, _, err := (&footage{T: t, dir: b.dir}).check(CheckConfig{}); err != nil || len(fs) > 0 {
					t.Errorf("check: %v, %q", err, fs)
				}
			})
		})
	}
}

// A start that looks at all of a database on a slow disk, and at the copy in its
// place, says all the time that it gets further.
func TestStartThatLooksAtTheWholeDatabaseSaysSo(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged %v", damaged), func(t *testing.T) {
			v := dbtest.NewDefault(t)
			synctest.Test(t, func(t *testing.T) {
				f := newFootage(t)
				f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
				if damaged {
					b := &bench{T: t, dir: f.dir, log: new(journal)}
					b.start()
					time.Sleep(time.Hour)
					b.stop()
					f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
					f.write(f.db(""), f.page("recording_playback"), bytes.Repeat([]byte{0xaa}, 4096))
				}
				f.must(os.WriteFile(f.db(".suspect"), nil, 0o600))
				v.Delay(dbtest.Op{Kind: dbtest.Read, File: dbtest.Main}, 25*time.Second)
				began := time.Now()
				var mu sync.Mutex
				last, longest := began, time.Duration(0)
				b := &bench{T: t, dir: f.dir, log: new(journal)}
				b.hook = func(cfg *Config) {
					cfg.Progress = func() {
						mu.Lock()
						defer mu.Unlock()
						longest, last = max(longest, time.Since(last)), time.Now()
					}
					cfg.openDB = func(ctx context.Context, c db.Config) (*db.DB, error) {
						if took := time.Since(began); took < 10*time.Minute {
							t.Errorf("it took %v: the test proves nothing", took)
						}
						v.Heal()
						cfg.Progress()
						return db.Open(ctx, c)
					}
				}
				b.start()
				mu.Lock()
				if longest > time.Minute {
					t.Errorf("nothing is said for %v", longest)
				}
				mu.Unlock()
				if got := strings.Contains(b.log.String(), "database restored from a copy"); got != damaged {
					t.Errorf("restored: %v", got)
				}
				b.stop()
			})
		})
	}
}

func TestBackupAndRestoreByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		to := filepath.Join(t.TempDir(), "copy")
		f.must(Backup(t.Context(), f.dir, to, nil))
		if fi, err := os.Stat(to); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		if err := Backup(t.Context(), f.dir, to, nil); !errors.Is(err, db.ErrLocked) {
			t.Errorf("backup of a running recorder: %v", err)
		}
		g := newFeed(b.again("front").Begin(nil))
		g.play(t, 3*time.Second)
		g.run.End("test")
		b.stop()
		kept, err := Restore(t.Context(), f.dir, to, slog.New(slog.DiscardHandler))
		if err != nil || kept != f.db(".damaged-1") {
			t.Fatal(kept, err)
		}
		b.start()
		if got := len(list(t, b.again("front"))); got != 7 {
			t.Errorf("%d recordings, expected 7", got)
		}
		b.stop()
		f.clean()
		if _, err := Restore(t.Context(), f.dir, f.file(f.ids[0]), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "not a database") {
			t.Errorf("a file that is no copy: %v", err)
		}
		f.clean()
	})
}

// A disk that lies loses the newest part of the log, or a person puts an old copy
// in the place of the database. It is whole, and older than its directory: the start
// brings it up, or takes the newest copy where that is newer still.
func TestDatabaseOlderThanItsDirectoryIsBroughtUp(t *testing.T) {
	for _, copied := range []bool{false, true} {
		t.Run(fmt.Sprintf("newer copy %v", copied), func(t *testing.T) {
			k := &kills{t: t}
			dir, count := inMemory(t), 0
			synctest.Test(t, func(t *testing.T) {
				f := newFootage(t)
				f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
				old := f.read(f.db(""))
				b := &bench{T: t, dir: f.dir, log: new(journal)}
				for range 2 { // opens of which the old one does not know
					b.start()
					g := newFeed(b.again("front").Begin(nil))
					g.play(t, 3*time.Second)
					g.run.End("test")
					if copied {
						time.Sleep(backupFirst + time.Minute)
					}
					count = len(list(t, b.again("front")))
					b.stop()
				}
				f.must(os.Remove(f.db("-wal")))
				f.must(os.WriteFile(f.db(""), old, 0o600))
				k.f = f.copy(t, dir)
				k.f.T = k.t
			})
			again := func(t *testing.T, f *footage, says string) {
				b := &bench{T: t, dir: f.dir, log: new(journal)}
				if says != "" {
					b.hook = func(cfg *Config) { cfg.at = k.at }
				}
				b.start()
				if says != "" && (!strings.Contains(b.log.String(), says) || b.s.Restored() == "") {
					t.Errorf("it says %q, and not %q", b.s.Restored(), says)
				}
				adopted(t, b.s)
				g := newFeed(b.again("front").Begin(nil))
				g.play(t, 3*time.Second)
				g.run.End("test")
				if got := len(list(t, b.again("front"))); got != count+1 {
					t.Errorf("%d recordings with the new one, there were %d", got, count)
				}
				if n := b.s.OpenID(); n < 4 {
					t.Errorf("the open has number %d, which another one had", n)
				}
				if h := faults(b.s); len(h) > 0 {
					t.Errorf("faults: %q", h)
				}
				b.stop()
				b.hook, b.log = nil, new(journal)
				b.start()
				if said := b.s.Restored(); said != "" {
					t.Errorf("the next start says %q", said)
				}
				b.stop()
				f.clean()
			}
			says, points := "database was older than its sample directories", 2
			if copied {
				says, points = "database restored from a copy", 9
			}
			synctest.Test(t, func(t *testing.T) {
				f := *k.f
				f.T = t
				again(t, &f, says)
			})
			k.each(t, points, func(t *testing.T, f *footage) { again(t, f, "") })
		})
	}
}

// The directory was not there at the first start of the old database: it is not
// written to when it comes, and the log says what to do; after that all is back.
func TestDirectoryThatComesNewerThanItsDatabaseIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		b := f.older()
		away, here := filepath.Join(f.dir, "away"), filepath.Join(f.dir, "sample")
		f.must(os.Rename(here, away))
		b.start()
		f.must(errors.Join(os.Remove(here), os.Rename(away, here)))
		time.Sleep(5 * time.Minute)
		if !strings.Contains(b.log.String(), "restart the recorder with it in place") {
			t.Error("the log does not say what to do")
		}
		b.stop()
		b.start()
		adopted(t, b.s)
		if got := len(list(t, b.again("front"))); got != 9 {
			t.Errorf("%d recordings, there were 9", got)
		}
		b.stop()
		// Which of two opens of one number a file is of, two databases say differently.
		found, _, _, err := f.check(CheckConfig{})
		f.must(err)
		for _, finding := range found {
			if !strings.Contains(finding, "its row says open 2") {
				t.Error(finding)
			}
		}
	})
}

// A copy from before numbers without files, which only the lost database knew of:
// the files behind them come back, too.
func TestRestoreFindsFilesBehindNumbersWithoutAny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		to := filepath.Join(t.TempDir(), "copy")
		f.must(Backup(t.Context(), f.dir, to, nil))
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		st := b.again("front")
		for range 80 {
			g := newFeed(st.Begin(nil))
			g.play(t, 2*time.Second)
			g.run.End("test")
		}
		all := list(t, st)
		b.stop()
		var kept []int32
		for _, r := range all {
			if no := r.No; no < 12 || no >= 12+3*probeAhead+5 {
				kept = append(kept, no)
			} else {
				f.must(os.Remove(f.file(db.CompositeID(st.id, no))))
			}
		}
		if _, err := Restore(t.Context(), f.dir, to, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		b.start()
		adopted(t, b.s)
		var got []int32
		for _, r := range list(t, b.again("front")) {
			got = append(got, r.No)
		}
		if !slices.Equal(got, kept) || len(got) < 30 {
			t.Errorf("recordings %v, want %v", got, kept)
		}
		b.stop()
		f.clean()
	})
}

// What was revoked since the copy was made stays so: users come back, and sign
// in again.
func TestRestoreEndsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		f.must(b.s.Database().ApplyAccess(t.Context(), &db.AccessChange{
			Users: []db.User{{Name: "anna"}}, Sessions: []db.Session{{SecretHash: [32]byte{1}}},
		}))
		b.stop()
		to := filepath.Join(t.TempDir(), "copy")
		f.must(Backup(t.Context(), f.dir, to, nil))
		if _, err := Restore(t.Context(), f.dir, to, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		b.start()
		users, sessions, err := b.s.Database().Access(t.Context())
		if err != nil || len(users) != 1 || len(sessions) != 0 {
			t.Errorf("%+v, %+v, %v", users, sessions, err)
		}
		b.stop()
		f.clean()
	})
}

// What came after the copy is not listed, and is in nobody's way.
func TestStreamsThatCameAfterTheCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		f := &footage{T: t, dir: b.dir}
		b.camera("front", plenty, 60)
		time.Sleep(time.Hour)
		late := b.camera("late", plenty, 60)
		g := newFeed(late.Begin(nil))
		g.play(t, 3*time.Second)
		g.run.End("test")
		b.stop()
		f.must(os.Remove(f.db("")))
		b.start()
		if !strings.Contains(b.log.String(), "files of streams that came after the copy") {
			t.Error("the log does not tell")
		}
		if next := b.camera("next", plenty, 60); next.id <= late.id {
			t.Errorf("stream %d is given again", next.id)
		}
		b.stop()
		found, _, _, err := f.check(CheckConfig{})
		if want := []string{"orphan file DIR/sample/0000000200000000.mp4: there is no stream 2"}; err != nil || !matches(found, want) {
			t.Errorf("%v, found %q", err, found)
		}
		res, _, err := f.rebuild(RebuildConfig{})
		if err != nil || !slices.Equal(res.Streams, []string{"late main"}) {
			t.Errorf("rebuild: %+v, %v", res, err)
		}
		f.clean()
	})
}

func TestCopyLeavesRoomForRecordings(t *testing.T) {
	const mb = 1 << 20
	for _, tt := range []struct {
		total, free, size int64
		ok                bool
	}{
		{1600 * mb, 300 * mb, 225 * mb, true},
		{1600 * mb, 300 * mb, 226 * mb, false},
		{32_768 * mb, 1000 * mb, 232 * mb, true},
		{32_768 * mb, 1000 * mb, 233 * mb, false},
		{1000_000 * mb, 20_040 * mb, 5040 * mb, true},
		{1000_000 * mb, 20_040 * mb, 5041 * mb, false},
	} {
		if err := roomFor(sampledir.Space{Total: tt.total, Free: tt.free}, tt.size); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A disk that hangs under its copy of the database keeps the others from theirs
// for an hour at most, and the recorder ends though copies wait for it.
func TestDiskThatHangsUnderACopyHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for range 2 {
			if _, err := b.s.AddDir(t.Context(), t.TempDir()); err != nil {
				t.Fatal(err)
			}
		}
		dirs := b.s.dirs
		dirs[0].copying <- struct{}{} // its copy is under way, and it is its turn
		end, err := b.s.copies.turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		copied := func() (n int) {
			for _, d := range dirs {
				n += len(mustDisk(t, b.s, d.id).Backups())
			}
			return n
		}
		time.Sleep(backupFirst + copyPatience - time.Minute)
		if n := copied(); n != 0 {
			t.Errorf("%d copies are made beside one that may come to its end", n)
		}
		time.Sleep(3 * time.Minute)
		if n := copied(); n != 2 {
			t.Errorf("%d copies on the other disks, want 2", n)
		}
		end()
		<-dirs[0].copying
		time.Sleep(time.Minute)
		if n := copied(); n != 3 {
			t.Errorf("%d copies when all disks answer, want 3", n)
		}
		time.Sleep(backupEvery - time.Hour)
		if end, err = b.s.copies.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
		b.stop()
		end()
	})
}

// Copies come one after the other, and who hangs is waited for once, whoever waits.
func TestCopiesWaitOnceForOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c copies
		began := time.Now()
		turn := func() (end func(), at time.Duration) {
			end, err := c.turn(t.Context())
			if err != nil {
				t.Error(err)
			}
			return end, time.Since(began)
		}
		var hung []func()
		for range 2 {
			end, _ := turn()
			hung = append(hung, end)
		}
		if d := time.Since(began); d != copyPatience {
			t.Errorf("the second had its turn after %v", d)
		}
		at := make(chan time.Duration)
		for range 3 {
			go func() {
				end, d := turn()
				time.Sleep(time.Minute)
				end()
				at <- d
			}()
		}
		for i := range 3 {
			if got, want := <-at, 2*copyPatience+time.Duration(i)*time.Minute; got != want {
				t.Errorf("copy %d had its turn after %v, want %v", i, got, want)
			}
		}
		end, _ := turn()
		for _, end := range hung {
			end() // late, and nobody's turn ends by it
		}
		if c.ended == nil {
			t.Error("a copy that ended late ended the turn of another")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.turn(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a turn when the recorder ends: %v", err)
		}
		end()
	})
}
