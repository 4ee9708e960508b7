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

// recorded is the first and the last recording of a stream, and the frames of
// all. The wall clock of these tests stands still, so a machine that is busy for
// a second may see a step of it and split a run.
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

// twoRuns records two seconds, leaves three seconds out, and records two more.
// It returns the ids of the first and the last recording.
func (r *recorder) twoRuns() (first, last int32) {
	r.Helper()
	cam := r.camera("main")
	cam.send(51)
	cam.run.End("camera closed the connection")
	r.ahead.Add(int64(5 * time.Second))
	cam = r.camera("main")
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
	if n, d := len(kept.Samples), media.Duration(kept.Shown); n != 102 || d < 7*media.Second || d > 73*media.Second/10 {
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
		"2026-10-24 23:00:30 +0200", "2026-10-24 23:00:31 +0200", "2026-10-24 23:00:32 +0200", "no video until 23:00:35",
		"2026-10-24 23:00:35 +0200", "2026-10-24 23:00:36 +0200", "2026-10-24 23:00:37 +0200",
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
	got, err := mp4test.ReadSegment(a.body)
	if a.status != 200 || err != nil {
		t.Fatalf("%d %v: %.200s", a.status, err, a.body)
	}
	// Frame 25 was asked for; the key before it is 20.
	if len(got) != 31+51 || number(got[0]) != 20 || number(got[31]) != 0 {
		t.Errorf("%d frames from %d", len(got), number(got[0]))
	}
	h := a.header
	if h.Get("X-Prev-Media-Duration") != strconv.Itoa(int(media.Second)) || h.Get("X-Leading-Media-Duration") != strconv.Itoa(int(5*frame)) ||
		h.Get("X-Runs") != "1" || h.Get("Content-Type") != `video/mp4; codecs="avc1.4d401e"` || h.Get("Content-Disposition") != "" {
		t.Errorf("headers: %v", h)
	}
	b := r.get(r.path("main/view.m4s?s=%d", last))
	if b.header.Get("X-Runs") != "2" || b.header.Get("X-Prev-Media-Duration") != strconv.Itoa(int(50*frame)) || b.header.Get("X-Leading-Media-Duration") != "" {
		t.Errorf("headers of the second run: %v", b.header)
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

	cam := r.camera("main")
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
