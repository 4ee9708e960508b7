package web

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4/mp4test"
)

// film reads the tracks of an answer.
func (r *recorder) film(path string) []mp4test.Track {
	r.Helper()
	a := r.get(path)
	if a.status != 200 {
		r.Fatalf("GET %s: %d %.200s", path, a.status, a.body)
	}
	tracks, err := mp4test.Read(a.body)
	if err != nil {
		r.Fatalf("GET %s: %v", path, err)
	}
	return tracks
}

// number is which frame a sample is.
func number(s mp4test.Sample) int { return int(binary.BigEndian.Uint32(s.Data[4:])) }

// recorded is the first and the last recording of a stream, and the frames of all.
func (r *recorder) recorded(stream string) (first, last int32, frames int64) {
	r.Helper()
	var list recordingsJSON
	r.json(r.path("%s/recordings", stream), &list)
	first = math.MaxInt32
	for _, row := range list.Recordings {
		first, last = min(first, row.StartID), max(last, row.StartID)
		if row.EndID != nil {
			last = max(last, *row.EndID)
		}
		frames += row.VideoSamples
	}
	return first, last, frames
}

// twoRuns records two seconds, a minute after start, leaves three seconds out, and
// records two more. It returns the ids of the first and the last recording.
func (r *recorder) twoRuns() (first, last int32) {
	r.Helper()
	cam := r.cameraAt("main", time.Minute)
	cam.send(51)
	cam.run.End("camera closed the connection")
	cam = r.cameraAt("main", 65*time.Second)
	cam.send(51)
	cam.run.End("test over")
	first, last, frames := r.recorded("main")
	if last != first+1 || frames != 102 {
		r.Fatalf("recordings %d to %d with %d frames, want two with 102", first, last, frames)
	}
	return first, last
}

func TestGapsAreCutOrKept(t *testing.T) {
	r := newRecorder(t, "view")
	first, last := r.twoRuns()
	path := r.path("main/view.mp4?s=%d-%d", first, last)
	cut := r.film(path)[0]
	if n := len(cut.Samples); n != 102 || cut.Shown > uint64(42*media.Second/10) {
		t.Errorf("gaps cut: %d frames, %d long", n, cut.Shown)
	}
	if same := r.film(path + "&gaps=cut")[0]; same.Shown != cut.Shown {
		t.Errorf("gaps=cut is %d long, without it is %d", same.Shown, cut.Shown)
	}
	kept := r.film(path + "&gaps=keep")[0]
	if n, d := len(kept.Samples), media.Duration(kept.Shown); n != 102 || d < 67*media.Second/10 || d > 73*media.Second/10 {
		t.Errorf("gaps kept: %d frames, %d long", n, d)
	}
}

