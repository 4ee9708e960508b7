package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strconv"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

type recordingsJSON struct {
	Recordings   []row                `json:"recordings"`
	VideoEntries map[string]entryJSON `json:"videoSampleEntries"`
}

// row is one line of a listing: adjoining recordings of one run with one
// sample entry (R43).
type row struct {
	StartID          int32      `json:"startId"`
	EndID            *int32     `json:"endId,omitempty"` // inclusive; absent for a single one
	RunStartID       int32      `json:"runStartId"`
	OpenID           int32      `json:"openId"`
	FirstUncommitted *int32     `json:"firstUncommitted,omitempty"`
	Growing          bool       `json:"growing,omitempty"`
	Start            media.Time `json:"startTime90k"`
	End              media.Time `json:"endTime90k"`
	VideoEntryID     int32      `json:"videoSampleEntryId"`
	VideoSamples     int64      `json:"videoSamples"`
	Bytes            int64      `json:"sampleFileBytes"`
	HasTrailingZero  bool       `json:"hasTrailingZero,omitempty"`
	EndReason        string     `json:"endReason,omitempty"`

	last int32 // number of the last recording
}

type entryJSON struct {
	Width        uint16 `json:"width"`
	Height       uint16 `json:"height"`
	PaspH        uint16 `json:"paspHSpacing"`
	PaspV        uint16 `json:"paspVSpacing"`
	AspectWidth  uint32 `json:"aspectWidth"`
	AspectHeight uint32 `json:"aspectHeight"`
}

func (s *server) recordings(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, []string{"startTime90k", "endTime90k", "split90k"})
	if err != nil {
		return err
	}
	from, to, err := s.timeRange(q)
	if err != nil {
		return err
	}
	split := media.Duration(maxTime)
	listed := (*store.Stream).Spans
	if v := q.Get("split90k"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n <= 0 {
			return badRequest("split90k is %q, not a positive number", v)
		}
		split = media.Duration(n)
		listed = recordingsAlone // spans may be longer
	}
	_, st, err := s.streamOf(r)
	if err != nil {
		return err
	}
	out := recordingsJSON{Recordings: []row{}, VideoEntries: map[string]entryJSON{}}
	room := list{share: &s.lists, of: callerOf(r)}
	defer room.end()
	newest := make(map[int32]int) // by run: its newest row
	err = listed(st, r.Context(), from, to, func(s *store.Span) error {
		if i, ok := newest[s.RunNo]; ok && out.Recordings[i].merge(s, split) {
			return nil
		}
		if err := room.grow(len(out.Recordings)); err != nil {
			return err
		}
		newest[s.RunNo] = len(out.Recordings)
		out.Recordings = append(out.Recordings, newRow(s))
		return nil
	})
	if err != nil {
		return err
	}
	s.nameEntries(&out)
	return writeList(w, r, "recordings", out.Recordings, struct {
		VideoEntries map[string]entryJSON `json:"videoSampleEntries"`
	}{out.VideoEntries})
}

// nameEntries adds the sample entries that the rows name.
func (s *server) nameEntries(out *recordingsJSON) {
	for i := range out.Recordings {
		id := out.Recordings[i].VideoEntryID
		if _, ok := out.VideoEntries[strconv.Itoa(int(id))]; ok {
			continue
		}
		if e, ok := s.Store.SampleEntry(id); ok {
			out.VideoEntries[strconv.Itoa(int(id))] = describeEntry(e)
		}
	}
}

// timeRange reads the half open range of times of a query; all time when it
// does not say.
func (s *server) timeRange(q url.Values) (from, to media.Time, err error) {
	from, to = minTime, maxTime
	if v := q.Get("startTime90k"); v != "" {
		if from, err = parseTime(v, s.Store.TimeZone()); err != nil {
			return 0, 0, err
		}
	}
	if v := q.Get("endTime90k"); v != "" {
		if to, err = parseTime(v, s.Store.TimeZone()); err != nil {
			return 0, 0, err
		}
	}
	if from > to {
		return 0, 0, badRequest("startTime90k is later than endTime90k")
	}
	return from, to, nil
}

// recordingsAlone lists each recording as a span of its own.
func recordingsAlone(st *store.Stream, ctx context.Context, from, to media.Time, f func(*store.Span) error) error {
	return st.List(ctx, from, to, func(rec *store.RecordingInfo) error {
		s := store.SpanOf(rec)
		return f(&s)
	})
}

func newRow(s *store.Span) row {
	a := row{StartID: s.FirstNo, RunStartID: s.RunNo, OpenID: s.OpenID, Start: s.Start, VideoEntryID: s.VideoEntryID}
	a.add(s)
	return a
}

// merge adds recordings to the row when they go on where the row ends: the
// same run under the same open, the next number, the same sample entry. The
// row does not become longer than split. Runs may overlap in time, so
// recordings of another may come between; those of one run come in order.
func (a *row) merge(s *store.Span, split media.Duration) bool {
	if s.FirstNo != a.last+1 || s.RunNo != a.RunStartID || s.OpenID != a.OpenID ||
		s.VideoEntryID != a.VideoEntryID || s.End.Sub(a.Start) > split {
		return false
	}
	a.add(s)
	return true
}

func (a *row) add(s *store.Span) {
	first, last := s.FirstNo, s.LastNo
	if last != a.StartID {
		a.EndID = &last
	}
	a.last = last
	a.End = s.End
	a.VideoSamples += s.VideoSamples
	a.Bytes += s.FileBytes
	if s.Uncommitted && a.FirstUncommitted == nil {
		a.FirstUncommitted = &first
	}
	a.Growing, a.HasTrailingZero, a.EndReason = s.Growing, s.TrailingZero, withoutAddress(s.EndReason)
}

func describeEntry(e *media.SampleEntry) entryJSON {
	w, h := aspect(e)
	return entryJSON{
		Width: e.Width, Height: e.Height,
		PaspH: cmp.Or(e.PaspH, 1), PaspV: cmp.Or(e.PaspV, 1),
		AspectWidth: w, AspectHeight: h,
	}
}

// aspect is the shape of the whole picture in smallest numbers.
func aspect(e *media.SampleEntry) (w, h uint32) {
	w = uint32(e.Width) * uint32(cmp.Or(e.PaspH, 1))
	h = uint32(e.Height) * uint32(cmp.Or(e.PaspV, 1))
	a, b := w, h
	for b != 0 {
		a, b = b, a%b
	}
	if a == 0 {
		return 1, 1
	}
	return w / a, h / a
}
