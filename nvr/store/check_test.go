package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// footage is the data directory of a stopped recorder: two cameras, and
// recordings of two runs of each.
type footage struct {
	*testing.T
	dir string
	ids []int64 // of the recordings, by stream and number
}

func newFootage(t *testing.T) *footage {
	t.Helper()
	f := &footage{T: t}
	b := newBench(t, nil)
	f.dir = b.dir
	front, back := b.camera("front", plenty, 60), b.camera("back", plenty, 60)
	for range 2 {
		x, y := newFeed(front.Begin(testAudio)), newFeed(back.Begin(nil))
		y.size = 300
		x.pace = 100_030 * time.Microsecond // a camera whose clock is 300 ppm fast
		for range 150 {
			x.play(t, time.Second)
			for range 10 {
				y.one()
			}
		}
		x.run.End("test")
		y.run.End("test")
		time.Sleep(time.Minute)
	}
	b.stop()
	for _, st := range f.state().Streams {
		f.must(f.inspect(func(d *db.DB) error {
			return d.RecordingsByNo(t.Context(), st.ID, 0, 1<<31-1, func(r *db.Recording) error {
				f.ids = append(f.ids, r.ID)
				return nil
			})
		}))
	}
	if len(f.ids) < 8 {
		t.Fatalf("only %d recordings", len(f.ids))
	}
	return f
}

// copy makes another of the same in an empty directory.
func (f *footage) copy(t *testing.T, dir string) *footage {
	t.Helper()
	g := &footage{T: t, dir: dir, ids: f.ids}
	g.must(os.CopyFS(g.dir, os.DirFS(f.dir)))
	return g
}

func (f *footage) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *footage) inspect(do func(*db.DB) error) error {
	d, err := db.Inspect(f.Context(), db.Config{Path: filepath.Join(f.dir, "db")})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Load(f.Context()); err != nil {
		return err
	}
	return do(d)
}

func (f *footage) state() (s *db.State) {
	f.Helper()
	f.must(f.inspect(func(d *db.DB) (err error) { s, err = d.State(f.Context()); return err }))
	return s
}

// file is the path of a sample file.
func (f *footage) file(id int64) string { return filepath.Join(f.dir, "sample", sampledir.Name(id)) }

// sql changes the database behind the recorder's back.
func (f *footage) sql(statements string, args ...any) {
	f.Helper()
	p, err := sql.Open("sqlite", filepath.Join(f.dir, "db"))
	f.must(err)
	_, err = p.Exec(statements, args...)
	f.must(err)
	f.must(p.Close())
}

// write changes bytes of a file.
func (f *footage) write(name string, at int64, b []byte) {
	f.Helper()
	w, err := os.OpenFile(name, os.O_RDWR, 0)
	f.must(err)
	_, err = w.WriteAt(b, at)
	f.must(err)
	f.must(w.Close())
}

func (f *footage) size(name string) int64 {
	f.Helper()
	fi, err := os.Stat(name)
	f.must(err)
	return fi.Size()
}

// check runs a check and returns what it found, with the directory taken out.
func (f *footage) check(cfg CheckConfig) (findings, notes []string, res CheckResult, err error) {
	f.Helper()
	cfg.Dir = f.dir
	cfg.Found = func(x Finding) {
		s := strings.ReplaceAll(x.String(), f.dir, "DIR")
		if strings.ContainsAny(s, "\r\n") {
			f.Errorf("a finding has several lines: %q", s)
		}
		if x.Note {
			notes = append(notes, s)
		} else {
			findings = append(findings, s)
		}
	}
	res, err = Check(f.Context(), cfg)
	return findings, notes, res, err
}

// clean fails the test when a check finds anything.
func (f *footage) clean() {
	f.Helper()
	found, _, _, err := f.check(CheckConfig{})
	if err != nil || len(found) > 0 {
		f.Errorf("not clean: %v, %q", err, found)
	}
}

// matches compares findings with patterns in which … is any text.
func matches(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		rest := got[i]
		for j, part := range strings.Split(want[i], "…") {
			k := strings.Index(rest, part)
			if k < 0 || j == 0 && k > 0 {
				return false
			}
			rest = rest[k+len(part):]
		}
		if rest != "" && !strings.HasSuffix(want[i], "…") {
			return false
		}
	}
	return true
}

func TestWholeRecorderChecksClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		found, notes, res, err := f.check(CheckConfig{})
		if err != nil || len(found)+len(notes) > 0 {
			t.Errorf("%v, found %q, notes %q", err, found, notes)
		}
		if res.Rows != len(f.ids) || res.Bytes == 0 {
			t.Errorf("checked %d rows and %d bytes, there are %d rows", res.Rows, res.Bytes, len(f.ids))
		}
		found, _, res, err = f.check(CheckConfig{Quick: true})
		if err != nil || len(found) > 0 || res.Bytes != 0 {
			t.Errorf("quick: %v, %q, %d bytes read", err, found, res.Bytes)
		}
	})
}

// Each kind of damage, the one line that it gives, and the repair after which a
// second check finds nothing.
func TestEachDamageIsFoundAndRepaired(t *testing.T) {
	repairs := map[string]CheckConfig{
		"sums":         {RepairSums: true, Force: true},
		"rewrite":      {RewriteRows: true, Force: true},
		"trash":        {TrashCorruptRows: true, Force: true},
		"tails":        {CutTails: true, Force: true},
		"orphan rows":  {DeleteOrphanRows: true, Force: true},
		"orphan files": {DeleteOrphanFiles: true, Force: true},
	}
	var original *footage
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) { original = newFootage(t).copy(t, dir) })
	// Recording 1/1 is a whole minute in the middle of its run.
	for i, tt := range []struct {
		name   string
		damage func(f *footage, id int64)
		want   []string
		repair string // "" when there is none
	}{
		{"file is gone", func(f *footage, id int64) { f.must(os.Remove(f.file(id))) },
			[]string{"orphan row 1/1: its file DIR/sample/0000000100000001.mp4 is not there"}, "orphan rows"},
		{"file is cut", func(f *footage, id int64) { f.must(os.Truncate(f.file(id), f.size(f.file(id))-7)) },
			[]string{"file DIR/sample/0000000100000001.mp4: it is whole up to byte … of …: recording 1/1: fragment … unexpected EOF"}, "trash"},
		{"file is cut between fragments", func(f *footage, id int64) {
			f.must(os.Truncate(f.file(id), f.fragment(id, -1)))
		}, []string{"file DIR/sample/0000000100000001.mp4: it has … bytes, its row says …"}, "rewrite"},
		{"file is empty", func(f *footage, id int64) { f.must(os.Truncate(f.file(id), 0)) },
			[]string{"file DIR/sample/0000000100000001.mp4: not a sample file: 0 bytes, no ftyp"}, "trash"},
		{"file has a tail", func(f *footage, id int64) { f.write(f.file(id), f.size(f.file(id)), []byte("tail")) },
			[]string{"file DIR/sample/0000000100000001.mp4: 4 bytes are behind the … that its row says"}, "tails"},
		{"one bit of a picture", func(f *footage, id int64) {
			at := f.fragment(id, 3) + 600
			b := f.read(f.file(id))[at] ^ 4
			f.write(f.file(id), at, []byte{b})
		}, []string{"file DIR/sample/0000000100000001.mp4: it is whole up to byte … of …: recording 1/1: fragment … at byte …: checksum is …, not …"}, "trash"},
		{"file of another recording", func(f *footage, id int64) {
			f.must(os.WriteFile(f.file(id), f.read(f.file(f.ids[2])), 0o600))
		}, []string{"file DIR/sample/0000000100000001.mp4: it says that it is recording 1/2"}, "trash"},
		{"file under another open", func(f *footage, id int64) {
			f.sql(`INSERT INTO open SELECT id + 10, 'another' || substr(uuid, 8), boot_id, start_time_90k, end_time_90k, duration_90k FROM open;
				UPDATE recording SET open_id = open_id + 10 WHERE composite_id = ?`, id)
		}, []string{"file DIR/sample/0000000100000001.mp4: it was written under open 1 (…), its row says open 11 (another…)"}, "trash"},
		{"row says other counts", func(f *footage, id int64) {
			f.sql(`UPDATE recording SET video_samples = video_samples + 1 WHERE composite_id = ?`, id)
		}, []string{"index 1/1: its index has 600 pictures (60 keys), …; its row 601 (60), …"}, "rewrite"},
		{"row says another duration", func(f *footage, id int64) {
			f.sql(`UPDATE recording SET media_duration_delta_90k = media_duration_delta_90k + 5 WHERE composite_id = ?`, id)
		}, []string{"row 1/2: it stands at …", "index 1/1: its index has …"}, "rewrite"},
		{"row says another wall duration", func(f *footage, id int64) {
			f.sql(`UPDATE recording SET wall_duration_90k = wall_duration_90k - 90000, media_duration_delta_90k = media_duration_delta_90k + 90000
				WHERE composite_id = ?; UPDATE stream SET total_wall_duration_90k = total_wall_duration_90k - 90000 WHERE id = 1`, id)
		}, []string{"row 1/1: its wall duration 59… is more than 500 ppm from its media duration 1m0s"}, "rewrite"},
		{"row says another size", func(f *footage, id int64) {
			f.sql(`UPDATE recording SET file_bytes = file_bytes - 1 WHERE composite_id = ?; UPDATE stream SET total_file_bytes = total_file_bytes - 1 WHERE id = 1`, id)
		}, []string{"index 1/1: its index has …, in a file of …; its row …, 600, 0, …"}, "rewrite"},
		{"row has other flags", func(f *footage, id int64) {
			f.sql(`UPDATE recording SET flags = flags | 1 WHERE composite_id = ?`, id)
		}, []string{"row 1/1: it says 1 in flags, the file has 0"}, "rewrite"},
		{"row names another sample entry", func(f *footage, id int64) {
			f.sql(`INSERT INTO video_sample_entry SELECT 2, format, codec, timescale, config, 640, height, pasp_h, pasp_v FROM video_sample_entry WHERE id = 1;
				UPDATE recording SET video_sample_entry_id = 2 WHERE composite_id = ?`, id)
		}, []string{"row 1/1: it says video sample entry 2, which is not that of the file"}, "rewrite"},
		{"index of pictures", func(f *footage, id int64) {
			f.sql(`UPDATE recording_playback SET video = x'ff' WHERE composite_id = ?`, id)
		}, []string{"index 1/1: its index of pictures: damaged sample index: …"}, "rewrite"},
		{"index of pictures of another recording", func(f *footage, id int64) {
			// The same sums in another order: only the file knows.
			f.sql(`UPDATE recording_playback SET video = ? WHERE composite_id = ?`, f.swapped(id), id)
		}, []string{"index 1/1: its index of pictures is not that of the file"}, "rewrite"},
		{"index of fragments", func(f *footage, id int64) {
			f.sql(`UPDATE recording_playback SET fragments = x'0500' WHERE composite_id = ?`, id)
		}, []string{"index 1/1: its index has 0 fragments, …"}, "rewrite"},
		{"no playback", func(f *footage, id int64) { f.sql(`DELETE FROM recording_playback WHERE composite_id = ?`, id) },
			[]string{"index 1/1: it has no row in recording_playback"}, "rewrite"},
		{"no integrity", func(f *footage, id int64) { f.sql(`DELETE FROM recording_integrity WHERE composite_id = ?`, id) },
			[]string{"row 1/1: it has no row in recording_integrity"}, "rewrite"},
		{"total of recordings", func(f *footage, id int64) { f.sql(`UPDATE stream SET total_recordings = 3 WHERE id = 1`) },
			[]string{"stream front main: its total is 3 recordings, its rows add up to 6"}, "sums"},
		{"total of bytes", func(f *footage, id int64) {
			f.sql(`UPDATE stream SET total_fs_bytes = total_fs_bytes + 1 WHERE id = 1`)
		},
			[]string{"stream front main: its total is … bytes in blocks, its rows add up to …"}, "sums"},
		{"next recording is too low", func(f *footage, id int64) { f.sql(`UPDATE stream SET cum_recordings = 4 WHERE id = 1`) },
			[]string{"stream front main: its next recording is 4, it has rows up to 5"}, "sums"},
		{"count of runs is too low", func(f *footage, id int64) { f.sql(`UPDATE stream SET cum_runs = 1 WHERE id = 1`) },
			[]string{"stream front main: it counts 1 runs, its rows 2"}, "sums"},
		{"row without its file's number", func(f *footage, id int64) {
			f.sql(`PRAGMA foreign_keys = 0; DELETE FROM recording_playback WHERE composite_id = ?1; DELETE FROM recording_integrity WHERE composite_id = ?1;
				DELETE FROM recording WHERE composite_id = ?1;
				UPDATE stream SET (total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k) =
				(SELECT count(*), sum(file_bytes), sum(fs_bytes), sum(wall_duration_90k) FROM recording WHERE stream_id = 1) WHERE id = 1`, id)
		}, []string{"orphan file DIR/sample/0000000100000001.mp4: it has no row, and the next recording of front main is 6"}, "orphan files"},
		{"file of no stream", func(f *footage, id int64) {
			f.must(os.WriteFile(f.file(77<<32), f.read(f.file(id)), 0o600))
		}, []string{"orphan file DIR/sample/0000004d00000000.mp4: there is no stream 77"}, "orphan files"},
		{"file too far ahead", func(f *footage, id int64) {
			f.must(os.WriteFile(f.file(1<<32|(6+16)), f.read(f.file(id)), 0o600))
		}, []string{"orphan file DIR/sample/0000000100000016.mp4: it has no row, and is too far behind number 6 for a start to find it"}, "orphan files"},
		{"foreign file", func(f *footage, id int64) { f.must(os.WriteFile(filepath.Join(f.dir, "sample/notes.txt"), nil, 0o600)) },
			[]string{"directory DIR/sample: notes.txt is not of the recorder; it is left alone"}, ""},
		{"foreign file whose name would be a finding", func(f *footage, id int64) {
			f.must(os.WriteFile(filepath.Join(f.dir, "sample/x\nrow 1"), nil, 0o600))
		}, []string{`directory DIR/sample: x\nrow 1 is not of the recorder; it is left alone`}, ""},
		{"garbage row of a recording", func(f *footage, id int64) { f.sql(`INSERT INTO garbage VALUES (1, ?)`, id) },
			[]string{"garbage 1/1 in directory 1: it has a row as a recording, too"}, "orphan rows"},
		{"garbage row of a number to come", func(f *footage, id int64) { f.sql(`INSERT INTO garbage VALUES (1, ?)`, int64(1)<<32|9) },
			[]string{"garbage 1/9 in directory 1: its number may still be given to a recording: the next is 6"}, "orphan rows"},
		{"foreign key", func(f *footage, id int64) {
			f.sql(`PRAGMA foreign_keys = 0; UPDATE recording SET open_id = 99 WHERE composite_id = ?`, id)
		},
			[]string{"database DIR/db: row 4294967297 of recording refers to a missing row of open"}, ""},
		{"table is missing", func(f *footage, id int64) { f.sql(`DROP TABLE garbage`) },
			[]string{"schema DIR/db: table garbage is missing"}, ""},
		{"index is missing", func(f *footage, id int64) { f.sql(`DROP INDEX recording_cover`) },
			[]string{"schema DIR/db: index recording_cover is missing"}, ""},
		{"table more", func(f *footage, id int64) { f.sql(`CREATE TABLE notes (a)`) },
			[]string{"schema DIR/db: table notes is not of a new database"}, ""},
		{"column more", func(f *footage, id int64) { f.sql(`ALTER TABLE camera ADD COLUMN x TEXT`) },
			[]string{"schema DIR/db: table camera differs from that of a new database"}, ""},
		{"page of the database", func(f *footage, id int64) {
			f.write(filepath.Join(f.dir, "db"), f.page("recording_cover"), bytes.Repeat([]byte{0xaa}, 4096))
		}, []string{"database DIR/db: …"}, "any"},
		{"header of the database", func(f *footage, id int64) { f.write(filepath.Join(f.dir, "db"), 0, make([]byte, 16)) },
			[]string{"database DIR/db: open database DIR/db: not a database of this program; restore it from a backup by starting the recorder, or run nvr rebuild"}, ""},
		{"meta of the directory", func(f *footage, id int64) { f.must(os.Remove(filepath.Join(f.dir, "sample/meta"))) },
			[]string{"directory DIR/sample: it has no meta file: its disk is not mounted, or it is another one; its recordings are not checked"}, ""},
		{"directory of another installation", func(f *footage, id int64) {
			f.sql(`UPDATE meta SET uuid = 'another' || substr(uuid, 8)`)
		}, []string{"directory DIR/sample: it belongs to another installation (database …, ours is another…); its recordings are not checked"}, ""},
		{"swapped directory", func(f *footage, id int64) { f.sql(`UPDATE sample_file_dir SET uuid = 'another' || substr(uuid, 8)`) },
			[]string{"directory DIR/sample: it is another one of this installation (…, expected another…); its recordings are not checked"}, ""},
		{"old copy", func(f *footage, id int64) {
			f.sql(`INSERT INTO open SELECT id + 10, 'another' || substr(uuid, 8), boot_id, start_time_90k, end_time_90k, duration_90k FROM open;
				UPDATE sample_file_dir SET last_complete_open_id = 11`)
		}, []string{"directory DIR/sample: it and the database are not of the same time (directory: open 1, database: open 11): one of them is an old copy; its recordings are not checked"}, ""},
		{"directory is gone", func(f *footage, id int64) {
			f.must(os.Rename(filepath.Join(f.dir, "sample"), filepath.Join(f.dir, "elsewhere")))
		}, []string{"directory DIR/sample: …no such file or directory; its recordings are not checked"}, ""},
	} {
		if testing.Short() && i%8 != 0 {
			continue // one after the other, and slow under the race detector
		}
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := original.copy(t, inMemory(t))
				tt.damage(f, f.ids[1])
				found, _, _, err := f.check(CheckConfig{})
				if err != nil {
					t.Fatal(err)
				}
				if tt.repair == "any" {
					if len(found) < 2 {
						t.Errorf("found %q", found)
					}
					for _, l := range found {
						if !strings.HasPrefix(l, "database DIR/db: ") || strings.Contains(l, "***") {
							t.Errorf("found %q", l)
						}
					}
					return
				}
				for i, want := range tt.want {
					if i >= len(found) || !containsMatch(found, want) {
						t.Errorf("found\n%s\nexpected\n%s", strings.Join(found, "\n"), strings.Join(tt.want, "\n"))
						break
					}
				}
				if len(found) != len(tt.want) {
					t.Errorf("found %d: %q", len(found), found)
				}
				if tt.repair == "" {
					return
				}
				// Without -force, and with it.
				cfg := repairs[tt.repair]
				cfg.Force = false
				if _, _, _, err := f.check(cfg); (err == nil) != (tt.repair == "sums") {
					t.Errorf("repair of 1 of %d rows without force: %v", len(f.ids), err)
				}
				if _, _, res, err := f.check(repairs[tt.repair]); err != nil || res.Repaired == 0 && tt.repair != "sums" {
					t.Errorf("repaired %d: %v", res.Repaired, err)
				}
				f.clean()
				// And the recorder starts on it.
				b := &bench{T: t, dir: f.dir, log: new(journal)}
				b.start()
				b.stop()
				f.clean()
			})
		})
	}
}

