package cameratest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/media"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"
)

func fixture(t testing.TB, name string) *Fixture {
	t.Helper()
	f, err := LoadFixture(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sent is the access unit of picture i as a recorder stores it.
func (f *Fixture) sent(i int, m Mark) []byte {
	m.Picture, m.Fixture = uint32(i), f.ID
	var out []byte
	for _, n := range append(f.head(i, &m), f.pictures[i].nals...) {
		if f.codec.kind(n) != nalParameters {
			out = binary.BigEndian.AppendUint32(out, uint32(len(n)))
			out = append(out, n...)
		}
	}
	return out
}

func TestBuiltInFixturesLoopWithoutASeam(t *testing.T) {
	total := int64(0)
	for _, name := range Names() {
		for _, n := range []string{name, name + "-sub"} {
			f := fixture(t, n)
			pictures, loop := f.Pictures()
			want := 160
			if n != name {
				want = 80
			}
			if pictures != want || loop != 8*media.Second || len(f.sound.frames) != 125 || f.sound.rate != 16000 {
				t.Errorf("%s: %d pictures in %v, %d audio frames at %d Hz", n, pictures, loop, len(f.sound.frames), f.sound.rate)
			}
			if f.twin == nil || f.twin.ID == f.ID {
				t.Errorf("%s has no twin", n)
			}
			if f.IsH265() != (name == "meadow") {
				t.Errorf("%s is %v", n, f.codec)
			}
			if b := slices.ContainsFunc(f.pictures, func(p picture) bool { return p.offset != f.pictures[0].offset }); b != (name == "dunes") {
				t.Errorf("%s: B-frames %v", n, b)
			}
			info, err := os.Stat("fixtures/" + n + ".mp4")
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
		}
	}
	if total > 2_500_000 {
		t.Errorf("the fixtures have %d bytes, want less than 2.5 MB", total)
	}
}

func TestVerifyTakesWhatWasSent(t *testing.T) {
	for _, name := range Names() {
		f := fixture(t, name)
		for i := range f.pictures {
			want := Mark{Stream: 7, Frame: 1 << 40, Start: 3, Sent: time.Unix(1_800_000_000, 123456789)}
			got, err := f.Verify(nil, f.sent(i, want))
			if err != nil {
				t.Fatal(err)
			}
			if got.Stream != 7 || got.Frame != 1<<40 || got.Start != 3 || got.Picture != uint32(i) || !got.Sent.Equal(want.Sent) {
				t.Errorf("mark %+v, want %+v", got, want)
			}
		}
		// A recorder that leaves the parameter sets in is right as well.
		with := binary.BigEndian.AppendUint32(nil, uint32(len(f.parameters[0])))
		with = append(append(with, f.parameters[0]...), f.sent(0, Mark{})...)
		if _, err := f.Verify(nil, with); err != nil {
			t.Error(err)
		}
	}
}

func TestVerifySeesEveryChangedByte(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, name := range []string{"harbour", "meadow"} {
		f := fixture(t, name)
		data := f.sent(1, Mark{Stream: 1, Frame: 1, Sent: time.Unix(1, 0)})
		for i := range data {
			bad := slices.Clone(data)
			bad[i] ^= 1 << rng.IntN(8)
			if _, err := f.Verify(nil, bad); err == nil {
				// Only hex digits may be written in two ways.
				if !bytes.EqualFold(bad, data) {
					t.Errorf("%s: byte %d of %d changed from %02x to %02x", name, i, len(data), data[i], bad[i])
				}
			}
		}
		for n := range data {
			if _, err := f.Verify(nil, data[:n]); err == nil {
				t.Errorf("%s: cut to %d of %d bytes", name, n, len(data))
			}
		}
		if _, err := f.Verify(nil, append(slices.Clone(data), 0, 0, 0, 1, 9)); err == nil {
			t.Errorf("%s: a NAL unit too many", name)
		}
	}
}

func TestDamagedMarkIsNoMark(t *testing.T) {
	for _, c := range []codec{h264, h265} {
		nal := (&Mark{Stream: 1, Frame: 2, Sent: time.Unix(3, 4)}).appendNAL(nil, c)
		data := append(binary.BigEndian.AppendUint32(nil, uint32(len(nal))), nal...)
		if m, ok := FindMark(data); !ok || m.Stream != 1 || m.Frame != 2 {
			t.Errorf("%v: mark %+v, %v", c, m, ok)
		}
		for i := range data {
			bad := slices.Clone(data)
			bad[i] ^= 1
			if m, ok := FindMark(bad); ok {
				t.Errorf("%v: byte %d changed, mark %+v", c, i, m)
			}
			FindMark(data[:i])
		}
	}
}

func TestVerifyWantsTheParameterSetsInTheEntry(t *testing.T) {
	f, o := fixture(t, "harbour"), fixture(t, "orchard")
	entry := func(f *Fixture, format string) *media.SampleEntry {
		sps, pps := f.parameterSet(7), f.parameterSet(8)
		c := append([]byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1, byte(len(sps) >> 8), byte(len(sps))}, sps...)
		c = append(append(c, 1, byte(len(pps)>>8), byte(len(pps))), pps...)
		return &media.SampleEntry{Format: format, Codec: format, Config: c}
	}
	data := f.sent(0, Mark{})
	if _, err := f.Verify(entry(f, "avc1"), data); err != nil {
		t.Error(err)
	}
	for name, e := range map[string]*media.SampleEntry{
		"other parameter sets": entry(o, "avc1"), "other codec": entry(f, "hvc1"), "empty": {Format: "avc1"},
	} {
		if _, err := f.Verify(e, data); err == nil {
			t.Errorf("%s: no complaint", name)
		}
	}
}

func TestVerifyAudioSeesHolesAndRepeats(t *testing.T) {
	f := fixture(t, "harbour")
	a := f.sound.frames
	next, err := f.VerifyAudio(-1, a[100:]...)
	if err != nil || next != 0 {
		t.Errorf("the end of the loop: next %d, %v", next, err)
	}
	if next, err = f.VerifyAudio(next, a[:10]...); err != nil || next != 10 {
		t.Errorf("over the seam: next %d, %v", next, err)
	}
	for name, frames := range map[string][][]byte{
		"a hole":    {a[10], a[12]},
		"a repeat":  {a[10], a[10]},
		"not next":  {a[11]},
		"not whole": {a[10][:20]},
	} {
		if _, err := f.VerifyAudio(10, frames...); err == nil {
			t.Errorf("%s: no complaint", name)
		}
	}
}

// fragmented writes f as a fragmented MP4 file: no edit list, no sample tables.
func fragmented(t testing.TB, f *Fixture) []byte {
	t.Helper()
	var video codecs.Codec = &codecs.H264{SPS: f.parameterSet(7), PPS: f.parameterSet(8)}
	if f.codec == h265 {
		video = &codecs.H265{VPS: f.parameterSet(32), SPS: f.parameterSet(33), PPS: f.parameterSet(34)}
	}
	init := fmp4.Init{Tracks: []*fmp4.InitTrack{
		{ID: 1, TimeScale: 90000, Codec: video},
		{ID: 2, TimeScale: 16000, Codec: &codecs.MPEG4Audio{Config: f.sound.config}},
	}}
	var buf seekablebuffer.Buffer
	if err := init.Marshal(&buf); err != nil {
		t.Fatal(err)
	}
	out := slices.Clone(buf.Bytes())
	for n := 0; n < len(f.pictures); n += 20 {
		part := fmp4.Part{Tracks: []*fmp4.PartTrack{{ID: 1, BaseTime: uint64(f.times[n])}, {ID: 2, BaseTime: uint64(n)}}}
		for i := n; i < min(n+20, len(f.pictures)); i++ {
			p := &f.pictures[i]
			var data []byte
			for _, nal := range p.nals {
				data = append(binary.BigEndian.AppendUint32(data, uint32(len(nal))), nal...)
			}
			part.Tracks[0].Samples = append(part.Tracks[0].Samples, &fmp4.Sample{
				Duration: uint32(f.times[i+1] - f.times[i]), PTSOffset: int32(p.offset), IsNonSyncSample: !p.key, Payload: data,
			})
		}
		part.Tracks[1].Samples = []*fmp4.Sample{{Duration: 1024, Payload: f.sound.frames[n/20]}}
		var buf seekablebuffer.Buffer
		if err := part.Marshal(&buf); err != nil {
			t.Fatal(err)
		}
		out = append(out, buf.Bytes()...)
	}
	return out
}

func TestFragmentedFileIsTheSameFixture(t *testing.T) {
	for _, name := range Names() {
		f := fixture(t, name)
		file := fragmented(t, f)
		g, err := newFixture("fragmented", file)
		if err != nil {
			t.Fatal(err)
		}
		if g.ID != f.ID || !slices.Equal(g.times, f.times) || len(g.sound.frames) != 8 {
			t.Errorf("%s: reads back as %08x with %d pictures and %d audio frames", name, g.ID, len(g.pictures), len(g.sound.frames))
		}
		for i := range g.pictures {
			if g.pictures[i].offset != f.pictures[i].offset || g.pictures[i].key != f.pictures[i].key {
				t.Fatalf("%s: picture %d differs", name, i)
			}
		}
		// Cut short, it serves with what is whole.
		h, err := newFixture("cut", file[:len(file)*3/4])
		if err != nil || len(h.pictures) < 80 {
			t.Errorf("%s cut short: %v", name, err)
		}
	}
}

// rebox changes the type of boxes, which hides those that become unknown; offsets
// in the file stay right.
func rebox(file []byte, from, to string) []byte {
	return bytes.ReplaceAll(file, []byte(from), []byte(to))
}

func TestOrdinaryFilesServeAsFixtures(t *testing.T) {
	file, err := os.ReadFile("fixtures/dunes.mp4")
	if err != nil {
		t.Fatal(err)
	}
	want := fixture(t, "dunes")
	for name, data := range map[string][]byte{
		"without edit lists":      rebox(file, "edts", "free"),
		"all pictures in band":    rebox(file, "avc1", "avc3"),
		"a brand nobody heard of": rebox(file, "isom", "qt  "),
	} {
		path := filepath.Join(t.TempDir(), "clip.mp4")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := LoadFixture(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.ID != want.ID || f.twin == nil || f.twin.ID == f.ID {
			t.Errorf("%s: another fixture", name)
		}
	}
	silent, err := newFixture("silent", rebox(file, "mp4a", "Opus"))
	if err != nil || silent.HasSound() {
		t.Errorf("a file with sound that is no AAC: %v", err)
	}
}

func TestWrongFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	file, err := os.ReadFile("fixtures/dunes.mp4")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		"garden":                                      `fixture "garden": neither one of harbour, orchard, dunes, meadow nor a file`,
		filepath.Join(dir, "none.mp4"):                "no such file or directory",
		write("empty.mp4", nil):                       "fixture empty.mp4: not an MP4 file: no moov box",
		write("text.mp4", []byte("not a video, ok")):  "fixture text.mp4: ",
		write("vp9.mp4", rebox(file, "avc1", "vp09")): "fixture vp9.mp4: no H.264 or H.265 track with samples",
		write("cut.mp4", file[:len(file)-1000]):       "the file at",
	} {
		if _, err := LoadFixture(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func FuzzFixture(f *testing.F) {
	small := fixture(f, "dunes-sub")
	small.pictures, small.times = small.pictures[:3], small.times[:4]
	f.Add(fragmented(f, small))
	file, err := os.ReadFile("fixtures/dunes-sub.mp4")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file[:6000])
	f.Fuzz(func(t *testing.T, data []byte) {
		f, err := newFixture("fuzz", data)
		if err != nil {
			return
		}
		// What is accepted can be sent, and what is sent verifies.
		f.packets()
		f.twin = f.relevelled()
		for i := range f.pictures {
			if _, err := f.Verify(nil, f.sent(i, Mark{})); err != nil {
				t.Fatal(err)
			}
			if f.times[i+1] <= f.times[i] {
				t.Fatal("decode times do not rise")
			}
		}
	})
}

func FuzzScript(f *testing.F) {
	f.Add("10s drop\nevery 1s..2s 1/main jump -1h\n# x")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScript(text)
		if err != nil {
			return
		}
		for _, l := range s.Lines {
			if again, err := ParseFault(l.Fault.String()); err != nil || again != l.Fault {
				t.Fatalf("%+v reads back as %+v, %v", l.Fault, again, err)
			}
		}
	})
}
