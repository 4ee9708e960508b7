package mp4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/nvr/media"
)

// testVideo is the entry of a 640x360 stream; only its shape matters.
func testVideo() *media.SampleEntry {
	config := []byte{1, 0x64, 0, 0x1e, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1e, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80}
	return &media.SampleEntry{
		Kind: media.Video, Format: "avc1", Codec: "avc1.64001e", Timescale: 90000,
		Config: config, Width: 640, Height: 360, PaspH: 4, PaspV: 3,
	}
}

func testAudio(rate uint32) *media.SampleEntry {
	return &media.SampleEntry{
		Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: rate,
		Config: []byte{0x14, 0x08}, Channels: 1, SampleRate: rate,
	}
}

// unit is a sample with its bytes.
type unit struct {
	media.Sample
	data []byte
}

// shape says what recording to make.
type shape struct {
	stream, no int32
	start      media.Time
	fragments  int
	frames     int // in a fragment; some have more or fewer
	gop        int // fragments
	audioRate  uint32
	audioStart int64
	offsets    bool
	end        bool
	uneven     bool // some fragments lack pictures or sounds
	entry      *media.SampleEntry
}

// recorded is a sample file with what it was made of.
type recorded struct {
	file       []byte
	about      About
	fragments  []Fragment
	good       []int64 // sizes of the file up to each whole fragment, first that of none
	video      []unit
	audio      []unit
	entry      *media.SampleEntry
	audioEntry *media.SampleEntry
}

// record makes a recording the way the store does.
func record(t testing.TB, rng *rand.Rand, s shape) *recorded {
	t.Helper()
	r := &recorded{entry: s.entry}
	if r.entry == nil {
		r.entry = testVideo()
	}
	if s.audioRate > 0 {
		r.audioEntry = testAudio(s.audioRate)
	}
	if s.start == 0 {
		s.start = 1_700_000_000 * 90000
	}
	if s.stream == 0 {
		s.stream = 7
	}
	r.about = About{
		Format: 1, DatabaseUUID: "11111111-2222-4333-8444-555555555555", CameraUUID: "66666666-7777-4888-8999-aaaaaaaaaaaa",
		CameraName: "back door", Stream: "main", StreamID: s.stream, RecordingNo: s.no, OpenID: 3,
		OpenUUID: "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff", StartTime90k: int64(s.start), StartTime: s.start.String(),
	}
	bytesOf := func(n int32) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	var fragments [][2][]unit
	var videoTime int64
	for i := range s.fragments {
		var f [2][]unit
		n := s.frames
		if s.uneven {
			n = 1 + rng.IntN(2*s.frames)
		}
		if s.uneven && i > 0 && i == s.fragments-1 && s.audioRate > 0 {
			n = 0
		}
		for j := range n {
			key := j == 0 && i%max(1, s.gop) == 0
			u := unit{Sample: media.Sample{Duration: 2990 + rng.Int32N(20), Size: 10 + rng.Int32N(40), Key: key}}
			if key {
				u.Size += 100
			}
			if s.offsets {
				u.Offset = 3000 * rng.Int32N(3)
			}
			u.data = bytesOf(u.Size)
			videoTime += int64(u.Duration)
			f[0] = append(f[0], u)
		}
		fragments = append(fragments, f)
	}
	last := len(fragments) - 1
	if s.end {
		for i := last; i >= 0; i-- {
			if n := len(fragments[i][0]); n > 0 {
				videoTime -= int64(fragments[i][0][n-1].Duration)
				fragments[i][0][n-1].Duration = 0
				break
			}
		}
	}
	if s.audioRate > 0 {
		// Sounds follow each other at once, and go to the fragment of their time.
		limit := rescale(videoTime, 90000, s.audioRate)
		var end int64
		at := s.audioStart
		for i := range fragments {
			for _, u := range fragments[i][0] {
				end += int64(u.Duration)
			}
			if s.uneven && i%3 == 1 && i != last {
				continue
			}
			for at < limit && (at < rescale(end, 90000, s.audioRate) || i == last) {
				u := unit{Sample: media.Sample{Duration: 1024, Size: 5 + rng.Int32N(20), Key: true}}
				if s.uneven && rng.IntN(9) == 0 {
					u.Duration += rng.Int32N(7)
				}
				u.data = bytesOf(u.Size)
				fragments[i][1] = append(fragments[i][1], u)
				at += int64(u.Duration)
			}
		}
	}
	r.write(t, fragments, s)
	return r
}

