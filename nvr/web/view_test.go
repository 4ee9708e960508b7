package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

func TestGrammarOfSpans(t *testing.T) {
	for text, want := range map[string]span{
		"1":                        {first: 1, last: 1},
		"0":                        {},
		"1@42":                     {first: 1, last: 1, open: 42},
		"1-5":                      {first: 1, last: 5},
		"1.26-":                    {first: 1, last: 1, from: 26},
		"1.-42":                    {first: 1, last: 1, to: 42, hasTo: true},
		"1.-":                      {first: 1, last: 1},
		"1-5@42.26-42":             {first: 1, last: 5, open: 42, from: 26, to: 42, hasTo: true},
		"2147483647@2147483647.0-": {first: 2147483647, last: 2147483647, open: 2147483647},
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-", "a", "1-", "-1", "+1", "1-+2", "5-1", "1@", "1@0", "1@x", "1@-1", "1.", "1.5", "1.x-", "1.-x", "1.5-5", "1.6-5", "1.-0", "1.--5",
		"1 ", "1-2-3", "1@2@3", "1.2-3.4", "1.2-3@4", "2147483648", "1-2147483648", "1.9223372036854775808-", "1٣",
	} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q: read as %+v", text, got)
		}
	}
}

// text writes a span in its shortest form.
func (sp span) text() string {
	s := fmt.Sprint(sp.first)
	if sp.last != sp.first {
		s += fmt.Sprintf("-%d", sp.last)
	}
	if sp.open != 0 {
		s += fmt.Sprintf("@%d", sp.open)
	}
	if sp.from != 0 || sp.hasTo {
		s += fmt.Sprintf(".%d-", sp.from)
	}
	if sp.hasTo {
		s += fmt.Sprint(int64(sp.to))
	}
	return s
}

func FuzzSpan(f *testing.F) {
	for _, s := range []string{"1", "1-5@42.26-42", "1.-", "1.-42", "@", "1@2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sp, err := parseSpan(text)
		if err != nil {
			return
		}
		if sp.first < 0 || sp.last < sp.first || sp.open < 0 || sp.from < 0 || sp.hasTo && sp.to <= sp.from {
			t.Fatalf("%q: %+v", text, sp)
		}
		again, err := parseSpan(sp.text())
		if err != nil || again != sp {
			t.Fatalf("%q is %+v, written %q, read again %+v %v", text, sp, sp.text(), again, err)
		}
	})
}

