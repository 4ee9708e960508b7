package hil

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/record/recordtest"
	"holdfast/test/hil/nbd"
)

// kept is what a disk holds, read from the files alone and held against what
// the cameras sent: each picture there is what was sent, once and in order.
type kept struct {
	streams map[string]*recordtest.Stream // by camera and stream: "camera 1 main"
	torn    int                           // files of which not even the beginning had reached the disk
	rows    int
}

// prove reads what a cut left: the disk's file system, the database, the
// sample files. An error is a broken promise.
func prove(b bench, cameras *cameratest.Server) (*kept, error) {
	return proveAnd(b, cameras, func(string) error { return nil })
}

// proveAnd also lets somebody look at the files, those of /perm in a directory.
func proveAnd(b bench, cameras *cameratest.Server, look func(perm string) error) (*kept, error) {
	dir, err := os.MkdirTemp("", "hil-proof")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	perm := filepath.Join(dir, "perm")
	if err := b.Perm(perm); err != nil {
		return nil, err
	}
	k, err := proveFiles(perm, cameras)
	if err == nil {
		err = look(perm)
	}
	return k, err
}

// proveFiles judges the recorder's files among those of /perm.
func proveFiles(perm string, cameras *cameratest.Server) (*kept, error) {
	k := &kept{streams: map[string]*recordtest.Stream{}}
	data := filepath.Join(perm, "nvr")
	database := filepath.Join(data, "db")
	samples := []string{filepath.Join(data, "sample"), filepath.Join(perm, strings.TrimPrefix(mediaSamples, "/perm"))}
	var files []string
	for _, dir := range samples {
		found, err := filepath.Glob(filepath.Join(dir, "*.mp4"))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	index, err := readIndex(database)
	if errors.Is(err, errNoDatabase) && len(files) == 0 {
		// The power went before the recorder came to make one.
		return k, nil
	}
	if err != nil {
		return nil, broken("%w", err)
	}
	k.rows = len(index.rows)
	promised := map[int64]extent{}
	for id, row := range index.rows {
		dir := filepath.Join(data, row.dir)
		if filepath.IsAbs(row.dir) {
			dir = filepath.Join(perm, strings.TrimPrefix(row.dir, "/perm"))
		}
		e, err := row.hold(filepath.Join(dir, fmt.Sprintf("%016x.mp4", uint64(id))))
		if err != nil {
			return nil, broken("row %d/%d: %w", id>>32, id&0xffffffff, err)
		}
		promised[id] = e
	}
	if err := once(promised); err != nil {
		return nil, err
	}
	for _, name := range files {
		id, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".mp4"), 16, 64)
		if err != nil {
			return nil, broken("%s in the sample directory", filepath.Base(name))
		}
		if _, ok := index.rows[int64(id)]; ok {
			continue
		}
		if err := index.knows(int64(id)); err != nil {
			return nil, err
		}
		// Created just before the cut, never confirmed.
		if _, err := readSamples(name); err != nil {
			k.torn++
			if err := os.Remove(name); err != nil {
				return nil, err
			}
		}
	}
	for _, dir := range samples {
		streams, err := recordtest.Read(dir, func(a *mp4.About) *cameratest.Fixture {
			return cameras.Fixture(path(a.CameraName + " " + a.Stream))
		})
		if err != nil {
			return k, broken("%w", err)
		}
		for name, st := range streams {
			if k.streams[name] != nil {
				return k, broken("%s is on two disks", name)
			}
			k.streams[name] = st
		}
	}
	return k, nil
}

// path is what a camera calls the stream that the recorder knows as "camera 1
// main".
func path(stream string) string {
	f := strings.Fields(stream)
	return f[1] + "/" + f[2]
}

func readSamples(name string) (*mp4.SampleFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return mp4.ReadSampleFile(f, fi.Size())
}

// row is what the database says of a recording.
type row struct {
	fileBytes, videoSamples, audioSamples, fragments int64
	dir                                              string // its sample directory, on the device
}

// extent is what a row promises of a file.
type extent struct {
	about *mp4.About
	end   int64 // of its pictures, media time
}

// once checks that no two rows promise the same pictures: where a file did not
// sync and another one has its end again, the row of the first ends where the
// other begins, and there is none of what was between them.
func once(rows map[int64]extent) error {
	for id, e := range rows {
		w := e.about.Rewrites
		if w == nil {
			continue
		}
		for no := w.RecordingNo; no < e.about.RecordingNo; no++ {
			old, ok := rows[id&^0xffffffff|int64(no)]
			if !ok || old.about.OpenUUID != e.about.OpenUUID {
				continue
			}
			if no == w.RecordingNo {
				if old.end > w.From90k {
					return broken("rows %d and %d of stream %d have the same pictures: one ends at %d, the other has it again from %d on", no, e.about.RecordingNo, id>>32, old.end, w.From90k)
				}
			} else if r := old.about.Rewrites; r == nil || r.RecordingNo >= w.RecordingNo {
				return broken("rows %d and %d of stream %d have the same pictures", no, e.about.RecordingNo, id>>32)
			}
		}
	}
	return nil
}