func (r *recorded) write(t testing.TB, fragments [][2][]unit, s shape) {
	var err error
	r.file, err = AppendInit(nil, r.entry, r.audioEntry, &r.about)
	if err != nil {
		t.Fatal(err)
	}
	r.good = append(r.good, int64(len(r.file)))
	var videoTime int64
	audioTime := s.audioStart
	for i, f := range fragments {
		if len(f[0])+len(f[1]) == 0 {
			continue
		}
		fr := Fragment{
			ID: r.about.ID(), OpenID: r.about.OpenID, Seq: uint32(len(r.fragments) + 1), Start: s.start,
			VideoTime: videoTime, AudioTime: audioTime,
		}
		if len(f[0]) == 0 {
			fr.VideoTime = 0
		}
		if len(f[1]) == 0 {
			fr.AudioTime = 0
		}
		if i == len(fragments)-1 && s.end {
			fr.End, fr.EndReason = true, "camera closed the connection"
		}
		var payload [][]byte
		for _, u := range f[0] {
			fr.Video = append(fr.Video, u.Sample)
			payload = append(payload, u.data)
			videoTime += int64(u.Duration)
		}
		for _, u := range f[1] {
			fr.Audio = append(fr.Audio, u.Sample)
			payload = append(payload, u.data)
			audioTime += int64(u.Duration)
		}
		r.video = append(r.video, f[0]...)
		r.audio = append(r.audio, f[1]...)
		r.file = fr.AppendHeader(r.file, payload...)
		for _, p := range payload {
			r.file = append(r.file, p...)
		}
		r.good = append(r.good, int64(len(r.file)))
		r.fragments = append(r.fragments, fr)
	}
}

// closer counts what is open.
type closer struct {
	io.ReaderAt
	open *int
}

func (c closer) Close() error { *c.open--; return nil }

