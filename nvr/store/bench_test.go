package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// A data directory of a million recordings: 16 streams with 43 days of minutes
// each, a run of about a day each. Its sample files are not there: no
// benchmark plays. Nor are the sample indexes of any size, which would take
// 6 GB and which nothing here reads.
const (
	bigStreams = 16
	bigMinutes = 62_500
)

var bigStart = media.TimeOf(time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC))

// bigOnce is made once in a run of the benchmarks; TestMain takes it away.
var bigOnce struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if bigOnce.dir != "" {
		os.RemoveAll(bigOnce.dir)
	}
	os.Exit(code)
}

// big returns the directory. What opens it may change it a little.
func big(b *testing.B) string {
	b.Helper()
	bigOnce.Do(func() {
		bigOnce.dir, bigOnce.err = os.MkdirTemp("", "holdfast-bench-")
		if bigOnce.err == nil {
			bigOnce.err = fillBig(bigOnce.dir, bigMinutes, media.Minute)
		}
	})
	if bigOnce.err != nil {
		b.Fatal(bigOnce.err)
	}
	return bigOnce.dir
}

func bigNow() time.Time { return bigStart.Add(bigMinutes * media.Minute).Std() }

func bigConfig(dir string) Config { return Config{Dir: dir, Now: bigNow} }

// fillBig gives each of the streams n recordings of a minute.
func fillBig(dir string, n int32, every media.Duration) error {
	ctx := context.Background()
	s, err := Open(ctx, bigConfig(dir))
	if err != nil {
		return err
	}
	var set Settings
	for i := range bigStreams / 2 {
		sc := StreamConfig{URL: "rtsp://192.0.2.1/", Record: true, RetainBytes: 1 << 50}
		set.Cameras = append(set.Cameras, CameraConfig{ShortName: fmt.Sprint("camera ", i), Streams: map[string]StreamConfig{"main": sc, "sub": sc}})
	}
	if err := s.Import(ctx, set); err != nil {
		return err
	}
	dirID := s.dirs[0].id
	if err := s.Close(ctx); err != nil {
		return err
	}
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "db")})
	if err != nil {
		return err
	}
	defer d.Close()
	const step = 12_500
	for id := int32(1); id <= bigStreams; id++ {
		for from := int32(0); from < n; from += step {
			to := min(from+step, n)
			batch := &db.Batch{OpenID: 1, Streams: []db.StreamUpdate{{ID: id, NextNo: to, CumMedia: media.Duration(to) * media.Minute, CumRuns: 1}}}
			if id == 1 && from == 0 {
				batch.Entries = []db.SampleEntry{{ID: 1, SampleEntry: *testEntry}}
			}
			for no := from; no < to; no++ {
				r := db.NewRecording{
					Recording: db.Recording{
						ID: db.CompositeID(id, no), OpenID: 1, DirID: dirID, RunOffset: no % 1500,
						FileBytes: 30e6 + int64(no), FSBytes: 30e6 + 4096*10, Start: bigStart.Add(media.Duration(no) * every),
						PrevMedia: media.Duration(no) * media.Minute, PrevRuns: no / 1500, WallDuration: media.Minute,
						VideoSamples: 1800, KeySamples: 60, VideoBytes: 29e6, Fragments: 60, VideoEntry: 1,
					},
					Playback: db.Playback{Video: []byte{1}, Fragments: []byte{1}},
				}
				r.FSBytes = (r.FileBytes + 4095) &^ 4095
				batch.Add = append(batch.Add, r)
			}
			if err := d.Flush(ctx, batch); err != nil {
				return err
			}
		}
	}
	return d.Close()
}

// The promise is that nobody waits long for the lock of flushes while cameras with
// 100,000 recordings are deleted: the longest wait for it is told.
func BenchmarkDeletedCameras(b *testing.B) {
	ctx := b.Context()
	var longest time.Duration
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		if err := fillBig(dir, 100_000/bigStreams, media.Minute); err != nil {
			b.Fatal(err)
		}
		s, err := Open(ctx, bigConfig(dir))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		deleted := make(chan error, 1)
		go func() {
			var err error
			for _, c := range s.Cameras() {
				err = errors.Join(err, s.DeleteCamera(ctx, c.UUID))
			}
			deleted <- err
		}()
		for left := 1; left > 0 || len(s.Cameras()) > 0; runtime.Gosched() {
			asked := time.Now()
			s.flushing.Lock()
			longest = max(longest, time.Since(asked))
			left = len(s.going)
			s.flushing.Unlock()
		}
		if err := <-deleted; err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(longest.Milliseconds()), "ms/longest-wait")
}

