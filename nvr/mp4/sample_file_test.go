package mp4

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	gomp4 "github.com/abema/go-mp4"
	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// variants are the shapes of recordings that everything is tried on.
func variants() map[string]shape {
	return map[string]shape{
		"video only":      {fragments: 4, frames: 5, gop: 2},
		"audio":           {fragments: 4, frames: 6, gop: 1, audioRate: 16000, audioStart: 300},
		"uneven":          {fragments: 9, frames: 7, gop: 3, audioRate: 48000, uneven: true, end: true},
		"reordered":       {fragments: 3, frames: 4, gop: 1, offsets: true},
		"end of run":      {fragments: 3, frames: 4, gop: 1, audioRate: 8000, end: true},
		"a single frame":  {fragments: 1, frames: 1, gop: 1, end: true},
		"number is large": {stream: 1 << 30, no: 1<<31 - 2, fragments: 2, frames: 2, gop: 1},
	}
}

func TestSampleFileReadsBackAsItWasWritten(t *testing.T) {
	for title, s := range variants() {
		t.Run(title, func(t *testing.T) {
			r := record(t, seeded(t, 1), s)
			f, err := ReadSampleFile(bytes.NewReader(r.file), int64(len(r.file)))
			if err != nil {
				t.Fatal(err)
			}
			if f.Damage != nil || f.Good != int64(len(r.file)) || f.InitSize != r.good[0] {
				t.Errorf("good %d of %d, init %d, damage %v", f.Good, len(r.file), f.InitSize, f.Damage)
			}
			if d := cmp.Diff(r.about, f.About); d != "" {
				t.Error(d)
			}
			if !f.Video.Equal(r.entry) || !f.Audio.Equal(r.audioEntry) {
				t.Errorf("sample entries differ: %+v %+v", f.Video, f.Audio)
			}
			var got []Fragment
			for i, fr := range f.Fragments {
				if fr.Pos != r.good[i] || fr.Pos+fr.Size != r.good[i+1] || fr.HeaderSize != int64(fr.Fragment.HeaderSize()) {
					t.Errorf("fragment %d: pos %d header %d size %d", i, fr.Pos, fr.HeaderSize, fr.Size)
				}
				got = append(got, fr.Fragment)
			}
			if d := cmp.Diff(r.fragments, got); d != "" {
				t.Error(d)
			}

			p, sum := f.Playback()
			ix := media.NewIndexReader(p.Video, p.Offsets)
			n := 0
			for ; ix.Next(); n++ {
				if ix.Sample != r.video[n].Sample {
					t.Fatalf("picture %d: got %+v, want %+v", n, ix.Sample, r.video[n].Sample)
				}
			}
			if ix.Err() != nil || n != len(r.video) || n != sum.VideoSamples {
				t.Errorf("%d pictures, want %d: %v", n, len(r.video), ix.Err())
			}
			if sum.TrailingZero != s.end || sum.HasOffsets != (p.Offsets != nil) || sum.AudioSamples != len(r.audio) {
				t.Errorf("summary %+v", sum)
			}
			fr := NewFragmentIndexReader(p.Fragments)
			if fr.Init != f.InitSize || len(r.audio) > 0 && fr.AudioStart != s.audioStart {
				t.Errorf("fragment index: init %d, audio start %d", fr.Init, fr.AudioStart)
			}
			for i := 0; fr.Next(); i++ {
				if fr.HeaderSize != f.Fragments[i].HeaderSize || fr.Video != len(r.fragments[i].Video) || fr.Audio != len(r.fragments[i].Audio) {
					t.Errorf("fragment %d of the index: %+v", i, fr)
				}
			}
		})
	}
}

// A power cut ends a file anywhere; what comes before the cut is kept.
func TestTruncationKeepsWholeFragments(t *testing.T) {
	for title, s := range variants() {
		t.Run(title, func(t *testing.T) {
			r := record(t, seeded(t, 2), s)
			for n := range len(r.file) {
				checkDamaged(t, r, r.file[:n], int64(n))
			}
		})
	}
}

