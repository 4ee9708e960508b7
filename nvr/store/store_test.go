package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// testEntry is a small H.264 description.
var testEntry = &media.SampleEntry{
	Kind: media.Video, Format: "avc1", Codec: "avc1.64000c", Timescale: 90000,
	Config: []byte{
		1, 0x64, 0, 0x0c, 0xff, 0xe1, 0, 10, 0x67, 0x64, 0, 0x0c, 0xac, 0x3b, 0x50, 0xb0, 0x4b, 0x42,
		1, 0, 4, 0x68, 0xee, 0x3c, 0x80, 0xfd, 0xf8, 0xf8, 0,
	},
	Width: 320, Height: 180, PaspH: 1, PaspV: 1,
}

var testAudio = &media.SampleEntry{
	Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 48000, Config: []byte{0x11, 0x88},
	Channels: 1, SampleRate: 48000,
}

// bench is a store with streams to append to, in a bubble.
type bench struct {
	*testing.T
	dir  string
	s    *Store
	now  func() time.Time
	log  *journal
	hook func(*Config)
}

// journal is a log that may be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *journal) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *journal) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func newBench(t *testing.T, hook func(*Config)) *bench {
	b := &bench{T: t, dir: inMemory(t), log: new(journal), hook: hook}
	b.start()
	return b
}

func (b *bench) start() {
	b.Helper()
	cfg := Config{Dir: b.dir, Log: slog.New(slog.NewTextHandler(io.MultiWriter(b.log, b.Output()), nil)), Now: b.now, noBallast: true}
	if b.hook != nil {
		b.hook(&cfg)
	}
	s, err := Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.s = s
	b.Cleanup(func() {
		if b.s == s {
			b.stop()
		}
	})
}

func (b *bench) stop() {
	b.Helper()
	s := b.s
	b.s = nil
	if err := s.Close(context.Background()); err != nil {
		b.Errorf("close: %v", err)
	}
}

// held reads what a lock guards.
func held[T any](mu sync.Locker, read func() T) T {
	mu.Lock()
	defer mu.Unlock()
	return read()
}

// camera adds a camera with a main stream.
func (b *bench) camera(name string, retain int64, flushIfSec int) *Stream {
	b.Helper()
	uuid, err := b.s.AddCamera(b.Context(), CameraConfig{ShortName: name, Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://10.0.0.1/" + name, Record: true, RetainBytes: retain, FlushIfSec: &flushIfSec},
	}})
	if err != nil {
		b.Fatal(err)
	}
	c, _ := b.s.Camera(uuid)
	return c.Stream("main")
}

// again returns the stream of a camera after a restart.
func (b *bench) again(name string) *Stream {
	b.Helper()
	for _, c := range b.s.Cameras() {
		if c.Name == name {
			return c.Stream("main")
		}
	}
	b.Fatalf("camera %s is gone", name)
	return nil
}

const plenty = 1 << 40

// feed appends pictures to a run in real (fake) time.
type feed struct {
	run  *Run
	n    int           // pictures appended
	dts  int64         // of the next one
	step int64         // between pictures, 90 kHz
	gop  int           // pictures in a group
	size int           // bytes of a picture
	pace time.Duration // between pictures on the recorder's clock; 0: as step says
}

func newFeed(run *Run) *feed { return &feed{run: run, step: 9000, gop: 10, size: 100} }

// picture is the n-th picture: its number, then filler.
func picture(n, size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint64(b, uint64(n))
	for i := 8; i < size; i++ {
		b[i] = byte(n + i)
	}
	return b
}

func (f *feed) one() error {
	err := f.run.Append(media.AccessUnit{
		Kind: media.Video, DTS: f.dts, PTS: f.dts, Key: f.n%f.gop == 0, Data: picture(f.n, f.size),
		Entry: testEntry, Received: time.Now(),
	})
	f.n++
	f.dts += f.step
	return err
}

// play appends d of pictures, sleeping between them.
func (f *feed) play(t testing.TB, d time.Duration) {
	t.Helper()
	pace := f.pace
	if pace == 0 {
		pace = media.Duration(f.step).Std()
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := f.one(); err != nil {
			t.Errorf("picture %d: %v", f.n-1, err)
			return
		}
		time.Sleep(pace)
	}
}