func TestRecordedVideoIsAFileWithRanges(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.cameraAt("main", time.Minute)
	cam.send(25*90 + 1)
	cam.run.End("test over")
	r.restart() // what is served now comes from the database and the disk
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	row := list.Recordings[0]
	if row.EndID == nil {
		t.Fatalf("one recording only: %+v", row)
	}
	path := r.path("main/view.mp4?s=%d-%d@%d", row.StartID, *row.EndID, row.OpenID)
	whole := r.get(path)
	if whole.status != 200 {
		t.Fatalf("%d %s", whole.status, whole.body)
	}
	if got, want := whole.header.Get("Content-Type"), `video/mp4; codecs="avc1.4d401e"`; got != want {
		t.Errorf("Content-Type %s, want %s", got, want)
	}
	for n := range 25*90 + 1 {
		if !bytes.Contains(whole.body, payload(n, 100)) {
			t.Fatalf("frame %d is not in the file", n)
		}
	}
	_, params, err := mime.ParseMediaType(whole.header.Get("Content-Disposition"))
	if want := "20261024230130-Küche 1-main.mp4"; err != nil || params["filename"] != want {
		t.Errorf("Content-Disposition names %q (%v), want %q", params["filename"], err, want)
	}
	etag := whole.header.Get("ETag")
	if c := whole.header.Get("Cache-Control"); c != "private, max-age=3600" {
		t.Errorf("Cache-Control %s", c)
	}
	if !strings.HasPrefix(etag, `"`) || whole.header.Get("Last-Modified") == "" {
		t.Errorf("ETag %s, Last-Modified %s", etag, whole.header.Get("Last-Modified"))
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		a := rnd.IntN(len(whole.body))
		b := a + rnd.IntN(min(len(whole.body)-a, 5000))
		part := r.get(path, "Range", fmt.Sprintf("bytes=%d-%d", a, b))
		if part.status != 206 || !bytes.Equal(part.body, whole.body[a:b+1]) {
			t.Fatalf("bytes %d-%d: %d, %d bytes, not those of the whole", a, b, part.status, len(part.body))
		}
	}
	n := len(whole.body)
	several := r.get(path, "Range", fmt.Sprintf("bytes=5-6,%d-%d,-30", n/2, n/2+3000))
	kind, boundary, err := mime.ParseMediaType(several.header.Get("Content-Type"))
	if several.status != 206 || err != nil || kind != "multipart/byteranges" {
		t.Errorf("three ranges: %d %s", several.status, several.header.Get("Content-Type"))
	}
	parts := multipart.NewReader(bytes.NewReader(several.body), boundary["boundary"])
	for _, want := range [][]byte{whole.body[5:7], whole.body[n/2 : n/2+3001], whole.body[n-30:]} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatalf("three ranges: %v", err)
		}
		if got, err := io.ReadAll(part); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", part.Header.Get("Content-Range"), len(got), err)
		}
	}
	if a := r.get(path, "Range", fmt.Sprintf("bytes=%d-", len(whole.body))); a.status != 416 {
		t.Errorf("range behind the end: %d", a.status)
	}
	// An answer that refuses is for people, and no download.
	for header, value := range map[string]string{"If-Match": `"other"`, "Range": "bytes=99999999-"} {
		a := r.get(path, header, value)
		if a.header.Get("Content-Type") != "text/plain; charset=utf-8" || len(a.body) == 0 || a.header.Get("Content-Disposition") != "" ||
			a.header.Get("Cache-Control") != "private, no-cache" || a.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s %s: %d %q with %v", header, value, a.status, a.body, a.header)
		}
	}
	if a := r.get(path, "If-None-Match", etag); a.status != 304 {
		t.Errorf("If-None-Match: %d", a.status)
	}
	if a := r.get(path, "If-Match", `"other"`); a.status != 412 {
		t.Errorf("If-Match of another: %d", a.status)
	}
	if a := r.get(path, "Range", "bytes=0-9", "If-Range", `"other"`); a.status != 200 || len(a.body) != len(whole.body) {
		t.Errorf("If-Range of another: %d with %d bytes", a.status, len(a.body))
	}
	// A date may be that of other bytes.
	if a := r.get(path, "Range", "bytes=0-9", "If-Range", whole.header.Get("Last-Modified")); a.status != 200 || len(a.body) != len(whole.body) {
		t.Errorf("If-Range with a date: %d with %d bytes", a.status, len(a.body))
	}
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since"} {
		for _, date := range []string{whole.header.Get("Last-Modified"), "Thu, 01 Jan 1970 00:00:00 GMT"} {
			if a := r.get(path, name, date); a.status != 200 || len(a.body) != n {
				t.Errorf("%s %s: %d with %d bytes", name, date, a.status, len(a.body))
			}
		}
	}
	head := r.ask("HEAD", path, "")
	if head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(len(whole.body)) || head.header.Get("ETag") != etag {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	if r.log.Len() > 0 {
		t.Errorf("logged: %s", r.log)
	}
}

// A growing recording plays under an address that ends where it ended when it
// was listed, and bytes never change under their tag (R35).
func TestTagChangesWithTheBytes(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(51)
	defer cam.run.End("test over")
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	row := list.Recordings[0]
	pinned := r.path("main/view.mp4?s=%d@%d.0-%d", row.StartID, row.OpenID, row.End.Sub(row.Start))
	open := r.path("main/view.mp4?s=%d@%d", row.StartID, row.OpenID)
	bodies := make(map[string][]byte)
	var last string
	for range 100 {
		for _, path := range []string{pinned, open} {
			a := r.get(path)
			tag := a.header.Get("ETag")
			if a.status != 200 || tag == "" {
				t.Fatalf("%s: %d %.200s", path, a.status, a.body)
			}
			if d, c := a.header.Get("Last-Modified"), a.header.Get("Cache-Control"); d != "" || c != "private, no-cache" {
				t.Fatalf("%s: a file that changes within a second is of %q, and may be kept: %q", path, d, c)
			}
			if before, ok := bodies[path+tag]; ok && !bytes.Equal(before, a.body) {
				t.Fatalf("%s: other bytes under the tag %s", path, tag)
			}
			bodies[path+tag] = a.body
			// On a busy machine the run may be split: the frame is in the next recording then.
			if path == open && tag == last && bytes.Contains(a.body, payload(cam.n-1, 100)) {
				t.Fatalf("%s: another frame, the same tag", path)
			}
			if path == pinned && (!bytes.Contains(a.body, payload(49, 100)) || bytes.Contains(a.body, payload(51, 100))) {
				t.Fatalf("%s: does not end where it was listed to end", path)
			}
			if path == open {
				last = tag
			}
		}
		cam.send(1)
	}
}

