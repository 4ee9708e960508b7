package db

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// house is an open database with an open row, two directories, and the camera
// front with the streams main and sub.
type house struct {
	*DB
	t         testing.TB
	path      string
	open      OpenRow
	dirs      []Dir
	main, sub Stream
	front     Camera
}

var testEpoch = media.TimeOf(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "db")}
	h.reopen()
	var err error
	h.open, err = h.BeginOpen(t.Context(), OpenRow{BootID: "boot", Start: testEpoch})
	h.must(err)
	dirs := &Change{Dirs: []Dir{{Path: "/disk1"}, {Path: "/disk2"}}}
	h.must(h.ApplyConfig(t.Context(), dirs))
	h.dirs = dirs.Dirs
	c := h.addCamera("front")
	h.front, h.main, h.sub = c.Camera, c.Streams[0], c.Streams[1]
	return h
}

// reopen closes the database, if open, and opens it.
func (h *house) reopen() {
	h.t.Helper()
	if h.DB != nil {
		h.must(h.DB.Close())
	}
	d, err := Open(h.t.Context(), Config{Path: h.path})
	h.must(err)
	h.DB = d
	h.t.Cleanup(func() { d.Close() })
}

func (h *house) addCamera(name string) CameraChange {
	h.t.Helper()
	c := &Change{Cameras: []CameraChange{{Camera: Camera{Name: name}, Streams: []Stream{
		{Type: "main", DirID: h.dirs[0].ID, URL: "rtsp://camera/main", Record: true, RetainBytes: 1e9, FlushIfSec: 120},
		{Type: "sub", DirID: h.dirs[1].ID, URL: "rtsp://camera/sub", Record: true},
	}}}}
	h.must(h.ApplyConfig(h.t.Context(), c))
	return c.Cameras[0]
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) state() *State {
	h.t.Helper()
	s, err := h.State(h.t.Context())
	h.must(err)
	return s
}

// sane fails the test when the file or its foreign keys are damaged, the totals
// of a stream are not the sums of its rows, its spans are not those of its
// recordings, or a gap overlaps another or a recording.
func (h *house) sane() {
	h.t.Helper()
	found, err := h.Integrity(h.t.Context())
	h.must(err)
	for _, f := range found {
		h.t.Errorf("integrity: %s", f)
	}
	state := h.state()
	for _, s := range slices.Concat(state.Streams, state.Deleted) {
		var n int32
		var bytes, fsBytes int64
		var wall media.Duration
		h.must(h.RecordingsByNo(h.t.Context(), s.ID, 0, 1<<31-1, func(r *Recording) error {
			n++
			bytes += r.FileBytes
			fsBytes += r.FSBytes
			wall += r.WallDuration
			return nil
		}))
		if n != s.Recordings || bytes != s.Bytes || fsBytes != s.FSBytes || wall != s.Duration {
			h.t.Errorf("stream %d: totals are %d recordings, %d bytes, %d in blocks, %v; rows say %d, %d, %d, %v",
				s.ID, s.Recordings, s.Bytes, s.FSBytes, s.Duration, n, bytes, fsBytes, wall)
		}
		h.saneSpans(s)
		h.saneGaps(s)
	}
}

func (h *house) saneSpans(s Stream) {
	h.t.Helper()
	var want []Span
	h.must(h.RecordingsByNo(h.t.Context(), s.ID, 0, 1<<31-1, func(r *Recording) error {
		if n := len(want); n > 0 && want[n-1].takes(r) {
			want[n-1].take(r)
		} else {
			want = append(want, spanOf(r))
		}
		return nil
	}))
	got := h.spans(s, 0, 1<<60, 1<<31-1)
	slices.SortFunc(got, func(a, b Span) int { return cmp.Compare(a.FirstNo, b.FirstNo) })
	if diff := diff.Diff(want, got); diff != "" {
		h.t.Errorf("stream %d: spans are not those of its recordings: %s", s.ID, diff)
	}
}

func (h *house) saneGaps(s Stream) {
	h.t.Helper()
	gaps := h.gaps(s)
	for i, g := range gaps {
		if i > 0 && (g.Start < gaps[i-1].End || g.Start == gaps[i-1].End && g.Cause == gaps[i-1].Cause) {
			h.t.Errorf("stream %d: gaps %+v and %+v overlap or could be one", s.ID, gaps[i-1], g)
		}
		h.must(h.Recordings(h.t.Context(), s.ID, g.Start, g.End, func(r *Recording) error {
			if r.WallDuration > 0 {
				h.t.Errorf("stream %d: gap %+v overlaps recording %d", s.ID, g, r.No())
			}
			return nil
		}))
	}
}

