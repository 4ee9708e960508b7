package mp4

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomp4 "github.com/abema/go-mp4"
	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

const t0 = media.Time(1_700_000_000 * 90000)

// counters tell what a file touched.
type counters struct{ loads, open int }

// recordings makes n recordings that follow each other as in a run; s is the
// shape of each. The last ends the run when s.end is set.
func recordings(t testing.TB, rng *rand.Rand, n int, s shape, c *counters) (files []*recorded, sources []Recording) {
	start := s.start
	if start == 0 {
		start = t0
	}
	audioStart := s.audioStart
	for i := range n {
		sh := s
		sh.no, sh.start, sh.audioStart = s.no+int32(i), start, audioStart
		sh.end = s.end && i == n-1
		r := record(t, rng, sh)
		src := r.source(t, &c.loads, &c.open)
		src.RunOffset = int32(i)
		files, sources = append(files, r), append(sources, src)
		start = start.Add(src.WallDuration)
		if s.audioRate > 0 {
			end := audioStart
			for _, u := range r.audio {
				end += int64(u.Duration)
			}
			audioStart = max(0, end-rescale(int64(src.Duration), 90000, s.audioRate))
		}
	}
	return files, sources
}

func tracksOf(t testing.TB, f *File) (video, audio *track) {
	t.Helper()
	tracks, err := readTracks(contents(t, f))
	if err != nil {
		t.Fatal(err)
	}
	for i := range tracks {
		switch tracks[i].ID {
		case 1:
			video = &tracks[i]
		case 2:
			audio = &tracks[i]
		}
	}
	return video, audio
}