// Whoever plays a growing recording piece by piece gets the pieces of the
// version it began with, as long as it names it.
func TestPiecesAreOfTheVersionThatWasNamed(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(51)
	defer cam.run.End("test over")
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	open := r.path("main/view.mp4?s=%d", list.Recordings[0].StartID)
	whole := r.get(open, "Range", "bytes=0-")
	tag := whole.header.Get("ETag")
	for range 5 {
		cam.send(10)
		for _, header := range []string{"If-Match", "If-Range"} {
			a := r.get(open, "Range", "bytes=1000-1999", header, tag)
			if a.status != 206 || a.header.Get("ETag") != tag || !bytes.Equal(a.body, whole.body[1000:2000]) {
				t.Errorf("%s: %d, tag %s, want 206 and %s", header, a.status, a.header.Get("ETag"), tag)
			}
		}
	}
	if a := r.get(open); a.header.Get("ETag") == tag || len(a.body) <= len(whole.body) {
		t.Error("who names no version does not get the newest")
	}
	if a := r.get(open, "If-Match", `"other"`); a.status != 412 {
		t.Errorf("a version nobody remembers: %d, want 412", a.status)
	}
}

func TestSpansMeanPartsOfRecordings(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25*200 + 1)
	cam.run.End("test over")
	var list recordingsJSON
	r.json(r.path("main/recordings?split90k=1"), &list) // one row for each recording
	if len(list.Recordings) < 4 {
		t.Fatalf("%d recordings", len(list.Recordings))
	}
	var total media.Duration
	var at []media.Duration // where each begins
	for _, row := range list.Recordings {
		at = append(at, total)
		total += row.End.Sub(row.Start)
	}
	first, last, open := list.Recordings[0].StartID, list.Recordings[len(list.Recordings)-1].StartID, list.Recordings[0].OpenID
	frames := func(a *answer) (n []int) {
		for i := range 25*200 + 1 {
			if bytes.Contains(a.body, payload(i, 100)) {
				n = append(n, i)
			}
		}
		return n
	}
	// From the middle of the third recording to its end, with the numbers
	// counted from the first: what lies before is not in the file.
	from := at[2] + media.Second
	a := r.get(r.path("main/view.mp4?s=%d-%d@%d.%d-%d", first, last, open, from, at[3]))
	got := frames(a)
	lo, hi := int(at[2]/frame), int(at[3]/frame)
	if a.status != 200 || len(got) == 0 || got[0] < lo || got[0] > int(from/frame) || got[len(got)-1] < hi-2 || got[len(got)-1] > hi {
		t.Errorf("%d: frames from %v, want those before %d and up to %d", a.status, got[:min(1, len(got))], from/frame, hi)
	}
	// Two parts of one file.
	a = r.get(r.path("main/view.mp4?s=%d&s=%d", first, last))
	if got := frames(a); a.status != 200 || len(got) != int(list.Recordings[0].VideoSamples+list.Recordings[len(list.Recordings)-1].VideoSamples) {
		t.Errorf("two recordings: %d with %d frames", a.status, len(got))
	}

	for query, want := range map[string]int{
		"":                                    400,
		"s=":                                  400,
		"s=x":                                 400,
		"s=1&ts=yes":                          400,
		"s=1&gaps=none":                       400,
		"s=1&gaps=cut&gaps=keep":              400,
		"s=1&x=y":                             400,
		fmt.Sprintf("s=%d", last+1):           404,
		fmt.Sprintf("s=%d-%d", first, last+1): 404,
		fmt.Sprintf("s=%d-2147483647", first): 400, // too many
		fmt.Sprintf("s=%d@%d", first, open+1): 404,
		fmt.Sprintf("s=%d-%d.0-%d", first, last, total):                200,
		fmt.Sprintf("s=%d-%d.0-%d", first, last, total+1):              400,
		fmt.Sprintf("s=%d-%d.%d-", first, last, total):                 400,
		fmt.Sprintf("s=%d-%d.%d-", first, last, total-1):               200,
		fmt.Sprintf("s=%d.9223372036854775806-9223372036854775807", 1): 400,
	} {
		if a := r.get(r.path("main/view.mp4?%s", query)); a.status != want {
			t.Errorf("%s: %d %s, want %d", query, a.status, a.body[:min(len(a.body), 200)], want)
		}
	}
	if r.log.Len() > 0 {
		t.Errorf("logged: %s", r.log)
	}
}