// list returns all recordings of a stream.
func list(t testing.TB, st *Stream) []RecordingInfo {
	t.Helper()
	var out []RecordingInfo
	err := st.List(context.Background(), 0, 1<<62, func(r *RecordingInfo) error {
		out = append(out, *r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// numbers reads every picture of a recording through its indexes, as playing
// does, and returns their numbers.
func numbers(t testing.TB, st *Stream, no int32) []int {
	t.Helper()
	seg, err := st.Segments(context.Background(), no, no)
	if err != nil {
		t.Fatal(err)
	}
	r := seg[0]
	p, err := r.Playback()
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []int
	ir := media.NewIndexReader(p.Video, p.Offsets)
	fr := mp4.NewFragmentIndexReader(p.Fragments)
	ar := media.NewIndexReader(p.Audio, nil)
	pos := fr.Init
	for fr.Next() {
		pos += fr.HeaderSize
		for range fr.Video {
			if !ir.Next() {
				t.Fatalf("recording %d: index ends early: %v", no, ir.Err())
			}
			b := make([]byte, ir.Sample.Size)
			if _, err := f.ReadAt(b, pos); err != nil {
				t.Fatalf("recording %d: read sample %d at %d: %v", no, ir.N, pos, err)
			}
			n := int(binary.BigEndian.Uint64(b))
			if !bytes.Equal(b, picture(n, len(b))) {
				t.Fatalf("recording %d: picture %d is not what was sent", no, n)
			}
			out = append(out, n)
			pos += int64(len(b))
		}
		for range fr.Audio {
			if !ar.Next() {
				t.Fatalf("recording %d: audio index ends early: %v", no, ar.Err())
			}
			pos += int64(ar.Sample.Size)
		}
	}
	if ir.Next() || fr.Err() != nil {
		t.Fatalf("recording %d: samples behind the last fragment (%v)", no, fr.Err())
	}
	return out
}

// everyPicture checks that the recordings of a stream hold the pictures from
// first on, each once and in order, and returns how many.
func everyPicture(t testing.TB, st *Stream, first int) int {
	t.Helper()
	next := first
	for _, r := range list(t, st) {
		for _, n := range numbers(t, st, r.No) {
			if n != next {
				t.Fatalf("recording %d: picture %d where %d is expected", r.No, n, next)
			}
			next++
		}
	}
	return next - first
}

// files returns the names of the sample files.
func (b *bench) files() []string {
	b.Helper()
	names, err := filepath.Glob(filepath.Join(b.dir, "sample", "*.mp4"))
	if err != nil {
		b.Fatal(err)
	}
	return names
}

// flushed counts the flushes in the log.
func (b *bench) flushed() int { return strings.Count(b.log.String(), "msg=flushed") }

func TestEveryPictureIsRecordedOnceAcrossRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.play(t, 10*time.Minute)
		if got := everyPicture(t, st, 0); got != f.n-1 {
			t.Errorf("%d pictures while growing, want %d: all but the one whose duration is not known", got, f.n-1)
		}
		f.run.End("test")
		b.stop()
		b.start()
		st = b.again("front")
		if got := everyPicture(t, st, 0); got != f.n {
			t.Errorf("%d pictures after a restart, want %d", got, f.n)
		}
		recs := list(t, st)
		if len(recs) < 9 {
			t.Errorf("%d recordings in 10 minutes", len(recs))
		}
		for i, r := range recs {
			if r.Uncommitted || r.Recovered {
				t.Errorf("recording %d is uncommitted or recovered after a clean stop", r.No)
			}
			if i > 0 && r.Start != recs[i-1].End() {
				t.Errorf("recording %d begins at %v, the one before ends at %v", r.No, r.Start, recs[i-1].End())
			}
			if i > 0 && r.PrevMedia != recs[i-1].PrevMedia+recs[i-1].MediaDuration {
				t.Errorf("recording %d: previous media %v", r.No, r.PrevMedia)
			}
			if last := i == len(recs)-1; r.TrailingZero != last || (r.EndReason == "test") != last {
				t.Errorf("recording %d: trailing zero %v, end reason %q", r.No, r.TrailingZero, r.EndReason)
			}
			if r.WallDuration > 75*media.Second {
				t.Errorf("recording %d lasts %v", r.No, r.WallDuration)
			}
		}
	})
}

// R15: a plan whose work another flush has done is dropped.
func TestPlannedFlushIsDroppedWhenItsWorkIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		base := b.flushed()
		begin := time.Now()
		until := func(d time.Duration) { time.Sleep(time.Until(begin.Add(d))); synctest.Wait() }

		short := func() {
			f := newFeed(st.Begin(nil))
			f.play(t, 500*time.Millisecond)
			f.run.End("test")
		}
		short()
		until(2 * time.Second)
		if err := b.s.flush(t.Context(), "by hand"); err != nil {
			t.Fatal(err)
		}
		until(30 * time.Second)
		short()
		until(61 * time.Second)
		if got := b.flushed() - base; got != 1 {
			t.Errorf("%d flushes after a minute, want only the one by hand", got)
		}
		until(89 * time.Second)
		if got := b.flushed() - base; got != 1 {
			t.Errorf("%d flushes after 89 s, want 1", got)
		}
		until(92 * time.Second)
		if got := b.flushed() - base; got != 2 {
			t.Errorf("%d flushes after 92 s, want 2", got)
		}
		if n := len(list(t, st)); n != 2 {
			t.Errorf("%d recordings, want 2", n)
		}
	})
}

// R11 to R13: the number of commits does not depend on how many streams fail
// how often, and comes even when every recording has one picture only.
func TestFailingStreamsMakeNoExtraCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var streams []*Stream
		for i := range 8 {
			streams = append(streams, b.camera(fmt.Sprint("camera ", i), plenty, 60))
		}
		base := b.flushed()
		var all sync.WaitGroup
		for _, st := range streams {
			all.Go(func() {
				for range 600 {
					f := newFeed(st.Begin(nil))
					if err := f.one(); err != nil {
						t.Error(err)
					}
					f.run.End("camera failed")
					time.Sleep(time.Second)
				}
			})
		}
		all.Wait()
		if got := b.flushed() - base; got > 10 || got < 8 {
			t.Errorf("%d commits in ten minutes of 8 failing streams, want at most 10", got)
		}
		// R12: the rest is committed though nothing is recorded any more.
		time.Sleep(2 * time.Minute)
		for _, st := range streams {
			for _, r := range list(t, st) {
				if r.Uncommitted || r.WallDuration != 0 {
					t.Fatalf("recording %d: uncommitted %v, duration %v", r.No, r.Uncommitted, r.WallDuration)
				}
			}
			if n := len(list(t, st)); n != 600 {
				t.Errorf("%d recordings, want 600", n)
			}
		}
	})
}

// R1, R3: the bound is strict, and what came before it is kept.
func TestRecordingIsRefusedAtFiveMinutes(t *testing.T) {
	for _, tt := range []struct {
		jump int64
		ok   bool
	}{{26_999_999, true}, {27_000_000, false}, {27_000_001, false}, {503_793_844, false}, {1 << 31, false}, {3600 * 90000, false}} {
		t.Run(fmt.Sprint(tt.jump), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				st := b.camera("front", plenty, 0)
				f := newFeed(st.Begin(nil))
				f.gop = 1 << 30
				if err := f.one(); err != nil {
					t.Fatal(err)
				}
				f.dts = tt.jump
				err := f.one()
				if ok := err == nil; ok != tt.ok || !ok && !errors.Is(err, ErrTooLong) {
					t.Errorf("append after %d units: %v", tt.jump, err)
				}
				b.goesOnBehind(f.run, tt.ok)
			})
		})
	}
}