func mustNew(t testing.TB, segs []Segment, opt Options) *File {
	t.Helper()
	f, err := New(segs, opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWholeFileHasEverySampleOnce(t *testing.T) {
	for title, s := range variants() {
		t.Run(title, func(t *testing.T) {
			var c counters
			files, sources := recordings(t, seeded(t, 10), 3, s2(s), &c)
			var segs []Segment
			for _, r := range sources {
				segs = append(segs, whole(r))
			}
			f := mustNew(t, segs, Options{})
			video, audio := tracksOf(t, f)
			var want, wantAudio []sampleRow
			var at int64
			for _, r := range files {
				for _, u := range r.video {
					d := u.Duration
					if d == 0 {
						d = int32(f.segs[2].tail)
					}
					want = append(want, sampleRow{at, uint32(d), u.Offset, u.Key, 1, u.data})
					at += int64(d)
				}
				for _, u := range r.audio {
					wantAudio = append(wantAudio, sampleRow{Entry: 1, Data: u.data})
				}
			}
			if d := cmp.Diff(want, video.Samples); d != "" {
				t.Error(d)
			}
			if video.Edits != nil || video.Duration != uint64(at) || int64(f.Duration()) != at {
				t.Errorf("video lasts %d, want %d; edits %v", video.Duration, at, video.Edits)
			}
			if (audio != nil) != (wantAudio != nil) {
				t.Fatalf("audio track is there: %v", audio != nil)
			}
			if audio == nil {
				return
			}
			for i := range audio.Samples {
				audio.Samples[i].At, audio.Samples[i].Duration = 0, 0
			}
			if d := cmp.Diff(wantAudio, audio.Samples); d != "" {
				t.Error(d)
			}
		})
	}
}

// s2 leaves room for more recordings of the same stream.
func s2(s shape) shape {
	s.no = min(s.no, 1<<31-10)
	return s
}

// Sound stands where it was relative to the picture, in every recording of
// every run, and in a run it has no seams.
func TestSoundStaysWithThePicture(t *testing.T) {
	for _, rate := range []uint32{8000, 16000, 44100, 48000} {
		for _, gaps := range []Gaps{CloseGaps, KeepGaps} {
			t.Run(fmt.Sprint(rate, gaps), func(t *testing.T) {
				var c counters
				rng := seeded(t, uint64(rate))
				type at struct {
					data []byte
					time int64 // presentation, audio units
				}
				var want []at
				var segs []Segment
				var show int64 // 90 kHz
				start := t0
				for run := range 5 {
					files, sources := recordings(t, rng, 4, shape{
						stream: 7, no: int32(run * 10), start: start, fragments: 3, frames: 15, gop: 1,
						audioRate: rate, audioStart: int64(rng.IntN(900)), end: true,
					}, &c)
					for i, src := range sources {
						segs = append(segs, whole(src))
						pos := int64(0)
						for j := range files[i].fragments {
							fr := &files[i].fragments[j]
							if j == 0 {
								pos = fr.AudioTime
							}
						}
						for _, u := range files[i].audio {
							want = append(want, at{u.data, rescale(show, 90000, rate) + pos})
							pos += int64(u.Duration)
						}
						show += int64(src.Duration)
						start = start.Add(src.WallDuration)
					}
					last := sources[len(sources)-1]
					tail := int64(last.Duration) / int64(last.VideoSamples-1)
					show += tail
					gap := media.Duration(100_000 + rng.IntN(1_000_000))
					start = start.Add(gap)
					if gaps == KeepGaps {
						show += int64(gap) - tail
					}
				}
				_, audio := tracksOf(t, mustNew(t, segs, Options{Gaps: gaps}))
				if len(audio.Samples) != len(want) {
					t.Fatalf("%d sounds, want %d", len(audio.Samples), len(want))
				}
				worst := int64(0)
				for i, s := range audio.Samples {
					got, ok := presented(audio, s.At)
					if !bytes.Equal(s.Data, want[i].data) {
						t.Fatalf("sound %d is another one", i)
					}
					if !ok {
						t.Fatalf("sound %d is not presented", i)
					}
					worst = max(worst, abs(got-want[i].time))
				}
				if worst > 2 { // rounding of the edit list
					t.Errorf("sound is up to %d/%d s away from its place", worst, rate)
				}
			})
		}
	}
}

// In parts of recordings as well: only a sound that is cut by the beginning of
// a part comes as late as that.
func TestSoundOfPartsStaysWithThePicture(t *testing.T) {
	const rate = 16000
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 4))
		var c counters
		files, sources := recordings(t, rng, 4, shape{fragments: 4, frames: 12, gop: 2, audioRate: rate, audioStart: 500}, &c)
		type at struct {
			data       []byte
			early, cut bool
			time       int64
		}
		var want []at
		var segs []Segment
		var show int64
		for i, src := range sources {
			from := media.Duration(rng.Int64N(int64(src.WallDuration) / 2))
			to := from + media.Duration(20_000+rng.Int64N(int64(src.WallDuration)/4))
			segs = append(segs, Segment{Recording: src, From: from, To: to})
			pos := files[i].fragments[0].AudioTime
			a, b := rescale(int64(from), 90000, rate), rescale(int64(to), 90000, rate)
			for _, u := range files[i].audio {
				if pos+int64(u.Duration) > a && pos < b {
					want = append(want, at{u.data, i == 0 && pos < a, i > 0 && pos < a, rescale(show, 90000, rate) + pos - a})
				}
				pos += int64(u.Duration)
			}
			show += int64(to - from)
		}
		_, audio := tracksOf(t, mustNew(t, segs, Options{}))
		if len(audio.Samples) != len(want) {
			t.Fatalf("seed %d: %d sounds, want %d", seed, len(audio.Samples), len(want))
		}
		for i, s := range audio.Samples {
			w := want[i]
			if !bytes.Equal(s.Data, w.data) {
				t.Fatalf("seed %d: sound %d is another one", seed, i)
			}
			got, ok := presented(audio, s.At)
			switch {
			case w.early: // it begins before the file does, and is hidden so far
				if len(audio.Edits) != 1 || audio.Edits[0].Media != -w.time || s.At != 0 {
					t.Errorf("seed %d: edits %v, want %d hidden", seed, audio.Edits, -w.time)
				}
			case w.cut:
				if !ok || got < w.time || got > w.time+1024 {
					t.Errorf("seed %d: sound %d at %d, want %d or a little later", seed, i, got, w.time)
				}
			case !ok || abs(got-w.time) > 2:
				t.Errorf("seed %d: sound %d at %d, want %d", seed, i, got, w.time)
			}
		}
	}
}

// A sound that ends where a part begins is not in it.
func TestSoundThatEndsAtTheBeginningIsLeftOut(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 29), 1, shape{fragments: 4, frames: 12, gop: 1, audioRate: 16000}, &c)
	// 2048 samples of 16 kHz are 11520 units.
	for from, want := range map[media.Duration]int64{11519: 1, 11520: 2, 11526: 2} {
		f := mustNew(t, []Segment{{Recording: r[0], From: from, To: 50_000}}, Options{})
		if got := int64(f.segs[0].a0); got != want {
			t.Errorf("from %d: begins with sound %d, want %d", from, got, want)
		}
	}
}

func abs(v int64) int64 { return max(v, -v) }

