package media

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The first group of pictures, which a camera may send from its buffer, and the
// key picture that begins the next one distort nothing.
func TestMeterMeasuresWholeGroups(t *testing.T) {
	e := &SampleEntry{Kind: Video, Codec: "avc1.64001f"}
	var m Meter
	if r := m.Result(); r.Video != nil || r.FrameRate != 0 || r.BitRate != 0 {
		t.Errorf("of nothing: %+v", r)
	}
	for n := range 41 { // four groups of ten and a key picture, 25 a second
		size := 1000
		if n%10 == 0 {
			size = 11000
		}
		m.Add(&AccessUnit{DTS: int64(n) * 3600, Key: n%10 == 0, Data: make([]byte, size), Entry: e})
		m.Add(&AccessUnit{Kind: Audio, DTS: 1 << 40, Key: true, Data: make([]byte, 1<<20)})
		if n == 5 {
			if r := m.Result(); r.GOP != 0 || r.FrameRate != 25 || r.BitRate == 0 {
				t.Errorf("of half a group: %+v", r)
			}
		}
	}
	want := Measured{
		Video: e, Pictures: 41, Duration: 40 * 3600, FrameRate: 25, BitRate: 20_000 * 8 * 5 / 2, GOP: 36000, GOPPictures: 10,
	}
	if diff := cmp.Diff(want, m.Result()); diff != "" {
		t.Error(diff)
	}
}

func TestProfileIsWhatPeopleCallIt(t *testing.T) {
	for codec, want := range map[string][2]string{
		"avc1.64001f": {"High", "3.1"}, "avc1.42e01e": {"Constrained Baseline", "3.0"}, "avc1.420028": {"Baseline", "4.0"},
		"avc1.4d401e": {"Main", "3.0"}, "hvc1.1.6.L93.B0": {"Main", "3.1"}, "hvc1.2.4.H153.B0": {"Main 10", "5.1"},
		"avc1.zz": {}, "avc1": {}, "hvc1.1": {}, "mp4a.40.2": {}, "": {}, "hvc1.1.6.L.B0": {}, "hvc1.1.6.Lx.B0": {"Main", ""},
	} {
		e := SampleEntry{Codec: codec}
		if p, l := e.Profile(); p != want[0] || l != want[1] {
			t.Errorf("%s: %q %q, want %q", codec, p, l, want)
		}
	}
}
