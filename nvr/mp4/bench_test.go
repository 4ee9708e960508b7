package mp4

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	gomp4 "github.com/abema/go-mp4"

	"holdfast/nvr/media"
)

// secondOfVideo is a fragment of 1080p30 at 4 Mb/s.
func secondOfVideo() (*Fragment, [][]byte) {
	f := &Fragment{ID: 7<<32 | 1, OpenID: 1, Seq: 1, Start: t0}
	var payload [][]byte
	for i := range 30 {
		s := media.Sample{Duration: 3000, Size: 14_000, Key: i == 0}
		if s.Key {
			s.Size = 90_000
		}
		f.Video = append(f.Video, s)
		payload = append(payload, make([]byte, s.Size))
	}
	return f, payload
}

func BenchmarkAppendHeader(b *testing.B) {
	f, payload := secondOfVideo()
	n := int64(0)
	for _, p := range payload {
		n += int64(len(p))
	}
	dst := make([]byte, 0, 64<<10)
	b.Run("with the checksum of 496 kB", func(b *testing.B) {
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			dst = f.AppendHeader(dst[:0], payload...)
		}
	})
	b.Run("moof", func(b *testing.B) {
		b.ReportAllocs()
		video, audio := videoShape(f.Video), audioShape(f.Audio)
		s := f.sizes(video, audio)
		for b.Loop() {
			dst = f.appendMoof(dst[:0], 1, s, video, audio)
		}
	})
	b.Run("moof by reflection", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			trun := &gomp4.Trun{FullBox: gomp4.FullBox{Version: 1, Flags: [3]byte{0, 3, 5}}, SampleCount: 30}
			for _, s := range f.Video {
				trun.Entries = append(trun.Entries, gomp4.TrunEntry{SampleDuration: uint32(s.Duration), SampleSize: uint32(s.Size)})
			}
			for _, box := range []gomp4.IImmutableBox{
				&gomp4.Mfhd{SequenceNumber: 1}, &gomp4.Tfhd{FullBox: gomp4.FullBox{Flags: [3]byte{2, 0, 0x20}}, TrackID: 1},
				&gomp4.Tfdt{FullBox: gomp4.FullBox{Version: 1}}, trun,
			} {
				if _, err := gomp4.Marshal(&buf, box, gomp4.Context{}); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// minute is a recording of 1080p30 at 4 Mb/s, with audio, whose samples are
// nowhere.
func minute(no int32, start media.Time) Recording {
	var video, audio media.IndexWriter
	var fr FragmentIndexWriter
	fr.Init(900)
	for i := range 1800 {
		s := media.Sample{Duration: 2995 + int32(i*7%11), Size: 13_000 + int32(i*7919%3000), Key: i%30 == 0}
		if s.Key {
			s.Size += 70_000
		}
		video.Append(s)
	}
	n := 0
	for i := range 60 {
		had := n
		for ; n < (i+1)*16000/1024; n++ {
			audio.Append(media.Sample{Duration: 1024, Size: 200 + int32(n*31%50), Key: true})
		}
		fr.Append(500, 30, n-had)
	}
	p := Playback{Video: video.Index(), Audio: audio.Index(), Fragments: fr.Index()}
	return Recording{
		ID: 1<<32 | int64(no), OpenID: 1, Start: start, WallDuration: media.Duration(video.Duration),
		Video: testVideo(), Audio: testAudio(16000), VideoSamples: video.Samples, KeySamples: video.Keys,
		VideoBytes: video.Bytes, Duration: media.Duration(video.Duration), AudioSamples: audio.Samples, AudioBytes: audio.Bytes,
		Fragments: 60, Playback: func() (Playback, error) { return p, nil },
		Open: func() (Payload, error) { return nil, io.ErrUnexpectedEOF },
	}
}

// day is 24 hours of minutes, the first and the last of them trimmed.
func day() []Segment {
	start := t0
	var segs []Segment
	for i := range 1440 {
		r := minute(int32(i), start)
		start = start.Add(r.WallDuration)
		segs = append(segs, whole(r))
	}
	segs[0].From, segs[1439].To = 900_000, 900_000
	return segs
}

func BenchmarkDay(b *testing.B) {
	segs := day()
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := New(segs, Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	f, err := New(segs, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("new and first 64 KiB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, _ := New(segs, Options{})
			r := f.NewReader()
			if _, err := io.CopyN(io.Discard, r, 64<<10); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(fmt.Sprintf("moov of %d bytes", f.dataStart), func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(f.dataStart)
		for b.Loop() {
			r := f.NewReader()
			if _, err := r.CopyN(io.Discard, f.dataStart); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTables makes stts, stsz and stss of an hour of 1080p30 video, by
// hand and by reflection.
func BenchmarkTables(b *testing.B) {
	segs := day()[1:61]
	f, err := New(segs, Options{VideoOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("by hand from the index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := f.NewReader()
			for i := range segs {
				for _, t := range []table{videoTimes, videoSizes, videoKeys} {
					r.block = r.block[:0]
					if err := r.make(t, i); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
	})
	b.Run("by reflection from the index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var stts gomp4.Stts
			var stsz gomp4.Stsz
			var stss gomp4.Stss
			r := f.NewReader()
			for i := range segs {
				if err := r.pictures(i, func(n int, s media.Sample) {
					stts.Entries = append(stts.Entries, gomp4.SttsEntry{SampleCount: 1, SampleDelta: uint32(s.Duration)})
					stsz.EntrySize = append(stsz.EntrySize, uint32(s.Size))
					if s.Key {
						stss.SampleNumber = append(stss.SampleNumber, uint32(n+1))
					}
				}); err != nil {
					b.Fatal(err)
				}
			}
			stts.EntryCount, stsz.SampleCount, stss.EntryCount = uint32(len(stts.Entries)), uint32(len(stsz.EntrySize)), uint32(len(stss.SampleNumber))
			for _, box := range []gomp4.IImmutableBox{&stts, &stsz, &stss} {
				if _, err := gomp4.Marshal(io.Discard, box, gomp4.Context{}); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkReadSampleFile(b *testing.B) {
	about := &About{Format: 1, StreamID: 7, RecordingNo: 1, OpenID: 1}
	file, err := AppendInit(nil, testVideo(), nil, about)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 60 {
		f, payload := secondOfVideo()
		f.Seq, f.VideoTime = uint32(i+1), int64(i)*90000
		file = f.AppendHeader(file, payload...)
		file = append(file, bytes.Join(payload, nil)...)
	}
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if f, err := ReadSampleFile(bytes.NewReader(file), int64(len(file))); err != nil || f.Damage != nil {
			b.Fatal(err, f)
		}
	}
}