// goesOnBehind ends a run of two pictures, of which the second was taken or not, and
// makes sure that the next one records, and that the database took both.
func (b *bench) goesOnBehind(run *Run, taken bool) {
	b.Helper()
	run.End("test")
	f := newFeed(run.st.Begin(nil))
	f.play(b, time.Second)
	f.run.End("test")
	time.Sleep(2 * time.Second)
	if err := b.s.Healthy(b.Context()); err != nil {
		b.Errorf("afterwards: %v", err)
	}
	b.stop()
	if strings.Contains(b.log.String(), "set aside") || strings.Contains(b.log.String(), "level=ERROR") {
		b.Error("the schema refused what the run had accepted")
	}
	b.start()
	want := []int{1, 10}
	if taken {
		want[0] = 2
	}
	var got []int
	for _, r := range list(b, b.again(run.st.name.String())) {
		got = append(got, r.VideoSamples)
	}
	if !slices.Equal(got, want) {
		b.Errorf("recordings have %v pictures, want %v", got, want)
	}
}

// R4 (c, d): nothing came for five minutes, since the camera, the network or the
// machine stood still, or the clock that counts has jumped. The unit behind that is
// refused, key frame or not, what came before is kept, and the next run records.
func TestStallIsRefusedAtFiveMinutes(t *testing.T) {
	const step = 9000
	for _, tt := range []struct {
		name  string
		stall time.Duration // until the second picture comes
		jump  time.Duration // of the clock that counts, for this picture only
		dts   int64         // the second picture's, 90 kHz
		key   bool
		ok    bool
	}{
		{name: "network, shorter", stall: 299_990 * time.Millisecond, dts: 26_999_100, ok: true},
		{name: "network", stall: 5 * time.Minute, dts: 27_000_000},
		{name: "network, key frame", stall: 6 * time.Minute, dts: 32_400_000, key: true},
		{name: "camera, shorter", stall: 299_990 * time.Millisecond, dts: step, ok: true},
		{name: "camera", stall: 5 * time.Minute, dts: step},
		{name: "camera, key frame", stall: 6 * time.Minute, dts: step, key: true},
		{name: "clock, shorter", jump: 299_990 * time.Millisecond, dts: step, ok: true},
		{name: "clock", jump: 5 * time.Minute, dts: step},
		{name: "clock, a day", jump: 24 * time.Hour, dts: step, key: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				st := b.camera("front", plenty, 0)
				f := newFeed(st.Begin(nil))
				if err := f.one(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.stall)
				err := f.run.Append(media.AccessUnit{
					Kind: media.Video, DTS: tt.dts, PTS: tt.dts, Key: tt.key, Data: picture(1, f.size),
					Entry: testEntry, Received: time.Now().Add(tt.jump),
				})
				if ok := err == nil; ok != tt.ok || !ok && !errors.Is(err, ErrTooLong) {
					t.Errorf("append: %v", err)
				}
				b.goesOnBehind(f.run, tt.ok)
			})
		})
	}
}

func TestBackwardTimestampEndsTheRunAndKeepsWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Second)
		f.dts -= f.step
		if err := f.one(); !errors.Is(err, ErrBackward) {
			t.Errorf("append of an equal timestamp: %v", err)
		}
		f.run.End("bad timestamps")
		if got := everyPicture(t, st, 0); got != 30 {
			t.Errorf("%d pictures, want 30", got)
		}
	})
}

// R6: a recording that the schema would refuse does not hold up the others.
func TestUnfitRecordingIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		bad, good := b.camera("bad", plenty, 60), b.camera("good", plenty, 60)
		f, g := newFeed(bad.Begin(nil)), newFeed(good.Begin(nil))
		g.play(t, time.Second)
		if err := f.one(); err != nil {
			t.Fatal(err)
		}
		bad.mu.Lock()
		f.run.rec.start = -5 // the schema wants start > 0
		f.run.rec.runOffset = 1
		bad.mu.Unlock()
		f.run.End("test")
		g.run.End("test")
		h := newFeed(bad.Begin(nil))
		h.play(t, time.Second)
		h.run.End("test")
		time.Sleep(2 * time.Minute)
		if n := len(list(t, good)); n != 1 || list(t, good)[0].Uncommitted {
			t.Errorf("the good stream has %d recordings committed", n)
		}
		if l := list(t, bad); len(l) != 1 || l[0].Uncommitted || l[0].No != 1 {
			t.Errorf("the bad stream has %+v, want recording 1 committed", l)
		}
		time.Sleep(5 * time.Second)
		if n := len(b.files()); n != 2 {
			t.Errorf("%d files, want 2: the one set aside is garbage", n)
		}
		if !strings.Contains(b.log.String(), "set aside") {
			t.Error("nothing in the log")
		}
	})
}

// R25 to R31: the oldest go, one flush at a time; their garbage rows go when
// the files are gone.
func TestGarbageRowsGoAfterUnlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		const limit, recording = 32 << 20, 5 << 20
		st := b.camera("front", limit, 60)
		f := newFeed(st.Begin(nil))
		f.size = 8 << 10 // 80 KiB/s, 4.8 MiB a recording
		var largest int64
		for range 30 * 60 {
			f.play(t, time.Second)
			in := st.Info()
			st.mu.Lock()
			committed := st.fsBytes
			st.mu.Unlock()
			largest = max(largest, committed)
			// One recording, and what comes until the next flush is collected.
			if in.Bytes > limit+recording*3/2 {
				t.Fatalf("%d bytes on the disk, limit %d", in.Bytes, limit)
			}
		}
		if largest > limit || largest < limit-recording {
			t.Errorf("at most %d bytes committed, limit %d: too much, or too much deleted", largest, limit)
		}
		f.run.End("test")
		time.Sleep(10 * time.Minute)
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		state, err := b.s.db.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(state.Garbage) != 0 {
			t.Errorf("%d garbage rows are left", len(state.Garbage))
		}
		if got, want := len(b.files()), len(list(t, st)); got != want {
			t.Errorf("%d files for %d recordings", got, want)
		}
		first := numbers(t, st, list(t, st)[0].No)[0]
		if got := everyPicture(t, st, first); got != f.n-first {
			t.Errorf("%d pictures from %d on, want %d", got, first, f.n-first)
		}
	})
}

