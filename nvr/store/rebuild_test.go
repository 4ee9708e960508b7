package store

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/store/internal/sampledir"
)

// rows reads a table of a database file, each row as column → value.
func (f *footage) rows(path, query string) (out []map[string]any) {
	f.Helper()
	p, err := sql.Open("sqlite", path)
	f.must(err)
	defer p.Close()
	rows, err := p.Query(query)
	f.must(err)
	defer rows.Close()
	columns, err := rows.Columns()
	f.must(err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		f.must(rows.Scan(values...))
		row := make(map[string]any)
		for i, c := range columns {
			row[c] = *values[i].(*any)
		}
		out = append(out, row)
	}
	f.must(rows.Err())
	return out
}

func (f *footage) rebuild(cfg RebuildConfig) (res RebuildResult, found []string, err error) {
	f.Helper()
	cfg.Dir = f.dir
	cfg.Found = func(x Finding) { found = append(found, strings.ReplaceAll(x.String(), f.dir, "DIR")) }
	var told RebuildProgress
	cfg.Progress = func(p RebuildProgress) {
		if p.TotalFiles == 0 {
			return // directories are being listed
		}
		if p.Files != told.Files+1 || p.Bytes < told.Bytes {
			f.Errorf("progress is %+v after %+v", p, told)
		}
		told = p
	}
	res, err = Rebuild(f.Context(), cfg)
	if err == nil && res.Recordings > 0 && (told.Files < res.Recordings || told.Files != told.TotalFiles || told.Bytes != res.Bytes) {
		f.Errorf("progress ends at %+v of %+v", told, res)
	}
	return res, found, err
}

// What a rebuild cannot bring back, because files do not say it. All else has
// to be as it was.
var notInFiles = map[string]string{
	"meta":                "",
	"open":                "boot_id, start_time_90k, end_time_90k, duration_90k",
	"sample_file_dir":     "",
	"camera":              "description",
	"stream":              "url, username, password, transport, record, retain_bytes, flush_if_sec, retain_days, owed_from_90k",
	"video_sample_entry":  "",
	"audio_sample_entry":  "",
	"recording":           "flags", // recovered
	"recording_integrity": "local_time_delta_90k, wall_end_delta_90k",
	"recording_playback":  "",
	"span":                "end_time_90k",
	"garbage":             "",
}

// compare holds the tables of two database files together, but for the columns
// that are lost.
func (f *footage) compare(was, is string) {
	f.Helper()
	for table, columns := range notInFiles {
		not := strings.Split(columns, ", ")
		query := "SELECT * FROM " + table
		if table == "open" { // one under which nothing was recorded leaves nothing
			query += " WHERE id IN (SELECT open_id FROM recording)"
		}
		a, b := f.rows(was, query), f.rows(is, query)
		if len(a) != len(b) {
			f.Errorf("%s: %d rows, there were %d", table, len(b), len(a))
			continue
		}
		for i := range a {
			for column, want := range a[i] {
				got := b[i][column]
				if column == "flags" {
					want, got = want.(int64)&^4, got.(int64)&^4
				} else if slices.Contains(not, column) {
					continue
				}
				// How the last of a run stood to the clock is in no file.
				if table == "recording" && (column == "wall_duration_90k" || column == "media_duration_delta_90k") && a[i]["end_reason"] != nil {
					if d := got.(int64) - want.(int64); d > 90000*60/2000 || d < -90000*60/2000 {
						f.Errorf("%s %v %s: %v, was %v", table, a[i]["composite_id"], column, got, want)
					}
					continue
				}
				if column == "total_wall_duration_90k" {
					continue
				}
				if g, w := fmt.Sprintf("%x", got), fmt.Sprintf("%x", want); g != w {
					f.Errorf("%s row %d %s: %v, was %v", table, i+1, column, got, want)
				}
			}
		}
	}
}

func TestRebuildBringsBackWhatFilesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		var before []RecordingInfo
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		for _, name := range []string{"front", "back"} {
			before = append(before, list(t, b.again(name))...)
		}
		b.stop()
		res, found, err := f.rebuild(RebuildConfig{})
		if err != nil || len(found) > 0 {
			t.Fatalf("%v, %q", err, found)
		}
		if res.Recordings != len(f.ids) || res.Cameras != 2 || res.Kept != filepath.Join(f.dir, "db.damaged-1") ||
			!slices.Equal(res.Streams, []string{"front main", "back main"}) {
			t.Errorf("result %+v", res)
		}
		f.clean()
		f.compare(res.Kept, filepath.Join(f.dir, "db"))
		left, _ := filepath.Glob(filepath.Join(f.dir, "db.rebuilding*"))
		if len(left) > 0 {
			t.Errorf("left over: %v", left)
		}

		// The recorder starts and lists the same; nothing is deleted.
		b.start()
		var after []RecordingInfo
		for _, name := range []string{"front", "back"} {
			st := b.again(name)
			after = append(after, list(t, st)...)
			if _, record := st.Source(); record || st.Info().RetainBytes < st.Info().FSBytes+slackAfterRebuild {
				t.Errorf("%s: recorded %v, limit %d with %d bytes", name, record, st.Info().RetainBytes, st.Info().FSBytes)
			}
		}
		if len(after) != len(before) {
			t.Fatalf("%d recordings, there were %d", len(after), len(before))
		}
		for i := range before {
			x, y := before[i], after[i]
			if x.EndReason == "" && x.WallDuration != y.WallDuration || x.Start != y.Start || x.No != y.No || x.MediaDuration != y.MediaDuration {
				t.Errorf("recording was %+v, is %+v", x, y)
			}
		}
		time.Sleep(time.Hour)
		// And goes on: numbers and opens continue, pictures play.
		st := b.again("front")
		g := newFeed(st.Begin(nil))
		g.play(t, 70*time.Second)
		g.run.End("test")
		time.Sleep(5 * time.Second)
		recs := list(t, st)
		last := recs[len(recs)-1]
		if last.No != 7 || last.OpenID <= before[0].OpenID+1 {
			t.Errorf("the next recording is %d under open %d", last.No, last.OpenID)
		}
		for _, r := range recs {
			numbers(t, st, r.No)
		}
		b.stop()
		f.clean()
	})
}

// A file may have been begun when less media was known to be before it than there is:
// behind what a start adopted, or what was written again. Its row stands behind
// that all the same.
func TestRebuiltMediaStandsOneBehindTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		number := regexp.MustCompile(`"prevMediaDuration90k":[1-9][0-9]*`)
		for _, id := range []int64{f.ids[1], f.ids[3]} { // of a run, and the first of another
			init := f.read(f.file(id))[:f.fragment(id, 0)]
			about, at := bytes.LastIndexByte(init, '{'), number.FindIndex(init)
			if at == nil {
				t.Fatalf("%s does not say what media is before it", sampledir.Name(id))
			}
			copy(init[at[0]:], fmt.Appendf(nil, `"prevMediaDuration90k":%*d`, at[1]-at[0]-len(`"prevMediaDuration90k":`), 90000))
			sum := init[about-4 : about]
			clear(sum)
			binary.BigEndian.PutUint32(sum, crc32.Checksum(init, crc32.MakeTable(crc32.Castagnoli)))
			f.write(f.file(id), 0, init)
		}
		if res, found, err := f.rebuild(RebuildConfig{}); err != nil || len(found) > 0 || res.Recordings != len(f.ids) {
			t.Fatalf("%+v, %v, %q", res, err, found)
		}
		f.clean()
	})
}

