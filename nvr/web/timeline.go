package web

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Bounds of a timeline, so that its answer and what makes it are small: ten
// thousand places are more than a screen has, and a year is what an overview is
// of.
const (
	timelinePlaces  = 10_000
	timelineLongest = 366 * 24 * 60 * media.Minute
)

// timelineJSON is what the timelines of streams beside it are of, and how fine they
// are.
type timelineJSON struct {
	Start      media.Time     `json:"startTime90k"`
	End        media.Time     `json:"endTime90k"`
	Resolution media.Duration `json:"resolution90k"`
}

// laneJSON is the timeline of one stream. Its spans and its gaps are in order and
// at least the resolution apart, each from its own kind.
type laneJSON struct {
	Camera string         `json:"camera"` // uuid
	Stream string         `json:"stream"` // its type
	Spans  []laneSpanJSON `json:"spans"`
	Gaps   []laneGapJSON  `json:"gaps"`
}

// laneSpanJSON is time in which something is recorded. What lies between what it
// was merged of is shorter than the resolution, each for itself.
type laneSpanJSON struct {
	Start    media.Time     `json:"startTime90k"`
	End      media.Time     `json:"endTime90k"`
	Recorded media.Duration `json:"recorded90k"`       // what overlaps counts twice
	Growing  bool           `json:"growing,omitempty"` // up to its end, at this moment
}

// laneGapJSON is time with gaps, merged likewise.
type laneGapJSON struct {
	Start media.Time     `json:"startTime90k"`
	End   media.Time     `json:"endTime90k"`
	Lost  media.Duration `json:"lost90k"`
	Cause store.Cause    `json:"cause"` // of the most of it

	by map[store.Cause]media.Duration
}

// timeline answers for as many streams as are asked for, so that an overview is
// one request.
func (s *server) timeline(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, []string{"startTime90k", "endTime90k", "resolution90k"}, "stream")
	if err != nil {
		return err
	}
	from, to, err := s.timeRange(q)
	if err != nil {
		return err
	}
	if q.Get("endTime90k") == "" {
		to = media.TimeOf(s.Now())
	}
	if q.Get("startTime90k") == "" {
		from = to.Add(-24 * 60 * media.Minute)
	}
	if from > to {
		return badRequest("startTime90k is later than now, and there is no endTime90k")
	}
	length := to.Sub(from)
	if length > timelineLongest {
		return badRequest("from startTime90k to endTime90k is more than 366 days")
	}
	out := timelineJSON{Start: from, End: to, Resolution: max(1, (length+timelinePlaces-1)/timelinePlaces)}
	if v := q.Get("resolution90k"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || media.Duration(n) < out.Resolution {
			return badRequest("resolution90k is %q, not a number of at least %d, a %d-th of the range", v, out.Resolution, timelinePlaces)
		}
		out.Resolution = media.Duration(n)
	}
	streams, err := s.streamsAsked(r, q["stream"])
	if err != nil {
		return err
	}
	var lanes []laneJSON
	var rows int // of the lanes that are done
	room := list{share: &s.lists, of: callerOf(r)}
	defer room.end()
	for _, a := range streams {
		lane := laneJSON{Camera: a.camera.UUID, Stream: a.stream.Type(), Spans: []laneSpanJSON{}, Gaps: []laneGapJSON{}}
		err := a.stream.Spans(r.Context(), from, to, func(sp *store.Span) error {
			if err := room.grow(rows + lane.rows()); err != nil {
				return err
			}
			lane.addSpan(max(sp.Start, from), min(sp.End, to), sp.Growing && sp.End <= to, out.Resolution)
			return nil
		})
		if err != nil {
			return err
		}
		err = a.stream.Gaps(r.Context(), from, to, func(g *store.Gap) error {
			if err := room.grow(rows + lane.rows()); err != nil {
				return err
			}
			lane.addGap(max(g.Start, from), min(g.End, to), g.Cause, out.Resolution)
			return nil
		})
		if err != nil {
			return err
		}
		lanes = append(lanes, lane)
		rows += lane.rows()
	}
	return writeList(w, r, "streams", lanes, out)
}

// asked is a stream that a request is about.
type asked struct {
	camera *store.Camera
	stream *store.Stream
}

func (a asked) name() string { return a.camera.UUID + "/" + a.stream.Type() }

// streamsAsked finds streams named <uuid>/<type>; all whose recordings the caller
// may see when there are no names. Of others it is as if they were not there.
func (s *server) streamsAsked(r *http.Request, names []string) (list []asked, err error) {
	for _, c := range s.Store.Cameras() {
		if !callerOf(r).May(access.ViewRecorded, c.ID) {
			continue
		}
		for _, st := range c.Streams {
			if a := (asked{c, st}); len(names) == 0 || slices.Contains(names, a.name()) {
				list = append(list, a)
			}
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(list, func(a asked) bool { return a.name() == name }) {
			return nil, &httpError{http.StatusNotFound, fmt.Sprintf("there is no stream %.100q; a name is <uuid of the camera>/<type>", name)}
		}
	}
	slices.SortFunc(list, func(a, b asked) int {
		return cmp.Or(strings.Compare(a.camera.Name, b.camera.Name), strings.Compare(a.stream.Type(), b.stream.Type()))
	})
	return list, nil
}

func (l *laneJSON) rows() int { return len(l.Spans) + len(l.Gaps) }

// addSpan adds what was recorded in [start, end). Spans come by their starts, but
// those in memory behind those of the database, and after a step of the clock
// they overlap.
func (l *laneJSON) addSpan(start, end media.Time, growing bool, resolution media.Duration) {
	n := len(l.Spans)
	for n > 0 && l.Spans[n-1].Start > start {
		n--
	}
	if n > 0 && start.Sub(l.Spans[n-1].End) < resolution {
		n--
	} else {
		l.Spans = slices.Insert(l.Spans, n, laneSpanJSON{Start: start, End: start})
	}
	at := &l.Spans[n]
	at.End, at.Recorded, at.Growing = max(at.End, end), at.Recorded+end.Sub(start), at.Growing || growing
	for n+1 < len(l.Spans) && l.Spans[n+1].Start.Sub(at.End) < resolution {
		next := l.Spans[n+1]
		at.End, at.Recorded, at.Growing = max(at.End, next.End), at.Recorded+next.Recorded, at.Growing || next.Growing
		l.Spans = slices.Delete(l.Spans, n+1, n+2)
		at = &l.Spans[n]
	}
}

// addGap adds a gap; they come in order and do not overlap.
func (l *laneJSON) addGap(start, end media.Time, cause store.Cause, resolution media.Duration) {
	n := len(l.Gaps)
	if n == 0 || start.Sub(l.Gaps[n-1].End) >= resolution {
		l.Gaps = append(l.Gaps, laneGapJSON{Start: start, by: map[store.Cause]media.Duration{}})
		n++
	}
	g := &l.Gaps[n-1]
	g.End, g.Lost = end, g.Lost+end.Sub(start)
	g.by[cause] += end.Sub(start)
	for _, c := range slices.Sorted(maps.Keys(g.by)) {
		if g.by[c] > g.by[g.Cause] {
			g.Cause = c
		}
	}
}