// R30: files that somebody else has deleted count as unlinked, and the log names
// them, once an hour. One that the recorder has unlinked before a kill is none.
func TestFilesThatAreGoneAlreadyAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		warned := regexp.MustCompile(`level=WARN msg="files of deleted recordings were gone already.*`)
		told := func(want string) {
			t.Helper()
			if got := warned.FindAllString(b.log.String(), -1); len(got) > 1 || !strings.Contains(strings.Join(got, ""), want) || want == "" && len(got) > 0 {
				t.Errorf("the log says %q, want one line of %q", got, want)
			}
			b.log.reset()
		}
		lose := func(recordings int) {
			t.Helper()
			st := b.camera("front", plenty, 0)
			for range recordings {
				f := newFeed(st.Begin(nil))
				f.play(t, time.Second)
				f.run.End("test")
			}
			time.Sleep(2 * time.Second)
			for no := range recordings - 1 {
				if err := os.Remove(filepath.Join(b.s.dirs[0].path, sampledir.Name(db.CompositeID(st.id, int32(no))))); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.s.DeleteCamera(t.Context(), b.s.Cameras()[0].UUID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
			if n := len(b.files()); n != 0 {
				t.Errorf("%d files are left", n)
			}
		}
		lose(2)
		told("files=1 recordings=1/0")
		lose(2)
		lose(20)
		told("")
		time.Sleep(time.Hour)
		told(`files=20 recordings="2/0 3/0 3/1 3/2 3/3 3/4 3/5 3/6 3/7 3/8 3/9 3/10 3/11 3/12 3/13 3/14 and 4 more"`)
		time.Sleep(2 * time.Hour)
		told("")

		d.stop(errDisk, "unlink")
		f := newFeed(b.camera("back", plenty, 0).Begin(nil))
		f.play(t, time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		if err := b.s.DeleteCamera(t.Context(), b.s.Cameras()[0].UUID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.stop()
		if err := os.Remove(b.files()[0]); err != nil { // as a kill behind the unlink leaves it
			t.Fatal(err)
		}
		b.start()
		time.Sleep(2 * time.Hour)
		told("")
	})
}

// R18: a flush is one line of the log, with its cause, what it did in each
// directory, and bytes.
func TestFlushTellsWhatItDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		b := newBench(t, func(cfg *Config) { cfg.DirRoots = []string{root} })
		st := b.camera("front", plenty, 30)
		f := newFeed(st.Begin(nil))
		f.play(t, 14*time.Second)
		f.run.End("test")
		time.Sleep(time.Minute)
		lines := func() (all []string) {
			for line := range strings.Lines(b.log.String()) {
				if _, after, ok := strings.Cut(line, " msg="); ok && strings.HasPrefix(after, "flushed ") {
					all = append(all, strings.TrimSpace(after))
				}
			}
			b.log.reset()
			return all
		}
		want := fmt.Sprintf(`flushed flush=1 why="30 sec after start of 14s front-main recording %d/0" added=%[1]d/0 addedBytes=%d deleted="" deletedBytes=0 collected="" took=0s`,
			st.id, st.Info().Bytes)
		if got := lines(); len(got) != 1 || got[0] != want {
			t.Errorf("the log says\n%q, want\n%q", got, want)
		}

		second := filepath.Join(root, "second")
		if _, err := b.s.AddDir(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		if _, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: second},
		}}); err != nil {
			t.Fatal(err)
		}
		feeds := []*feed{newFeed(st.Begin(nil)), newFeed(b.again("back").Begin(nil))}
		playAll(t, feeds, time.Second)
		for _, f := range feeds {
			f.run.End("test")
		}
		time.Sleep(2 * time.Second)
		b.log.reset()
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		got := lines()
		want = fmt.Sprintf(`added="%s: %d/1; %s: %d/0"`, b.s.dirs[0].path, st.id, second, b.again("back").id)
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("the log says\n%q, want\n%q", got, want)
		}
	})
}

// slowUnlink is a directory that takes its time to unlink a file.
type slowUnlink struct {
	sampledir.Dir
	took time.Duration
	ids  []int64 // the files that were unlinked, in their order; the directory's goroutine writes it
}

func (d *slowUnlink) Unlink(id int64) error {
	time.Sleep(d.took)
	d.ids = append(d.ids, id)
	return d.Dir.Unlink(id)
}

// R27, R30: a flush that comes while the directory is still at work on what the one
// before it asked for chooses none of that again, and takes away no garbage row of a
// file that is there.
func TestFlushDuringAnUnlinkChoosesAndCollectsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		slow := &slowUnlink{Dir: disk.Reopen()}
		b := newBench(t, func(cfg *Config) { cfg.openDir = func(string) (sampledir.Dir, error) { return slow, nil } })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 8*time.Minute)
		f.run.End("test")
		time.Sleep(5 * time.Minute)
		var sizes []int64
		for _, r := range list(t, st) {
			sizes = append(sizes, st.blocks(r.FileBytes))
		}
		b.log.reset()

		// allow sets the limit to what the recordings from number no on take.
		allow := func(no int) {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.cfg.RetainBytes = 0
			for _, n := range sizes[no:] {
				st.cfg.RetainBytes += n
			}
		}
		// flush makes sure of what one flush deletes and collects.
		flush := func(when, deleted, collected string) {
			t.Helper()
			b.log.reset()
			if err := b.s.flush(t.Context(), "by hand"); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			synctest.Wait()
			del, col := flushedIDs(b.log.String())
			if del != deleted || col != collected {
				t.Errorf("%s: a flush deletes %q and collects %q, want %q and %q", when, del, col, deleted, collected)
			}
		}
		slow.took = 20 * time.Second
		allow(2)
		flush("two have to go", "1/0 1/1", "")
		time.Sleep(5 * time.Second)
		flush("while the first is unlinked", "", "")
		allow(3)
		flush("one more has to go meanwhile", "1/2", "")
		flush("again", "", "")
		time.Sleep(20 * time.Second)
		flush("while the second is unlinked", "", "")
		time.Sleep(20 * time.Second)
		flush("while the third is unlinked", "", "1/0 1/1")
		flush("again", "", "")
		time.Sleep(20 * time.Second)
		flush("when all are gone", "", "1/2")
		flush("again", "", "")
		time.Sleep(time.Minute)
		if want := []int64{1 << 32, 1<<32 + 1, 1<<32 + 2}; !slices.Equal(slow.ids, want) {
			t.Errorf("unlinked were %v, want %v", slow.ids, want)
		}
		if state, err := b.s.db.State(t.Context()); err != nil || len(state.Garbage) != 0 {
			t.Errorf("%d garbage rows are left: %v", len(state.Garbage), err)
		}
		rowsAndFiles(t, disk, st)
		if n := len(list(t, st)); n != len(sizes)-3 {
			t.Errorf("%d recordings are left of %d", n, len(sizes))
		}
	})
}