// presented is when a media time of the track is presented, in its units.
func presented(tr *track, at int64) (int64, bool) {
	if tr.Edits == nil {
		return at, true
	}
	var show int64
	for _, e := range tr.Edits {
		d := e.Duration
		if e.Media >= 0 && at >= e.Media && at < e.Media+rescale(d, 90000, tr.Scale)+1 {
			return rescale(show, 90000, tr.Scale) + at - e.Media, true
		}
		show += d
	}
	return 0, false
}

// Any part of any recording gives the pictures of that part, decodable from a
// key picture that the edit list hides.
func TestTrimmedFileShowsWhatWasAskedFor(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var c counters
		s := shape{fragments: 6, frames: 5, gop: 2, uneven: seed%2 == 0, end: seed%3 == 0}
		if seed%4 > 0 {
			s.audioRate, s.audioStart = 16000, int64(rng.IntN(500))
		}
		files, sources := recordings(t, rng, 1, s, &c)
		src := sources[0]
		// The wall clock ran a little faster or slower than the camera's.
		src.WallDuration = src.Duration + media.Duration(rng.IntN(41)-20)
		from := media.Duration(rng.Int64N(int64(src.WallDuration)))
		to := from + 1 + media.Duration(rng.Int64N(int64(src.WallDuration-from)))
		f := mustNew(t, []Segment{{Recording: src, From: from, To: to}}, Options{})
		video, audio := tracksOf(t, f)

		mediaFrom := int64(from) * int64(src.Duration) / int64(src.WallDuration)
		mediaTo := int64(to) * int64(src.Duration) / int64(src.WallDuration)
		if mediaFrom == mediaTo {
			continue
		}
		var at, key int64
		first, last := 0, 0
		for i, u := range files[0].video {
			if u.Key && at <= mediaFrom {
				first, key = i, at
			}
			if at < mediaTo || to == src.WallDuration {
				last = i
			}
			at += int64(u.Duration)
		}
		if len(video.Samples) != last-first+1 {
			t.Fatalf("seed %d: %d pictures, want %d to %d", seed, len(video.Samples), first, last)
		}
		for i, got := range video.Samples {
			if u := files[0].video[first+i]; !bytes.Equal(got.Data, u.data) || got.Key != u.Key {
				t.Fatalf("seed %d: picture %d is another one", seed, i)
			}
		}
		shown := mediaTo - mediaFrom
		if to == src.WallDuration {
			shown += f.segs[0].tail
		}
		if lead := mediaFrom - key; lead > 0 {
			if d := cmp.Diff([]editRow{{shown, lead}}, video.Edits); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
			if int64(f.Leading()) != lead {
				t.Errorf("seed %d: leading %d, want %d", seed, f.Leading(), lead)
			}
		} else if video.Edits != nil {
			t.Fatalf("seed %d: edits %v for nothing", seed, video.Edits)
		}
		if int64(video.MediaTime) != mediaFrom-key+shown || int64(video.Duration) != shown {
			t.Errorf("seed %d: lasts %d, shown %d", seed, video.MediaTime, video.Duration)
		}
		if audio == nil {
			continue
		}
		// Every sound that overlaps what is shown, and no other.
		var want [][]byte
		pos := s.audioStart
		for _, u := range files[0].audio {
			if pos+int64(u.Duration) > rescale(mediaFrom, 90000, 16000) && (pos < rescale(mediaTo, 90000, 16000) || to == src.WallDuration) {
				want = append(want, u.data)
			}
			pos += int64(u.Duration)
		}
		var got [][]byte
		for _, s := range audio.Samples {
			got = append(got, s.Data)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seed %d: sounds: %s", seed, d)
		}
	}
}

func TestEditListHidesLeadOfEachSegmentAndKeepsGaps(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 11), 3, shape{fragments: 4, frames: 10, gop: 4}, &c)
	r[2].Start = r[2].Start.Add(5 * media.Second)
	segs := []Segment{
		{Recording: r[0], From: 1000, To: r[0].WallDuration},
		whole(r[1]),
		{Recording: r[2], From: 20_000, To: 50_000},
	}
	d0, d1 := int64(r[0].WallDuration)-1000, int64(r[1].WallDuration)
	for gaps, gap := range map[Gaps]int64{CloseGaps: 0, KeepGaps: 5*90000 + 20_000} {
		video, _ := tracksOf(t, mustNew(t, segs, Options{Gaps: gaps}))
		want := []editRow{{d0 + d1 + gap, 1000}, {30_000, d0 + 1000 + d1 + gap + 20_000}}
		if d := cmp.Diff(want, video.Edits); d != "" {
			t.Errorf("gaps %d: %s", gaps, d)
		}
		if int64(video.Duration) != want[0].Duration+want[1].Duration {
			t.Errorf("track lasts %d", video.Duration)
		}
		last := video.Samples[r[0].VideoSamples+r[1].VideoSamples-1]
		if kept := int64(last.Duration) - gap; kept < 2900 || kept > 3100 {
			t.Errorf("the picture before the gap lasts %d", last.Duration)
		}
	}
	segs[2].Start = segs[2].Start.Add(7 * 60 * media.Minute)
	if _, err := New(segs, Options{Gaps: KeepGaps}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a gap of seven hours: %v", err)
	}
}

