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

	open      string // of its file
	openStart media.Time
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
// not, see Gaps. Streams are by their names.
func Read(dir string, fixture func(*mp4.About) *cameratest.Fixture) (map[string]*Stream, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.mp4"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // by stream and number
	streams := make(map[string]*Stream)
	opens := make(map[string]*anchor)
	runs := make(map[string]int)
	sound := make(map[string]int)
	for _, name := range names {
		if err := readFile(name, fixture, streams, opens, runs, sound); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	for _, st := range streams {
		for i := range st.Frames {
			f := &st.Frames[i]
			f.At = f.At.Add(opens[f.open].start.Sub(f.openStart))
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

func readFile(name string, fixture func(*mp4.About) *cameratest.Fixture, streams map[string]*Stream, opens map[string]*anchor, runs, sound map[string]int) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	sf, err := mp4.ReadSampleFile(f, fi.Size())
	if err != nil {
		return err
	}
	a := &sf.About
	if want := fmt.Sprintf("%016x.mp4", uint64(a.ID())); !strings.HasSuffix(name, want) {
		return fmt.Errorf("it says that it is %s", want)
	}
	key := a.CameraName + " " + a.Stream
	st := streams[key]
	if st == nil {
		st = &Stream{Name: key}
		streams[key] = st
		runs[key] = -1
	}
	if a.RunOffset == 0 {
		runs[key]++
		sound[key] = -1
	}
	st.Files++
	st.Torn += fi.Size() - sf.Good
	fx := fixture(a)
	if fx == nil {
		return fmt.Errorf("no fixture is known for %s", key)
	}
	if len(sf.Fragments) == 0 {
		return nil
	}
	open := opens[a.OpenUUID]
	if open == nil {
		open = new(anchor)
		opens[a.OpenUUID] = open
	}
	if a.SinceOpen90k >= open.since {
		open.start, open.since = media.Time(a.OpenStart90k), a.SinceOpen90k
	}
	start := sf.Fragments[len(sf.Fragments)-1].Start
	for i := range sf.Fragments {
		fr := &sf.Fragments[i]
		payload := make([]byte, fr.Size-fr.HeaderSize)
		if _, err := f.ReadAt(payload, fr.Pos+fr.HeaderSize); err != nil {
			return err
		}
		at := fr.VideoTime
		for _, s := range fr.Video {
			m, err := fx.Verify(sf.Video, payload[:s.Size])
			if err != nil {
				return fmt.Errorf("fragment %d: %w", fr.Seq, err)
			}
			payload = payload[s.Size:]
			frame := Frame{Mark: m, Recording: a.RecordingNo, Run: runs[key], At: start.Add(media.Duration(at)), Duration: media.Duration(s.Duration),
				open: a.OpenUUID, openStart: media.Time(a.OpenStart90k)}
			if n := len(st.Frames); n > 0 {
				last := st.Frames[n-1]
				if last.Start == m.Start && m.Frame <= last.Frame {
					return fmt.Errorf("fragment %d: frame %d after frame %d", fr.Seq, m.Frame, last.Frame)
				}
			}
			st.Frames = append(st.Frames, frame)
			at += int64(s.Duration)
		}
		for _, s := range fr.Audio {
			next, err := fx.VerifyAudio(sound[key], payload[:s.Size])
			if err != nil {
				return fmt.Errorf("fragment %d: %w", fr.Seq, err)
			}
			sound[key] = next
			payload = payload[s.Size:]
			st.Sounds++
		}
		if len(payload) > 0 {
			return fmt.Errorf("fragment %d: %d bytes that no sample accounts for", fr.Seq, len(payload))
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
