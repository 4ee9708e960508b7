// Package recordtest proves from sample files that an emulated camera was
// recorded: which pictures are there, once, in order, and byte for byte what
// was sent. It reads the files alone, as somebody would who has lost the
// database; it knows neither the store nor HTTP.
package recordtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// Stream is what the sample files of one stream hold.
type Stream struct {
	Name   string // camera and stream: "front main"
	Frames []Frame
	Files  int
	Sounds int
	Torn   int64 // bytes behind the last whole fragments
}

// Frame is one picture in a file.
type Frame struct {
	cameratest.Mark
	Recording int32
	Run       int // counts the runs of the stream in the directory, from 0
	At        media.Time
	Duration  media.Duration
}

// Gap is a hole in a stream: pictures that the camera numbered and no file
// holds.
type Gap struct {
	After, Before Frame
	Missing       int
}

// Read verifies every sample file of a sample directory. fixture names what
// the camera of a file played, by what the file says of itself. A picture that
// is not what was sent, or comes twice or out of order, is an error; holes are
// not, see Gaps. Of pictures that a later file holds again, because an earlier
// one did not sync, one of both is taken, as a rebuild would (storage.md, "A file
// that does not sync"). Streams are by their names.
func Read(dir string, fixture func(*mp4.About) *cameratest.Fixture) (map[string]*Stream, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.mp4"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // by stream and number
	streams := make(map[string]*Stream)
	files := make(map[string][]*file)
	opens := make(map[string]*anchor)
	sound := make(map[string]int) // the place in the loop behind the last file
	for _, name := range names {
		f, err := readFile(name, fixture, sound)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		if f == nil {
			continue // deleted meanwhile
		}
		key := f.stream()
		if streams[key] == nil {
			streams[key] = &Stream{Name: key}
		}
		streams[key].Files++
		streams[key].Torn += f.torn
		files[key] = append(files[key], f)
		open := opens[f.OpenUUID]
		if open == nil {
			open = new(anchor)
			opens[f.OpenUUID] = open
		}
		if f.SinceOpen90k >= open.since && len(f.pieces) > 0 {
			open.start, open.since = media.Time(f.OpenStart90k), f.SinceOpen90k
		}
	}
	for key, st := range streams {
		once, err := withoutCopies(files[key])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if err := st.take(once, opens); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return streams, nil
}

// anchor is when an open began, as its last file has it: the clock may have
// been set (sample-file.md).
type anchor struct {
	start media.Time
	since int64 // when that file was begun
}

// file is what one sample file holds.
type file struct {
	*mp4.About
	pieces []piece
	end    int64 // of the pictures, media time
	torn   int64
}

// piece is one fragment.
type piece struct {
	at     int64 // media time of its first picture, or where that would be
	frames []Frame
	sounds int
}

func (f *file) stream() string { return f.CameraName + " " + f.Stream }

func readFile(name string, fixture func(*mp4.About) *cameratest.Fixture, sound map[string]int) (*file, error) {
	in, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return nil, err
	}
	sf, err := mp4.ReadSampleFile(in, fi.Size())
	if err != nil {
		return nil, err
	}
	f := &file{About: &sf.About, torn: fi.Size() - sf.Good}
	if want := fmt.Sprintf("%016x.mp4", uint64(f.ID())); !strings.HasSuffix(name, want) {
		return nil, fmt.Errorf("it says that it is %s", want)
	}
	fx := fixture(f.About)
	if fx == nil {
		return nil, fmt.Errorf("no fixture is known for %s", f.stream())
	}
	heard, ok := sound[f.stream()]
	if !ok || f.RunOffset == 0 || f.Rewrites != nil {
		heard = -1
	}
	for i := range sf.Fragments {
		fr := &sf.Fragments[i]
		payload := make([]byte, fr.Size-fr.HeaderSize)
		if _, err := in.ReadAt(payload, fr.Pos+fr.HeaderSize); err != nil {
			return nil, err
		}
		p := piece{at: f.end, sounds: len(fr.Audio)}
		if len(fr.Video) > 0 {
			p.at, f.end = fr.VideoTime, fr.VideoTime
		}
		for _, s := range fr.Video {
			m, err := fx.Verify(sf.Video, payload[:s.Size])
			if err != nil {
				return nil, fmt.Errorf("fragment %d: %w", fr.Seq, err)
			}
			payload = payload[s.Size:]
			// Where the recording begins, the last fragment says best.
			at := sf.Fragments[len(sf.Fragments)-1].Start.Add(media.Duration(f.end))
			p.frames = append(p.frames, Frame{Mark: m, Recording: f.RecordingNo, At: at, Duration: media.Duration(s.Duration)})
			f.end += int64(s.Duration)
		}
		for _, s := range fr.Audio {
			if heard, err = fx.VerifyAudio(heard, payload[:s.Size]); err != nil {
				return nil, fmt.Errorf("fragment %d: %w", fr.Seq, err)
			}
			payload = payload[s.Size:]
		}
		if len(payload) > 0 {
			return nil, fmt.Errorf("fragment %d: %d bytes that no sample accounts for", fr.Seq, len(payload))
		}
		f.pieces = append(f.pieces, p)
	}
	sound[f.stream()] = heard
	return f, nil
}