// Moonfire cannot go on after the picture of duration 0 that ends a run.
func TestClipGoesOnAcrossReconnects(t *testing.T) {
	var c counters
	_, a := recordings(t, seeded(t, 12), 1, shape{fragments: 2, frames: 10, gop: 1, end: true}, &c)
	_, b := recordings(t, seeded(t, 13), 1, shape{no: 1, fragments: 1, frames: 1, gop: 1, end: true}, &c)
	_, d := recordings(t, seeded(t, 14), 1, shape{no: 2, fragments: 2, frames: 10, gop: 1}, &c)
	video, _ := tracksOf(t, mustNew(t, []Segment{whole(a[0]), whole(b[0]), whole(d[0])}, Options{}))
	if len(video.Samples) != a[0].VideoSamples+1+d[0].VideoSamples {
		t.Fatalf("%d samples", len(video.Samples))
	}
	for i, s := range video.Samples {
		if s.Duration < 2900 || s.Duration > 3100 {
			t.Errorf("picture %d lasts %d", i, s.Duration)
		}
	}
}

// mixed is a file with everything in it.
func mixed(t testing.TB, c *counters, opt Options) *File {
	rng := rand.New(rand.NewPCG(99, 3))
	other := testVideo()
	other.Config = append([]byte{}, other.Config...)
	other.Config[3], other.Codec, other.Width = 0x28, "avc1.640028", 1280
	_, a := recordings(t, rng, 3, shape{fragments: 3, frames: 6, gop: 2, audioRate: 16000, audioStart: 700, end: true}, c)
	_, b := recordings(t, rng, 2, shape{no: 3, start: t0 + 9*90000, fragments: 3, frames: 6, gop: 1, offsets: true, entry: other}, c)
	_, d := recordings(t, rng, 2, shape{no: 5, start: t0 + 20*90000, fragments: 8, frames: 3, gop: 3, audioRate: 48000, uneven: true, end: true}, c)
	return mustNew(t, []Segment{
		{Recording: a[0], From: 25_000, To: a[0].WallDuration}, whole(a[1]), whole(a[2]),
		whole(b[0]), {Recording: b[1], From: 10_000, To: 40_000},
		whole(d[0]), {Recording: d[1], From: 0, To: 30_001},
	}, opt)
}

func TestAnyRangeIsThatOfTheWholeFile(t *testing.T) {
	for name, make := range map[string]func(*counters) *File{
		"movie":    func(c *counters) *File { return mixed(t, c, Options{Gaps: KeepGaps}) },
		"no audio": func(c *counters) *File { return mixed(t, c, Options{VideoOnly: true}) },
		"times":    func(c *counters) *File { return mixed(t, c, Options{Timestamps: time.UTC, Gaps: KeepGaps}) },
		"segment":  func(c *counters) *File { return segmentFile(t, c) },
	} {
		t.Run(name, func(t *testing.T) {
			var c counters
			f := make(&c)
			all := contents(t, f)
			rng := seeded(t, 20)
			kept := f.NewReader()
			defer kept.Close()
			for i := range 3000 {
				from := rng.Int64N(f.Size() + 1)
				n := rng.Int64N(f.Size() - from + 1)
				if i%2 == 0 {
					n = min(n, 1+rng.Int64N(40))
				}
				r := kept
				if i%5 == 0 {
					r = f.NewReader()
				}
				if _, err := r.Seek(from, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				var err error
				if i%3 == 0 {
					_, err = r.CopyN(&got, n)
				} else {
					_, err = io.CopyN(&got, r, n)
				}
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Bytes(), all[from:from+n]) {
					t.Fatalf("bytes %d to %d differ from those of the whole", from, from+n)
				}
				if r != kept {
					r.Close()
				}
			}
			kept.Close()
			if c.open != 0 {
				t.Errorf("%d sample files stay open", c.open)
			}
		})
	}
}