// Killed, and the database lost: the torn end is cut as adoption cuts it.
func TestRebuildAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		f.must(os.Truncate(f.file(f.ids[5]), f.size(f.file(f.ids[5]))-3))                         // the last of its stream
		f.must(os.WriteFile(f.file(1<<32|6), nil, 0o600))                                         // created, nothing more
		f.must(os.WriteFile(f.file(1<<32|7), f.read(f.file(f.ids[0]))[:100], 0o600))              // torn in its beginning
		f.must(os.WriteFile(f.file(99<<32), f.read(f.file(f.ids[0])), 0o600))                     // renamed by somebody
		f.must(os.WriteFile(filepath.Join(f.dir, "sample/notes.txt"), []byte("not ours"), 0o600)) // foreign
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(filepath.Join(f.dir, "db") + suffix)
		}
		res, found, err := f.rebuild(RebuildConfig{})
		if err != nil || res.Recordings != len(f.ids) || res.Kept != "" || res.TornBytes == 0 {
			t.Fatalf("%v, %+v", err, res)
		}
		want := []string{
			"directory DIR/sample: notes.txt is not of the recorder; it is left alone",
			"file DIR/sample/0000000100000007.mp4: not a sample file: moov says … bytes where … are left; it is left alone",
			"file DIR/sample/0000006300000000.mp4: it says that it is recording 1/0; it is left alone",
		}
		if !matches(found, want) {
			t.Errorf("found\n%s\nexpected\n%s", strings.Join(found, "\n"), strings.Join(want, "\n"))
		}
		f.must(os.Remove(f.file(99 << 32)))
		f.must(os.Remove(filepath.Join(f.dir, "sample/notes.txt")))
		f.clean()
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		time.Sleep(time.Minute)
		b.stop()
		f.clean()
		if got := len(b.files()); got != len(f.ids) {
			t.Errorf("%d files, expected %d: the empty ones are garbage", got, len(f.ids))
		}
	})
}

// A directory without its meta file, and a second directory.
func TestRebuildOfTwoDirectoriesWithoutMeta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		f.must(os.Remove(filepath.Join(f.dir, "sample/meta")))
		other := filepath.Join(f.dir, "other")
		f.must(os.Mkdir(other, 0o700))
		for _, id := range f.ids[6:] {
			f.must(os.Rename(f.file(id), filepath.Join(other, filepath.Base(f.file(id)))))
		}
		// A copy that is worse: cut.
		b0 := f.read(filepath.Join(other, filepath.Base(f.file(f.ids[6]))))
		f.must(os.WriteFile(f.file(f.ids[6]), b0[:len(b0)-5], 0o600))
		res, found, err := f.rebuild(RebuildConfig{Dirs: []string{other}})
		if err != nil || res.Recordings != len(f.ids) {
			t.Fatalf("%v, %+v", err, res)
		}
		if want := []string{"file DIR/sample/0000000200000000.mp4: there is a better one of the same recording in …/other; it is left alone"}; !matches(found, want) {
			t.Errorf("found %q", found)
		}
		f.must(os.Remove(f.file(f.ids[6])))
		f.clean()
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		for _, name := range []string{"front", "back"} {
			if err := b.again(name).Unavailable(); err != nil {
				t.Error(err)
			}
			for _, r := range list(t, b.again(name)) {
				numbers(t, b.again(name), r.No)
			}
		}
		b.stop()
		f.clean()
	})
}

func TestRebuildRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		if _, _, err := f.rebuild(RebuildConfig{}); err == nil || !strings.Contains(err.Error(), "database is in use") {
			t.Errorf("a running recorder: %v", err)
		}
		b.stop()
		before := f.read(filepath.Join(f.dir, "db"))
		foreign := newBench(t, nil)
		foreign.stop()
		if _, _, err := f.rebuild(RebuildConfig{Dirs: []string{filepath.Join(foreign.dir, "sample")}}); err == nil || !strings.Contains(err.Error(), "rebuild each installation for itself") {
			t.Errorf("a directory of another installation: %v", err)
		}
		if _, _, err := f.rebuild(RebuildConfig{Dirs: []string{filepath.Join(f.dir, "absent")}}); err == nil || !strings.Contains(err.Error(), "absent") {
			t.Errorf("a directory that is not there: %v", err)
		}
		if !bytes.Equal(before, f.read(filepath.Join(f.dir, "db"))) {
			t.Error("a rebuild that was refused changed the database")
		}
		empty := &footage{T: t, dir: t.TempDir()}
		if _, _, err := empty.rebuild(RebuildConfig{}); err == nil || !strings.Contains(err.Error(), "has no sample directory; name them with -dir") {
			t.Errorf("nothing: %v", err)
		}
	})
}