// flushedIDs are the recordings that the flushes in a log have deleted and collected.
func flushedIDs(log string) (deleted, collected string) {
	for _, m := range flushedLine.FindAllStringSubmatch(log, -1) {
		deleted += strings.Trim(m[1], `"`)
		collected += strings.Trim(m[2], `"`)
	}
	return deleted, collected
}

var flushedLine = regexp.MustCompile(`msg=flushed .*deleted=("[^"]*"|\S*) deletedBytes=\d+ collected=("[^"]*"|\S*)`)

// scripted is a directory that fails when told to.
type scripted struct {
	sampledir.Dir
	mu   sync.Mutex
	fail map[string][]error // by operation: what the next calls return
	ops  []string
}

func (d *scripted) next(op string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, op)
	if len(d.fail[op]) == 0 {
		return nil
	}
	err := d.fail[op][0]
	d.fail[op] = d.fail[op][1:]
	return err
}

// failNext lets the next operation of a kind fail; heal forgets all failures.
func (d *scripted) failNext(op string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[op] = []error{errDisk}
}

// stop lets operations fail until the disk is well again.
func (d *scripted) stop(err error, ops ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range ops {
		d.fail[op] = slices.Repeat([]error{err}, 10000)
	}
}

func (d *scripted) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = make(map[string][]error)
}

func (d *scripted) count(op string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.ops {
		if o == op {
			n++
		}
	}
	return n
}

func (d *scripted) Create(id int64) (sampledir.File, error) {
	if err := d.next("create"); err != nil {
		return nil, err
	}
	f, err := d.Dir.Create(id)
	return &scriptedFile{f, d}, err
}

func (d *scripted) SyncFiles(files []sampledir.File) ([]error, bool) {
	return sampledirtest.SyncEach(files), false
}

func (d *scripted) Unlink(id int64) error {
	if err := d.next("unlink"); err != nil {
		return err
	}
	return d.Dir.Unlink(id)
}

func (d *scripted) Sync() error {
	if err := d.next("syncdir"); err != nil {
		return err
	}
	return d.Dir.Sync()
}

type scriptedFile struct {
	sampledir.File
	d *scripted
}

func (f *scriptedFile) Append(at int64, bufs ...[]byte) (int64, error) {
	if err := f.d.next("write"); err != nil {
		// A byte gets there all the same.
		for _, b := range bufs {
			if len(b) > 0 {
				n, _ := f.File.Append(at, b[:1])
				return n, err
			}
		}
	}
	return f.File.Append(at, bufs...)
}

func (f *scriptedFile) Sync() error {
	if err := f.d.next("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *scriptedFile) Truncate(size int64) error {
	if err := f.d.next("truncate"); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// script puts a scripted directory between the store and the disk.
func script(d **scripted) func(*Config) {
	return func(cfg *Config) {
		dir := filepath.Join(cfg.Dir, defaultDir)
		cfg.openDir = func(string) (sampledir.Dir, error) {
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			disk, err := sampledir.OpenDisk(dir)
			*d = &scripted{Dir: disk, fail: make(map[string][]error)}
			return *d, err
		}
	}
}

// smallRing is script with a ring that holds 150 s of pictures of 4 KiB.
func smallRing(d **scripted) func(*Config) {
	inner := script(d)
	return func(cfg *Config) { inner(cfg); cfg.RingBytes = 6 << 20 }
}

var errDisk = errors.New("input/output error")

// R22, R30: each step is tried again by itself, and then all is right.
func TestEachStepOfWritingAndCollectingIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", 16<<20, 60)
		d.mu.Lock()
		d.fail["create"] = []error{errDisk}
		d.fail["write"] = []error{nil, errDisk, errDisk}
		d.mu.Unlock()
		f := newFeed(st.Begin(nil))
		f.size = 8 << 10
		f.play(t, 2500*time.Millisecond)
		if in := st.Info(); !strings.Contains(in.DirError, errDisk.Error()) {
			t.Errorf("while it fails, the directory's error is %q", in.DirError)
		}
		f.play(t, 10*time.Second)
		if in := st.Info(); in.DirError != "" || in.Watermark == 0 {
			t.Errorf("afterwards: error %q, watermark %v", in.DirError, in.Watermark)
		}
		// Fill it beyond its limit, so that something is collected.
		d.mu.Lock()
		d.fail["unlink"] = []error{errDisk, errDisk}
		d.mu.Unlock()
		f.play(t, 8*time.Minute)
		f.run.End("test")
		b.stop()
		for op, want := range map[string]int{"create": 2, "write": 4, "unlink": 3} {
			if left, n := len(d.fail[op]), d.count(op); left > 0 || n < want {
				t.Errorf("%s was tried %d times, %d of its faults are left", op, n, left)
			}
		}
		b.start()
		st = b.again("front")
		first := numbers(t, st, list(t, st)[0].No)[0]
		if first == 0 {
			t.Error("nothing was deleted")
		}
		if got := everyPicture(t, st, first); got != f.n-first {
			t.Errorf("%d pictures from %d on, want %d", got, first, f.n-first)
		}
		for _, name := range b.files() {
			raw, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			fi, _ := raw.Stat()
			sf, err := mp4.ReadSampleFile(raw, fi.Size())
			raw.Close()
			if err != nil || sf.Damage != nil {
				t.Errorf("%s: %v, %v", filepath.Base(name), err, sf.Damage)
			}
		}
	})
}