func segmentFile(t testing.TB, c *counters) *File {
	_, r := recordings(t, rand.New(rand.NewPCG(98, 3)), 3, shape{fragments: 6, frames: 4, gop: 3, audioRate: 16000, audioStart: 40, uneven: true, offsets: true, end: true}, c)
	f, err := NewMediaSegment([]Segment{{Recording: r[0], From: 30_000, To: r[0].WallDuration}, whole(r[1]), whole(r[2])}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The media segment holds what the whole file over the same segments holds.
func TestMediaSegmentHasTheSamplesOfTheFile(t *testing.T) {
	var c counters
	f := segmentFile(t, &c)
	b := contents(t, f)
	segs := make([]Segment, 0, 3)
	for _, s := range f.segs[:3] {
		segs = append(segs, s.Segment)
	}
	segs[0].From -= f.Leading()
	video, audio := tracksOf(t, mustNew(t, segs, Options{}))
	runs, err := gomp4.ExtractBoxesWithPayload(bytes.NewReader(b), nil, []gomp4.BoxPath{
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTfhd()},
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTfdt()},
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTrun()},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint32][]sampleRow{}
	var id uint32
	var at int64
	for _, box := range runs {
		switch p := box.Payload.(type) {
		case *gomp4.Tfhd:
			id = p.TrackID
		case *gomp4.Tfdt:
			at = int64(p.BaseMediaDecodeTimeV1)
		case *gomp4.Trun:
			off := int64(p.DataOffset)
			for _, e := range p.Entries {
				got[id] = append(got[id], sampleRow{at, e.SampleDuration, e.SampleCompositionTimeOffsetV1,
					e.SampleFlags == flagsKey, 1, b[off : off+int64(e.SampleSize)]})
				at += int64(e.SampleDuration)
				off += int64(e.SampleSize)
			}
		}
	}
	if d := cmp.Diff(video.Samples, got[1]); d != "" {
		t.Error(d)
	}
	for i := range audio.Samples {
		s := &audio.Samples[i]
		s.At, _ = presented(audio, s.At)
		if abs(s.At-got[2][i].At) <= 1 { // rounding of the edit list
			s.At = got[2][i].At
		}
	}
	if d := cmp.Diff(audio.Samples, got[2]); d != "" {
		t.Error(d)
	}
}

func TestMediaSegmentHasOneDescription(t *testing.T) {
	var c counters
	f := mixed(t, &c, Options{})
	var segs []Segment
	for _, s := range f.segs[:len(f.segs)-1] {
		segs = append(segs, s.Segment)
	}
	if _, err := NewMediaSegment(segs, Options{}); err == nil {
		t.Error("a media segment over two sample entries is made")
	}
}

// With any of these digests FormatVersion has to change.
func TestBytesAreThoseOfTheFormatVersion(t *testing.T) {
	goldens := map[string]string{
		"mixed":   "8eebb633ff11887e",
		"gaps":    "e05ca357ce6dc142",
		"video":   "0a5c455c9f6e9a8a",
		"segment": "1a64d247a209a66e",
		"times":   "16f16007a7b2a079",
	}
	if FormatVersion != 1 {
		t.Fatal("the digests are those of version 1")
	}
	var c counters
	for name, f := range map[string]*File{
		"mixed": mixed(t, &c, Options{}), "gaps": mixed(t, &c, Options{Gaps: KeepGaps}),
		"video": mixed(t, &c, Options{VideoOnly: true}), "segment": segmentFile(t, &c),
		"times": mixed(t, &c, Options{Timestamps: time.UTC, Gaps: KeepGaps}),
	} {
		sum := sha256.Sum256(contents(t, f))
		if got := hex.EncodeToString(sum[:8]); got != goldens[name] {
			t.Errorf("%s: digest %s, want %s", name, got, goldens[name])
		}
	}
}

