package store

import (
	"io"
	"path/filepath"
	"testing"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// The promise is: a file of 24 hours starts in < 50 ms. The store was just
// opened, and read nothing; both ends of the file are trimmed.
func BenchmarkDayStarts(b *testing.B) {
	const minutes = 1440
	dir := b.TempDir()
	ctx := b.Context()
	s, err := Open(ctx, bigConfig(dir))
	if err != nil {
		b.Fatal(err)
	}
	uuid, err := s.AddCamera(ctx, CameraConfig{ShortName: "front", Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://192.0.2.1/", Record: true, RetainBytes: 1 << 50},
	}})
	if err != nil {
		b.Fatal(err)
	}
	cam, _ := s.Camera(uuid)
	id, dirID := cam.Stream("main").id, s.dirs[0].id
	if err := s.Close(ctx); err != nil {
		b.Fatal(err)
	}
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "db")})
	if err != nil {
		b.Fatal(err)
	}
	var video media.IndexWriter
	var fr mp4.FragmentIndexWriter
	fr.Init(900)
	for i := range 1800 {
		size := int32(13_000 + i*7919%3000)
		if i%30 == 0 {
			size += 70_000
			fr.Append(500, 30, 0)
		}
		video.Append(media.Sample{Duration: 3000, Size: size, Key: i%30 == 0})
	}
	batch := &db.Batch{
		OpenID: 1, Entries: []db.SampleEntry{{ID: 1, SampleEntry: *testEntry}},
		Streams: []db.StreamUpdate{{ID: id, NextNo: minutes, CumMedia: minutes * media.Minute, CumRuns: 1}},
	}
	size := video.Bytes + 900 + 60*500
	for no := range int32(minutes) {
		batch.Add = append(batch.Add, db.NewRecording{
			Recording: db.Recording{
				ID: db.CompositeID(id, no), OpenID: 1, DirID: dirID, RunOffset: no, FileBytes: size, FSBytes: (size + 4095) &^ 4095,
				Start: bigStart.Add(media.Duration(no) * media.Minute), PrevMedia: media.Duration(no) * media.Minute, PrevRuns: min(no, 1),
				WallDuration: media.Minute, VideoSamples: 1800, KeySamples: 60, VideoBytes: video.Bytes, Fragments: 60, VideoEntry: 1,
			},
			Playback: db.Playback{Video: video.Index(), Fragments: fr.Index()},
		})
	}
	if err := d.Flush(ctx, batch); err != nil {
		b.Fatal(err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s, err := Open(ctx, bigConfig(dir))
		if err != nil {
			b.Fatal(err)
		}
		cam, _ := s.Camera(uuid)
		b.StartTimer()
		recs, err := cam.Stream("main").Segments(ctx, 0, minutes-1)
		if err != nil {
			b.Fatal(err)
		}
		segs := make([]mp4.Segment, len(recs))
		for i, r := range recs {
			segs[i] = mp4.Segment{Recording: r, To: r.WallDuration}
		}
		segs[0].From, segs[minutes-1].To = 10*media.Second, 10*media.Second
		f, err := mp4.New(segs, mp4.Options{})
		if err != nil {
			b.Fatal(err)
		}
		r := f.NewReader()
		if _, err := io.CopyN(io.Discard, r, 64<<10); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		r.Close()
		if err := s.Close(ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