// source makes the recording a source of files. loads and open count the calls
// of Playback and the payloads that are open.
func (r *recorded) source(t testing.TB, loads, open *int) Recording {
	t.Helper()
	f, err := ReadSampleFile(bytes.NewReader(r.file), int64(len(r.file)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Damage != nil {
		t.Fatal(f.Damage)
	}
	p, sum := f.Playback()
	return Recording{
		ID: f.About.ID(), OpenID: f.About.OpenID, Start: f.Fragments[0].Start,
		WallDuration: sum.Duration, Video: f.Video, Audio: f.Audio,
		VideoSamples: sum.VideoSamples, KeySamples: sum.KeySamples, VideoBytes: sum.VideoBytes, Duration: sum.Duration,
		AudioSamples: sum.AudioSamples, AudioBytes: sum.AudioBytes, Fragments: sum.Fragments,
		HasOffsets: sum.HasOffsets, TrailingZero: sum.TrailingZero,
		Playback: func() (Playback, error) { *loads++; return p, nil },
		Open:     func() (Payload, error) { *open++; return closer{bytes.NewReader(r.file), open}, nil },
	}
}

func whole(r Recording) Segment { return Segment{Recording: r, To: r.WallDuration} }

// contents reads a whole file.
func contents(t testing.TB, f *File) []byte {
	t.Helper()
	r := f.NewReader()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != f.Size() {
		t.Fatalf("file has %d bytes, Size says %d", len(b), f.Size())
	}
	return b
}

// sampleRow is one sample of a track as the tables of a file tell it.
type sampleRow struct {
	At       int64 // decode time
	Duration uint32
	Offset   int32
	Key      bool
	Entry    uint32
	Data     []byte
}

type editRow struct{ Duration, Media int64 }

// track is one track of a file, read by code that shares nothing with what is
// tested but the box headers.
type track struct {
	ID        uint32
	Scale     uint32
	Duration  uint64 // of tkhd
	MediaTime uint64 // of mdhd
	Edits     []editRow
	Samples   []sampleRow
}

// readTracks resolves the sample tables of a whole MP4.
func readTracks(b []byte) (tracks []track, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("tables contradict each other: %v", p)
		}
	}()
	u32 := binary.BigEndian.Uint32
	u64 := binary.BigEndian.Uint64
	size := u32(b)
	moov := b[size:]
	if string(moov[4:8]) != "moov" {
		return nil, errors.New("no moov behind ftyp")
	}
	if mdat := moov[u32(moov):]; u32(mdat) != 1 || string(mdat[4:8]) != "mdat" || u64(mdat[8:]) != uint64(len(mdat)) {
		return nil, errors.New("mdat does not fill the rest of the file")
	}
	err = boxes(moov[8:u32(moov)], func(typ string, trak []byte) error {
		if typ != "trak" {
			return nil
		}
		var tr track
		t := map[string][]byte{}
		var collect func(typ string, body []byte) error
		collect = func(typ string, body []byte) error {
			switch typ {
			case "mdia", "minf", "stbl", "edts":
				return boxes(body, collect)
			}
			t[typ] = body
			return nil
		}
		if err := boxes(trak, collect); err != nil {
			return err
		}
		tr.ID, tr.Duration = u32(t["tkhd"][20:]), u64(t["tkhd"][28:])
		tr.Scale, tr.MediaTime = u32(t["mdhd"][20:]), u64(t["mdhd"][24:])
		if e := t["elst"]; e != nil {
			for i := range int(u32(e[4:])) {
				row := e[8+20*i:]
				tr.Edits = append(tr.Edits, editRow{int64(u64(row)), int64(u64(row[8:]))})
			}
			if len(e) != 8+20*len(tr.Edits) {
				return errors.New("elst has another length")
			}
		}
		stsz := t["stsz"]
		n := int(u32(stsz[8:]))
		same := u32(stsz[4:])
		if same == 0 && len(stsz) != 12+4*n || same != 0 && len(stsz) != 12 {
			return errors.New("stsz has another length")
		}
		tr.Samples = make([]sampleRow, n)
		i, at := 0, int64(0)
		for e := t["stts"][8:]; len(e) > 0; e = e[8:] {
			for range u32(e) {
				tr.Samples[i].At, tr.Samples[i].Duration = at, u32(e[4:])
				at += int64(u32(e[4:]))
				i++
			}
		}
		if i != n || uint64(at) != tr.MediaTime {
			return fmt.Errorf("stts has %d samples lasting %d; want %d, %d", i, at, n, tr.MediaTime)
		}
		if c := t["ctts"]; c != nil {
			i = 0
			for e := c[8:]; len(e) > 0; e = e[8:] {
				for range u32(e) {
					tr.Samples[i].Offset = int32(u32(e[4:]))
					i++
				}
			}
			if i != n {
				return fmt.Errorf("ctts has %d samples, want %d", i, n)
			}
		}
		if s := t["stss"]; s != nil {
			for e := s[8:]; len(e) > 0; e = e[4:] {
				tr.Samples[u32(e)-1].Key = true
			}
		}
		i = 0
		stsc, co64 := t["stsc"][8:], t["co64"][8:]
		for c := 0; len(co64) > 0; c, co64 = c+1, co64[8:] {
			for len(stsc) > 12 && u32(stsc[12:]) <= uint32(c+1) {
				stsc = stsc[12:]
			}
			if u32(stsc) > uint32(c+1) || u32(stsc[4:]) == 0 {
				return fmt.Errorf("chunk %d has no samples", c+1)
			}
			off := u64(co64)
			for range u32(stsc[4:]) {
				l := uint64(same)
				if same == 0 {
					l = uint64(u32(stsz[12+4*i:]))
				}
				tr.Samples[i].Data = b[off : off+l]
				tr.Samples[i].Entry = u32(stsc[8:])
				off += l
				i++
			}
		}
		if i != n {
			return fmt.Errorf("chunks have %d samples, want %d", i, n)
		}
		tracks = append(tracks, tr)
		return nil
	})
	return tracks, err
}

func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
