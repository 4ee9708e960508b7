package mp4

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gomp4 "github.com/abema/go-mp4"

	"holdfast/nvr/media"
)

// needFFmpeg skips the test where there is no ffmpeg.
func needFFmpeg(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no ", tool)
		}
	}
}

func run(t *testing.T, command string, args ...string) string {
	t.Helper()
	cmd := exec.Command(command, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errs.String())
	}
	if errs.Len() > 0 {
		t.Errorf("%s complains:\n%s", cmd, errs.String())
	}
	return out.String()
}

// frames decodes a stream of a file and returns the digest of each frame.
func frames(t *testing.T, file, stream string) (sums []string) {
	t.Helper()
	// passthrough: ffmpeg would repeat or drop pictures to keep a frame rate.
	for line := range strings.Lines(run(t, "ffmpeg", "-v", "error", "-i", file, "-map", "0:"+stream, "-fps_mode", "passthrough", "-f", "framemd5", "-")) {
		if !strings.HasPrefix(line, "#") {
			sums = append(sums, strings.TrimSpace(line[strings.LastIndex(line, ",")+1:]))
		}
	}
	return sums
}

// material is what ffmpeg encoded, cut into recordings of two seconds as the
// store would cut them.
func material(t *testing.T, source string, format string) (recs []*recorded, entry, audioEntry *media.SampleEntry) {
	t.Helper()
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	info, err := gomp4.Probe(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]string{"avc1": "avcC", "hvc1": "hvcC"}[format]
	path := gomp4.BoxPath{gomp4.BoxTypeMoov(), gomp4.BoxTypeTrak(), gomp4.BoxTypeMdia(), gomp4.BoxTypeMinf(),
		gomp4.BoxTypeStbl(), gomp4.BoxTypeStsd(), gomp4.StrToBoxType(format), gomp4.StrToBoxType(config)}
	found, err := gomp4.ExtractBox(bytes.NewReader(b), nil, path)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	body := b[found[0].Offset+found[0].HeaderSize : found[0].Offset+found[0].Size]
	entry = &media.SampleEntry{
		Kind: media.Video, Format: format, Codec: videoCodec(format, body), Timescale: 90000, Config: body,
		Width: 320, Height: 180, PaspH: 1, PaspV: 1,
	}
	units := map[uint32][]unit{}
	for _, tr := range info.Tracks {
		keys := map[int]bool{}
		if tr.TrackID == 1 {
			stss, err := gomp4.ExtractBoxWithPayload(bytes.NewReader(b), nil, append(slices.Clone(path[:5]), gomp4.BoxTypeStss()))
			if err != nil || len(stss) != 1 {
				t.Fatal(stss, err)
			}
			for _, n := range stss[0].Payload.(*gomp4.Stss).SampleNumber {
				keys[int(n)-1] = true
			}
		}
		i := 0
		for _, c := range tr.Chunks {
			off := c.DataOffset
			for range c.SamplesPerChunk {
				s := tr.Samples[i]
				u := unit{
					Sample: media.Sample{Duration: int32(s.TimeDelta), Size: int32(s.Size), Offset: int32(s.CompositionTimeOffset), Key: tr.TrackID == 2 || keys[i]},
					data:   b[off : off+uint64(s.Size)],
				}
				if tr.TrackID == 1 {
					u.Duration = int32(rescale(int64(s.TimeDelta), tr.Timescale, 90000))
					u.Offset = int32(rescale(int64(s.CompositionTimeOffset), tr.Timescale, 90000))
				}
				units[tr.TrackID] = append(units[tr.TrackID], u)
				off += uint64(s.Size)
				i++
			}
		}
		if tr.TrackID == 2 {
			audioEntry = &media.SampleEntry{Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: tr.Timescale,
				Config: []byte{0x14, 0x08}, Channels: 1, SampleRate: tr.Timescale} // AAC-LC, 16 kHz, mono
		}
	}
	video, audio := units[1], units[2]
	var base, audioAt int64
	for no := int32(0); len(video) > 0; no++ {
		var n int
		var d int64
		for n < len(video) && (d < 2*90000 || !video[n].Key) {
			d += int64(video[n].Duration)
			n++
		}
		last := n == len(video)
		r := &recorded{entry: entry, audioEntry: audioEntry, about: About{Format: 1, StreamID: 1, RecordingNo: no, OpenID: 1}}
		s := shape{start: t0.Add(media.Duration(base)), end: last}
		if audioEntry != nil {
			s.audioStart = audioAt - rescale(base, 90000, audioEntry.Timescale)
		}
		var fragments [][2][]unit
		var at int64
		for i, u := range video[:n] {
			if i == 0 || u.Key || i%10 == 0 {
				fragments = append(fragments, [2][]unit{})
			}
			if last && i == n-1 {
				u.Duration = 0
			}
			f := &fragments[len(fragments)-1]
			f[0] = append(f[0], u)
			at += int64(u.Duration)
			for audioEntry != nil && len(audio) > 0 && (audioAt < rescale(base+at, 90000, audioEntry.Timescale) || last && i == n-1) {
				f[1] = append(f[1], audio[0])
				audioAt += int64(audio[0].Duration)
				audio = audio[1:]
			}
		}
		r.write(t, fragments, s)
		recs = append(recs, r)
		video = video[n:]
		base += d
	}
	return recs, entry, audioEntry
}