// The promise is: ready in < 2 s with a million recordings. Each start adds an
// open; the directory is known and empty, so 16 names are probed per stream.
func BenchmarkStartWithAMillionRecordings(b *testing.B) {
	dir := big(b)
	for b.Loop() {
		s, err := Open(b.Context(), bigConfig(dir))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if n := s.Cameras()[0].Streams[0].Info().Recordings; n < bigMinutes/2 {
			b.Fatalf("%d recordings", n)
		}
		if err := s.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func openBig(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.Context(), bigConfig(big(b)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// The promise is < 10 ms for a month of one stream, beginning and ending within
// spans.
func BenchmarkMonthAsSpans(b *testing.B) {
	st := openBig(b).Cameras()[3].Streams[0]
	from := bigStart.Add(5*24*60*media.Minute + 300*media.Minute)
	to := from.Add(30 * 24 * 60 * media.Minute)
	for b.Loop() {
		n, spans := int32(0), 0
		err := st.Spans(b.Context(), from, to, func(s *Span) error {
			n += s.LastNo - s.FirstNo + 1
			spans++
			return nil
		})
		if err != nil || n != 30*24*60 {
			b.Fatal(n, err)
		}
		b.ReportMetric(float64(spans), "spans")
	}
}

// The same, recording by recording: what a list with split90k reads. Nothing is
// promised of it; the web interface asks for a day that way.
func BenchmarkMonthAsRecordings(b *testing.B) {
	st := openBig(b).Cameras()[3].Streams[0]
	from := bigStart.Add(5*24*60*media.Minute + 300*media.Minute)
	to := from.Add(30 * 24 * 60 * media.Minute)
	for b.Loop() {
		n := 0
		err := st.List(b.Context(), from, to, func(*RecordingInfo) error { n++; return nil })
		if err != nil || n != 30*24*60 {
			b.Fatal(n, err)
		}
	}
}

// The days of 16 streams, 43 of each.
func BenchmarkDaysOfAllStreams(b *testing.B) {
	s := openBig(b)
	for b.Loop() {
		for _, st := range s.allStreams() {
			if days, err := st.Days(b.Context()); err != nil || len(days) < 44 {
				b.Fatal(len(days), err)
			}
		}
	}
}

// The promise is < 20 ms for a flush of 16 streams: each adds a recording, with
// indexes of the size that a 1080p30 camera makes, and deletes one.
func BenchmarkFlushOfAllStreams(b *testing.B) {
	s := openBig(b)
	state, err := s.db.State(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	no, oldest := state.Streams[0].NextNo, int32(0)
	err = s.db.RecordingsByNo(b.Context(), 1, 0, no, func(r *db.Recording) error { oldest = r.No(); return db.ErrStop })
	if err != nil {
		b.Fatal(err)
	}
	var gone []db.Garbage
	for b.Loop() {
		batch := &db.Batch{OpenID: s.open.ID, Collected: gone}
		gone = nil
		for id := int32(1); id <= bigStreams; id++ {
			batch.Streams = append(batch.Streams, db.StreamUpdate{ID: id, NextNo: no + 1, CumMedia: media.Duration(no+1) * media.Minute, CumRuns: 1})
			batch.Add = append(batch.Add, db.NewRecording{
				Recording: db.Recording{
					ID: db.CompositeID(id, no), OpenID: s.open.ID, DirID: s.dirs[0].id, RunOffset: no,
					FileBytes: 30e6, FSBytes: 30e6, Start: bigStart.Add(media.Duration(no) * media.Minute), WallDuration: media.Minute,
					VideoSamples: 1800, KeySamples: 60, VideoBytes: 29e6, Fragments: 60, VideoEntry: 1,
				},
				Playback: db.Playback{Video: make([]byte, 5315), Fragments: make([]byte, 243)},
			})
			batch.Delete = append(batch.Delete, db.CompositeID(id, oldest))
			gone = append(gone, db.Garbage{DirID: s.dirs[0].id, ID: db.CompositeID(id, oldest)})
		}
		if err := s.db.Flush(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		no, oldest = no+1, oldest+1
	}
	if err := s.db.Flush(context.Background(), &db.Batch{OpenID: s.open.ID, Collected: gone}); err != nil {
		b.Fatal(err)
	}
}

// A year of 16 streams has 1,460 spans of each at least: here each is of one
// recording, which is all the same to who reads spans. The promise is < 100 ms
// for all of them, as the lanes of a timeline or as days.
func BenchmarkYearOfAllStreams(b *testing.B) {
	const spans = 365 * 4
	dir := b.TempDir()
	if err := fillBig(dir, spans, 6*60*media.Minute); err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), bigConfig(dir))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	b.Run("spans", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, st := range s.allStreams() {
				if err := st.Spans(b.Context(), 0, 1<<60, func(*Span) error { n++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			if n != bigStreams*spans {
				b.Fatalf("%d spans", n)
			}
		}
	})
	b.Run("days", func(b *testing.B) {
		for b.Loop() {
			for _, st := range s.allStreams() {
				if days, err := st.Days(b.Context()); err != nil || len(days) != 365 {
					b.Fatal(len(days), err)
				}
			}
		}
	})
}

// The start of a recorder whose directory is known lists it nowhere: listing
// would change the time of its last access. Fails when identify asks Foreign of
// each directory.
func TestStartListsNoDirectory(t *testing.T) {
	b := newBench(t, nil)
	b.camera("front", plenty, 60)
	b.stop()
	path := filepath.Join(b.dir, defaultDir)
	old := time.Now().Add(-30 * 24 * time.Hour)
	accessed := func() time.Time {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return time.Unix(st.Atim.Unix())
	}
	forget := func() {
		if err := os.Chtimes(path, old, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	if _, err := os.ReadDir(path); err != nil {
		t.Fatal(err)
	}
	if !accessed().After(old.Add(time.Hour)) {
		t.Skip("the file system keeps no times of access")
	}
	forget()
	b.start()
	if at := accessed(); at.After(old.Add(time.Hour)) {
		t.Errorf("the sample directory was listed at %v", at)
	}
}