func TestFlippedBitEndsTheGoodPart(t *testing.T) {
	for title, s := range variants() {
		t.Run(title, func(t *testing.T) {
			r := record(t, seeded(t, 3), s)
			payload := payloadBytes(r)
			for i := range r.file {
				for bit := range 8 {
					if payload[i] && bit != i%8 {
						continue // one bit of a sample is as good as the other
					}
					r.file[i] ^= 1 << bit
					checkDamaged(t, r, r.file, int64(i))
					r.file[i] ^= 1 << bit
				}
			}
		})
	}
}

// What people take for a sample file is named.
func TestWhatIsNoSampleFileIsNamed(t *testing.T) {
	rng := seeded(t, 1)
	_, sources := recordings(t, rng, 1, shape{fragments: 2, frames: 5, gop: 1}, new(counters))
	for want, file := range map[string][]byte{
		"not a sample file: it is a recording as downloaded": contents(t, mustNew(t, []Segment{whole(sources[0])}, Options{})),
		"not a sample file: it is not an MP4 file":           []byte("camera: front, and more of a text"),
	} {
		if _, err := ReadSampleFile(bytes.NewReader(file), int64(len(file))); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// payloadBytes marks the bytes that are samples.
func payloadBytes(r *recorded) []bool {
	m := make([]bool, len(r.file))
	for i := range r.fragments {
		for j := r.good[i] + int64(r.fragments[i].HeaderSize()); j < r.good[i+1]; j++ {
			m[j] = true
		}
	}
	return m
}

// checkDamaged checks that a file with its first damage at a byte is good up
// to the last whole fragment before it.
func checkDamaged(t *testing.T, r *recorded, file []byte, at int64) {
	t.Helper()
	f, err := ReadSampleFile(bytes.NewReader(file), int64(len(file)))
	if at < r.good[0] {
		if !errors.Is(err, ErrNotSampleFile) {
			t.Fatalf("damage at %d, before the first fragment: %v", at, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("damage at %d: %v", at, err)
	}
	want := 0
	for want+1 < len(r.good) && r.good[want+1] <= at {
		want++
	}
	if f.Good != r.good[want] || len(f.Fragments) != want {
		t.Fatalf("damage at %d: good up to %d with %d fragments, want %d with %d (%v)",
			at, f.Good, len(f.Fragments), r.good[want], want, f.Damage)
	}
	if clean := int64(len(file)) == f.Good; (f.Damage == nil) != clean {
		t.Fatalf("damage at %d: good %d of %d, and damage is %v", at, f.Good, len(file), f.Damage)
	}
}

// Blocks of another file, or of an earlier file with the same name, may stand
// behind the end after a power cut.
func TestFragmentOfAnotherFileNeverPasses(t *testing.T) {
	s := shape{no: 5, fragments: 3, frames: 2, gop: 1}
	r := record(t, seeded(t, 4), s)
	tail := func(change func(*recorded)) []byte {
		o := &recorded{entry: r.entry, about: r.about}
		change(o)
		var fragments [][2][]unit
		for _, u := range r.video {
			fragments = append(fragments, [2][]unit{{u}})
		}
		o.write(t, fragments, s)
		return o.file[o.good[2]:] // numbers 3, 4, …
	}
	for title, change := range map[string]func(*recorded){
		"another recording": func(o *recorded) { o.about.RecordingNo++ },
		"another stream":    func(o *recorded) { o.about.StreamID++ },
		"another open":      func(o *recorded) { o.about.OpenID++ },
	} {
		file := append(append([]byte{}, r.file[:r.good[2]]...), tail(change)...)
		f, err := ReadSampleFile(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if f.Good != r.good[2] || f.Damage == nil {
			t.Errorf("%s: good %d, want %d; damage %v", title, f.Good, r.good[2], f.Damage)
		}
	}
	same := append(append([]byte{}, r.file[:r.good[2]]...), tail(func(*recorded) {})...)
	f, err := ReadSampleFile(bytes.NewReader(same), int64(len(same)))
	if err != nil || f.Damage != nil {
		t.Errorf("the same recording is refused: %v %v", err, f.Damage)
	}
	repeated := append(append([]byte{}, r.file...), r.file[r.good[2]:]...)
	f, err = ReadSampleFile(bytes.NewReader(repeated), int64(len(repeated)))
	if err != nil || f.Good != r.good[3] || f.Damage == nil {
		t.Errorf("a fragment passes twice: good %d, want %d", f.Good, r.good[3])
	}
}

// rejects writes a single fragment and returns why it is refused.
func rejects(t *testing.T, fragments ...Fragment) error {
	t.Helper()
	r := record(t, seeded(t, 5), shape{fragments: 1, frames: 1, gop: 1, audioRate: 8000})
	file := r.file[:r.good[0]]
	for i := range fragments {
		f := &fragments[i]
		f.ID, f.OpenID, f.Seq = r.about.ID(), r.about.OpenID, uint32(i+1)
		s := f.sizes(videoShape(f.Video), audioShape(f.Audio))
		payload := make([]byte, s.video+s.audio)
		file = append(f.AppendHeader(file, payload), payload...)
	}
	got, err := ReadSampleFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return got.Damage
}

// What the database would refuse must not come out of a file.
func TestFragmentsThatMakeNoRecordingAreRefused(t *testing.T) {
	key := func(d int32) media.Sample { return media.Sample{Duration: d, Size: 9, Key: true} }
	half := int32(media.MaxRecording / 2)
	if err := rejects(t, Fragment{Video: []media.Sample{key(half), key(half - 1)}}); err != nil {
		t.Errorf("a recording of one unit less than five minutes: %v", err)
	}
	for title, fragments := range map[string][]Fragment{
		"five minutes":          {{Video: []media.Sample{key(half), key(half)}}},
		"no key":                {{Video: []media.Sample{{Duration: 1, Size: 1}}}},
		"sound only":            {{Audio: []media.Sample{key(1024)}}},
		"zero duration inside":  {{Video: []media.Sample{key(0), key(1)}}},
		"zero duration before":  {{Video: []media.Sample{key(0)}}, {Video: []media.Sample{key(1)}}},
		"negative duration":     {{Video: []media.Sample{key(-1)}}},
		"sound of no duration":  {{Video: []media.Sample{key(1)}, Audio: []media.Sample{key(0)}}},
		"something after End":   {{Video: []media.Sample{key(1)}, End: true}, {Video: []media.Sample{key(1)}}},
		"time before the start": {{Video: []media.Sample{key(1)}, VideoTime: -1}},
	} {
		if rejects(t, fragments...) == nil {
			t.Errorf("%s passes", title)
		}
	}
}

// shortReader gives an error in the place of some bytes, as a dying disk does.
type shortReader struct {
	io.ReaderAt
	bad int64
	err error
}

func (r shortReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > r.bad {
		return 0, r.err
	}
	return r.ReaderAt.ReadAt(b, off)
}

// What the disk cannot read now it may read again; nothing may be cut for it.
func TestReadErrorIsNotDamage(t *testing.T) {
	r := record(t, seeded(t, 6), shape{fragments: 3, frames: 2, gop: 1})
	eio := errors.New("input/output error")
	f, err := ReadSampleFile(shortReader{bytes.NewReader(r.file), r.good[2] + 5, eio}, int64(len(r.file)))
	if f != nil || !errors.Is(err, eio) || errors.Is(err, ErrNotSampleFile) {
		t.Errorf("an error of the disk behind %d bytes gives %v", r.good[2], err)
	}
	_, err = ReadSampleFile(shortReader{bytes.NewReader(r.file), 50, eio}, int64(len(r.file)))
	if !errors.Is(err, eio) || errors.Is(err, ErrNotSampleFile) {
		t.Errorf("an error of the disk in moov gives %v", err)
	}
}

func TestUnknownKeysOfAboutAreKept(t *testing.T) {
	in := `{"format":1,"camera":"a","future":{"x":[1,2]},"also":7}`
	var a About
	if err := json.Unmarshal([]byte(in), &a); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var b About
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, b); d != "" || string(a.Other["future"]) != `{"x":[1,2]}` || b.CameraName != "a" {
		t.Errorf("%s\n%s", out, d)
	}
}

// go-mp4 knows nothing of our code; it has to find what we wrote.
func TestOtherLibraryReadsSampleFile(t *testing.T) {
	r := record(t, seeded(t, 7), shape{fragments: 3, frames: 5, gop: 1, offsets: true, audioRate: 16000, audioStart: 11})
	info, err := gomp4.Probe(bytes.NewReader(r.file))
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Tracks) != 2 || info.Tracks[0].Codec != gomp4.CodecAVC1 || info.Tracks[1].Codec != gomp4.CodecMP4A {
		t.Fatalf("tracks: %+v", info.Tracks)
	}
	if a := info.Tracks[0].AVC; a == nil || a.Width != 640 || a.Profile != 0x64 {
		t.Errorf("avcC: %+v", a)
	}
	if a := info.Tracks[1].MP4A; a == nil || a.OTI != 0x40 || a.AudOTI != 2 {
		t.Errorf("esds: %+v", a)
	}
	if len(info.Segments) != len(r.fragments) {
		t.Fatalf("%d segments, want %d", len(info.Segments), len(r.fragments))
	}
	for i, f := range r.fragments { // its probe keeps the last track of a fragment
		if a := info.Segments[i]; a.BaseMediaDecodeTime != uint64(f.AudioTime) || int(a.SampleCount) != len(f.Audio) || a.Duration != uint32(1024*len(f.Audio)) {
			t.Errorf("fragment %d: %+v", i, a)
		}
	}
	boxes, err := gomp4.ExtractBoxWithPayload(bytes.NewReader(r.file), nil, gomp4.BoxPath{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTrun()})
	if err != nil {
		t.Fatal(err)
	}
	if len(boxes) != 2*len(r.fragments) {
		t.Fatalf("%d truns", len(boxes))
	}
	for i, f := range r.fragments {
		trun := boxes[2*i+1].Payload.(*gomp4.Trun)
		at := f.HeaderSize() - uuidSize - len(f.EndReason)
		for _, s := range f.Video {
			at += int(s.Size)
		}
		if int(trun.SampleCount) != len(f.Audio) || int(trun.DataOffset) != at {
			t.Errorf("audio of fragment %d: %+v, want data at %d", i, trun, at)
		}
	}
	trun := boxes[0].Payload.(*gomp4.Trun)
	for i, s := range r.fragments[0].Video {
		e := trun.Entries[i]
		if e.SampleDuration != uint32(s.Duration) || e.SampleSize != uint32(s.Size) || e.SampleCompositionTimeOffsetV1 != s.Offset {
			t.Errorf("sample %d: %+v, want %+v", i, e, s)
		}
	}
}

func TestHeaderSizeIsThatOfTheHeader(t *testing.T) {
	rng := seeded(t, 8)
	for range 500 {
		f := Fragment{Seq: 1}
		payload := 0
		for range rng.IntN(6) {
			f.Video = append(f.Video, media.Sample{Duration: 1, Size: 1 + rng.Int32N(9), Offset: rng.Int32N(2), Key: rng.IntN(4) == 0})
			payload += int(f.Video[len(f.Video)-1].Size)
		}
		for range rng.IntN(4) {
			f.Audio = append(f.Audio, media.Sample{Duration: 1 + rng.Int32N(2), Size: 1, Key: true})
			payload++
		}
		if payload == 0 {
			continue
		}
		if rng.IntN(2) == 0 {
			f.End, f.EndReason = true, "reason"
		}
		if got, want := len(f.AppendHeader(nil, make([]byte, payload))), f.HeaderSize(); got != want {
			t.Fatalf("header of %+v has %d bytes, HeaderSize says %d", f, got, want)
		}
	}
}

func TestAppendHeaderAllocatesNothing(t *testing.T) {
	f, payload := secondOfVideo()
	dst := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(100, func() { dst = f.AppendHeader(dst[:0], payload...) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMediaSegmentIsMoofAndMdat(t *testing.T) {
	f, payload := secondOfVideo()
	b := AppendMediaSegment(nil, 9, f, payload...)
	moof, err := gomp4.ExtractBoxWithPayload(bytes.NewReader(b), nil, gomp4.BoxPath{gomp4.BoxTypeMoof(), gomp4.BoxTypeMfhd()})
	if err != nil || len(moof) != 1 || moof[0].Payload.(*gomp4.Mfhd).SequenceNumber != 9 {
		t.Fatalf("moof: %v %v", moof, err)
	}
	if want := bytes.Join(payload, nil); !bytes.HasSuffix(b, want) || len(b) != f.HeaderSize()-uuidSize+len(want) {
		t.Error("payload is not at the end")
	}
	runs, err := gomp4.ExtractBoxWithPayload(bytes.NewReader(b), nil, gomp4.BoxPath{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTrun()})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	run := runs[0].Payload.(*gomp4.Trun)
	if !bytes.Equal(b[run.DataOffset:], bytes.Join(payload, nil)) || run.FirstSampleFlags != flagsKey {
		t.Errorf("run: %+v", run)
	}
}

// goldenSampleFile is the digest of a sample file; it may change only together
// with AboutFormat.
const goldenSampleFile = "8ab70c183f647185"

func TestSampleFileBytesAreThoseOfItsFormat(t *testing.T) {
	r := record(t, rand.New(rand.NewPCG(1, 1)), variants()["uneven"])
	sum := sha256.Sum256(r.file)
	if got := hex.EncodeToString(sum[:8]); got != goldenSampleFile || AboutFormat != 1 {
		t.Errorf("digest %s of format %d, want %s of 1", got, AboutFormat, goldenSampleFile)
	}
}

func TestSampleEntriesReadBack(t *testing.T) {
	hevc := &media.SampleEntry{
		Kind: media.Video, Format: "hvc1", Codec: "hvc1.1.6.L93.90", Timescale: 90000, Width: 3840, Height: 2160, PaspH: 1, PaspV: 1,
		Config: []byte{1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0},
	}
	fast := testAudio(96000) // does not fit into the 16 bits of the entry
	fast.Config = []byte{0x10, 0x10, 0x56, 0xe5, 0}
	about := &About{Format: 1}
	b, err := AppendInit(nil, hevc, fast, about)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ReadSampleFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]*media.SampleEntry{hevc, fast}, []*media.SampleEntry{f.Video, f.Audio}); d != "" {
		t.Error(d)
	}
	if f.Good != int64(len(b)) || f.Damage != nil || len(f.Fragments) != 0 {
		t.Errorf("an empty sample file: %+v", f)
	}
}

func TestInitRefusesWhatItCannotDescribe(t *testing.T) {
	vp9 := testVideo()
	vp9.Format = "vp09"
	slow := testVideo()
	slow.Timescale = 1000
	long := &About{CameraName: string(make([]byte, maxAbout))}
	for title, c := range map[string]struct {
		video, audio *media.SampleEntry
		about        *About
	}{
		"no video":          {nil, testAudio(8000), nil},
		"audio as video":    {testAudio(8000), nil, nil},
		"video as audio":    {testVideo(), testVideo(), nil},
		"unknown format":    {vp9, nil, nil},
		"other timescale":   {slow, nil, nil},
		"a very long about": {testVideo(), nil, long},
	} {
		if _, err := AppendInit(nil, c.video, c.audio, c.about); err == nil {
			t.Errorf("%s is written", title)
		}
	}
}

func TestDamagedFragmentIndexIsAnError(t *testing.T) {
	for title, index := range map[string][]byte{
		"nothing":            {},
		"no audio start":     {5},
		"empty fragment":     {5, 0, 9, 0, 0},
		"cut":                {5, 0, 9, 1},
		"varint without end": {5, 0, 0xff},
		"huge":               {5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1},
	} {
		r := NewFragmentIndexReader(index)
		for r.Next() {
		}
		if !errors.Is(r.Err(), media.ErrIndex) {
			t.Errorf("%s: %v", title, r.Err())
		}
	}
}

func TestCodecNames(t *testing.T) {
	hvcC := []byte{1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93}
	for _, c := range []struct{ got, want string }{
		{videoCodec("avc1", []byte{1, 0x64, 0, 0x28}), "avc1.640028"},
		{videoCodec("hvc1", hvcC), "hvc1.1.6.L93.90"},
		{videoCodec("hvc1", hvcC[:12]), ""},
		{audioCodec([]byte{0x12, 0x10}), "mp4a.40.2"},
		{audioCodec([]byte{0x2b, 0x92}), "mp4a.40.5"},
		{audioCodec([]byte{0xf9, 0x40}), "mp4a.40.42"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func FuzzReadSampleFile(f *testing.F) {
	for _, s := range variants() {
		s.fragments = min(s.fragments, 3)
		f.Add(record(f, rand.New(rand.NewPCG(1, 1)), s).file, true)
	}
	f.Fuzz(func(t *testing.T, file []byte, mend bool) {
		file = bytes.Clone(file)
		if mend {
			mendChecksums(file)
		}
		start := time.Now()
		sf, err := ReadSampleFile(bytes.NewReader(file), int64(len(file)))
		if time.Since(start) > 5*time.Second {
			t.Error("takes too long")
		}
		if err != nil {
			return
		}
		if sf.Good > int64(len(file)) || (sf.Damage == nil) != (sf.Good == int64(len(file))) {
			t.Fatalf("good %d of %d, damage %v", sf.Good, len(file), sf.Damage)
		}
		p, sum := sf.Playback()
		if sum.VideoSamples == 0 {
			return
		}
		// What passed has to serve.
		rec := Recording{
			Video: sf.Video, Audio: sf.Audio, VideoSamples: sum.VideoSamples, KeySamples: sum.KeySamples,
			VideoBytes: sum.VideoBytes, Duration: sum.Duration, WallDuration: sum.Duration, AudioSamples: sum.AudioSamples,
			AudioBytes: sum.AudioBytes, Fragments: sum.Fragments, HasOffsets: sum.HasOffsets, TrailingZero: sum.TrailingZero,
			Playback: func() (Playback, error) { return p, nil },
			Open:     func() (Payload, error) { return closer{bytes.NewReader(file), new(int)}, nil },
		}
		v, err := New([]Segment{whole(rec), whole(rec)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readTracks(contents(t, v)); err != nil {
			t.Fatal(err)
		}
	})
}

// mendChecksums makes the checksums right, so that fuzzing gets behind them.
func mendChecksums(file []byte) {
	table := castagnoli()
	pos := 0
	next := func() []byte {
		if len(file)-pos < 8 {
			return nil
		}
		n := int(be.Uint32(file[pos:]))
		if n < 8 || n > len(file)-pos {
			return nil
		}
		b := file[pos : pos+n]
		pos += n
		return b
	}
	if next() == nil || next() == nil {
		return
	}
	if at := bytes.Index(file[:pos], []byte(aboutUUID)); at >= 0 && at+24 <= pos {
		be.PutUint32(file[at+20:], 0)
		be.PutUint32(file[at+20:], checksum(file[:pos]))
	}
	for {
		start := pos
		h := next()
		if len(h) < uuidSize {
			return
		}
		covered := int(be.Uint32(h[32:]))
		if covered > len(file)-pos {
			return
		}
		pos += covered
		be.PutUint32(h[crcField:], headerCRC(file[start:pos], table))
	}
}