// withoutCopies takes out what the files of a stream, in the order of their
// numbers, hold twice: of a file that did not sync and of the one that has the
// same again, it leaves what reaches further.
func withoutCopies(files []*file) (once []*file, err error) {
	for _, f := range files {
		w := f.Rewrites
		if w == nil {
			once = append(once, f)
			continue
		}
		further := func(old *file) bool { return f.repeats(old) && old.reach(w) > f.reach(w) }
		if len(f.pieces) == 0 || slices.ContainsFunc(once, further) {
			continue
		}
		once = slices.DeleteFunc(once, func(old *file) bool {
			if !f.repeats(old) {
				return false
			}
			if old.RecordingNo == w.RecordingNo && err == nil {
				err = old.cutFor(f)
			}
			return old.RecordingNo != w.RecordingNo || len(old.pieces) == 0
		})
		if err != nil {
			return nil, err
		}
		once = append(once, f)
	}
	return once, nil
}

// repeats reports whether f holds again what an earlier file of the stream may
// hold: the one it names, or one between them that is not about others before.
func (f *file) repeats(old *file) bool {
	w := f.Rewrites
	return old.OpenUUID == f.OpenUUID && (old.RecordingNo == w.RecordingNo ||
		old.RecordingNo > w.RecordingNo && (old.Rewrites == nil || old.Rewrites.RecordingNo >= w.RecordingNo))
}

// reach is the end of a file in the media time of the recording that w names; 0
// when it holds nothing of that.
func (f *file) reach(w *mp4.Rewrites) int64 {
	switch {
	case len(f.pieces) == 0:
		return 0
	case f.RecordingNo == w.RecordingNo:
		return f.end
	case f.Rewrites != nil && f.Rewrites.RecordingNo == w.RecordingNo:
		return f.Rewrites.From90k + f.end
	}
	return 0
}

// cutFor takes off a file what another one holds again. Both must have the same
// picture there.
func (f *file) cutFor(next *file) error {
	from := next.Rewrites.From90k
	i := slices.IndexFunc(f.pieces, func(p piece) bool { return len(p.frames) > 0 && p.at >= from })
	if i < 0 {
		return nil
	}
	if a, b := f.pieces[i], next.pieces[0]; a.at != from || len(b.frames) == 0 || a.frames[0].Mark != b.frames[0].Mark {
		return fmt.Errorf("recording %d is to go on at %d of recording %d, which has another picture at %d", next.RecordingNo, from, f.RecordingNo, a.at)
	}
	f.pieces = f.pieces[:i]
	return nil
}

// take gives the stream all pictures of files that hold each once.
func (s *Stream) take(files []*file, opens map[string]*anchor) error {
	run := -1
	for _, f := range files {
		if f.RunOffset == 0 {
			run++
		}
		if len(f.pieces) == 0 {
			continue
		}
		off := opens[f.OpenUUID].start.Sub(media.Time(f.OpenStart90k))
		for _, p := range f.pieces {
			s.Sounds += p.sounds
			for _, frame := range p.frames {
				if n := len(s.Frames); n > 0 {
					if last := s.Frames[n-1]; last.Start == frame.Start && frame.Frame <= last.Frame {
						return fmt.Errorf("recording %d: frame %d after frame %d of recording %d", f.RecordingNo, frame.Frame, last.Frame, last.Recording)
					}
				}
				frame.Run, frame.At = run, frame.At.Add(off)
				s.Frames = append(s.Frames, frame)
			}
		}
	}
	return nil
}

// Gaps returns the holes in the numbers of the frames. Between two starts of
// the camera there is nothing to count.
func (s *Stream) Gaps() []Gap {
	var gaps []Gap
	for i := 1; i < len(s.Frames); i++ {
		a, b := s.Frames[i-1], s.Frames[i]
		if a.Start == b.Start && b.Frame != a.Frame+1 {
			gaps = append(gaps, Gap{a, b, int(b.Frame - a.Frame - 1)})
		}
	}
	return gaps
}

// Steady checks that within each run the timeline goes on without a hole or
// an overlap: each picture stands where the one before it ends, across files
// too, but for the correction of the wall clock (500 ppm).
func (s *Stream) Steady() error {
	for i := 1; i < len(s.Frames); i++ {
		a, b := s.Frames[i-1], s.Frames[i]
		if a.Run != b.Run {
			continue
		}
		off := b.At.Sub(a.At.Add(a.Duration))
		limit := media.Duration(0)
		if a.Recording != b.Recording {
			limit = media.MaxRecording / 2000
		}
		if off < -limit || off > limit {
			return fmt.Errorf("%s: frame %d is %v from where frame %d ends", s.Name, b.Frame, off, a.Frame)
		}
	}
	return nil
}
