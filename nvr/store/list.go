package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// RecordingInfo describes a recording, committed or not.
type RecordingInfo struct {
	No, OpenID, RunOffset int32
	Start                 media.Time
	WallDuration          media.Duration
	MediaDuration         media.Duration
	PrevMedia             media.Duration // of all earlier recordings of the stream
	PrevRuns              int32
	FileBytes             int64
	VideoSamples          int
	KeySamples            int
	VideoBytes            int64
	AudioSamples          int
	AudioBytes            int64
	Fragments             int
	VideoEntryID          int32
	AudioEntryID          int32 // 0: no audio
	EndReason             string
	TrailingZero          bool // the last picture has duration 0
	HasOffsets            bool // pictures are reordered
	Recovered             bool
	Growing               bool
	Uncommitted           bool
}

// End is the wall time at which the recording ends.
func (r *RecordingInfo) End() media.Time { return r.Start.Add(r.WallDuration) }

// mostAsked lists, and indexes of what is played, are read at once. What flushes and the health of the database
// need is read beside them, however many are asked for.
const mostAsked = db.Readers - 2

// ask waits until the database may be read for a list. done ends that.
func (s *Store) ask(ctx context.Context) (done func(), err error) {
	select {
	case s.asked <- struct{}{}:
		return func() { <-s.asked }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// List calls f with each recording of the stream that has a part in
// [from, to): those in the database by their start, then those in memory by
// their number. A recording that is being committed comes once. f must not
// keep its argument.
func (st *Stream) List(ctx context.Context, from, to media.Time, f func(*RecordingInfo) error) error {
	done, err := st.store.ask(ctx)
	if err != nil {
		return err
	}
	defer done()
	// First what is in memory: what a flush commits from now on is in this
	// copy, and its row is passed over.
	recent, first := st.snapshot()
	err = st.store.db.Recordings(ctx, st.id, from, to, func(r *db.Recording) error {
		if r.No() >= first {
			return nil
		}
		return f(committedInfo(r))
	})
	if err != nil {
		return err
	}
	for _, in := range recent {
		if in.Start < to && (in.End() > from || in.Start >= from) {
			if err := f(in); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshot describes what is in memory, and returns the number below which
// the database has everything.
func (st *Stream) snapshot() ([]*RecordingInfo, int32) {
	st.mu.Lock()
	defer st.mu.Unlock()
	var out []*RecordingInfo
	for _, rec := range st.recent {
		if rec.video.Samples > 0 {
			out = append(out, rec.info())
		}
	}
	return out, st.committedNo
}

func (rec *recording) info() *RecordingInfo {
	n := len(rec.taken)
	if len(rec.pending) > 0 || len(rec.pendingAudio) > 0 {
		n++ // see source
	}
	return &RecordingInfo{
		No: rec.no, OpenID: rec.open.ID, RunOffset: rec.runOffset, Start: rec.start,
		WallDuration: rec.wallDuration(), MediaDuration: rec.mediaDuration(),
		PrevMedia: rec.prevMedia, PrevRuns: rec.prevRuns, FileBytes: rec.size,
		VideoSamples: rec.video.Samples, KeySamples: rec.video.Keys, VideoBytes: rec.video.Bytes,
		AudioSamples: rec.audio.Samples, AudioBytes: rec.audio.Bytes, Fragments: n,
		VideoEntryID: rec.videoID, AudioEntryID: rec.audioID, EndReason: rec.endReason,
		TrailingZero: rec.trailingZero, HasOffsets: rec.video.Offsets() != nil, Recovered: rec.recovered,
		Growing: !rec.sealed, Uncommitted: true,
	}
}

func committedInfo(r *db.Recording) *RecordingInfo {
	return &RecordingInfo{
		No: r.No(), OpenID: r.OpenID, RunOffset: r.RunOffset, Start: r.Start,
		WallDuration: r.WallDuration, MediaDuration: r.MediaDuration(),
		PrevMedia: r.PrevMedia, PrevRuns: r.PrevRuns, FileBytes: r.FileBytes,
		VideoSamples: int(r.VideoSamples), KeySamples: int(r.KeySamples), VideoBytes: r.VideoBytes,
		AudioSamples: int(r.AudioSamples), AudioBytes: r.AudioBytes, Fragments: int(r.Fragments),
		VideoEntryID: r.VideoEntry, AudioEntryID: r.AudioEntry, EndReason: r.EndReason,
		TrailingZero: r.Flags&db.TrailingZero != 0, HasOffsets: r.Flags&db.HasOffsets != 0,
		Recovered: r.Flags&db.Recovered != 0,
	}
}

// source makes the description that package mp4 works with.
func (st *Stream) source(in *RecordingInfo) (mp4.Recording, error) {
	video, ok := st.store.entries.get(media.Video, in.VideoEntryID)
	if !ok {
		return mp4.Recording{}, fmt.Errorf("recording %d/%d: video sample entry %d: %w", st.id, in.No, in.VideoEntryID, ErrNotFound)
	}
	out := mp4.Recording{
		ID: int64(st.id)<<32 | int64(in.No), OpenID: in.OpenID, Start: in.Start, TrailingZero: in.TrailingZero,
		RunOffset: in.RunOffset, Video: video,
		VideoSamples: in.VideoSamples, KeySamples: in.KeySamples, VideoBytes: in.VideoBytes, Duration: in.MediaDuration,
		AudioSamples: in.AudioSamples, AudioBytes: in.AudioBytes, Fragments: in.Fragments, HasOffsets: in.HasOffsets,
		WallDuration: in.WallDuration, Unflushed: in.Uncommitted,
		PrevMedia: in.PrevMedia, PrevRuns: in.PrevRuns, VideoEntryID: in.VideoEntryID, AudioEntryID: in.AudioEntryID,
	}
	if in.AudioEntryID != 0 {
		if out.Audio, ok = st.store.entries.get(media.Audio, in.AudioEntryID); !ok {
			return mp4.Recording{}, fmt.Errorf("recording %d/%d: audio sample entry %d: %w", st.id, in.No, in.AudioEntryID, ErrNotFound)
		}
	}
	return out, nil
}

// Segments returns the recordings with numbers from first to last, to be
// served. Each must exist; that one was deleted since is told by its Playback
// and Open, with ErrNotFound. What is in memory is as of now: a growing recording
// ends at the last picture whose duration is known.
func (st *Stream) Segments(ctx context.Context, first, last int32) ([]mp4.Recording, error) {
	done, err := st.store.ask(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	st.mu.Lock()
	var recent []mp4.Recording
	var recentNo []int32
	below := st.committedNo
	for _, rec := range st.recent {
		if rec.no < first || rec.no > last || rec.video.Samples == 0 {
			continue
		}
		m, err := rec.source()
		if err != nil {
			st.mu.Unlock()
			return nil, err
		}
		recent, recentNo = append(recent, m), append(recentNo, rec.no)
	}
	st.mu.Unlock()

	var out []mp4.Recording
	next := first
	if first < below {
		err := st.store.db.RecordingsByNo(ctx, st.id, first, min(last, below-1)+1, func(r *db.Recording) error {
			if r.No() != next {
				return db.ErrStop
			}
			m, err := st.source(committedInfo(r))
			if err != nil {
				return err
			}
			id, dirID := r.ID, r.DirID
			m.Playback = func() (mp4.Playback, error) {
				done, err := st.store.ask(context.WithoutCancel(ctx))
				if err != nil {
					return mp4.Playback{}, err
				}
				defer done()
				p, err := st.store.db.Playback(context.WithoutCancel(ctx), id)
				if errors.Is(err, db.ErrNotFound) {
					err = fmt.Errorf("%w: it was deleted", ErrNotFound)
				}
				return mp4.Playback{Video: p.Video, Offsets: p.Offsets, Audio: p.Audio, Fragments: p.Fragments}, err
			}
			m.Open = func() (mp4.Payload, error) { return st.store.payload(dirID, id) }
			out = append(out, m)
			next++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i, m := range recent {
		if recentNo[i] != next {
			break
		}
		out = append(out, m)
		next++
	}
	if next <= last {
		st.mu.Lock()
		newest := st.nextNo - 1
		st.mu.Unlock()
		if next > newest {
			return nil, fmt.Errorf("recording %d/%d: %w: the newest is %d", st.id, next, ErrNotFound, newest)
		}
		return nil, fmt.Errorf("recording %d/%d: %w: it was deleted, or nothing of it was kept", st.id, next, ErrNotFound)
	}
	return out, nil
}

// source describes a recording in memory, with a copy of what its file does
// not hold yet.
func (rec *recording) source() (mp4.Recording, error) {
	m, err := rec.st.source(rec.info())
	if err != nil {
		return m, err
	}
	p := rec.playback()
	tail := &tail{}
	for _, f := range rec.taken[rec.durable:] {
		tail.add(f.pos+f.headerSize, f.payload)
	}
	if len(rec.pending) > 0 || len(rec.pendingAudio) > 0 {
		// What is pending reads as one more fragment, with a header of no
		// bytes.
		_, payload := split(rec.pending, nil)
		_, payload = split(rec.pendingAudio, payload)
		tail.add(rec.size, payload)
		w := rec.fragmentIndex()
		w.Append(0, len(rec.pending), len(rec.pendingAudio))
		p.Fragments = w.Index()
	}
	m.InMemory = tail.bytes
	m.Playback = func() (mp4.Playback, error) { return p, nil }
	st, dirID, id := rec.st, rec.st.dir.id, rec.id()
	m.Open = func() (mp4.Payload, error) {
		f, err := st.store.payload(dirID, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		return &growing{file: f, tail: tail}, nil
	}
	return m, nil
}

// payload opens a sample file for reading.
func (s *Store) payload(dirID int32, id int64) (mp4.Payload, error) {
	s.mu.RLock()
	d := s.directory(dirID)
	s.mu.RUnlock()
	if d == nil {
		return nil, fmt.Errorf("sample file %s: sample directory %d: %w", sampledir.Name(id), dirID, ErrNotFound)
	}
	disk, err := d.disk()
	if err != nil {
		return nil, err
	}
	f, err := disk.Open(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// tail holds the samples of a growing recording that are not in its file, by
// the position they will have there.
type tail struct {
	pos   []int64
	data  [][]byte
	bytes int64
}

func (t *tail) add(pos int64, payload [][]byte) {
	for _, b := range payload {
		t.pos, t.data = append(t.pos, pos), append(t.data, b)
		pos += int64(len(b))
		t.bytes += int64(len(b))
	}
}

// growing reads a growing recording: its durable part from the file, the rest
// from memory.
type growing struct {
	file mp4.Payload // nil: no file yet
	tail *tail
}

func (g *growing) Close() error {
	if g.file == nil {
		return nil
	}
	return g.file.Close()
}

func (g *growing) ReadAt(b []byte, pos int64) (n int, err error) {
	t := g.tail
	for n < len(b) {
		at := pos + int64(n)
		i := sort.Search(len(t.pos), func(i int) bool { return t.pos[i] > at }) // the chunk before t.pos[i] may hold it
		if i > 0 && at < t.pos[i-1]+int64(len(t.data[i-1])) {
			n += copy(b[n:], t.data[i-1][at-t.pos[i-1]:])
			continue
		}
		want := b[n:]
		if i < len(t.pos) {
			want = want[:min(int64(len(want)), t.pos[i]-at)]
		}
		if g.file == nil {
			return n, io.ErrUnexpectedEOF
		}
		m, err := g.file.ReadAt(want, at)
		n += m
		if m < len(want) {
			return n, err
		}
	}
	return n, nil
}