// reliability.md finding 1: a file whose sync failed is never synced again.
func TestFailedSyncIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5500*time.Millisecond)
		d.mu.Lock()
		d.fail["sync"] = []error{errDisk}
		d.ops = nil
		d.mu.Unlock()
		f.play(t, 800*time.Millisecond)
		if n := d.count("sync"); n != 1 {
			t.Errorf("%d syncs, want 1", n)
		}
		f.play(t, 30*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		recs := list(t, st)
		if len(recs) < 2 {
			t.Fatalf("%d recordings: one should end where it is durable, and one follow", len(recs))
		}
		if recs[0].EndReason != "" || recs[1].RunOffset != 1 || recs[len(recs)-1].EndReason != "test" {
			t.Errorf("end reasons %q and %q, run offset %d", recs[0].EndReason, recs[len(recs)-1].EndReason, recs[1].RunOffset)
		}
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures, want %d", n, f.n)
		}
	})
}

func TestFailedDirectorySyncPoisons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		d.failNext("syncdir")
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Second)
		select {
		case err := <-b.s.Fatal():
			if !errors.Is(err, ErrPoisoned) {
				t.Errorf("fatal: %v", err)
			}
		default:
			t.Error("a failed directory sync is not fatal")
		}
		f.run.End("test")
		// Nothing that came after it is called durable, though the disk would
		// take it now.
		time.Sleep(3 * time.Minute)
		for _, r := range list(t, st) {
			if !r.Uncommitted {
				t.Errorf("recording %d was committed", r.No)
			}
		}
		if n := d.count("syncdir"); n != 1 {
			t.Errorf("%d directory syncs, want 1", n)
		}
		if err := b.s.Close(context.Background()); !errors.Is(err, ErrPoisoned) {
			t.Errorf("close: %v", err)
		}
		if _, err := b.s.db.State(context.Background()); err != nil {
			t.Errorf("the database was closed, which takes its log over: %v", err)
		}
		b.s.db.Close() // as the end of the process would
		b.s = nil
	})
}

// The ring keeps the newest; what falls out is a gap between two runs.
func TestDiskThatTakesNothingCostsTheOldestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		b := newBench(t, func(cfg *Config) { inner(cfg); cfg.RingBytes = 1 << 20 })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.size = 4 << 10 // 40 KiB/s: the ring holds 25 s
		f.play(t, 5*time.Second)
		stop := make([]error, 120)
		for i := range stop {
			stop[i] = fmt.Errorf("no space left on device")
		}
		d.mu.Lock()
		d.fail["write"], d.fail["create"] = stop, stop
		d.mu.Unlock()
		for range 20 {
			f.play(t, 5*time.Second)
			if n := b.s.ring.Load(); n > 1<<20+100<<10 {
				t.Fatalf("%d bytes in memory", n)
			}
		}
		d.heal()
		f.play(t, 30*time.Second)
		f.run.End("test")
		b.stop()
		b.start()
		st = b.again("front")
		var got []int
		for _, r := range list(t, st) {
			got = append(got, numbers(t, st, r.No)...)
		}
		if n := b.s.ring.Load(); n != 0 {
			t.Errorf("%d bytes in memory at the end", n)
		}
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] {
				t.Fatalf("picture %d after %d", got[i], got[i-1])
			}
		}
		if len(got) < 30+200+200 || got[len(got)-1] != f.n-1 || got[29] != 29 {
			t.Errorf("%d pictures, the last %d of %d", len(got), got[len(got)-1], f.n-1)
		}
	})
}

// What was durable is there after a kill at any moment, and the rest is at
// most two seconds.
func TestKilledRecorderLosesNothingDurable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(testAudio))
		for range 12 {
			f.play(t, time.Duration(rng.Int64N(int64(40*time.Second))))
			synctest.Wait()
			copied := &bench{T: t, dir: t.TempDir(), log: new(journal)}
			if err := os.CopyFS(copied.dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			// Tear the newest file.
			names := copied.files()
			if n := len(names); n > 0 && rng.IntN(2) == 0 {
				fi, _ := os.Stat(names[n-1])
				if err := os.Truncate(names[n-1], fi.Size()-rng.Int64N(200)); err != nil {
					t.Fatal(err)
				}
			}
			copied.start()
			again := copied.again("front")
			if got := everyPicture(t, again, 0); got < f.n-31 {
				t.Errorf("%d pictures of %d", got, f.n)
			}
			recs := list(t, again)
			for i := range recs {
				if i > 0 && recs[i].RunOffset > 0 && recs[i].Start != recs[i-1].End() {
					t.Errorf("recording %d begins at %v, the one before ends at %v", recs[i].No, recs[i].Start, recs[i-1].End())
				}
			}
			if n := len(recs); n > 0 && recs[n-1].EndReason != reasonUnclean {
				t.Errorf("the last recording ended for %q", recs[n-1].EndReason)
			}
			copied.stop()
		}
		f.run.End("test")
	})
}

// time.md rule 8: a camera whose clock is up to 500 ppm wrong does not drag the
// recordings away from the wall clock, and of one that is worse that much is worked off.
func TestFourHoursWithoutDrift(t *testing.T) {
	for _, ppm := range []int64{-1000, -500, -400, -100, 0, 100, 400, 500, 1000} {
		if testing.Short() && ppm != -500 && ppm != 500 {
			continue // slow under the race detector
		}
		t.Run(fmt.Sprint(ppm, " ppm"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				st := b.camera("front", plenty, 120)
				f := newFeed(st.Begin(nil))
				f.gop, f.step = 1, 10*90000
				f.pace = 10*time.Second - 10*time.Duration(ppm)*time.Microsecond
				f.play(t, 4*time.Hour)
				in := st.Info()
				now := media.TimeOf(time.Now())
				// The newest picture waits for the next one, which comes now.
				want := 10*media.Second - media.Duration(ppm-min(max(ppm, -500), 500))*4*60*media.Minute/1_000_000
				if d := now.Sub(in.End); d < want-media.Second/10 || d > want+media.Second/10 {
					t.Errorf("the last recording ends %v before now, want %v", d, want)
				}
				f.run.End("test")
			})
		})
	}
}