// More than 1 % of the rows are repaired by force only, and nothing before that.
func TestRepairsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 3600)
		for range 200 {
			f := newFeed(st.Begin(nil))
			f.play(t, time.Second)
			f.run.End("test")
			time.Sleep(time.Second)
		}
		b.stop()
		f := &footage{T: t, dir: b.dir}
		var told CheckProgress
		_, _, res, err := f.check(CheckConfig{Progress: func(p CheckProgress) { told = p }})
		if err != nil || res.Rows != 200 || res.Findings > 0 || told != (CheckProgress{Rows: 200, TotalRows: 200, Bytes: res.Bytes}) || told.Bytes == 0 {
			t.Fatalf("%v, %+v, progress ends at %+v", err, res, told)
		}
		orphan := func(no int32) string { return f.file(db.CompositeID(9, no)) } // of no stream
		for no := range int32(3) {
			f.must(os.WriteFile(orphan(no), f.read(f.file(db.CompositeID(1, no))), 0o600))
		}
		if _, _, res, err := f.check(CheckConfig{DeleteOrphanFiles: true}); !errors.Is(err, ErrTooMuch) || res.Repaired > 0 {
			t.Errorf("3 of 200: %v, %d repaired", err, res.Repaired)
		}
		for no := range int32(3) {
			if _, err := os.Stat(orphan(no)); err != nil {
				t.Errorf("what is refused was begun: %v", err)
			}
		}
		f.must(os.Remove(orphan(2)))
		if _, _, res, err := f.check(CheckConfig{DeleteOrphanFiles: true}); err != nil || res.Repaired != 2 {
			t.Errorf("2 of 200: %v, %d repaired", err, res.Repaired)
		}
		f.clean()
	})
}

