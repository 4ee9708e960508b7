package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// The proof of storage.md: a store lives through a scenario on a directory in
// memory whose every operation is logged, with a real database whose files are
// copied at each of them. Then the power fails at every moment of that life,
// for many choices of what was not synced, and another store has to find
// everything that the first had called durable, and go on.

var (
	subsets   = flag.Int("subsets", 2, "random subsets of what is not synced, at each power cut of the crash tests")
	every     = flag.Bool("every", false, "let each operation fail that there is, not a sample of them")
	crashSeed = flag.Uint64("seed", 0, "of the crash tests; 0: by chance")
)

// life is what one store does on one directory, and the moments of it.
type life struct {
	*testing.T
	dir   string // of the database
	disk  *sampledirtest.Dir
	begin sampledirtest.State // of the disk
	shift time.Duration       // of the wall clock, at first
	unset bool                // it is not set then, and makes no other step
	old   bool                // its database is of version 1 at first
	unmet []string            // what it is for and did not do
	hook  func(*Config)
	log   *journal

	s       atomic.Pointer[Store] // nil while it is opened
	stepped atomic.Int64          // by which the wall clock was set since, ns

	mu      sync.Mutex
	moments []*moment
	known   map[int64]piece
	sent    map[int64]piece

	// A fault is at work: what is not durable may be lost, now and when the
	// fault has gone what came before that.
	pardoned bool
	forgiven map[int32]int // newest picture of each stream

	short bool           // the disk has been small: the oldest may be gone
	going map[int32]bool // streams whose camera is being deleted
	gone  map[int32]bool // streams whose camera was deleted
	db    *dbFiles
}

// piece is a part of a recording that the store has called durable.
type piece struct {
	first, n int   // pictures
	bytes    int64 // of the file
}

// moment is one at which the power may fail.
type moment struct {
	ops         int // of the log, that have happened
	db          *dbFiles
	known       map[int64]piece // by composite id; never changed
	sent        map[int64]piece // what each recording was given, in this life
	going, gone map[int32]bool
	pardoned    bool
	short       bool
	room        sampledirtest.Room // of the disk
	forgiven    map[int32]int
	at          time.Time // wall clock
	set         int32     // the open whose clock is known to be right; 0: it is not
}

// dbFiles are the files of the database at some moment, and the bytes that its
// rows count in each file, when they were asked for.
type dbFiles struct {
	main, wal []byte
	copies    [2][]byte // that an upgrade keeps, or is making
	rows      map[int64]int64
}

// copyNames are those of the copies that an upgrade from version 1 makes.
var copyNames = [2]string{".v1", ".v1.new"}

const shm = "/dev/shm"

// memoryHasRoom is the same for all of a process: what is moved stays on one disk.
var memoryHasRoom = sync.OnceValue(func() bool {
	const room = 2 << 30 // far above the floor
	var fs syscall.Statfs_t
	return syscall.Statfs(shm, &fs) == nil && int64(fs.Bavail)*fs.Bsize >= room
})