// The camera's clock of the wall is shown in the zone of the recorder.
func TestTimesAreShownAsSubtitles(t *testing.T) {
	r := newRecorder(t, "view")
	first, last := r.twoRuns()
	tracks := r.film(r.path("main/view.mp4?s=%d-%d&ts=true&gaps=keep", first, last))
	var got []string
	for _, s := range tracks[len(tracks)-1].Samples {
		got = append(got, strings.TrimSpace(string(s.Data[2:])))
	}
	// It begins at half a second.
	want := []string{
		"2026-10-24 23:01:30 +0200", "2026-10-24 23:01:31 +0200", "2026-10-24 23:01:32 +0200", "no video until 23:01:35",
		"2026-10-24 23:01:35 +0200", "2026-10-24 23:01:36 +0200", "2026-10-24 23:01:37 +0200",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := len(r.film(r.path("main/view.mp4?s=%d&ts=false", first))); n != 1 {
		t.Errorf("%d tracks without subtitles", n)
	}
}

func TestFileIsDescribedAsText(t *testing.T) {
	r := newRecorder(t, "view")
	first, last := r.twoRuns()
	for _, name := range []string{"view.mp4.txt", "view.m4s.txt"} {
		a := r.get(r.path("main/%s?s=%d-%d", name, first, last))
		file := r.get(r.path("main/%s?s=%d-%d", strings.TrimSuffix(name, ".txt"), first, last))
		if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") ||
			!bytes.Contains(a.body, []byte(file.header.Get("ETag"))) || !bytes.Contains(a.body, fmt.Appendf(nil, "%d bytes", len(file.body))) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// A media segment has the same pictures as the file, and goes with the
// initialization segment.
func TestMediaSegmentsOfRecordings(t *testing.T) {
	r := newRecorder(t, "view")
	first, last := r.twoRuns()
	a := r.get(r.path("main/view.m4s?s=%d-%d.%d-", first, last, media.Second))
	tracks, err := mp4test.ReadSegment(a.body)
	if a.status != 200 || err != nil || len(tracks) != 1 {
		t.Fatalf("%d %v, %d tracks: %.200s", a.status, err, len(tracks), a.body)
	}
	got := tracks[0].Samples
	// Frame 25 was asked for; the key before it is 20.
	if len(got) != 31+51 || number(got[0]) != 20 || number(got[31]) != 0 {
		t.Errorf("%d frames from %d", len(got), number(got[0]))
	}
	h := a.header
	if h.Get("X-Prev-Media-Duration") != "0" || h.Get("X-Media-Start") != strconv.Itoa(int(media.Second)) || h.Get("X-Leading-Media-Duration") != strconv.Itoa(int(5*frame)) ||
		h.Get("X-Runs") != "1" || h.Get("Content-Type") != `video/mp4; codecs="avc1.4d401e"` || h.Get("Content-Disposition") != "" {
		t.Errorf("headers: %v", h)
	}
	b := r.get(r.path("main/view.m4s?s=%d", last))
	if b.header.Get("X-Runs") != "2" || b.header.Get("X-Prev-Media-Duration") != strconv.Itoa(int(50*frame)) || b.header.Get("X-Media-Start") != "0" || b.header.Get("X-Leading-Media-Duration") != "" {
		t.Errorf("headers of the second run: %v", b.header)
	}
	// Clients made for Moonfire NVR place what they cut themselves.
	if c := r.get(r.path("main/view.m4s?s=%d.%d-", last, media.Second)); c.header.Get("X-Prev-Media-Duration") != strconv.Itoa(int(50*frame)) || c.header.Get("X-Media-Start") != strconv.Itoa(int(media.Second)) {
		t.Errorf("headers of a part of the second run: %v", c.header)
	}
	part := r.get(r.path("main/view.m4s?s=%d", last), "Range", "bytes=10-99", "If-Range", b.header.Get("ETag"))
	if part.status != 206 || !bytes.Equal(part.body, b.body[10:100]) {
		t.Errorf("a range of it: %d", part.status)
	}
	for query, want := range map[string]int{"ts=true": 400, "gaps=keep": 400, "x=1": 400} {
		if a := r.get(r.path("main/view.m4s?s=%d&%s", first, query)); a.status != want {
			t.Errorf("%s: %d, want %d", query, a.status, want)
		}
	}

	cam := r.cameraAt("main", 70*time.Second)
	cam.entry = videoEntry(1280, 720)
	cam.send(26)
	cam.run.End("test over")
	if a := r.get(r.path("main/view.m4s?s=%d-%d", first, last+1)); a.status != 400 || !bytes.Contains(a.body, []byte("by itself")) {
		t.Errorf("two sample entries in a media segment: %d %s", a.status, a.body)
	}
	if tr := r.film(r.path("main/view.mp4?s=%d-%d", first, last+1)); len(tr[0].Samples) != 128 {
		t.Errorf("two sample entries in a file: %d frames", len(tr[0].Samples))
	}
}

// A media segment has the sound of its recordings beside the picture, as the
// file has, and names the init segment that has both (playback.md rule 20).
func TestMediaSegmentsHaveSound(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.cameraWithSound("main")
	cam.send(25*65 + 1)
	cam.run.End("test over")
	silent := r.camera("sub")
	silent.send(51)
	silent.run.End("test over")
	r.restart()
	first, last, frames := r.recorded("main")
	if frames != 25*65+1 || first == last {
		t.Fatalf("recordings %d to %d with %d frames", first, last, frames)
	}

	// Of the whole, and of a part that begins and ends within recordings.
	for _, part := range []string{"", fmt.Sprintf(".%d-%d", 10*frame, 62*media.Second+frame)} {
		path := r.path("main/view.m4s?s=%d-%d%s", first, last, part)
		a := r.get(path + "&audio=true")
		got, err := mp4test.ReadSegment(a.body)
		if a.status != 200 || err != nil || len(got) != 2 || got[0].ID != 1 || got[1].ID != 2 {
			t.Fatalf("%s: %d %v, %d tracks: %.200s", path, a.status, err, len(got), a.body)
		}
		film := r.film(r.path("main/view.mp4?s=%d-%d%s", first, last, part))
		for i, tr := range got {
			if d := cmp.Diff(film[i].Samples, tr.Samples, cmpopts.IgnoreFields(mp4test.Sample{}, "At", "Duration")); d != "" {
				t.Errorf("%s: track %d has other samples than the file: %s", path, tr.ID, d)
			}
		}
		// They end together, within the time of a sound.
		end := func(tr mp4test.Track, scale int64) int64 {
			s := tr.Samples[len(tr.Samples)-1]
			return (s.At + int64(s.Duration)) * 90000 / scale
		}
		if v, s := end(got[0], 90000), end(got[1], 48000); s < v-2 || s > v+2 {
			t.Errorf("%s: pictures end at %d, sounds at %d", path, v, s)
		}
		if n := number(got[1].Samples[0]); part == "" && n != 0 || part != "" && n == 0 {
			t.Errorf("%s: sounds begin with %d", path, n)
		}
		if got, want := a.header.Get("Content-Type"), `video/mp4; codecs="avc1.4d401e,mp4a.40.2"`; got != want {
			t.Errorf("%s: Content-Type %s, want %s", path, got, want)
		}

		video, audio := a.header.Get("X-Video-Sample-Entry-Id"), a.header.Get("X-Audio-Sample-Entry-Id")
		head := r.get("/api/init/" + video + ".mp4?audio=" + audio)
		if head.status != 200 || head.header.Get("Content-Type") != a.header.Get("Content-Type") ||
			!bytes.Contains(head.body, cam.entry.Config) || !bytes.Contains(head.body, cam.sound.Config) {
			t.Fatalf("init segment: %d %v %.200s", head.status, head.header, head.body)
		}
		if b := r.get(r.path("main/%s.txt?s=%d-%d%s&audio=true", "view.m4s", first, last, part)); b.status != 200 ||
			!bytes.Contains(b.body, []byte(a.header.Get("ETag"))) || !bytes.Contains(b.body, []byte("audio")) {
			t.Errorf("%s.txt: %d %s", path, b.status, b.body)
		}

		// Without, unless it is asked for: init segments of who does not know have no
		// place for it.
		b := r.get(path)
		if got, err := mp4test.ReadSegment(b.body); b.status != 200 || err != nil || len(got) != 1 || len(got[0].Samples) != len(film[0].Samples) ||
			b.header.Get("X-Audio-Sample-Entry-Id") != "" || b.header.Get("ETag") == a.header.Get("ETag") || strings.Contains(b.header.Get("Content-Type"), "mp4a") {
			t.Errorf("%s: %d %v, %d tracks, %v", path, b.status, err, len(got), b.header)
		}
	}

	start, _, _ := r.recorded("sub")
	a := r.get(r.path("sub/view.m4s?s=%d&audio=true", start))
	if got, err := mp4test.ReadSegment(a.body); err != nil || len(got) != 1 || a.header.Get("X-Audio-Sample-Entry-Id") != "" || a.header.Get("X-Video-Sample-Entry-Id") == "" {
		t.Errorf("without sound: %d tracks, %v, %v", len(got), err, a.header)
	}
	for path, want := range map[string]int{
		r.path("main/view.m4s?s=%d&audio=false", first): 200, r.path("main/view.m4s?s=%d&audio=1", first): 400,
		r.path("main/view.mp4?s=%d&audio=false", first): 400,
		"/api/init/1.mp4?audio=2":                       404, "/api/init/1.mp4?audio=0": 404, "/api/init/1.mp4?audio=": 200, "/api/init/1.mp4?audio=x": 400,
		"/api/init/1.mp4?audio=99999999999": 400, "/api/init/9.mp4?audio=1": 404,
	} {
		if a := r.get(path); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
}

// Errors say what to do.
func TestRefusalsOfRecordedVideoAreOfUse(t *testing.T) {
	r := newRecorder(t, "view")
	first, last := r.twoRuns()
	for query, want := range map[string]string{
		fmt.Sprintf("s=%d", last+1):     fmt.Sprintf("the newest is %d; …/recordings lists what there is", last),
		fmt.Sprintf("s=%d@99", first):   "…/recordings lists what there is",
		"":                              "For example s=1-5",
		"s=0-2000000":                   "ask for a shorter part",
		fmt.Sprintf("s=%d.999-1", last): "it ends before it starts",
	} {
		a := r.get(r.path("main/view.mp4?%s", query))
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %s, want it to say %q", query, a.status, a.body, want)
		}
	}
}

// The recordings of a film may be deleted while it is sent. What a client has
// then is cut short, so that it knows, or whole; never other bytes.
func TestFilmWhoseRecordingsGoIsCutShort(t *testing.T) {
	r := newRecorder(t, "admin")
	cam := r.camera("main")
	cam.size = 5000
	cam.send(25 * 240) // 30 MB in four recordings, more than a connection holds
	cam.run.End("test over")
	r.restart()
	first, last, _ := r.recorded("main")
	path := r.path("main/view.mp4?s=%d-%d", first, last)
	whole := r.get(path).body

	resp, err := http.Get(r.server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := new(bytes.Buffer)
	if _, err := io.CopyN(got, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	if a := r.ask("DELETE", r.path(""), ""); a.status != 204 {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "sample", "*.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		os.Remove(f) // or the recorder has
	}
	_, err = got.ReadFrom(resp.Body)
	if err == nil && got.Len() < len(whole) {
		t.Errorf("ends after %d bytes of %d as if that were all", got.Len(), len(whole))
	}
	if !bytes.HasPrefix(whole, got.Bytes()) {
		t.Error("other bytes came")
	}
	t.Logf("%d bytes of %d, %v", got.Len(), len(whole), err)
	if a := r.get(path); a.status != 404 {
		t.Errorf("asked for anew: %d", a.status)
	}
}