// hold checks that a file holds all that its row promises.
func (r row) hold(name string) (e extent, err error) {
	f, err := readSamples(name)
	if err != nil {
		return e, err
	}
	if f.Good < r.fileBytes {
		return e, fmt.Errorf("its file is whole up to byte %d of %d: %v", f.Good, r.fileBytes, f.Damage)
	}
	e.about = &f.About
	var got row
	for i := range f.Fragments {
		fr := &f.Fragments[i]
		if fr.Pos+fr.Size > r.fileBytes {
			break
		}
		got.videoSamples += int64(len(fr.Video))
		for _, v := range fr.Video {
			e.end += int64(v.Duration)
		}
		got.audioSamples += int64(len(fr.Audio))
		got.fragments++
	}
	got.fileBytes, got.dir = r.fileBytes, r.dir
	if got != r {
		return e, fmt.Errorf("its file has %+v, the row says %+v", got, r)
	}
	return e, nil
}

// index is what the database says of sample files.
type index struct {
	rows    map[int64]row
	garbage map[int64]bool
	next    map[int64]int64 // by stream: the number of its next recording
}

// knows checks a file without a row: it is to go, or comes behind all that its
// stream has committed (storage.md rule 2).
func (x *index) knows(id int64) error {
	next, ok := x.next[id>>32]
	if no := id & 0xffffffff; !x.garbage[id] && (!ok || no < next) {
		return broken("%016x.mp4 is in the sample directory, and the database knows nothing of it (its stream's next is %d)", uint64(id), next)
	}
	return nil
}

// errNoDatabase: there is none, or none with tables.
var errNoDatabase = errors.New("no database")