// R36, R39: no moment of a flush shows a recording twice or not at all.
func TestListHasEveryRecordingOnceDuringFlushes(t *testing.T) {
	b := newBench(t, nil)
	st := b.camera("front", plenty, 0)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			next := int32(0)
			for _, r := range list(t, st) {
				if r.No != next {
					t.Errorf("recording %d where %d is expected", r.No, next)
					return
				}
				next++
			}
		}
	})
	f := newFeed(st.Begin(nil))
	for range 200 {
		for range 3 {
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
		}
		f.run.End("test")
		f = newFeed(st.Begin(nil))
		if err := st.dir.stepNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.run.End("test")
	close(stop)
	all.Wait()
	if n := len(list(t, st)); n != 200 {
		t.Errorf("%d recordings, want 200", n)
	}
}

func TestStoreWithManyStreamsCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var feeds []*feed
		for i := range 6 {
			feeds = append(feeds, newFeed(b.camera(fmt.Sprint("camera ", i), plenty, 120).Begin(nil)))
		}
		var all sync.WaitGroup
		for _, f := range feeds {
			all.Go(func() {
				f.play(t, 90*time.Second)
				f.run.End("test")
			})
		}
		all.Wait()
		began := time.Now()
		b.stop()
		if d := time.Since(began); d > time.Second {
			t.Errorf("close took %v", d)
		}
		b.start()
		for i, f := range feeds {
			if got := everyPicture(t, b.again(fmt.Sprint("camera ", i)), 0); got != f.n {
				t.Errorf("camera %d: %d pictures, want %d", i, got, f.n)
			}
		}
	})
}

func TestDeletedCameraLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st, other := b.camera("front", plenty, 60), b.camera("other", plenty, 60)
		f, g := newFeed(st.Begin(nil)), newFeed(other.Begin(nil))
		var all sync.WaitGroup
		all.Go(func() { g.play(t, 3*time.Minute+10*time.Second) })
		f.play(t, 3*time.Minute)
		if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
			t.Fatal(err)
		}
		if err := f.one(); !errors.Is(err, ErrRemoved) {
			t.Errorf("append to a deleted camera: %v", err)
		}
		f.run.End("test")
		all.Wait()
		time.Sleep(20 * time.Second)
		g.run.End("test")
		if _, ok := b.s.Camera(st.uuid); ok {
			t.Error("the camera is still there")
		}
		b.stop()
		b.start()
		if got := everyPicture(t, b.again("other"), 0); got != g.n {
			t.Errorf("the other camera has %d pictures, want %d", got, g.n)
		}
		if got, want := len(b.files()), len(list(t, b.again("other"))); got != want {
			t.Errorf("%d files for %d recordings", got, want)
		}
		if n := b.s.ring.Load(); n != 0 {
			t.Errorf("%d bytes in memory", n)
		}
		fresh := b.camera("front", plenty, 60)
		if fresh.id == st.id {
			t.Error("the stream id was used again")
		}
	})
}

func TestForeignDirectoryIsNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newBench(t, nil), newBench(t, nil)
		for _, b := range []*bench{one, two} {
			f := newFeed(b.camera("front", plenty, 60).Begin(nil))
			f.play(t, 5*time.Second)
			f.run.End("test")
			b.stop()
		}
		mine, theirs := filepath.Join(one.dir, "sample"), filepath.Join(two.dir, "sample")
		if err := errors.Join(os.RemoveAll(mine), os.Rename(theirs, mine)); err != nil {
			t.Fatal(err)
		}
		one.start()
		st := one.again("front")
		err := st.Unavailable()
		if err == nil || !strings.Contains(err.Error(), "belongs to another installation") || !strings.Contains(err.Error(), mine) {
			t.Errorf("directory of another installation: %v", err)
		}
		one.stop()
		if err := os.RemoveAll(mine); err != nil {
			t.Fatal(err)
		}
		one.start()
		if err := one.again("front").Unavailable(); err == nil || !strings.Contains(err.Error(), "no meta file") {
			t.Errorf("missing disk: %v", err)
		}
		if _, err := os.Stat(filepath.Join(mine, "meta")); err == nil {
			t.Error("the mount point was written to")
		}
	})
}

func TestSecondRecorderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		_, err := Open(t.Context(), Config{Dir: b.dir})
		if !errors.Is(err, db.ErrLocked) || !strings.Contains(err.Error(), b.dir) {
			t.Errorf("second open: %v", err)
		}
	})
}

func TestWrongConfigurationChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for _, tt := range []struct{ json, field string }{
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"http://x/","record":true,"retainBytes":100000000}}}]}`, "cameras[0].streams.main.url"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","record":true,"retainBytes":5}}}]}`, "cameras[0].streams.main.retainBytes"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","record":true,"retainBytes":"5"}}}]}`, "cameras[0].streams.main.retainBytes"},
			{`{"cameras":[{"shortName":"a","streams":{"side":{"url":"rtsp://x/"}}}]}`, "cameras[0].streams.side"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/"}}},{"shortName":"b"}]}`, "cameras[1].streams"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/"}}},{"shortName":"a","streams":{"main":{"url":"rtsp://x/"}}}]}`, "cameras[1].shortName"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","rtspTransport":"sctp"}}}]}`, "rtspTransport"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","flushIfSec":-1}}}]}`, "flushIfSec"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","sampleFileDir":"media"}}}]}`, "sampleFileDir"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","sampleFileDir":"/nonexistent"}}}]}`, "sampleFileDir"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","recrd":true}}}]}`, "cameras[0].streams.main.recrd"},
			{`{"cameras":[{"shortName":5}]}`, "cameras[0].shortName"},
			{`[]`, "the configuration"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://x/","record":true,"retainBytes":-1}}}]}`, "cameras[0].streams.main.retainBytes"},
			{`{"cameras":[{"shortName":"a","streams":{"main":{"url":"rtsp://u:secret%zz@x/"}}}]}`, "cameras[0].streams.main.url"},
		} {
			set, err := ParseSettings([]byte(tt.json))
			if err == nil {
				err = b.s.Import(t.Context(), set) // it looks at the disks
			}
			var ce *ConfigError
			if !errors.As(err, &ce) || !strings.Contains(ce.Field, tt.field) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s\n\tgives %v, want an error about %s", tt.json, err, tt.field)
			}
		}
		if n := len(b.s.Cameras()); n != 0 {
			t.Errorf("%d cameras", n)
		}
	})
}