// inMemory makes a directory that needs no disk, where there is one with room: a
// sync costs nothing there, and what survives a power cut is what the test says.
func inMemory(t testing.TB) string {
	if !memoryHasRoom() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "nvr-store-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// bear makes a life on what a power cut left, nothing at first.
func bear(t *testing.T, st sampledirtest.State, files *dbFiles, at time.Time) *life {
	l := &life{
		T: t, dir: inMemory(t), begin: st, disk: sampledirtest.New(st), log: new(journal),
		known: make(map[int64]piece), sent: make(map[int64]piece), going: make(map[int32]bool), gone: make(map[int32]bool),
	}
	if !at.IsZero() {
		l.shift = time.Until(at)
	}
	if files != nil {
		if err := errors.Join(os.WriteFile(l.path(""), files.main, 0o600), os.WriteFile(l.path("-wal"), files.wal, 0o600)); err != nil {
			t.Fatal(err)
		}
		for i, b := range files.copies {
			if b != nil {
				if err := os.WriteFile(l.path(copyNames[i]), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return l
}

func (l *life) path(suffix string) string { return filepath.Join(l.dir, "db"+suffix) }

func (l *life) now() time.Time { return time.Now().Add(l.shift + time.Duration(l.stepped.Load())) }

// watch notes a moment around each operation from now on.
func (l *life) watch() { l.disk.Before, l.disk.After = l.note, l.note }

func (l *life) open() error {
	cfg := Config{
		Dir: l.dir, Now: l.now, noBallast: true, Log: slog.New(&noteFlushes{slog.NewTextHandler(l.log, nil), l}),
		openDir: func(string) (sampledir.Dir, error) { return l.disk.Reopen(), nil },
	}
	if l.old {
		cfg.Progress = l.note // the steps of the upgrade are among these
	}
	if l.hook != nil {
		l.hook(&cfg)
	}
	s, err := Open(context.Background(), cfg)
	if err == nil {
		l.s.Store(s)
	}
	return err
}

func (l *life) mustOpen() {
	l.Helper()
	if err := l.open(); err != nil {
		l.Fatalf("open: %v", err)
	}
}

func (l *life) close() error {
	err := l.s.Load().Close(context.Background())
	l.s.Store(nil)
	return err
}

// restart is a stop and a start in order.
func (l *life) restart() {
	l.Helper()
	if err := l.close(); err != nil {
		l.Errorf("close: %v", err)
	}
	l.mustOpen()
}

// noteFlushes is a log that notes a moment at each flush.
type noteFlushes struct {
	slog.Handler
	l *life
}

func (h *noteFlushes) Handle(ctx context.Context, r slog.Record) error {
	if (r.Message == "flushed" || r.Message == "upgraded database") && h.l.disk.After != nil {
		h.l.note()
	}
	return h.Handler.Handle(ctx, r)
}

// settings of a camera with a main stream, and a sub stream if two. Limits are
// not checked: real ones would need much video.
func settings(name string, retain int64, flushIfSec int, two bool) CameraConfig {
	c := CameraConfig{ShortName: name, Streams: map[string]StreamConfig{"main": {
		URL: "rtsp://10.0.0.1/" + name, Record: true, RTSPTransport: "tcp", RetainBytes: retain, FlushIfSec: &flushIfSec,
	}}}
	if two {
		c.Streams["sub"] = c.Streams["main"]
	}
	return c
}

func (l *life) put(c CameraConfig) *Camera {
	l.Helper()
	s := l.s.Load()
	s.flushing.Lock()
	err := s.put(l.Context(), []placed{{c, s.named(c.ShortName)}}, "")
	s.flushing.Unlock()
	if err != nil {
		l.Fatal(err)
	}
	return l.camera(c.ShortName)
}

func (l *life) camera(name string) *Camera {
	l.Helper()
	for _, c := range l.s.Load().Cameras() {
		if c.Name == name {
			return c
		}
	}
	l.Fatalf("camera %s is gone", name)
	return nil
}

func (l *life) main(name string) *Stream { return l.camera(name).Stream("main") }

// deleteCamera notes what may be lost from when on.
func (l *life) deleteCamera(c *Camera) {
	l.Helper()
	set := func(m *map[int32]bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		next := maps.Clone(*m)
		for _, st := range c.Streams {
			next[st.id] = true
		}
		*m = next
	}
	set(&l.going)
	if err := l.s.Load().DeleteCamera(l.Context(), c.UUID); err != nil {
		l.Fatal(err)
	}
	set(&l.gone)
}

// Pictures of the crash tests: five a second, the first of each second a key
// frame, each with its number, which is its time.
const (
	pictureStep = 18000
	pictureSize = 60
)

// play is a feed of a new run from its n-th picture on.
func (l *life) play(st *Stream, n int) *feed {
	return &feed{run: st.Begin(nil), n: n, dts: int64(n) * pictureStep, step: pictureStep, gop: 5, size: pictureSize}
}

// next is a feed of another run of the same stream, some pictures later.
func (l *life) next(f *feed, reason string) *feed {
	f.run.End(reason)
	return l.play(f.run.st, (f.n+9)/5*5)
}

// note notes a moment: what has happened on the disk, what the database holds,
// and what the store had called durable by then.
func (l *life) note() {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &moment{pardoned: l.pardoned, short: l.short, forgiven: l.forgiven, at: l.now()}
	for {
		m.ops, m.gone, m.room = l.disk.Len(), l.gone, l.disk.Room()
		if s := l.s.Load(); s != nil && s.ClockGood() {
			m.set = s.OpenID()
		}
		l.look()
		m.known, m.sent = l.known, l.sent
		l.db = l.copyDB()
		m.db, m.going = l.db, l.going
		if l.disk.Len() == m.ops {
			break
		}
	}
	if n := len(l.moments); n > 0 {
		if p := l.moments[n-1]; p.ops == m.ops && p.db == m.db && p.set == m.set && p.room == m.room && maps.Equal(p.known, m.known) && maps.Equal(p.sent, m.sent) && len(p.gone) == len(m.gone) {
			return
		}
	}
	l.moments = append(l.moments, m)
}

// soFar are the moments of a life that may still note more.
func (l *life) soFar() []*moment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moments
}

// version1 is the database as the first version of the program would have it.
func (f *dbFiles) version1(t *testing.T) *dbFiles {
	l := bear(t, sampledirtest.State{}, f, time.Time{})
	defer os.RemoveAll(l.dir)
	p, err := sql.Open("sqlite", "file:"+l.path(""))
	if err != nil {
		t.Fatal(err)
	}
	p.SetMaxOpenConns(1)
	for _, q := range []string{
		`ALTER TABLE camera DROP COLUMN deleted`,                                                                            // version 6; the column of user goes with that
		`ALTER TABLE stream DROP COLUMN sealed_password`, `ALTER TABLE stream ADD COLUMN password TEXT NOT NULL DEFAULT ''`, // versions 4 and 5
		`DROP TABLE user_camera`, `DROP TABLE user_session`, `DROP TABLE user`, // version 3
		`DROP TABLE span`, `DROP TABLE gap`,
		`ALTER TABLE stream DROP COLUMN retain_days`, `ALTER TABLE stream DROP COLUMN owed_from_90k`,
		`DELETE FROM version WHERE id > 1`, `INSERT OR IGNORE INTO version (id, unix_time, notes) VALUES (1, 0, 'first')`,
		`PRAGMA user_version = 1`, `PRAGMA wal_checkpoint(TRUNCATE)`,
	} {
		if _, err := p.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	main, err := os.ReadFile(l.path(""))
	if err != nil {
		t.Fatal(err)
	}
	return &dbFiles{main: main}
}

// capacity makes the disk small, or as large as any test wants.
func (l *life) capacity(n int64) {
	l.mu.Lock()
	l.short = true
	l.mu.Unlock()
	l.disk.SetCapacity(n)
}

// fault begins a time in which a fault is at work.
func (l *life) fault() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pardoned = true
}

// faultless ends it.
func (l *life) faultless() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	l.pardoned, l.forgiven = false, make(map[int32]int)
	for id, p := range l.sent {
		st, _ := db.SplitID(id)
		l.forgiven[st] = max(l.forgiven[st], p.first+p.n-1)
	}
}

// look takes down what is durable, and how far each stream has come.
func (l *life) look() {
	s := l.s.Load()
	if s == nil {
		return
	}
	next, sent := l.known, maps.Clone(l.sent)
	for _, st := range s.allStreams() {
		st.mu.Lock()
		for _, rec := range st.recent {
			if rec.run == nil {
				continue // it was adopted, and is known
			}
			first := int(rec.dts0 / pictureStep)
			n := rec.video.Samples
			if rec.held != nil {
				n++
			}
			if n > sent[rec.id()].n {
				sent[rec.id()] = piece{first: first, n: n}
			}
			p := piece{first: first}
			for _, f := range rec.taken[:rec.durable] {
				p.n += len(f.Video)
				p.bytes = f.pos + f.size
			}
			if old := next[rec.id()]; p.n > 0 && old != p {
				if p.n < old.n && rec.broken {
					continue // another recording has it, or will have it
				}
				if p.n < old.n || old.n > 0 && p.first != old.first {
					l.Errorf("recording %s: %+v was durable, now %+v", idString(rec.id()), old, p)
				}
				if len(next) == len(l.known) {
					next = maps.Clone(next)
				}
				next[rec.id()] = p
			}
		}
		st.mu.Unlock()
	}
	l.known, l.sent = next, sent
}

// copyDB copies the files of the database as a power cut could leave them: the
// log is copied last and holds what a checkpoint is at work on, unless it was
// begun anew meanwhile.
func (l *life) copyDB() *dbFiles {
	const header = 32
	for {
		before := l.walHeader(header)
		main, err := os.ReadFile(l.path(""))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		wal, werr := os.ReadFile(l.path("-wal"))
		if errors.Is(werr, os.ErrNotExist) {
			werr = nil
		}
		if err := errors.Join(err, werr); err != nil {
			l.Fatal(err)
		}
		if !bytes.Equal(before, wal[:min(header, len(wal))]) || !bytes.Equal(before, l.walHeader(header)) {
			continue
		}
		files := &dbFiles{main: main, wal: wal}
		for i, name := range copyNames {
			if files.copies[i], err = os.ReadFile(l.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				l.Fatal(err)
			}
		}
		if l.db != nil && bytes.Equal(l.db.main, main) && bytes.Equal(l.db.wal, wal) && slices.EqualFunc(l.db.copies[:], files.copies[:], bytes.Equal) {
			return l.db
		}
		return files
	}
}

func (l *life) walHeader(n int) []byte {
	f, err := os.Open(l.path("-wal"))
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, n)
	n, _ = f.ReadAt(b, 0)
	return b[:n]
}

// found is what a store has, file by file.
type found struct {
	streams map[int32]*foundStream
	opens   map[int32]media.Time // when they began
}

type foundStream struct {
	name   string
	retain int64
	recs   []foundRecording
}

type foundRecording struct {
	no int32
	piece
	fs int64 // whole blocks
}

// survey looks at everything that a store has and checks it: rows against
// files, files against rows, both against the pictures that were sent
// (storage.md rules 1, 2, 4 and 5).
func (l *life) survey() *found {
	l.Helper()
	s := l.s.Load()
	for _, st := range s.allStreams() {
		if st.Info().ToAdopt > 0 {
			adopted(l, s)
		}
	}
	content := l.disk.Content()
	log := l.disk.Log()
	durable := sampledirtest.At(l.begin, log, len(log)).Durable()
	out := &found{streams: make(map[int32]*foundStream), opens: make(map[int32]media.Time)}
	if err := s.db.Opens(context.Background(), func(o db.OpenRow) error { out.opens[o.ID] = o.Start; return nil }); err != nil {
		l.Fatal(err)
	}
	rows := make(map[int64]bool)
	again := sync.OnceValue(func() map[int64]bool { return rewritten(content.Files) }) // which reads all files
	for _, c := range s.Cameras() {
		for _, st := range c.Streams {
			if err := st.Unavailable(); err != nil {
				l.Errorf("stream %s-%s: %v", c.Name, st.typ, err)
			}
			fs := &foundStream{name: c.Name + "-" + st.typ, retain: st.settings().RetainBytes}
			out.streams[st.id] = fs
			var last *RecordingInfo
			var sum, newest int64
			newestPicture := -1
			recs := list(l, st)
			slices.SortFunc(recs, func(a, b RecordingInfo) int { return cmp.Compare(a.No, b.No) })
			for _, r := range recs {
				id := int64(st.id)<<32 | int64(r.No)
				rows[id] = true
				if r.Uncommitted {
					l.Errorf("recording %s has no row", idString(id))
				}
				got, about, err := l.inspect(st, &r, content.Files[id], func() bool { return again()[id] })
				if err != nil {
					l.Errorf("recording %s: %v", idString(id), err)
					continue
				}
				if off := r.Start.Sub(out.opens[r.OpenID].Add(media.Duration(about.SinceOpen90k))); l.unset && (off > media.Second/2 || off < -media.Second/2) {
					l.Errorf("recording %s stands %v off its place in its open, which began at %v", idString(id), off, out.opens[r.OpenID])
				}
				if d := durable.Files[id]; int64(len(d)) < r.FileBytes || !bytes.Equal(d[:r.FileBytes], content.Files[id][:r.FileBytes]) {
					l.Errorf("recording %s has a row, and of its file %d of %d bytes are durable",
						idString(id), len(durable.Files[id]), len(content.Files[id]))
				}
				if got.first <= newestPicture {
					l.Errorf("recording %s begins with picture %d, the one before it ends with %d", idString(id), got.first, newestPicture)
				}
				before := newestPicture
				newestPicture = got.first + got.n - 1
				if last != nil {
					if r.PrevMedia != last.PrevMedia+last.MediaDuration {
						l.Errorf("recording %s: earlier media %d, want %d", idString(id), r.PrevMedia, last.PrevMedia+last.MediaDuration)
					}
					if runs := last.PrevRuns + begins(last); r.PrevRuns < runs || r.No == last.No+1 && r.PrevRuns != runs {
						l.Errorf("recording %s: %d earlier runs, want %d", idString(id), r.PrevRuns, runs)
					}
					if r.RunOffset > 0 && (r.No != last.No+1 || r.RunOffset != last.RunOffset+1) {
						l.Errorf("recording %s is number %d of its run, the one before it is %d and number %d", idString(id), r.RunOffset, last.No, last.RunOffset)
					}
					if r.RunOffset > 0 && got.first != before+1 {
						l.Errorf("recording %s goes on in its run, and pictures are missing before it", idString(id))
					}
					if r.RunOffset > 0 && r.Start != last.End() {
						l.Errorf("recording %s goes on %v after the one before", idString(id), r.Start.Sub(last.End()))
					}
				}
				last = &r
				sum += st.blocks(r.FileBytes)
				newest = st.blocks(r.FileBytes)
				fs.recs = append(fs.recs, foundRecording{r.No, got, newest})
			}
			if in := st.Info(); in.FSBytes != sum || in.Recordings != len(fs.recs) {
				l.Errorf("stream %s has %d recordings of %d bytes, its rows add up to %d of %d", fs.name, in.Recordings, in.FSBytes, len(fs.recs), sum)
			}
			if fs.retain > 0 && sum > max(fs.retain, newest) {
				l.Errorf("stream %s takes %d bytes, its limit is %d", fs.name, sum, fs.retain)
			}
		}
	}
	state, err := s.db.State(context.Background())
	if err != nil {
		l.Fatal(err)
	}
	for _, g := range state.Garbage {
		if rows[g.ID] {
			l.Errorf("recording %s has a row and is garbage", idString(g.ID))
		}
		rows[g.ID] = true
	}
	for id := range content.Files {
		if !rows[id] {
			l.Errorf("file %s has no row and is no garbage", idString(id))
		}
	}
	return out
}

// begins is 1 for a recording that begins a run.
func begins(r *RecordingInfo) int32 {
	if r.RunOffset == 0 {
		return 1
	}
	return 0
}

// rewritten are the recordings whose end another file holds again.
func rewritten(files map[int64][]byte) map[int64]bool {
	out := make(map[int64]bool)
	for id, b := range files {
		if sf, err := mp4.ReadSampleFile(bytes.NewReader(b), int64(len(b))); err == nil && sf.About.Rewrites != nil {
			out[id>>32<<32|int64(sf.About.Rewrites.RecordingNo)] = true
		}
	}
	return out
}

// inspect compares a row with its file.
func (l *life) inspect(st *Stream, r *RecordingInfo, file []byte, again func() bool) (piece, *mp4.About, error) {
	// Behind what was durable when a sync failed there may be more (rule 13).
	if n := int64(len(file)); n < r.FileBytes || n > r.FileBytes && r.EndReason != reasonDiskError && !again() {
		return piece{}, nil, fmt.Errorf("its row says %d bytes, its file has %d", r.FileBytes, n)
	}
	file = file[:r.FileBytes]
	sf, err := mp4.ReadSampleFile(bytes.NewReader(file), r.FileBytes)
	if err == nil {
		err = sf.Damage
	}
	if err != nil {
		return piece{}, nil, err
	}
	p, sum := sf.Playback()
	if sum.VideoSamples != r.VideoSamples || sum.Duration != r.MediaDuration || sum.Fragments != r.Fragments || sum.TrailingZero != r.TrailingZero {
		return piece{}, nil, fmt.Errorf("its file holds %+v, its row says %+v", sum, *r)
	}
	seg, err := st.Segments(context.Background(), r.No, r.No)
	if err != nil {
		return piece{}, nil, err
	}
	q, err := seg[0].Playback()
	if err != nil || !bytes.Equal(p.Video, q.Video) || !bytes.Equal(p.Fragments, q.Fragments) {
		return piece{}, nil, fmt.Errorf("its index is not that of its file (%v)", err)
	}
	got := piece{first: -1, bytes: r.FileBytes}
	for i := range sf.Fragments {
		at := sf.Fragments[i].Pos + sf.Fragments[i].HeaderSize
		for _, sample := range sf.Fragments[i].Video {
			b := file[at : at+int64(sample.Size)]
			at += int64(sample.Size)
			n := int(binary.BigEndian.Uint64(b))
			if got.first < 0 {
				got.first = n
			}
			if n != got.first+got.n || !bytes.Equal(b, picture(n, len(b))) {
				return piece{}, nil, fmt.Errorf("picture %d is not what was sent as %d", n, got.first+got.n)
			}
			got.n++
		}
	}
	return got, &sf.About, nil
}

// goOn records a moment on each stream, from a picture on that is beyond all
// before, and lets the garbage drain.
func (l *life) goOn(from int) {
	l.Helper()
	s := l.s.Load()
	flush := func() {
		l.Helper()
		if err := s.flush(context.Background(), "by hand"); err != nil {
			l.Errorf("flush: %v", err)
		}
	}
	for _, st := range s.allStreams() {
		f := l.play(st, from)
		for range 3 {
			if err := f.one(); err != nil {
				l.Errorf("picture after the power cut: %v", err)
			}
		}
		f.run.End("test")
	}
	time.Sleep(2 * time.Second)
	flush()
	time.Sleep(2 * time.Second)
	flush()
	again := l.survey()
	for _, fs := range again.streams {
		if n := len(fs.recs); n == 0 || fs.recs[n-1].first != from || fs.recs[n-1].n != 3 {
			l.Errorf("stream %s does not go on after the power cut", fs.name)
		}
	}
	state, err := s.db.State(context.Background())
	if err != nil {
		l.Fatal(err)
	}
	if len(state.Deleted) > 0 {
		l.Errorf("deleted streams are left: %+v", state.Deleted)
	}
	if len(state.Garbage) > 0 {
		l.Errorf("%d garbage rows are left: %v", len(state.Garbage), state.Garbage)
	}
}

// count reads the rows, as the next store will.
func (f *dbFiles) count(t *testing.T) {
	l := bear(t, sampledirtest.State{}, f, time.Time{})
	defer os.RemoveAll(l.dir)
	p, err := sql.Open("sqlite", "file:"+l.path(""))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f.rows = make(map[int64]int64)
	var tables int
	if err := p.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE name = 'recording'`).Scan(&tables); err != nil || tables == 0 {
		return // it is being made
	}
	rows, err := p.Query(`SELECT composite_id, file_bytes FROM recording`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, n int64
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		f.rows[id] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// cramped starts a store on a disk that is as small and as full as when the power
// failed, and goes on there for a while: the oldest goes, as long as anything with
// a row is left, or recording pauses and says so (rules 26 and 28). Then there is
// room again. It reports whether recording paused.
func (l *life) cramped(room sampledirtest.Room, from int) (pauses bool) {
	l.Helper()
	l.disk.SetRoom(room)
	l.mustOpen()
	s := l.s.Load()
	for _, st := range s.allStreams() {
		if st.Info().ToAdopt > 0 {
			adopted(l, s)
		}
		f := l.play(st, from)
		for range 3 {
			if err := f.one(); err != nil {
				l.Errorf("picture on a small disk: %v", err)
			}
		}
		f.run.End("test")
	}
	wrong := "?"
	for end := time.Now().Add(2 * flushRetry); wrong != "" && time.Now().Before(end); {
		time.Sleep(time.Second)
		rows := 0
		for _, st := range s.allStreams() {
			for _, r := range list(l, st) {
				if !r.Uncommitted {
					rows++
				}
			}
		}
		in := s.Dirs()[0]
		pauses = strings.Contains(in.Error, "recording pauses")
		wrong = ""
		switch {
		case in.Free >= in.Floor:
		case rows > 0:
			wrong = fmt.Sprintf("%d recordings with a row are left", rows)
		case in.Free < in.Floor/2 && !pauses:
			wrong = "recording does not pause"
		}
		if wrong != "" {
			wrong = fmt.Sprintf("%d of %d bytes are free, the floor is %d, the directory says %q, and %s", in.Free, in.Total, in.Floor, in.Error, wrong)
		}
	}
	if wrong != "" {
		l.Error(wrong)
	}
	l.disk.SetRoom(sampledirtest.Room{})
	time.Sleep(2 * time.Second) // what memory held is settled
	if err := s.flush(context.Background(), "by hand"); err != nil {
		l.Errorf("flush: %v", err)
	}
	return pauses
}

// missAny reports whether one of these rows is there no more.
func (l *life) missAny(rows map[int64]int64) bool {
	l.Helper()
	left := 0
	for _, st := range l.s.Load().allStreams() {
		for _, r := range list(l, st) {
			if _, ok := rows[int64(st.id)<<32|int64(r.No)]; ok {
				left++
			}
		}
	}
	return left < len(rows)
}

// askSQLite checks the closed database by its own means (I1, I6).
func (l *life) askSQLite() {
	l.Helper()
	p, err := sql.Open("sqlite", "file:"+l.path("")+"?mode=ro")
	if err != nil {
		l.Fatal(err)
	}
	defer p.Close()
	for _, q := range []string{
		`SELECT group_concat(integrity_check) FROM pragma_integrity_check WHERE integrity_check != 'ok'`,
		`SELECT group_concat("table") FROM pragma_foreign_key_check`,
		`SELECT group_concat(id) FROM stream WHERE (total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k) !=
			(SELECT count(*), ifnull(sum(file_bytes), 0), ifnull(sum(fs_bytes), 0), ifnull(sum(wall_duration_90k), 0)
			FROM recording WHERE stream_id = stream.id)`,
		`SELECT group_concat(composite_id) FROM recording JOIN stream ON stream.id = stream_id WHERE composite_id & 0xffffffff >= cum_recordings`,
		`SELECT group_concat(id) FROM camera WHERE deleted = 1 AND id NOT IN (SELECT camera_id FROM stream)`,
	} {
		var bad sql.Null[string]
		if err := p.QueryRow(q).Scan(&bad); err != nil || bad.Valid {
			l.Errorf("%s: %v %v", q, bad.V, err)
		}
	}
}

// crash is the power failing in one life, again and again.
type crash struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	l    *life
	log  []sampledirtest.Op
	seen map[state]*found
	hash maphash.Hash

	beside bool // see scenario
	few    int  // see scenario

	thorough bool // every start is looked at in every way, not some by chance

	offered int // power cuts; a short run makes few of them
	cuts    int // power cuts
	again   int // power cuts in the start after one
	asked   int // databases that SQLite has looked at
	cramped int // starts on a disk as small and as full as it was
	pauses  int // of those, that did not record
	gives   int // of those, that made room
}

// state is what a power cut leaves.
type state struct {
	db   *dbFiles
	disk uint64
	room sampledirtest.Room
}

func (c *crash) state(files *dbFiles, st sampledirtest.State, room sampledirtest.Room) state {
	h := &c.hash
	h.Reset()
	if st.Meta != nil {
		fmt.Fprint(h, *st.Meta)
	}
	fmt.Fprint(h, st.BadMeta)
	for _, id := range slices.Sorted(maps.Keys(st.Files)) {
		fmt.Fprint(h, ";", id, len(st.Files[id]), ":")
		h.Write(st.Files[id])
	}
	return state{files, h.Sum64(), room}
}

// soManyAlone is how many of the newest operations and, by chance, of those before
// them are looked at alone: after a sync that failed hundreds wait for ever.
const soManyAlone = 4

// fates are what may become of n operations: none, all, each alone, whole or
// not, and some by chance.
func (c *crash) fates(n int) (out []func(int) sampledirtest.Fate) {
	each := func(f sampledirtest.Fate) func(int) sampledirtest.Fate {
		return func(int) sampledirtest.Fate { return f }
	}
	out = append(out, each(sampledirtest.Lost))
	if n == 0 {
		return out
	}
	out = append(out, each(sampledirtest.Kept))
	for only := range n {
		if older := n - soManyAlone; only < older && !*every && c.rng.IntN(older) >= soManyAlone {
			continue // it was among the newest at earlier moments
		}
		for _, f := range []sampledirtest.Fate{sampledirtest.Kept, sampledirtest.Any(c.rng)} {
			out = append(out, func(i int) sampledirtest.Fate {
				if i == only {
					return f
				}
				return sampledirtest.Lost
			})
		}
	}
	for range *subsets {
		chosen := make([]sampledirtest.Fate, n)
		for i := range chosen {
			chosen[i] = sampledirtest.Any(c.rng)
		}
		out = append(out, func(i int) sampledirtest.Fate { return chosen[i] })
	}
	return out
}

// everywhere lets the power fail at every moment of the life, and in each commit.
func (c *crash) everywhere() {
	c.log = c.l.disk.Log()
	var p *moment
	for _, m := range c.l.moments {
		if m.db == nil {
			continue // before there is a database
		}
		cut := sampledirtest.At(c.l.begin, c.log, m.ops)
		for _, fate := range c.fates(cut.Unsynced()) {
			c.try(m, cut, fate)
		}
		if p != nil && p.db != m.db && bytes.Equal(p.db.main, m.db.main) {
			during := *p
			during.going = m.going // the commit may be the one that deletes a camera
			cut := sampledirtest.At(c.l.begin, c.log, p.ops)
			fates := c.fates(cut.Unsynced())
			for _, inOrder := range []bool{true, false} {
				during.db = &dbFiles{main: p.db.main, wal: c.torn(p.db.wal, m.db.wal, inOrder), copies: p.db.copies}
				c.try(&during, cut, fates[c.rng.IntN(len(fates))])
			}
			if c.l.unset || c.l.old {
				// All or nothing has moved, however many transactions there were;
				// the database is of the old version or of the new one.
				for _, wal := range prefixes(p.db.wal, m.db.wal) {
					during.db = &dbFiles{main: p.db.main, wal: wal, copies: p.db.copies}
					c.try(&during, cut, fates[0])
				}
			}
		}
		p = m
	}
	// However few those were.
	c.thorough = true
	some := slices.DeleteFunc(slices.Clone(c.l.moments), func(m *moment) bool { return m.db == nil })
	for range 2 {
		m := some[c.rng.IntN(len(some))]
		cut := sampledirtest.At(c.l.begin, c.log, m.ops)
		fates := c.fates(cut.Unsynced())
		c.try(m, cut, fates[c.rng.IntN(len(fates))])
	}
}

// prefixes are the log of the database with ever more whole frames of what was
// written to it.
func prefixes(before, after []byte) (logs [][]byte) {
	const header, frame = 32, 24 + 4096
	for at := header; at <= len(after); at += frame {
		if at+frame <= len(before) && bytes.Equal(before[:at+frame], after[:at+frame]) {
			continue
		}
		out := make([]byte, len(after))
		copy(out, before)
		copy(out, after[:at])
		logs = append(logs, out)
	}
	return logs
}

// torn is the log of the database in the middle of a commit: some of its
// sectors are written, the first ones or any (P3, P7).
func (c *crash) torn(before, after []byte, inOrder bool) []byte {
	const sector = 512
	out := make([]byte, len(after))
	copy(out, before)
	chance := c.rng.Float64()
	for at := 0; at < len(after); at += sector {
		end := min(at+sector, len(after))
		if at < len(before) && bytes.Equal(before[at:min(end, len(before))], after[at:end]) {
			continue
		}
		if c.rng.Float64() < chance {
			copy(out[at:end], after[at:end])
		} else if inOrder {
			break
		}
	}
	return out
}

// try lets the power fail once, and fails the test when that costs anything.
func (c *crash) try(m *moment, cut *sampledirtest.Cut, fate func(int) sampledirtest.Fate) {
	if c.offered++; testing.Short() && c.offered%50 != 0 && !c.thorough {
		return
	}
	c.cuts++
	st := cut.State(fate, c.rng)
	if m.db.rows == nil {
		m.db.count(c.t)
	}
	for id, n := range m.db.rows { // rule 1, before the next store can mend it
		if len(st.Files[id]) < int(n) {
			c.t.Errorf("recording %s has a row of %d bytes, of its file %d are left", idString(id), n, len(st.Files[id]))
		}
	}
	key := c.state(m.db, st, m.room)
	got := c.seen[key]
	if got == nil || c.thorough {
		got = c.recover(st, m, true)
		c.seen[key] = got
	}
	if problems := m.lost(got); len(problems) > 0 {
		c.t.Errorf("lost: %s", strings.Join(problems, "\n\t"))
	}
	if !c.t.Failed() {
		return
	}
	c.t.Errorf("seed %d: power cut after operation %d of %d, at %v", c.seed, m.ops, len(c.log), m.at)
	for i := max(0, m.ops-8); i < m.ops; i++ {
		c.t.Logf("operation %d: %v", i, c.log[i])
	}
	for i := range cut.Unsynced() {
		c.t.Logf("not synced: %v: fate %d", cut.Op(i), fate(i))
	}
	c.t.FailNow()
}

// recover starts a store on what a power cut at m left, and checks all it can
// without knowing more. Of some starts the power fails again.
func (c *crash) recover(st sampledirtest.State, m *moment, twice bool) (got *found) {
	from := 2_000_000
	if twice {
		from /= 2
	}
	twice = twice && (c.thorough || c.rng.IntN(12) == 0)
	ask := c.thorough || c.rng.IntN(10) == 0
	cramped := m.room != sampledirtest.Room{} && c.rng.IntN(2) == 0
	boot := [...]string{bootID(), "another boot"}[c.rng.IntN(2)]
	var beside besideLimits
	if c.beside {
		beside = besideLimits{few: c.rng.IntN(9), part: 1 + c.rng.IntN(3), rows: 3 + c.rng.IntN(8), pause: 100 * time.Millisecond}
	}
	var again *life
	synctest.Test(c.t, func(t *testing.T) {
		l := bear(t, st, m.db, m.at)
		l.unset = c.l.unset
		l.hook = func(cfg *Config) { cfg.bootID, cfg.beside, cfg.mostDeletions = boot, beside, c.few }
		if twice {
			l.known, l.going, l.gone, l.old = m.known, m.going, m.gone, c.l.old
			l.watch()
			again = l
		}
		defer func() {
			if t.Failed() {
				t.Logf("log of the start:\n%s", l.log)
			}
		}()
		if cramped {
			c.cramped++
			if l.cramped(m.room, from-1000) {
				c.pauses++
			}
			if l.missAny(m.db.rows) {
				c.gives++
			}
		} else {
			l.mustOpen()
		}
		if c.few > 0 || cramped {
			synctest.Wait() // until all that is deleted is garbage
		}
		got = l.survey()
		if twice {
			l.mu.Lock()
			l.known = got.pieces()
			l.mu.Unlock()
		}
		l.goOn(from)
		if l.unset && !l.s.Load().ClockGood() {
			l.setClock()
		}
		if err := l.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if n := l.disk.OpenFiles(); n != 0 {
			t.Errorf("%d files are open after close", n)
		}
		if ask {
			c.asked++
			l.askSQLite()
		}
	})
	if again == nil || len(again.moments) == 0 || c.t.Failed() {
		return got
	}
	m2 := again.moments[c.rng.IntN(len(again.moments))]
	m2.sent, m2.short = nil, m.short // that was after the first power cut
	cut := sampledirtest.At(st, again.disk.Log(), m2.ops)
	all := c.fates(cut.Unsynced())
	c.again++
	if problems := m2.lost(c.recover(cut.State(all[c.rng.IntN(len(all))], c.rng), m2, false)); len(problems) > 0 {
		c.t.Errorf("lost by a second power cut: %s", strings.Join(problems, "\n\t"))
	}
	return got
}

// pieces is all that was found.
func (f *found) pieces() map[int64]piece {
	out := make(map[int64]piece)
	for id, fs := range f.streams {
		for _, r := range fs.recs {
			out[int64(id)<<32|int64(r.no)] = r.piece
		}
	}
	return out
}

// has reports whether all pictures of a piece are there, in whatever recordings.
func (fs *foundStream) has(p piece) bool {
	next := p.first
	for _, r := range fs.recs {
		if r.first <= next {
			next = max(next, r.first+r.n)
		}
	}
	return next >= p.first+p.n
}

// lost says what is missing after a power cut at m of what was durable before,
// and what more is missing than a power cut may cost.
func (m *moment) lost(got *found) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	missing := make(map[int32]foundRecording) // the newest of each stream
	for _, id := range slices.Sorted(maps.Keys(m.known)) {
		p := m.known[id]
		streamID, no := db.SplitID(id)
		fs := got.streams[streamID]
		switch {
		case fs == nil && !m.going[streamID]:
			bad("stream %d", streamID)
			continue
		case fs == nil:
			continue
		case m.gone[streamID]:
			bad("stream %d is back, its camera was deleted", streamID)
			continue
		}
		if fs.has(p) {
			continue
		}
		i, ok := slices.BinarySearchFunc(fs.recs, no, func(r foundRecording, no int32) int { return cmp.Compare(r.no, no) })
		if !ok {
			missing[streamID] = foundRecording{no, p, (p.bytes + sampledirtest.BlockSize - 1) / sampledirtest.BlockSize * sampledirtest.BlockSize}
			continue
		}
		r := fs.recs[i]
		bad("recording %s has pictures %d and %d more, durable were %d and %d more", idString(id), r.first, r.n-1, p.first, p.n-1)
	}
	// What is missing was deleted to keep the limit, or is lost.
	for streamID, last := range missing {
		fs := got.streams[streamID]
		sum := last.fs
		for _, r := range fs.recs {
			sum += r.fs
		}
		if len(fs.recs) > 0 && fs.recs[0].no < last.no {
			bad("recording %d/%d is missing, an older one is there", streamID, last.no)
		}
		if sum <= fs.retain && !m.short {
			bad("recording %d/%d is missing though %d of %d bytes are in use with it", streamID, last.no, sum, fs.retain)
		}
	}
	if began := got.opens[m.set]; m.set != 0 && began < clockUnset.Add(day) {
		bad("open %d began at %v, its clock was set", m.set, began)
	}
	if m.pardoned {
		return problems
	}
	for streamID, fs := range got.streams {
		last := -1
		if n := len(fs.recs); n > 0 {
			last = fs.recs[n-1].first + fs.recs[n-1].n - 1
		}
		lost := 0
		for id, p := range m.sent {
			if of, _ := db.SplitID(id); of == streamID {
				lost += max(0, min(p.n, p.first+p.n-1-max(last, m.forgiven[streamID])))
			}
		}
		const twoSeconds = 2 * 90000 / pictureStep
		if lost > twoSeconds {
			bad("stream %s ends with picture %d, %d that came then are lost", fs.name, last, lost)
		}
	}
	return problems
}

// clockUnset is what a clock shows at the start of a machine without a battery.
const clockUnset = media.Time(4 * media.Second)

// setClock sets a clock that was not set to the right time, and looks whether
// everything moves there that can: all of it, when all was in one boot.
func (l *life) setClock() {
	l.Helper()
	boots := make(map[string]bool)
	if err := l.s.Load().db.Opens(context.Background(), func(o db.OpenRow) error { boots[o.BootID] = true; return nil }); err != nil {
		l.Fatal(err)
	}
	l.stepped.Store(int64(-l.shift))
	time.Sleep(2 * clockEvery)
	if !l.s.Load().ClockGood() {
		l.Error("the clock was set, and is not good")
	}
	l.survey()
	for _, st := range l.s.Load().allStreams() {
		from, to := media.Time(1<<62), media.Time(0)
		see := func(start, end media.Time) { from, to = min(from, start), max(to, end) }
		for _, r := range list(l, st) {
			see(r.Start, r.End())
		}
		err := st.Gaps(context.Background(), 0, 1<<60, func(g *Gap) error { see(g.Start, g.End); return nil })
		if err != nil {
			l.Fatal(err)
		}
		if len(boots) == 1 && from < clockUnset.Add(day) {
			l.Errorf("stream %d goes back to %v", st.id, from)
		}
		if from < to {
			explained(l, st, from, to, media.Second/2)
		}
	}
}

// tick notes moments between operations, too.
func (l *life) tick() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(310 * time.Millisecond):
				l.note()
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// runSeed is that of the flag, or one by chance.
func runSeed(t *testing.T) uint64 {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d: go test ./nvr/store -run '^%s$' -seed %d", seed, t.Name(), seed)
	return seed
}