// What a request costs is bounded by the recordings that it names, not by what
// it shows of them.
func TestRowsOfARequestAreLimited(t *testing.T) {
	r := newRecorder(t, "view")
	const runs = 8
	for range runs {
		cam := r.camera("main")
		cam.send(2)
		cam.run.End("test over")
	}
	first, last, _ := r.recorded("main")
	if last-first+1 != runs {
		t.Fatalf("recordings %d to %d, want %d", first, last, runs)
	}
	spans := slices.Repeat([]string{fmt.Sprintf("%d-%d.0-1", first, last)}, mp4.MaxSegments/runs+1)
	w := httptest.NewRecorder()
	r.server.Config.Handler.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+r.path("main/view.mp4.txt?s=%s", strings.Join(spans, "&s=")), nil))
	if w.Code != 400 || !strings.Contains(w.Body.String(), "more than") {
		t.Errorf("%d %.200s", w.Code, w.Body)
	}
	if got, n, err := parseSpans(spans[1:]); len(got) != len(spans)-1 || n != mp4.MaxSegments || err != nil {
		t.Errorf("as many as a file takes: %d spans, %d recordings, %v", len(got), n, err)
	}
}

// The layouts of all files that are being served have a bound. A short file is
// served all the same.
func TestFilmsServedAtOnceAreLimited(t *testing.T) {
	r := newRecorder(t, "view")
	first, _ := r.twoRuns()
	s := &server{Config: Config{Store: r.store, Now: time.Now, Anonymous: "view"}, log: slog.New(slog.DiscardHandler),
		films: share{most: mostServed, always: alwaysTaken}, tails: newShare(mostInMemory, alwaysInMemory)}
	cam, ok := r.store.Camera(r.uuid)
	if !ok {
		t.Fatal("no camera")
	}
	ask := func(recordings int) int {
		t.Helper()
		req := httptest.NewRequest("GET", r.path("main/view.mp4?s=%d", first)+strings.Repeat(fmt.Sprintf("&s=%d", first), recordings-1), nil)
		req.SetPathValue("stream", "main")
		ctx := context.WithValue(t.Context(), callerKey{}, &caller{Subject: s.nobody()})
		req = req.WithContext(context.WithValue(ctx, cameraKey{}, cam))
		w := httptest.NewRecorder()
		if err := (view{}).serve(s, w, req); err != nil {
			status, _ := s.refusal(req, err)
			return status
		}
		return w.Code
	}
	done, ok := s.films.take(anyone(""), mostServed-alwaysTaken-5)
	if !ok {
		t.Fatal("no room at the beginning")
	}
	for recordings, want := range map[int]int{alwaysTaken + 5: 200, alwaysTaken + 6: 503, alwaysTaken: 200} {
		for range 3 { // what was served is counted no more
			if got := ask(recordings); got != want {
				t.Errorf("%d recordings more: %d, want %d", recordings, got, want)
			}
		}
	}
	done()
	if got := ask(alwaysTaken + 6); got != 200 || s.films.held != 0 {
		t.Errorf("when there is room: %d; %d are counted in the end", got, s.films.held)
	}
}

func TestSinglePictureIsServed(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(1)
	cam.run.End("camera went silent")
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	if len(list.Recordings) != 1 || list.Recordings[0].VideoSamples != 1 {
		t.Fatalf("%+v", list)
	}
	if a := r.get(r.path("main/view.mp4?s=%d", list.Recordings[0].StartID)); a.status != 200 || !bytes.Contains(a.body, payload(0, 100)) {
		t.Errorf("%d: %.200s", a.status, a.body)
	}
}