func (h *house) spans(s Stream, from, to media.Time, below int32) (list []Span) {
	h.t.Helper()
	h.must(h.Spans(h.t.Context(), s.ID, from, to, below, func(s *Span) error { list = append(list, *s); return nil }))
	return list
}

func (h *house) gaps(s Stream) (list []Gap) {
	h.t.Helper()
	h.must(h.Gaps(h.t.Context(), s.ID, 0, 1<<60, func(g *Gap) error { list = append(list, *g); return nil }))
	return list
}

var videoEntry = SampleEntry{1, media.SampleEntry{
	Kind: media.Video, Format: "avc1", Codec: "avc1.640028", Timescale: 90000, Config: []byte{1, 2, 3},
	Width: 1920, Height: 1080, PaspH: 1, PaspV: 1,
}}

var audioEntry = SampleEntry{1, media.SampleEntry{
	Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 48000, Config: []byte{0x11, 0x90},
	Channels: 2, SampleRate: 48000,
}}

// recording makes a valid recording, the no-th minute of its stream.
func (h *house) recording(s Stream, no int32) NewRecording {
	delta := media.Duration(no)
	return NewRecording{
		Recording: Recording{
			ID: CompositeID(s.ID, no), OpenID: h.open.ID, DirID: s.DirID, RunOffset: no,
			FileBytes: 1000 + int64(no), FSBytes: 4096, Start: testEpoch.Add(media.Duration(no) * media.Minute),
			PrevMedia: media.Duration(no) * media.Minute, PrevRuns: 1,
			WallDuration: media.Minute, MediaDelta: 3, VideoSamples: 1800, KeySamples: 60, VideoBytes: 800,
			AudioSamples: 10, AudioBytes: 100, Fragments: 60, VideoEntry: 1, AudioEntry: 1,
		},
		Playback:  Playback{Video: []byte{1, byte(no)}, Audio: []byte{2}, Fragments: []byte{3, 4}},
		Integrity: Integrity{LocalTimeDelta: &delta, MonotonicSinceOpen: 5},
	}
}

// batch adds recordings [from, to) of a stream.
func (h *house) batch(s Stream, from, to int32) *Batch {
	b := &Batch{Time: testEpoch.Add(media.Minute), OpenID: h.open.ID, OpenDuration: media.Minute,
		Streams: []StreamUpdate{{ID: s.ID, NextNo: to, CumMedia: media.Duration(to) * media.Minute, CumRuns: 1}}}
	if len(h.state().Entries) == 0 {
		b.Entries = []SampleEntry{videoEntry, audioEntry}
	}
	for no := from; no < to; no++ {
		b.Add = append(b.Add, h.recording(s, no))
	}
	return b
}

// add flushes recordings [from, to) of a stream.
func (h *house) add(s Stream, from, to int32) {
	h.t.Helper()
	h.must(h.Flush(h.t.Context(), h.batch(s, from, to)))
}

// numbers lists the numbers of a stream's recordings.
func (h *house) numbers(s Stream) (numbers []int32) {
	h.t.Helper()
	h.must(h.RecordingsByNo(h.t.Context(), s.ID, 0, 1<<31-1, func(r *Recording) error {
		numbers = append(numbers, r.No())
		return nil
	}))
	return numbers
}

// dump is the whole content of the database, to compare before and after.
func (h *house) dump() (rows []string) {
	h.t.Helper()
	return h.rows("meta", "version", "open", "sample_file_dir", "camera", "stream", "video_sample_entry",
		"audio_sample_entry", "recording", "recording_integrity", "recording_playback", "garbage", "span", "gap",
		"user", "user_camera", "user_session", "sqlite_sequence")
}

// rows is the whole content of tables.
func (h *house) rows(tables ...string) (rows []string) {
	h.t.Helper()
	ctx := context.WithoutCancel(h.t.Context())
	for _, table := range tables {
		r, err := h.reader.QueryContext(ctx, "SELECT * FROM "+table)
		h.must(err)
		columns, err := r.Columns()
		h.must(err)
		for r.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			h.must(r.Scan(values...))
			line := table
			for i := range values {
				line += fmt.Sprintf(" %s=%v", columns[i], *values[i].(*any))
			}
			rows = append(rows, line)
		}
		h.must(r.Err())
		r.Close()
	}
	return rows
}

func withCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
