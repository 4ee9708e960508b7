package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store"
)

// span is one `s` parameter of view.mp4 and view.m4s:
//
//	START[-END][@OPEN][.[REL_START]-[REL_END]]
//
// START and END are numbers of recordings, END included; OPEN is the open they
// must be of; REL_START and REL_END are wall durations since the start of
// START, as if the recordings adjoined.
type span struct {
	first, last int32
	open        int32 // 0: any
	from, to    media.Duration
	hasTo       bool // else to the end
}

func parseSpan(text string) (span, error) {
	wrong := func(why string) (span, error) {
		return span{}, badRequest("s=%s: %s", text, why)
	}
	number := func(digits string, bits int) (int64, bool) {
		if digits == "" || digits[0] < '0' || digits[0] > '9' {
			return 0, false
		}
		n, err := strconv.ParseInt(digits, 10, bits)
		return n, err == nil
	}
	var sp span
	ids, relative, hasRelative := strings.Cut(text, ".")
	ids, open, hasOpen := strings.Cut(ids, "@")
	first, last, hasLast := strings.Cut(ids, "-")
	if !hasLast {
		last = first
	}
	n, ok := number(first, 32)
	m, ok2 := number(last, 32)
	if !ok || !ok2 {
		return wrong("the form is START[-END][@OPEN][.[REL_START]-[REL_END]]")
	}
	sp.first, sp.last = int32(n), int32(m)
	if sp.last < sp.first {
		return wrong("it ends before it starts")
	}
	if hasOpen {
		n, ok := number(open, 32)
		if !ok || n == 0 {
			return wrong("OPEN is not the number of an open")
		}
		sp.open = int32(n)
	}
	if !hasRelative {
		return sp, nil
	}
	from, to, ok := strings.Cut(relative, "-")
	if !ok {
		return wrong("behind the dot there has to be REL_START-REL_END")
	}
	if from != "" {
		n, ok := number(from, 63)
		if !ok {
			return wrong("REL_START is not a number")
		}
		sp.from = media.Duration(n)
	}
	if to != "" {
		n, ok := number(to, 63)
		if !ok {
			return wrong("REL_END is not a number")
		}
		sp.to, sp.hasTo = media.Duration(n), true
		if sp.to <= sp.from {
			return wrong("it ends before it starts")
		}
	}
	return sp, nil
}

// parseSpans reads all spans of a request. Together they name n recordings, no
// more than a file takes; of each the row is read, whatever of it is shown.
func parseSpans(texts []string) (spans []span, n int, err error) {
	for _, text := range texts {
		sp, err := parseSpan(text)
		if err != nil {
			return nil, 0, err
		}
		more := int64(sp.last) - int64(sp.first) + 1
		if more > int64(mp4.MaxSegments-n) {
			return nil, 0, badRequest("more than %d recordings in one file: ask for a shorter part", mp4.MaxSegments)
		}
		spans, n = append(spans, sp), n+int(more)
	}
	return spans, n, nil
}

// segments finds what a span means. Every recording from START to END has to
// exist.
func (sp span) segments(ctx context.Context, st *store.Stream, out []mp4.Segment) ([]mp4.Segment, error) {
	recs, err := st.Segments(ctx, sp.first, sp.last)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &httpError{http.StatusNotFound, err.Error() + "; …/recordings lists what there is"}
	}
	if err != nil {
		return nil, err
	}
	var at media.Duration // where the recording begins
	before := len(out)
	for i, rec := range recs {
		if sp.open != 0 && rec.OpenID != sp.open {
			return nil, &httpError{http.StatusNotFound, fmt.Sprintf(
				"recording %d is of open %d, not %d: what had this number was lost before it was kept; …/recordings lists what there is",
				int(sp.first)+i, rec.OpenID, sp.open)}
		}
		from, to := sp.from-at, rec.WallDuration
		if sp.hasTo {
			to = min(to, sp.to-at)
		}
		// A single picture lasts 0 when nothing followed it; it is shown when
		// nothing was cut off.
		if from = max(from, 0); from < to || from == 0 && rec.WallDuration == 0 && (!sp.hasTo || at < sp.to) && at >= sp.from {
			out = append(out, mp4.Segment{Recording: rec, From: from, To: to})
		}
		at += rec.WallDuration
	}
	if sp.hasTo && sp.to > at {
		return nil, badRequest("REL_END is %d, but the recordings end at %d", sp.to, at)
	}
	if len(out) == before {
		return nil, badRequest("REL_START is %d, but the recordings end at %d", sp.from, at)
	}
	return out, nil
}