// readIndex lets SQLite judge the database, and lists its recordings by id. It
// goes around the recorder's own package, whose opening would mend what it finds.
func readIndex(database string) (_ *index, err error) {
	if _, err := os.Stat(database); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoDatabase
	}
	pool, err := sql.Open("sqlite", database)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	list := func(statement string, each func(scan func(...any) error) error) error {
		answer, err := pool.Query(statement)
		if err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
		defer answer.Close()
		for answer.Next() {
			if err := each(answer.Scan); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return answer.Err()
	}
	tables := 0
	if err := list("SELECT name FROM sqlite_schema", func(func(...any) error) error { tables++; return nil }); err != nil {
		return nil, err
	}
	if tables == 0 { // the transaction that makes them had not come to its end
		return nil, errNoDatabase
	}
	err = list("PRAGMA integrity_check", func(scan func(...any) error) error {
		var verdict string
		if err := scan(&verdict); err != nil || verdict != "ok" {
			return errors.Join(err, broken("integrity check: %s", verdict))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = list("PRAGMA foreign_key_check", func(scan func(...any) error) error {
		var table, row, parent, key any
		return errors.Join(scan(&table, &row, &parent, &key), broken("row %v of %v has no %v", row, table, parent))
	})
	if err != nil {
		return nil, err
	}
	x := &index{rows: map[int64]row{}, garbage: map[int64]bool{}, next: map[int64]int64{}}
	err = list(`SELECT composite_id, file_bytes, video_samples, audio_samples, fragments, path FROM recording
		JOIN sample_file_dir ON sample_file_dir.id = dir_id`, func(scan func(...any) error) error {
		var id int64
		var r row
		err := scan(&id, &r.fileBytes, &r.videoSamples, &r.audioSamples, &r.fragments, &r.dir)
		x.rows[id] = r
		return err
	})
	if err != nil {
		return nil, err
	}
	err = list("SELECT composite_id FROM garbage", func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		x.garbage[id] = true
		return err
	})
	if err != nil {
		return nil, err
	}
	err = list("SELECT id, cum_recordings FROM stream", func(scan func(...any) error) error {
		var id, next int64
		err := scan(&id, &next)
		x.next[id] = next
		return err
	})
	return x, err
}

// after checks that what was on the disk once is still there, and that no
// picture is missing within a run. It is what a recorder without retention
// owes from one cut to the next.
func (k *kept) after(before *kept) error {
	if before != nil {
		if k.rows < before.rows {
			return broken("%d recordings in the database, %d before", k.rows, before.rows)
		}
		for name, old := range before.streams {
			now := k.streams[name]
			if now == nil || len(now.Frames) < len(old.Frames) {
				return broken("%s: %d pictures were durable, now there are %d", name, len(old.Frames), frames(now))
			}
			for i, f := range old.Frames {
				if g := now.Frames[i]; g.Start != f.Start || g.Frame != f.Frame {
					return broken("%s: frame %d was durable, now frame %d stands there", name, f.Frame, g.Frame)
				}
			}
		}
	}
	for _, s := range k.streams {
		for _, g := range s.Gaps() {
			if g.After.Run == g.Before.Run {
				return broken("%s: %d pictures are missing behind frame %d, within a run", s.Name, g.Missing, g.After.Frame)
			}
		}
		if err := s.Steady(); err != nil {
			return broken("%w", err)
		}
	}
	return nil
}

func frames(s *recordtest.Stream) int {
	if s == nil {
		return 0
	}
	return len(s.Frames)
}

// What the proof must see, without a machine.
func TestProofSeesWhatIsMissing(t *testing.T) {
	stream := func(frames ...uint64) *kept {
		s := &recordtest.Stream{Name: "camera 1 main"}
		for i, n := range frames {
			f := recordtest.Frame{Run: int(n / 100), Duration: 3000, At: media.Time(3000 * i)}
			f.Frame = n
			s.Frames = append(s.Frames, f)
		}
		return &kept{streams: map[string]*recordtest.Stream{s.Name: s}, rows: len(frames)}
	}
	before := stream(1, 2, 3, 101, 102)
	for _, c := range []struct {
		name string
		now  *kept
		want string
	}{
		{"the same", stream(1, 2, 3, 101, 102), ""},
		{"more", stream(1, 2, 3, 101, 102, 103, 207), ""},
		{"the newest gone", stream(1, 2, 3, 101), "recordings in the database"},
		{"one changed", stream(1, 2, 3, 101, 105), "frame 102 was durable"},
		{"hole within a run", stream(1, 2, 3, 101, 102, 104), "1 pictures are missing"},
		{"stream gone", &kept{rows: 9}, "now there are 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.now.after(before)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestFileThatNobodyKnowsIsSeen(t *testing.T) {
	x := &index{garbage: map[int64]bool{7<<32 | 1: true, 8 << 32: true}, next: map[int64]int64{7: 3}}
	for id, ok := range map[int64]bool{7 << 32: false, 7<<32 | 1: true, 7<<32 | 2: false, 7<<32 | 3: true, 8 << 32: true, 8<<32 | 1: false} {
		if err := x.knows(id); (err == nil) != ok {
			t.Errorf("%d/%d: %v", id>>32, id&0xffffffff, err)
		}
	}
}

func TestRowsThatPromiseTheSameAreSeen(t *testing.T) {
	at := func(no int32, end int64, rewrites *mp4.Rewrites) extent {
		return extent{&mp4.About{RecordingNo: no, OpenUUID: "open", Rewrites: rewrites}, end}
	}
	from := func(no int32, at int64) *mp4.Rewrites { return &mp4.Rewrites{RecordingNo: no, From90k: at} }
	other := func(e extent) extent { e.about.OpenUUID = "another"; return e }
	for _, c := range []struct {
		name string
		rows []extent
		ok   bool
	}{
		{"nothing was written again", []extent{at(1, 1000, nil), at(2, 1000, nil)}, true},
		{"cut where the other begins", []extent{at(1, 500, nil), at(2, 1000, from(1, 500))}, true},
		{"not cut", []extent{at(1, 501, nil), at(2, 1000, from(1, 500))}, false},
		{"written again twice, the first gone", []extent{at(1, 500, nil), at(3, 1000, from(1, 500))}, true},
		{"written again twice, the first there", []extent{at(1, 500, nil), at(2, 100, from(1, 500)), at(3, 1000, from(1, 500))}, false},
		{"one between that has moved", []extent{at(1, 500, nil), at(2, 100, nil), at(3, 1000, from(1, 500))}, false},
		{"one between of others before", []extent{at(1, 500, nil), at(3, 100, from(1, 500)), at(4, 1000, from(2, 0))}, true},
		{"an open before had the number", []extent{other(at(1, 1000, nil)), at(2, 1000, from(1, 500))}, true},
	} {
		rows := map[int64]extent{}
		for _, e := range c.rows {
			rows[7<<32|int64(e.about.RecordingNo)] = e
		}
		if err := once(rows); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A disk that was recorded to by the real recorder, on this host, is proven;
// each damage to it is seen.
func TestProofReadsFilesAndDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("records for some seconds")
	}
	dir := t.TempDir()
	cameras := emulate(t, cameratest.Config{Cameras: 1})
	binary := filepath.Join(dir, "nvr")
	build := exec.Command("go", "build", "-o", binary, "./nvr/cmd/nvr")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data := filepath.Join(dir, "data")
	b := &hostBench{t: t, binary: binary, data: data, address: freePort(t)}
	d := newDevice(t, b)
	d.powerOn()
	d.until("serve", started, func() error { _, err := d.top(); return err })
	d.addCameras(cameras, 1)
	d.waitRecording(2, started)
	if _, err := d.PowerCut(nbd.Cut{}); err != nil {
		t.Fatal(err)
	}
	// The second start gives the recordings of the first their rows.
	d.powerOn()
	d.waitRecording(2, started)
	if _, err := d.PowerCut(nbd.Cut{}); err != nil {
		t.Fatal(err)
	}
	k, err := prove(d, cameras)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.streams) != 2 || k.rows < 2 || frames(k.streams["camera 1 main"]) == 0 {
		t.Fatalf("%d streams, %d rows", len(k.streams), k.rows)
	}

	checkCopy := func() error {
		perm := filepath.Join(t.TempDir(), "perm")
		if err := d.Perm(perm); err != nil {
			t.Fatal(err)
		}
		return runCheck(binary, perm)
	}
	if err := checkCopy(); err != nil {
		t.Fatal(err)
	}

	names, err := filepath.Glob(filepath.Join(data, "sample", "*.mp4"))
	if err != nil || len(names) < 4 {
		t.Fatalf("sample files %q, %v", names, err)
	}
	first := names[0]
	whole, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)/2] ^= 1
	for name, damage := range map[string]func() error{
		"file cut":     func() error { return os.WriteFile(first, whole[:len(whole)*2/3], 0o600) },
		"bit flipped":  func() error { return os.WriteFile(first, flipped, 0o600) },
		"file gone":    func() error { return os.Remove(first) },
		"file renamed": func() error { return os.Rename(first, filepath.Join(data, "sample", "0000000100000077.mp4")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := prove(d, cameras); err == nil {
			t.Errorf("%s: not seen", name)
		}
		if err := checkCopy(); err == nil {
			t.Errorf("%s: not seen by the recorder's own check", name)
		}
		os.Remove(filepath.Join(data, "sample", "0000000100000077.mp4"))
		if err := os.WriteFile(first, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	database := filepath.Join(data, "db")
	pool, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec("UPDATE recording SET video_samples = video_samples + 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := prove(d, cameras); err == nil || !strings.Contains(err.Error(), "the row says") {
		t.Errorf("rows with more pictures than their files gave %v", err)
	}
	var page int64 // of a table that the lab does not read
	err = errors.Join(
		pool.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = 'recording_playback'").Scan(&page),
		exec1(pool, "UPDATE recording SET video_samples = video_samples - 1"),
		exec1(pool, "PRAGMA wal_checkpoint(TRUNCATE)"),
		pool.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prove(d, cameras); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(database, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, 4096), (page-1)*4096)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := prove(d, cameras); err == nil || !strings.Contains(err.Error(), "integrity") {
		t.Errorf("a damaged page gave %v", err)
	}
	if err := os.WriteFile(database, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prove(d, cameras); !errors.Is(err, errNoDatabase) {
		t.Errorf("an empty database beside files gave %v", err)
	}
}

func exec1(pool *sql.DB, statement string) error {
	_, err := pool.Exec(statement)
	return err
}

// hostBench is a recorder without a machine: for tests of the proof alone.
type hostBench struct {
	t                     *testing.T
	binary, data, address string
	cmd                   *exec.Cmd
	began                 time.Time
}

func (b *hostBench) PowerOn() error {
	b.cmd = exec.Command(b.binary, "run", "-data", b.data, "-http", b.address, "-allow-anonymous", "admin")
	b.began = time.Now()
	b.t.Cleanup(func() { b.cmd.Process.Kill() })
	return b.cmd.Start()
}

func (b *hostBench) PowerCut(nbd.Cut) (nbd.Outcome, error) {
	err := b.cmd.Process.Kill()
	b.cmd.Wait() // killed: it has nothing to say
	return nbd.Outcome{}, err
}

func (b *hostBench) Busy(time.Duration) time.Duration { return 0 }
func (b *hostBench) Console() *console                { return newConsole() }
func (b *hostBench) Since() time.Duration             { return time.Since(b.began) }
func (b *hostBench) Address(int) string               { return b.address }
func (b *hostBench) Here() string                     { return "127.0.0.1" }

func (b *hostBench) Perm(dir string) error {
	return os.CopyFS(filepath.Join(dir, "nvr"), os.DirFS(b.data))
}