func containsMatch(found []string, want string) bool {
	for _, f := range found {
		if matches([]string{f}, []string{want}) {
			return true
		}
	}
	return false
}

// While files may be seen that are not on the disk, a check says so and repairs
// nothing, and a rebuild makes no rows of them.
func TestNobodyBelievesWhatIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		ends := endings{path: filepath.Join(f.dir, endsName)}
		uuid := f.state().Dirs[0].UUID
		f.must(errors.Join(ends.set(uuid, 2), ends.set(startEnds, 3), ends.set(doubtEnds, 1)))
		found, notes, res, err := f.check(CheckConfig{})
		if err != nil || len(found) != 1 || !strings.HasPrefix(found[0], "doubt DIR/db.unsynced: ") || res.Rows != len(f.ids) {
			t.Errorf("%v, found %q", err, found)
		}
		if len(notes) != 2 || !strings.Contains(notes[0]+notes[1], "doubt DIR/sample: its sync failed and ended the recorder 2 times") ||
			!strings.Contains(notes[0]+notes[1], "the last 3 starts") {
			t.Errorf("notes %q", notes)
		}
		if _, _, _, err := f.check(CheckConfig{RepairSums: true, Force: true}); !errors.Is(err, ErrPoisoned) {
			t.Errorf("a repair: %v", err)
		}
		if _, _, err := f.rebuild(RebuildConfig{}); !errors.Is(err, ErrPoisoned) || !strings.Contains(err.Error(), endsName) {
			t.Errorf("a rebuild: %v", err)
		}
		f.must(ends.set(doubtEnds, 0))
		if found, _, _, err := f.check(CheckConfig{RepairSums: true}); err != nil || len(found) > 0 {
			t.Errorf("without doubt: %v, found %q", err, found)
		}
		if _, found, err := f.rebuild(RebuildConfig{}); err != nil || len(found) > 0 {
			t.Errorf("a rebuild without doubt: %v, %q", err, found)
		}
	})
}