// mostShown is how much of view.mp4 who may see recordings and not export them
// gets at once: an hour, which is what the page plays in one piece, and the
// recording that it ends in.
const mostShown = 60*media.Minute + media.MaxRecording

// view serves recorded video: view.mp4, view.m4s, and what they consist of as
// text.
type view struct {
	segment bool // one media segment, else a whole file
	text    bool
}

func (v view) serve(s *server, w http.ResponseWriter, r *http.Request) error {
	single := []string{"gaps", "ts"}
	if v.segment {
		single = []string{"audio"}
	}
	q, err := parameters(r, single, "s")
	if err != nil {
		return err
	}
	if len(q["s"]) == 0 {
		return badRequest("parameter s is missing: which recordings? For example s=1-5")
	}
	cam, st, err := s.streamOf(r)
	if err != nil {
		return err
	}
	spans, n, err := parseSpans(q["s"])
	if err != nil {
		return err
	}
	done, ok := s.films.take(callerOf(r), n)
	if !ok {
		return &httpError{http.StatusServiceUnavailable, "too much recorded video is sent at this moment: ask for a shorter part, or later"}
	}
	defer done()
	ver, ok := s.versions.find(r, s.Now())
	made := !ok
	if made {
		if ver, err = s.newVersion(r, q, spans, v, cam, st); err != nil {
			return err
		}
	}
	takes := callerOf(r).May(access.TakeRecorded, cam.ID)
	if d := ver.file.Duration(); !v.segment && !takes && d > mostShown {
		return &httpError{http.StatusForbidden, fmt.Sprintf(
			"these are %v of video, and without the right to export it view.mp4 shows %v at most: ask for a shorter part",
			d.Std().Round(time.Second), mostShown.Std())}
	}
	// What is not on the disk yet stays in memory as long as it is sent. One file
	// is served whatever the disk has fallen behind with.
	leave, ok := s.tails.take(callerOf(r), int(min(ver.file.InMemory(), mostInMemory/2)))
	if !ok {
		return &httpError{http.StatusServiceUnavailable, "too much video that is not on the disk yet is sent at this moment: ask for what is before watermark90k, or later"}
	}
	defer leave()
	if made && ver.file.Unflushed() {
		s.versions.keep(ver)
	}
	if v.text {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_ = ver.file.Describe(w) // the caller has gone: nobody to tell
		return nil
	}
	body := &body{r: ver.file.NewReader()}
	defer body.end() // also when ServeContent panics

	h := w.Header()
	h.Set("Content-Type", ver.file.ContentType())
	h.Set("ETag", ver.file.ETag())
	if v.segment {
		h.Set("X-Prev-Media-Duration", strconv.FormatInt(int64(ver.prevMedia), 10))
		h.Set("X-Media-Start", strconv.FormatInt(int64(ver.file.MediaFrom()), 10))
		h.Set("X-Runs", strconv.Itoa(int(ver.runs)))
		video, audio := ver.file.EntryIDs()
		h.Set("X-Video-Sample-Entry-Id", strconv.Itoa(int(video)))
		if audio != 0 {
			h.Set("X-Audio-Sample-Entry-Id", strconv.Itoa(int(audio)))
		}
		if l := ver.file.Leading(); l > 0 {
			h.Set("X-Leading-Media-Duration", strconv.FormatInt(int64(l), 10))
		}
	} else {
		h.Set("Content-Disposition", "inline")
		if takes {
			h.Set("Content-Disposition", attachment(ver.name))
		}
		// A browser shows a video opened by itself in a page of its own making.
		h.Del("Content-Security-Policy")
	}
	// A file that may be another one within the second has no date: it would
	// pass for a version of it.
	if !ver.file.Unflushed() {
		h.Set("Cache-Control", "private, max-age=3600")
		h.Set("Last-Modified", ver.file.ModTime().UTC().Format(http.TimeFormat))
	}
	// No condition is by that date, which may be that of other bytes after an
	// update of the recorder or when its clock was set; a tag is not.
	release := cork(r)
	http.ServeContent(newPatient(w, r), r, "", time.Time{}, body)
	release()
	if err := body.end(); err != nil && !clientGone(r, err) {
		// The length was promised: the server cuts the connection, and so the
		// client knows.
		s.log.Error("sending of recorded video ended early", "camera", cam.Name, "stream", st.Type(), "s", q["s"], "err", err)
	}
	return nil
}