func TestTagChangesWithWhateverChangesBytes(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 21), 2, shape{fragments: 2, frames: 4, gop: 1, audioRate: 8000}, &c)
	base := func() []Segment { return []Segment{whole(r[0]), whole(r[1])} }
	tags := map[string]string{}
	add := func(title string, segs []Segment, opt Options) {
		tag := mustNew(t, segs, opt).ETag()
		if !strings.HasPrefix(tag, `"`) || !strings.HasSuffix(tag, `"`) {
			t.Errorf("tag %s is not quoted, or weak", tag)
		}
		if other, ok := tags[tag]; ok {
			t.Errorf("%s has the tag of %s", title, other)
		}
		tags[tag] = title
	}
	add("base", base(), Options{})
	add("gaps", base(), Options{Gaps: KeepGaps})
	add("video only", base(), Options{VideoOnly: true})
	add("times", base(), Options{Timestamps: time.UTC})
	add("times elsewhere", base(), Options{Timestamps: time.FixedZone("there", 3600)})
	for title, change := range map[string]func(s *Segment){
		"id":    func(s *Segment) { s.ID++ },
		"open":  func(s *Segment) { s.OpenID++ },
		"start": func(s *Segment) { s.Start++ },
		"from":  func(s *Segment) { s.From++ },
		"to":    func(s *Segment) { s.To-- },
	} {
		segs := base()
		change(&segs[1])
		add(title, segs, Options{})
	}
	f, _ := NewMediaSegment(base(), Options{})
	if _, ok := tags[f.ETag()]; ok {
		t.Error("a media segment has the tag of a file")
	}
	if mustNew(t, base(), Options{}).ETag() != mustNew(t, base(), Options{}).ETag() {
		t.Error("the same file has two tags")
	}
}

func TestRangeLoadsOnlyWhatItTouches(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 22), 200, shape{fragments: 2, frames: 3, gop: 1}, &c)
	var segs []Segment
	for _, r := range r {
		segs = append(segs, whole(r))
	}
	f := mustNew(t, segs, Options{})
	if c.loads != 0 {
		t.Errorf("New loads %d indexes of whole recordings", c.loads)
	}
	rd := f.NewReader()
	defer rd.Close()
	// A few bytes in the middle of the samples.
	rd.Seek(f.dataStart+f.segs[100].dataAt+3, io.SeekStart)
	io.CopyN(io.Discard, rd, 10)
	if c.loads != 1 || c.open != 1 {
		t.Errorf("ten bytes load %d indexes and open %d files", c.loads, c.open)
	}
	// The first 400 bytes of the first table are of the first 9 recordings.
	c.loads = 0
	rd.Seek(f.sections[1].start, io.SeekStart)
	io.CopyN(io.Discard, rd, 400)
	if c.loads != 9 {
		t.Errorf("50 samples of 6 each load %d indexes", c.loads)
	}
	segs[0].From, segs[199].To = 100, 10_000
	c.loads = 0
	mustNew(t, segs, Options{})
	if c.loads != 2 {
		t.Errorf("New loads %d indexes, 2 recordings are trimmed", c.loads)
	}
}

func TestRowThatDisagreesWithItsIndexIsAnError(t *testing.T) {
	for title, change := range map[string]func(*Recording){
		"video samples": func(r *Recording) { r.VideoSamples++ },
		"keys":          func(r *Recording) { r.KeySamples-- },
		"video bytes":   func(r *Recording) { r.VideoBytes++ },
		"duration":      func(r *Recording) { r.Duration++; r.WallDuration++ },
		"audio samples": func(r *Recording) { r.AudioSamples-- },
		"audio bytes":   func(r *Recording) { r.AudioBytes++ },
		"fragments":     func(r *Recording) { r.Fragments-- },
		"playback":      func(r *Recording) { r.Playback = func() (Playback, error) { return Playback{}, errors.New("gone") } },
		"file":          func(r *Recording) { r.Open = func() (Payload, error) { return nil, errors.New("gone") } },
		"short file": func(r *Recording) {
			r.Open = func() (Payload, error) { return closer{strings.NewReader("x"), new(int)}, nil }
		},
	} {
		var c counters
		_, r := recordings(t, seeded(t, 23), 2, shape{fragments: 3, frames: 4, gop: 1, audioRate: 16000}, &c)
		change(&r[1])
		f := mustNew(t, []Segment{whole(r[0]), whole(r[1])}, Options{})
		rd := f.NewReader()
		// A row that is wrong shows before the first sample is sent.
		n := f.dataStart
		if strings.Contains(title, "file") {
			n = f.Size()
		}
		_, err := io.CopyN(io.Discard, rd, n)
		if err == nil || err == io.EOF || !strings.Contains(err.Error(), "recording 7/1") {
			t.Errorf("%s: %v", title, err)
		}
		rd.Close()
	}
}