// What a killed recorder leaves is no damage: the next start adopts it.
func TestFilesWithoutRowsBehindTheNextNumberAreAdoptable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		f.sql(`PRAGMA foreign_keys = 0; DELETE FROM recording_playback WHERE composite_id = ?1; DELETE FROM recording_integrity WHERE composite_id = ?1;
			DELETE FROM recording WHERE composite_id = ?1; UPDATE stream SET cum_recordings = 5,
			(total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k) =
			(SELECT count(*), sum(file_bytes), sum(fs_bytes), sum(wall_duration_90k) FROM recording WHERE stream_id = 1) WHERE id = 1`, f.ids[5])
		found, notes, _, err := f.check(CheckConfig{DeleteOrphanFiles: true, Force: true})
		want := fmt.Sprintf("file DIR/sample/%s: it has no row yet; the next start adopts it", sampledir.Name(f.ids[5]))
		if err != nil || len(found) != 0 || len(notes) != 1 || notes[0] != want {
			t.Errorf("%v, found %q, notes %q", err, found, notes)
		}
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		if got := len(list(t, b.again("front"))); got != 6 {
			t.Errorf("%d recordings after the start, expected 6", got)
		}
		b.stop()
		f.clean()
	})
}

func TestCheckRefusesARunningRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		f := &footage{T: t, dir: b.dir}
		if _, _, _, err := f.check(CheckConfig{}); err == nil || !strings.Contains(err.Error(), "database is in use") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCheckOfNothingCreatesNothing(t *testing.T) {
	f := &footage{T: t, dir: t.TempDir()}
	if _, _, _, err := f.check(CheckConfig{}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(f.dir); len(left) > 0 {
		t.Errorf("it made %v", left)
	}
}

func (f *footage) read(name string) []byte {
	f.Helper()
	b, err := os.ReadFile(name)
	f.must(err)
	return b
}

// fragment is where the n-th fragment of a file begins, from the end when n is
// negative.
func (f *footage) fragment(id int64, n int) int64 {
	f.Helper()
	b := f.read(f.file(id))
	sf, err := mp4.ReadSampleFile(bytes.NewReader(b), int64(len(b)))
	f.must(err)
	if n < 0 {
		n += len(sf.Fragments)
	}
	return sf.Fragments[n].Pos
}

// swapped is the index of the pictures of a recording with two of different
// sizes changed about.
func (f *footage) swapped(id int64) []byte {
	f.Helper()
	var p db.Playback
	f.must(f.inspect(func(d *db.DB) (err error) { p, err = d.Playback(f.Context(), id); return err }))
	var samples []media.Sample
	for r := media.NewIndexReader(p.Video, p.Offsets); r.Next(); {
		samples = append(samples, r.Sample)
	}
	samples[1].Size--
	samples[2].Size++
	var w media.IndexWriter
	for _, s := range samples {
		w.Append(s)
	}
	return w.Index()
}

// page is where the root page of a table or an index lies in the database.
func (f *footage) page(name string) (at int64) {
	f.Helper()
	p, err := sql.Open("sqlite", filepath.Join(f.dir, "db"))
	f.must(err)
	f.must(p.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = ?`, name).Scan(&at))
	f.must(p.Close())
	return (at - 1) * 4096
}

// A disk that took half of a fragment, and nothing for so long that the rest of
// the fragment fell out of memory.
func TestFragmentThatFellOutOfMemoryLeavesNoTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, smallRing(&d))
		st := b.camera("front", plenty, 60)
		g := newFeed(st.Begin(nil))
		g.size = 4 << 10
		g.play(t, 5*time.Second)
		d.mu.Lock()
		for range 10_000 {
			d.fail["write"] = append(d.fail["write"], errDisk)
		}
		d.mu.Unlock()
		g.play(t, 5*time.Minute)
		d.heal()
		g.play(t, 5*time.Second)
		g.run.End("test")
		time.Sleep(5 * time.Second)
		b.stop()
		f := &footage{T: t, dir: b.dir}
		f.must(f.inspect(func(x *db.DB) error {
			return x.RecordingsByNo(t.Context(), 1, 0, 1<<31-1, func(r *db.Recording) error {
				if got := f.size(f.file(r.ID)); got != r.FileBytes {
					t.Errorf("recording %d: its file has %d bytes, its row says %d", r.No(), got, r.FileBytes)
				}
				return nil
			})
		}))
	})
}

// What did not sync may be behind what a row says: a note when the recording says
// that the disk failed, or when another file holds it again, and a finding
// otherwise.
func TestTailThatDidNotSyncIsANote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.gop = 15
		f.play(t, 5500*time.Millisecond)
		d.mu.Lock()
		d.fail["sync"], d.fail["truncate"] = []error{errDisk}, []error{errDisk, errDisk}
		d.mu.Unlock()
		f.play(t, 70*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		b.stop()
		g := &footage{T: t, dir: b.dir}
		check := func(what string, quick bool, findings, notes int) {
			t.Helper()
			found, noted, _, err := g.check(CheckConfig{Quick: quick})
			if err != nil || len(found) != findings || len(noted) != notes {
				t.Errorf("%s: findings %q, notes %q, %v", what, found, noted, err)
			}
		}
		check("what another file holds again", false, 0, 1)
		check("what another file holds again", true, 0, 1)
		last := db.CompositeID(st.id, st.nextNo-1)
		g.write(g.file(last), g.size(g.file(last)), []byte("tail"))
		check("and a tail of no known cause", false, 1, 1)
		check("and a tail of no known cause", true, 1, 1)
		g.sql(`UPDATE recording SET end_reason = ? WHERE composite_id = ?`, reasonDiskError, last)
		g.sql(`UPDATE span SET end_reason = ? WHERE last_no = ?`, reasonDiskError, st.nextNo-1)
		check("and one of a disk that failed", false, 0, 2)
		g.sql(`UPDATE recording SET end_reason = ? WHERE composite_id = ?`, reasonSlowDisk, last)
		g.sql(`UPDATE span SET end_reason = ? WHERE last_no = ?`, reasonSlowDisk, st.nextNo-1)
		check("and one of a disk that was too slow", false, 0, 2)
	})
}
