package db

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

//go:embed testdata/1080p30.txt
var pictures1080p30 string

// minuteOf1080p30 is the index of a minute of a 1080p30 camera, made of its pictures
// by those who make it in the recorder: a fragment ends before a key and after a
// second.
func minuteOf1080p30(t testing.TB) (p Playback, bytes int64) {
	t.Helper()
	var video media.IndexWriter
	var fragments mp4.FragmentIndexWriter
	fragments.Init(1500)
	var f mp4.Fragment
	took := media.Duration(0)
	end := func() {
		if len(f.Video) > 0 {
			fragments.Append(int64(f.HeaderSize()), len(f.Video), 0)
		}
		f.Video, took = nil, 0
	}
	for line := range strings.Lines(pictures1080p30) {
		s := media.Sample{Duration: 3000, Key: strings.HasSuffix(line, " key\n")}
		if _, err := fmt.Sscan(line, &s.Size); err != nil {
			t.Fatal(err)
		}
		if s.Key || took >= media.Second {
			end()
		}
		video.Append(s)
		f.Video = append(f.Video, s)
		took += media.Duration(s.Duration)
	}
	end()
	if video.Samples != 1800 || video.Keys != 30 || fragments.Fragments != 60 {
		t.Fatalf("%d pictures, %d keys, %d fragments", video.Samples, video.Keys, fragments.Fragments)
	}
	return Playback{Video: video.Index(), Fragments: fragments.Index()}, video.Bytes
}

// The promise is <= 3.6 bytes of index for each frame of a 1080p30 camera.
func TestIndexOfAFrameIsSmall(t *testing.T) {
	p, _ := minuteOf1080p30(t)
	got := float64(len(p.Video)+len(p.Fragments)) / 1800
	t.Logf("%.3f bytes a frame: %d of the video, %d of the fragments", got, len(p.Video), len(p.Fragments))
	if got > 3.6 {
		t.Errorf("the index takes %.3f bytes a frame, want at most 3.6", got)
	}
}

// fill adds minutes of recordings to each of the streams, each with the index that a
// 1080p30 camera makes.
func (h *house) fill(minutes int32, streams ...Stream) {
	r := rand.New(rand.NewPCG(1, 2))
	index, bytes := minuteOf1080p30(h.t)
	const step = 500
	for from := int32(0); from < minutes; from += step {
		for _, s := range streams {
			b := h.batch(s, from, min(from+step, minutes))
			for i := range b.Add {
				a := &b.Add[i]
				a.FileBytes = bytes + 20e3 + r.Int64N(1e6)
				a.FSBytes = (a.FileBytes + 4095) &^ 4095
				a.VideoBytes, a.MediaDelta = a.FileBytes-20e3, media.Duration(r.Int64N(5400)-2700)
				a.Playback = index
				a.AudioEntry, a.AudioSamples, a.AudioBytes = 0, 0, 0
			}
			h.must(h.Flush(h.t.Context(), b))
		}
	}
}

func (h *house) fileSize() int64 {
	h.must(h.Close())
	fi, err := os.Stat(h.path)
	h.must(err)
	h.DB = nil
	h.reopen()
	return fi.Size()
}

// A month (43,200 recordings) of one stream, recording by recording. The promise of
// < 10 ms is not for this: whoever lists a month is given spans (storage.md, "Spans"),
// and BenchmarkMonthAsSpans of nvr/store measures them.
func BenchmarkMonthOfAStream(b *testing.B) {
	h := newHouse(b)
	const month = 30 * 24 * 60
	h.fill(month+month/8, h.main, h.sub) // 97,200 rows
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		h.must(h.Recordings(b.Context(), h.main.ID, testEpoch, testEpoch.Add(month*media.Minute), func(*Recording) error { n++; return nil }))
		if n != month {
			b.Fatalf("%d recordings, expected %d", n, month)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/month, "ns/recording")
}

func BenchmarkOpen(b *testing.B) {
	h := newHouse(b)
	h.fill(50_000, h.main, h.sub)
	for b.Loop() {
		h.reopen()
		h.state()
		for _, s := range []Stream{h.main, h.sub} {
			if _, _, ok, err := h.Range(b.Context(), s.ID); err != nil || !ok {
				b.Fatal(ok, err)
			}
		}
	}
}

// One flush of 16 streams: each adds a recording and deletes one.
func BenchmarkFlush(b *testing.B) {
	h := newHouse(b)
	streams := []Stream{h.main, h.sub}
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "h"} {
		streams = append(streams, h.addCamera(name).Streams...)
	}
	h.fill(200, streams...)
	index, _ := minuteOf1080p30(b)
	index.Audio = make([]byte, 6000)
	no := int32(200)
	for b.Loop() {
		batch := &Batch{OpenID: h.open.ID, Collected: h.state().Garbage}
		for _, s := range streams {
			r := h.recording(s, no)
			r.Playback = index
			batch.Add = append(batch.Add, r)
			batch.Delete = append(batch.Delete, CompositeID(s.ID, no-200))
			batch.Streams = append(batch.Streams, StreamUpdate{ID: s.ID, NextNo: no + 1})
		}
		h.must(h.Flush(b.Context(), batch))
		no++
	}
}

// What a deleted camera has goes in flushes of 2,000 recordings; the longest of them
// is told.
func BenchmarkDeleteCamera(b *testing.B) {
	var longest time.Duration
	for b.Loop() {
		b.StopTimer()
		h := newHouse(b)
		h.fill(50_000, h.main, h.sub)
		b.StartTimer()
		began := time.Now()
		h.must(h.ApplyConfig(b.Context(), &Change{DeleteCameras: []int32{h.front.ID}}))
		longest = max(longest, time.Since(began))
		for _, s := range []Stream{h.main, h.sub} {
			for no := int32(0); no < 50_000; no += 2000 {
				batch := &Batch{OpenID: h.open.ID}
				for i := range int32(2000) {
					batch.Delete = append(batch.Delete, CompositeID(s.ID, no+i))
				}
				if no+2000 == 50_000 {
					batch.Gone = []int32{s.ID}
				}
				began := time.Now()
				h.must(h.Flush(b.Context(), batch))
				longest = max(longest, time.Since(began))
			}
		}
	}
	b.ReportMetric(float64(longest.Milliseconds()), "ms/longest")
}

// What the index of TestIndexOfAFrameIsSmall takes in the file is more: what is left
// over of a page by one index is seldom filled by the next.
func BenchmarkIndexSize(b *testing.B) {
	const minutes, frames = 2000, 1800
	for b.Loop() {
		h := newHouse(b)
		empty := h.fileSize()
		h.fill(minutes, h.main, h.sub)
		full := h.fileSize()
		p, err := h.Playback(b.Context(), CompositeID(h.main.ID, 7))
		h.must(err)
		b.ReportMetric(float64(len(p.Video)+len(p.Fragments))/frames, "index-bytes/frame")
		b.ReportMetric(float64(full-empty)/(2*minutes*frames), "file-bytes/frame")
	}
}