// A growing recording is listed with what it has; its indexes may be ahead.
func TestGrowingRecordingPlaysUpToItsRow(t *testing.T) {
	var c counters
	files, r := recordings(t, seeded(t, 24), 1, shape{fragments: 5, frames: 4, gop: 1, audioRate: 16000}, &c)
	src := r[0]
	short := &recorded{file: files[0].file[:files[0].good[3]]}
	part := short.source(t, &c.loads, &c.open)
	want := contents(t, mustNew(t, []Segment{whole(part)}, Options{}))
	part.Playback, part.Open = src.Playback, src.Open
	if got := contents(t, mustNew(t, []Segment{whole(part)}, Options{})); !bytes.Equal(got, want) {
		t.Error("an index that is ahead changes the file")
	}
	seg := Segment{Recording: part, From: 9000, To: part.WallDuration}
	got := contents(t, mustNew(t, []Segment{seg}, Options{}))
	seg.Playback = short.source(t, &c.loads, &c.open).Playback
	if !bytes.Equal(got, contents(t, mustNew(t, []Segment{seg}, Options{}))) {
		t.Error("an index that is ahead changes a part of the file")
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 25), 1, shape{fragments: 2, frames: 4, gop: 1}, &c)
	w := r[0].WallDuration
	for title, segs := range map[string][]Segment{
		"nothing":        {},
		"before start":   {{Recording: r[0], From: -1, To: 5}},
		"behind end":     {{Recording: r[0], From: 0, To: w + 1}},
		"empty":          {{Recording: r[0], From: 5, To: 5}},
		"backward":       {{Recording: r[0], From: 6, To: 5}},
		"zero recording": {{}},
	} {
		if _, err := New(segs, Options{}); err == nil {
			t.Errorf("%s is taken", title)
		}
	}
	if _, err := NewMediaSegment([]Segment{whole(r[0])}, Options{Timestamps: time.UTC}); err == nil {
		t.Error("a media segment with subtitles is made")
	}
	huge := r[0]
	huge.VideoSamples, huge.VideoBytes = 1<<29, 1<<40
	if _, err := New([]Segment{whole(huge)}, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a table of 4 GiB: %v", err)
	}
}

func TestMuchDataNeedsNoMoreThan64Bits(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 26), 1, shape{fragments: 2, frames: 4, gop: 1}, &c)
	var segs []Segment
	for range 400 {
		big := r[0]
		big.VideoBytes = 1 << 33
		segs = append(segs, whole(big))
	}
	f := mustNew(t, segs, Options{})
	if f.Size() < 400<<33 {
		t.Errorf("size is %d", f.Size())
	}
}

// A reader of MP4 finds its way in a file beyond all limits of 32 bits: 16 hours
// at 90 kHz, 12 GB. Its samples are nowhere.
func TestLongFileIsReadBack(t *testing.T) {
	const minutes, rate, size = 1000, 60, 200_000 // pictures a minute
	var video media.IndexWriter
	var fr FragmentIndexWriter
	fr.Init(900)
	for i := range rate {
		video.Append(media.Sample{Duration: 90_000, Size: size, Key: i%10 == 0})
		fr.Append(500, 1, 0)
	}
	p := Playback{Video: video.Index(), Fragments: fr.Index()}
	var segs []Segment
	for i := range int32(minutes) {
		segs = append(segs, whole(Recording{
			ID: 1<<32 | int64(i), OpenID: 1, Start: t0.Add(media.Duration(i) * media.Minute), WallDuration: media.Minute, Duration: media.Minute,
			Video: testVideo(), VideoSamples: rate, KeySamples: rate / 10, VideoBytes: video.Bytes, Fragments: rate,
			Playback: func() (Playback, error) { return p, nil },
		}))
	}
	segs[0].From = 100_000
	f := mustNew(t, segs, Options{Timestamps: time.UTC})
	r := f.NewReader()
	defer r.Close()
	info, err := gomp4.Probe(r)
	if err != nil {
		t.Fatal(err)
	}
	const shown = minutes*uint64(media.Minute) - 100_000
	tr := info.Tracks[0]
	if info.Duration != shown || tr.EditList[0].MediaTime != 100_000 || tr.EditList[0].SegmentDuration != shown || len(tr.Samples) != minutes*rate {
		t.Errorf("lasts %d, want %d; edits %+v; %d samples", info.Duration, shown, tr.EditList[0], len(tr.Samples))
	}
	tkhd, err := gomp4.ExtractBoxWithPayload(f.NewReader(), nil, gomp4.BoxPath{gomp4.BoxTypeMoov(), gomp4.BoxTypeTrak(), gomp4.BoxTypeTkhd()})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range tkhd {
		if d := b.Payload.(*gomp4.Tkhd).GetDuration(); d != shown || d <= 1<<32 {
			t.Errorf("a track lasts %d, want %d", d, shown)
		}
	}
	last := tr.Chunks[len(tr.Chunks)-1]
	if end := last.DataOffset + uint64(last.SamplesPerChunk)*size; end != uint64(f.Size()) || end < 1<<33 {
		t.Errorf("the last sample ends at %d, the file at %d", end, f.Size())
	}
}

