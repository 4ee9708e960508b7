package mp4

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	gomp4 "github.com/abema/go-mp4"

	"holdfast/nvr/media"
)

// textOf reads the subtitle track of a file: the cue that stands at each time.
func textOf(t *testing.T, f *File) (at func(show int64) string, tr *track) {
	t.Helper()
	tracks, err := readTracks(contents(t, f))
	if err != nil {
		t.Fatal(err)
	}
	tr = &tracks[len(tracks)-1]
	if tr.ID != textTrack {
		t.Fatalf("the last track is %d", tr.ID)
	}
	for i, s := range tr.Samples {
		if n := int(binary.BigEndian.Uint16(s.Data)); n != len(s.Data)-2 {
			t.Fatalf("cue %d says %d characters of %d", i, n, len(s.Data)-2)
		}
		if s.Duration == 0 {
			t.Errorf("cue %d lasts no time", i)
		}
	}
	return func(show int64) string {
		for _, s := range tr.Samples {
			if show >= s.At && show < s.At+int64(s.Duration) {
				return string(s.Data[2:])
			}
		}
		return "none"
	}, tr
}

// At every time of the file the cue tells the second of the wall clock at which
// what is shown was recorded, whatever the parts and the drift of clocks.
func TestCuesTellTheWallTimeOfWhatIsShown(t *testing.T) {
	zone := time.FixedZone("here", -7*3600)
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 8))
		var c counters
		_, sources := recordings(t, rng, 3, shape{fragments: 8, frames: 30, gop: 2, end: seed%2 == 0,
			start: t0.Add(media.Duration(rng.IntN(200_000))), audioRate: 16000 * uint32(seed%3%2)}, &c)
		var segs []Segment
		for i, src := range sources {
			src.WallDuration += media.Duration(rng.IntN(301) - 150)
			src.Start = src.Start.Add(media.Duration(i * rng.IntN(500_000)))
			s := whole(src)
			if rng.IntN(2) == 0 {
				s.From = media.Duration(rng.Int64N(int64(s.To)))
			}
			if rng.IntN(2) == 0 {
				s.To = s.From + 1 + media.Duration(rng.Int64N(int64(s.To-s.From)))
			}
			segs = append(segs, s)
		}
		for _, gaps := range []Gaps{CloseGaps, KeepGaps} {
			f := mustNew(t, segs, Options{Timestamps: zone, Gaps: gaps})
			text, tr := textOf(t, f)
			if tr.MediaTime != uint64(f.Duration()) {
				t.Errorf("seed %d: the track lasts %d, the file %d", seed, tr.MediaTime, f.Duration())
			}
			for i := range segs {
				s := &f.segs[i]
				for range 50 {
					off := rng.Int64N(s.to - s.from)
					wall := off * int64(s.To-s.From) / (s.to - s.from)
					// Rounding may move a tick by a unit or two.
					if m := (int64(s.wallStart()) + wall) % 90000; m < 3 || m > 89_997 {
						continue
					}
					want := s.wallStart().Add(media.Duration(wall)).Std().In(zone).Format(cueLayout)
					if got := text(s.showAt + off); got != want {
						t.Fatalf("seed %d: at %d of segment %d: %q, want %q", seed, off, i, got, want)
					}
				}
				if s.gap >= shortestGap {
					want := strings.TrimSpace(segs[i+1].Start.Add(segs[i+1].From).Std().In(zone).Format("no video until 15:04:05"))
					if got := text(s.showAt + s.shown() - 1); strings.TrimSpace(got) != want {
						t.Errorf("seed %d: in the gap: %q, want %q", seed, got, want)
					}
				}
			}
		}
	}
}

// The film is the same with and without subtitles, and a reader of MP4 finds
// them.
func TestSubtitlesChangeNoPicture(t *testing.T) {
	var c counters
	plain, withText := mixed(t, &c, Options{}), mixed(t, &c, Options{Timestamps: time.UTC})
	v, a := tracksOf(t, plain)
	w, b := tracksOf(t, withText)
	for i := range v.Samples {
		if !bytes.Equal(v.Samples[i].Data, w.Samples[i].Data) || v.Samples[i].At != w.Samples[i].At {
			t.Fatalf("picture %d is another one", i)
		}
	}
	for i := range a.Samples {
		if !bytes.Equal(a.Samples[i].Data, b.Samples[i].Data) {
			t.Fatalf("sound %d is another one", i)
		}
	}
	info, err := gomp4.Probe(bytes.NewReader(contents(t, withText)))
	if err != nil || len(info.Tracks) != 3 || len(info.Tracks[2].Samples) != int(withText.total().cueAt) {
		t.Errorf("%v %v", info, err)
	}
	var text bytes.Buffer
	if err := withText.Describe(&text); err != nil || !strings.Contains(text.String(), "recording 7/3 of open 3") ||
		!strings.Contains(text.String(), "text co64") {
		t.Errorf("%v: %s", err, text.String())
	}
}

// A second that ends less than a unit after the first picture has no cue.
func TestNoCueLastsNoTime(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 31), 1, shape{fragments: 3, frames: 29, gop: 1, start: t0 - 1}, &c)
	r[0].WallDuration += 100 // more than the camera counted
	_, tr := textOf(t, mustNew(t, []Segment{whole(r[0])}, Options{Timestamps: time.UTC}))
	if len(tr.Samples) != 3 {
		t.Errorf("%d cues for three seconds", len(tr.Samples))
	}
}

func TestYearOfFiveDigitsKeepsTheLength(t *testing.T) {
	if got := appendCue(nil, media.Time(1<<59), cueLayout, time.UTC); len(got) != cueSize {
		t.Errorf("%d bytes", len(got))
	}
}
