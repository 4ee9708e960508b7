package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store"
)

// maxSegments bounds the recordings of one file.
const maxSegments = 1 << 20

// span is one `s` parameter of view.mp4:
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

// segments finds what a span means. Every recording from START to END has to
// exist.
func (sp span) segments(ctx context.Context, st *store.Stream, out []mp4.Segment) ([]mp4.Segment, error) {
	if n := int64(sp.last) - int64(sp.first) + 1; n > int64(maxSegments-len(out)) {
		return nil, badRequest("more than %d recordings in one file", maxSegments)
	}
	recs, err := st.Segments(ctx, sp.first, sp.last)
	if err != nil {
		return nil, err
	}
	var at media.Duration // where the recording begins
	before := len(out)
	for i, rec := range recs {
		if sp.open != 0 && rec.OpenID != sp.open {
			return nil, &httpError{http.StatusNotFound, fmt.Sprintf("recording %d is of open %d, not %d", int(sp.first)+i, rec.OpenID, sp.open)}
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

func (s *server) viewMP4(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, nil, "s")
	if err != nil {
		return err
	}
	if len(q["s"]) == 0 {
		return badRequest("parameter s is missing: which recordings?")
	}
	cam, st, err := s.streamOf(r)
	if err != nil {
		return err
	}
	v, ok := s.versions.find(r, s.Now())
	if !ok {
		if v, err = s.newVersion(r, q["s"], cam, st); err != nil {
			return err
		}
	}
	body := &body{Reader: v.file.NewReader()}
	defer body.Close()

	h := w.Header()
	h.Set("Content-Type", v.file.ContentType())
	h.Set("Content-Disposition", attachment(v.name))
	h.Set("Cache-Control", "private, max-age=3600")
	if v.mayGrow(s.Now()) {
		h.Set("Cache-Control", "private, no-cache")
	}
	h.Set("ETag", v.file.ETag())
	// A browser shows a video opened by itself in a page of its own making.
	h.Del("Content-Security-Policy")
	http.ServeContent(newPatient(w), r, "", v.file.ModTime(), body)
	if body.err != nil && !clientGone(r, body.err) {
		// The length was promised: the server cuts the connection, and so the
		// client knows.
		s.log.Error("sending of recorded video ended early", "camera", cam.Name, "stream", st.Type(), "s", q["s"], "err", body.err)
	}
	return nil
}

// newVersion lays out the file that a request asks for, as it is now.
func (s *server) newVersion(r *http.Request, spans []string, cam *store.Camera, st *store.Stream) (version, error) {
	var segments []mp4.Segment
	for _, text := range spans {
		sp, err := parseSpan(text)
		if err != nil {
			return version{}, err
		}
		if segments, err = sp.segments(r.Context(), st, segments); err != nil {
			return version{}, err
		}
	}
	f, err := mp4.New(segments, mp4.Options{})
	if errors.Is(err, mp4.ErrTooLarge) {
		return version{}, badRequest("%v: ask for a shorter part", err)
	}
	if err != nil {
		return version{}, err
	}
	start := segments[0].Start.Add(segments[0].From).Std().In(s.Store.TimeZone())
	v := version{
		uri: r.URL.RequestURI(), name: start.Format("20060102150405") + "-" + cam.Name + "-" + st.Type() + ".mp4",
		file: f, used: s.Now(),
	}
	s.versions.keep(v)
	return v, nil
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

// initSegment serves the initialization segment of a video sample entry.
func (s *server) initSegment(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	name, ok := strings.CutSuffix(r.PathValue("file"), ".mp4")
	id, err := strconv.ParseInt(name, 10, 32)
	if !ok || err != nil {
		return &httpError{http.StatusNotFound, "the path is /api/init/<id>.mp4"}
	}
	e, ok := s.Store.SampleEntry(int32(id))
	if !ok {
		return &httpError{http.StatusNotFound, fmt.Sprintf("there is no video sample entry %d", id)}
	}
	b, err := mp4.AppendInit(nil, e, nil, nil)
	if err != nil {
		return err
	}
	aw, ah := aspect(e)
	h := w.Header()
	h.Set("Content-Type", contentType(e))
	h.Set("X-Aspect", fmt.Sprintf("%d:%d", aw, ah))
	h.Set("Cache-Control", "private, max-age=3600")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the caller has gone: nobody to tell
	return nil
}

// contentType is how browsers are told what they are to play.
func contentType(e *media.SampleEntry) string {
	return `video/mp4; codecs="` + e.Codec + `"`
}