func TestUnknownFieldNamesTheOneThatWasMeant(t *testing.T) {
	for json, want := range map[string]string{
		`{"name":"front"}`:                               "name: is not a field; did you mean shortName?",
		`{"streams":{"main":{"user":"u"}}}`:              "streams.main.user: is not a field; did you mean username?",
		`{"streams":{"main":{"retain":5}}}`:              "streams.main.retain: is not a field; did you mean retainBytes?",
		`{"streams":{"main":{"recordingEnabled":true}}}`: "streams.main.recordingEnabled: is not a field; did you mean record?",
		`{"colour":"red"}`:                               "colour: is not a field",
	} {
		if _, err := ParseCamera([]byte(json)); err == nil || err.Error() != want {
			t.Errorf("%s\n\tgives %v, want %s", json, err, want)
		}
	}
}

func TestImportIsIdempotentByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		other := t.TempDir()
		set, err := ParseSettings([]byte(`{"cameras":[
			{"shortName":"front","streams":{
				"main":{"url":"rtsp://user:pass@10.0.0.7/main","record":true,"rtspTransport":"udp","retainBytes":100000000000,"flushIfSec":30},
				"sub":{"url":"rtsp://10.0.0.7/sub"}}},
			{"shortName":"back","streams":{"main":{"url":"rtsp://10.0.0.8/","record":true,"retainBytes":20000000,"sampleFileDir":"` + other + `"}}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.s.Import(t.Context(), set); err != nil {
				t.Fatal(err)
			}
		}
		cams := b.s.Cameras()
		if len(cams) != 2 || cams[1].Name != "front" || len(cams[1].Streams) != 2 {
			t.Fatalf("%d cameras", len(cams))
		}
		cfg := cams[1].Stream("main").settings()
		if cfg.URL != "rtsp://10.0.0.7/main" || cfg.Username != "user" || cfg.Password != "pass" || cfg.Transport != "udp" || cfg.FlushIfSec != 30 {
			t.Errorf("main is %+v", cfg)
		}
		if got := cams[0].Stream("main").Info().SampleFileDir; got != other {
			t.Errorf("back records to %s, want %s", got, other)
		}
		out := b.s.Export()
		if err := b.s.Import(t.Context(), out); err != nil {
			t.Errorf("import of the export: %v", err)
		}
		f := newFeed(cams[0].Stream("main").Begin(nil))
		f.play(t, 5*time.Second)
		f.run.End("test")
		b.stop()
		b.start()
		if got := everyPicture(t, b.again("back"), 0); got != f.n {
			t.Errorf("%d pictures in the other directory, want %d", got, f.n)
		}
	})
}

// R64: a viewer that is too slow goes on with the newest key frame and is
// told; it never sees a picture out of order, and holds nobody up.
func TestSlowViewerJumpsToTheNewestKeyFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.play(t, 1500*time.Millisecond) // in the middle of a group
		v := st.Follow()
		defer v.Close()
		number := func(l Live) int { return int(binary.BigEndian.Uint64(l.Unit.Data)) }
		l, err := v.Next(t.Context())
		if err != nil || !l.Unit.Key || number(l) != 10 || l.Dropped != 0 {
			t.Fatalf("a viewer begins with picture %d, %d dropped, %v", number(l), l.Dropped, err)
		}
		f.play(t, 10*time.Second)
		next := 11
		for next < f.n {
			l, err := v.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if l.Dropped > 0 && !l.Unit.Key {
				t.Errorf("after %d dropped comes picture %d, which is not a key", l.Dropped, number(l))
			}
			if next += l.Dropped; number(l) != next {
				t.Errorf("picture %d where %d is expected", number(l), next)
			}
			next++
		}
		if next != f.n {
			t.Errorf("%d pictures seen or dropped, want %d", next, f.n)
		}
		f.run.End("test")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := v.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a viewer of a stream that ended: %v", err)
		}
	})
}

func TestSoundGoesWithThePictures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		run := st.Begin(testAudio)
		f := newFeed(run)
		sounds, adts := 0, int64(480) // begins 10 ms after the picture
		begin := time.Now()
		for time.Since(begin) < 5*time.Minute {
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
			for ; adts*90/48 < f.dts; adts += 1024 {
				if err := run.Append(media.AccessUnit{
					Kind: media.Audio, DTS: adts, PTS: adts, Key: true, Data: picture(sounds, 50), Entry: testAudio, Received: time.Now(),
				}); err != nil {
					t.Fatal(err)
				}
				sounds++
			}
			time.Sleep(100 * time.Millisecond)
		}
		run.End("test")
		b.stop()
		b.start()
		st = b.again("front")
		everyPicture(t, st, 0)
		total := 0
		for _, r := range list(t, st) {
			seg, err := st.Segments(t.Context(), r.No, r.No)
			if err != nil {
				t.Fatal(err)
			}
			p, err := seg[0].Playback()
			if err != nil {
				t.Fatal(err)
			}
			ir := media.NewIndexReader(p.Audio, nil)
			for ir.Next() {
				total++
				if d := ir.Sample.Duration; d < 1020 || d > 1028 {
					t.Errorf("recording %d: sound %d lasts %d", r.No, ir.N, d)
				}
			}
			if ir.Err() != nil {
				t.Error(ir.Err())
			}
			end := mp4.NewFragmentIndexReader(p.Fragments).AudioStart + ir.Start + 1024
			if d := media.Duration(end*90/48) - r.MediaDuration; !r.TrailingZero && (d < -30*90 || d > 30*90) {
				t.Errorf("recording %d: sound ends %v after the pictures", r.No, d)
			}
		}
		if total != sounds {
			t.Errorf("%d sounds, want %d", total, sounds)
		}
	})
}