// newVersion lays out the file that a request asks for, as it is now.
func (s *server) newVersion(r *http.Request, q url.Values, spans []span, v view, cam *store.Camera, st *store.Stream) (version, error) {
	var opt mp4.Options
	switch g := q.Get("gaps"); g {
	case "", "cut":
	case "keep":
		opt.Gaps = mp4.KeepGaps
	default:
		return version{}, badRequest("gaps is %q, neither keep nor cut", g)
	}
	if ts, err := truthOf(q, "ts"); err != nil {
		return version{}, err
	} else if ts {
		opt.Timestamps = s.Store.TimeZone()
	}
	switch audio := q.Get("audio"); audio {
	case "true":
	case "", "false":
		opt.VideoOnly = v.segment
	default:
		return version{}, badRequest("audio is %q, neither true nor false", audio)
	}
	var segments []mp4.Segment
	for _, sp := range spans {
		var err error
		if segments, err = sp.segments(r.Context(), st, segments); err != nil {
			return version{}, err
		}
	}
	layOut := mp4.New
	if v.segment {
		layOut = mp4.NewMediaSegment
	}
	f, err := layOut(segments, opt)
	switch {
	case errors.Is(err, mp4.ErrTooLarge) && opt.Gaps == mp4.KeepGaps:
		return version{}, badRequest("%v: ask for a shorter part, or for gaps=cut", err)
	case errors.Is(err, mp4.ErrTooLarge):
		return version{}, badRequest("%v: ask for a shorter part", err)
	case errors.Is(err, mp4.ErrEntries):
		return version{}, badRequest("%v: ask for what is before and after by itself", err)
	case err != nil:
		return version{}, err
	}
	first := &segments[0]
	ver := version{
		uri:  r.URL.RequestURI(),
		name: first.Start.Add(first.From).Std().In(s.Store.TimeZone()).Format("20060102150405") + "-" + cam.Name + "-" + st.Type() + ".mp4",
		file: f, used: s.Now(),
		prevMedia: first.PrevMedia, runs: first.PrevRuns,
	}
	if first.RunOffset == 0 {
		ver.runs++
	}
	return ver, nil
}

// attachment is the header that makes a download of that name (RFC 6266). Old
// clients get the name with the letters they know.
func attachment(name string) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z':
			return r
		}
		return '_'
	}, name)
	v := `attachment; filename="` + plain + `"`
	if name != plain {
		v += `; filename*=UTF-8''` + strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
	}
	return v
}

// initSegment serves the initialization segment of a video sample entry, and of
// the audio sample entry that the query names; or, as .mp4.txt, what it is.
func (s *server) initSegment(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, []string{"audio"})
	if err != nil {
		return err
	}
	name, text := strings.CutSuffix(r.PathValue("file"), ".txt")
	name, ok := strings.CutSuffix(name, ".mp4")
	id, err := strconv.ParseInt(name, 10, 32)
	if !ok || err != nil {
		return &httpError{http.StatusNotFound, "the path is /api/init/<id>.mp4 or /api/init/<id>.mp4.txt"}
	}
	e, ok := s.Store.SampleEntry(int32(id))
	if !ok {
		return &httpError{http.StatusNotFound, fmt.Sprintf("there is no video sample entry %d", id)}
	}
	entries := []*media.SampleEntry{e}
	var sound *media.SampleEntry
	if v := q.Get("audio"); v != "" {
		id, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return badRequest("audio is %q, not the id of an audio sample entry", v)
		}
		if sound, ok = s.Store.AudioEntry(int32(id)); !ok {
			return &httpError{http.StatusNotFound, fmt.Sprintf("there is no audio sample entry %d", id)}
		}
		entries = append(entries, sound)
	}
	b, err := mp4.AppendInit(nil, e, sound, nil)
	if err != nil {
		return err
	}
	aw, ah := aspect(e)
	h := w.Header()
	h.Set("X-Aspect", fmt.Sprintf("%d:%d", aw, ah))
	if text {
		said, err := mp4.DescribeInit(b, entries...)
		if err != nil {
			return err
		}
		h.Set("Content-Type", "text/plain; charset=utf-8")
		b = []byte(said)
	} else {
		h.Set("Content-Type", mp4.ContentType(entries...))
		h.Set("Cache-Control", "private, max-age=3600")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the caller has gone: nobody to tell
	return nil
}