// ffmpeg decodes every frame of what we write, and they are those of the
// source.
func TestFFmpegDecodesEveryFrame(t *testing.T) {
	needFFmpeg(t)
	for _, c := range []struct {
		name, format string
		video        []string
		audio        bool
	}{
		{"h264 with aac", "avc1", []string{"-c:v", "libx264", "-bf", "0"}, true},
		{"h264 reordered", "avc1", []string{"-c:v", "libx264", "-bf", "2"}, false},
		{"h265", "hvc1", []string{"-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "log-level=error:bframes=0:open-gop=0"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			source := filepath.Join(dir, "source.mp4")
			args := []string{"-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"}
			if c.audio {
				args = append(args, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000", "-c:a", "aac", "-ac", "1")
			}
			args = append(args, c.video...)
			args = append(args, "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "30", "-t", "6", source)
			run(t, "ffmpeg", args...)
			recs, entry, audioEntry := material(t, source, c.format)
			if len(recs) != 3 {
				t.Fatalf("%d recordings", len(recs))
			}
			want := frames(t, source, "v")
			if len(want) != 180 {
				t.Fatalf("source has %d frames", len(want))
			}
			check := func(name string, b []byte, want []string) string {
				t.Helper()
				file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".mp4")
				if err := os.WriteFile(file, b, 0o600); err != nil {
					t.Fatal(err)
				}
				run(t, "ffmpeg", "-v", "error", "-i", file, "-f", "null", "-")
				got := frames(t, file, "v")
				if !slices.Equal(got, want) {
					t.Errorf("%s: %d frames, want %d, or they differ", name, len(got), len(want))
				}
				return file
			}
			var counts counters
			var segs []Segment
			done := 0
			for i, r := range recs {
				n := len(r.video)
				check(fmt.Sprint("sample file ", i), r.file, want[done:done+n])
				// A cut file plays as well, and loses nothing but what was cut.
				if i == 0 && c.name == "h264 with aac" {
					kept := len(r.fragments) - 1
					m := 0
					for _, f := range r.fragments[:kept] {
						m += len(f.Video)
					}
					check("cut sample file", r.file[:r.good[kept]], want[:m])
				}
				done += n
				src := r.source(t, &counts.loads, &counts.open)
				if !src.Video.Equal(entry) || !src.Audio.Equal(audioEntry) {
					t.Errorf("sample entries: %+v %+v", src.Video, src.Audio)
				}
				segs = append(segs, whole(src))
			}
			all := mustNew(t, segs, Options{})
			file := check("whole", contents(t, all), want)
			if c.audio {
				got, want := frames(t, file, "a"), frames(t, source, "a")
				// The encoder's delay is cut off by the source's edit list only.
				if len(got) < len(want) || !slices.Equal(got[len(got)-len(want)+1:len(got)-1], want[1:len(want)-1]) {
					t.Errorf("audio: %d frames, want the %d of the source behind one more", len(got), len(want))
				}
			}
			probe := run(t, "ffprobe", "-v", "error", "-show_entries", "format=duration:stream=codec_name,nb_frames,width,height", "-of", "compact", file)
			if !strings.Contains(probe, "nb_frames=180") || !strings.Contains(probe, "duration=6.0") {
				t.Errorf("ffprobe: %s", probe)
			}

			// Parts: from 0.5 s into the first to 1 s into the third.
			segs[0].From, segs[2].To = 45_000, 90_000
			part := mustNew(t, segs, Options{})
			if c.name != "h264 reordered" {
				check("part", contents(t, part), want[15:150])
			} else {
				// Pictures are shown by presentation time, up to the very end.
				b := contents(t, part)
				f := filepath.Join(dir, "part.mp4")
				os.WriteFile(f, b, 0o600)
				got := frames(t, f, "v")
				if i := slices.Index(want, got[0]); i < 10 || i > 16 || len(got) < 130 || !slices.Equal(got, want[i:i+len(got)]) {
					t.Errorf("part begins with frame %d and has %d", i, len(got))
				}
			}
			// Two parts that each begin between key frames.
			second := segs[2]
			second.From, second.To = 45_000, second.WallDuration
			two := mustNew(t, []Segment{segs[0], second}, Options{})
			if c.name != "h264 reordered" {
				check("two parts", contents(t, two), append(slices.Clone(want[15:60]), want[135:]...))
			}
			segs[2].Start = segs[2].Start.Add(3 * media.Second)
			gap := mustNew(t, segs, Options{Gaps: KeepGaps})
			if c.name != "h264 reordered" {
				check("gap", contents(t, gap), want[15:150])
			}

			// Subtitles change no picture, and ffmpeg reads them.
			segs[1].Start = segs[1].Start.Add(media.Second / 2)
			times := mustNew(t, segs, Options{Gaps: KeepGaps, Timestamps: time.UTC})
			if c.name != "h264 reordered" {
				file := check("times", contents(t, times), want[15:150])
				text := run(t, "ffmpeg", "-v", "error", "-i", file, "-map", "0:s", "-f", "srt", "-")
				if first, until := segs[0].Start.Add(segs[0].From), segs[2].Start.Add(segs[2].From); !strings.Contains(text, first.Std().UTC().Format(cueLayout)) ||
					!strings.Contains(text, until.Std().UTC().Format("no video until 15:04:05")) {
					t.Errorf("subtitles: %s", text)
				}
			}

			// Init segment and media segment together are a file as well.
			init, err := AppendInit(nil, entry, audioEntry, nil)
			if err != nil {
				t.Fatal(err)
			}
			m4s, err := NewMediaSegment(segs[:2], Options{})
			if err != nil {
				t.Fatal(err)
			}
			file = check("media segment", append(init, contents(t, m4s)...), want[:120])
			if c.audio {
				// Four seconds of the six; the part of the last frame that is over
				// the end goes with it.
				got, want := frames(t, file, "a"), frames(t, source, "a")
				if i := slices.Index(got, want[1]); i < 0 || len(got)-i < len(want)*4/6-3 || len(got)-i > len(want) || !slices.Equal(got[i:len(got)-1], want[1:len(got)-i]) {
					t.Errorf("sound of a media segment: %d frames, the first of the source at %d", len(got), i)
				}
			}
		})
	}
}