func TestInitSegments(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.entry = videoEntry(704, 576)
	cam.entry.PaspH, cam.entry.PaspV = 16, 11
	cam.send(2)
	defer cam.run.End("test over")
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	id := list.Recordings[0].VideoEntryID
	a := r.get(fmt.Sprintf("/api/init/%d.mp4", id))
	if a.status != 200 || a.header.Get("Content-Type") != `video/mp4; codecs="avc1.4d401e"` || a.header.Get("X-Aspect") != "16:9" ||
		!bytes.Contains(a.body, cam.entry.Config) || !strings.HasPrefix(a.header.Get("Cache-Control"), "private, max-age=") {
		t.Errorf("%d %v", a.status, a.header)
	}
	text := r.get(fmt.Sprintf("/api/init/%d.mp4.txt", id))
	want := fmt.Sprintf("video/mp4; codecs=\"avc1.4d401e\"\n%d bytes\nvideo entry 1: avc1.4d401e 704x576\n\nboxes, bytes\nftyp ", len(a.body))
	if text.status != 200 || text.header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasPrefix(string(text.body), want) ||
		!strings.Contains(string(text.body), " avcC 25\n") {
		t.Errorf("%d %v %s", text.status, text.header, text.body)
	}
	for _, p := range []string{fmt.Sprintf("/api/init/%d.mp4", id+1), fmt.Sprintf("/api/init/%d.mp4.txt", id+1), fmt.Sprintf("/api/init/%d.txt", id), "/api/init/0.mp4", "/api/init/x.mp4", "/api/init/1", "/api/init/99999999999.mp4"} {
		if a := r.get(p); a.status != 404 {
			t.Errorf("GET %s: %d, want 404", p, a.status)
		}
	}
}

func TestNamesOfDownloads(t *testing.T) {
	for name, want := range map[string]string{
		"a-1.mp4":       `attachment; filename="a-1.mp4"`,
		"Küche 1.mp4":   `attachment; filename="K_che_1.mp4"; filename*=UTF-8''K%C3%BCche%201.mp4`,
		"a\"\r\nX: y;/": "attachment; filename=\"a___X__y__\"; filename*=UTF-8''a%22%0D%0AX%3A%20y%3B%2F",
	} {
		if got := attachment(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Samples that are in memory alone are held by who is sent them, for as long as they
// please: all together have a bound, and so have the versions that are remembered.
func TestSamplesInMemoryThatAreSentAreBounded(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	defer func() { cam.run.End("test over") }()
	cam.size = 256 << 10
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	h := hold(thePage(t), s.handler(), true, nil, func(breach string) { t.Error(breach) })
	var w *httptest.ResponseRecorder
	ask := func() {
		w = httptest.NewRecorder()
		req := httptest.NewRequest("GET", "http://localhost"+r.path("main/view.mp4?s=0&s=0"), nil)
		h.ServeHTTP(w, req)
	}
	cam.send(26) // the first second goes to its file
	done, ok := s.tails.take(anyone("203.0.113.1"), s.tails.one-1)
	if !ok {
		t.Fatal("no room at the beginning")
	}
	other, ok := s.tails.take(anyone("203.0.113.2"), s.tails.one-s.tails.kept-200<<10)
	if !ok {
		t.Fatal("no room for another")
	}
	if ask(); w.Code != 503 || !strings.Contains(w.Body.String(), "not on the disk yet") || len(s.versions.kept) != 0 {
		t.Errorf("beside others: %d %.100s; %d versions are kept", w.Code, w.Body, len(s.versions.kept))
	}
	other()
	if ask(); w.Code != 200 {
		t.Errorf("when there is room: %d %.100s", w.Code, w.Body)
	}
	done()
	if s.tails.held != 0 {
		t.Errorf("%d bytes are counted in the end", s.tails.held)
	}

	recs, err := r.stream("main").Segments(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var v versions
	for i, c := range []struct {
		mib  int64
		want int // versions
	}{{6, 1}, {6, 2}, {6, 3}, {6, 3}, {0, 3}, {0, 4}, {90, 5}, {6, 1}, {1, 2}} {
		recs[0].InMemory = c.mib << 20
		file, err := mp4.New([]mp4.Segment{{Recording: recs[0], To: recs[0].WallDuration}, {Recording: recs[0], To: recs[0].WallDuration}}, mp4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v.keep(version{file: file, used: start.Add(time.Duration(i) * time.Second)})
		if len(v.kept) != c.want {
			t.Errorf("with the %d MiB of version %d, %d are kept, want %d", c.mib, i, len(v.kept), c.want)
		}
	}
}