func TestServedOverHTTP(t *testing.T) {
	var c counters
	f := mixed(t, &c, Options{})
	all := contents(t, f)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rd := f.NewReader()
		defer rd.Close()
		w.Header().Set("Content-Type", f.ContentType())
		w.Header().Set("ETag", f.ETag())
		http.ServeContent(w, req, "", f.ModTime(), rd)
	}))
	defer srv.Close()
	get := func(header ...string) (*http.Response, []byte) {
		req, _ := http.NewRequest("GET", srv.URL, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	resp, b := get()
	if resp.StatusCode != 200 || !bytes.Equal(b, all) {
		t.Errorf("whole: %s, %d bytes", resp.Status, len(b))
	}
	if want := `video/mp4; codecs="avc1.64001e,avc1.640028,mp4a.40.2"`; !strings.HasPrefix(f.ContentType(), want[:len(want)-1]) {
		t.Errorf("type %s, want %s", f.ContentType(), want)
	}
	resp, b = get("Range", "bytes=1000-1999", "If-Range", f.ETag())
	if resp.StatusCode != 206 || !bytes.Equal(b, all[1000:2000]) {
		t.Errorf("range: %s", resp.Status)
	}
	resp, _ = get("If-None-Match", f.ETag())
	if resp.StatusCode != 304 {
		t.Errorf("not modified: %s", resp.Status)
	}
}

type onlyFile struct {
	io.ReaderAt
	io.Closer
	f *os.File
}

func (p onlyFile) File() *os.File { return p.f }

// fromFile is a writer that tells where its bytes came from.
type fromFile struct {
	bytes.Buffer
	files int
}

func (w *fromFile) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			w.files++
		}
	}
	return w.Buffer.ReadFrom(r)
}

func TestSamplesGoFromFileToWriter(t *testing.T) {
	var c counters
	files, r := recordings(t, seeded(t, 27), 2, shape{fragments: 3, frames: 4, gop: 1, audioRate: 16000}, &c)
	dir := t.TempDir()
	for i := range r {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, files[i].file, 0o600); err != nil {
			t.Fatal(err)
		}
		r[i].Open = func() (Payload, error) {
			f, err := os.Open(path)
			if i == 0 {
				return f, err
			}
			return onlyFile{f, f, f}, err
		}
	}
	f := mustNew(t, []Segment{whole(r[0]), whole(r[1])}, Options{})
	rd := f.NewReader()
	defer rd.Close()
	var w fromFile
	if _, err := rd.CopyN(&w, f.Size()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Bytes(), contents(t, f)) {
		t.Error("CopyN and Read differ")
	}
	if w.files != 6 { // a piece for each fragment
		t.Errorf("%d pieces came from a file, want 6", w.files)
	}
}

// What reads on when the reader was closed gets no bytes and opens no file that
// nobody would close.
func TestReaderEndsWithClose(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 31), 2, shape{fragments: 2, frames: 4, gop: 1}, &c)
	opened := 0
	for i := range r {
		open := r[i].Open
		r[i].Open = func() (Payload, error) { opened++; return open() }
	}
	f := mustNew(t, []Segment{whole(r[0]), whole(r[1])}, Options{})
	rd := f.NewReader()
	var last [1]byte
	for _, at := range []int64{0, f.Size() - 1} {
		if _, err := rd.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Read(last[:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := rd.Close(); err != nil {
		t.Fatal(err)
	}
	before := opened
	for _, at := range []int64{0, f.Size() - 1} {
		if _, err := rd.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if n, err := rd.Read(last[:]); n != 0 || !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read at %d after Close: %d bytes, %v", at, n, err)
		}
		if n, err := rd.CopyN(io.Discard, 1); n != 0 || !errors.Is(err, os.ErrClosed) {
			t.Errorf("CopyN at %d after Close: %d bytes, %v", at, n, err)
		}
	}
	if err := rd.Close(); err != nil || opened != before {
		t.Errorf("closed twice: %v; %d files opened after Close", err, opened-before)
	}
}

func TestModTimeIsTheEndOfTheFile(t *testing.T) {
	var c counters
	_, r := recordings(t, seeded(t, 28), 1, shape{start: t0, fragments: 2, frames: 30, gop: 1}, &c)
	f := mustNew(t, []Segment{{Recording: r[0], From: 0, To: 90_000}}, Options{})
	if want := t0.Std().Add(time.Second); !f.ModTime().Equal(want) {
		t.Errorf("got %v, want %v", f.ModTime(), want)
	}
}
