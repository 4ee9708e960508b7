package store

import (
	"context"
	"maps"
	"slices"
	"sort"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// Span stands for recordings of one run with consecutive numbers, under one
// open and with one sample entry: one or more of them.
type Span struct {
	FirstNo, LastNo int32
	RunNo           int32 // number of the first recording of the run
	OpenID          int32
	Start, End      media.Time
	VideoEntryID    int32
	VideoSamples    int64
	FileBytes       int64
	TrailingZero    bool   // of the last recording
	EndReason       string // of the last recording
	Growing         bool   // the last recording grows
	Uncommitted     bool   // all of it
}

// SpanOf is the span of one recording.
func SpanOf(r *RecordingInfo) Span {
	return Span{
		FirstNo: r.No, LastNo: r.No, RunNo: r.No - r.RunOffset, OpenID: r.OpenID,
		Start: r.Start, End: r.End(), VideoEntryID: r.VideoEntryID,
		VideoSamples: int64(r.VideoSamples), FileBytes: r.FileBytes,
		TrailingZero: r.TrailingZero, EndReason: r.EndReason, Growing: r.Growing, Uncommitted: r.Uncommitted,
	}
}

// Spans calls f with spans that have all recordings of the stream with a part in
// [from, to), and no others: those of the database by their start, then one for
// each recording in memory. It takes as long as there are spans, a few a day,
// not as there are recordings. f must not keep its argument.
func (st *Stream) Spans(ctx context.Context, from, to media.Time, f func(*Span) error) error {
	done, err := st.store.ask(ctx)
	if err != nil {
		return err
	}
	defer done()
	recent, first := st.snapshot() // before the database, as in List
	err = st.store.db.Spans(ctx, st.id, from, to, first, func(s *db.Span) error {
		return f(&Span{
			FirstNo: s.FirstNo, LastNo: s.LastNo, RunNo: s.RunNo, OpenID: s.OpenID,
			Start: s.Start, End: s.End, VideoEntryID: s.VideoEntry,
			VideoSamples: s.VideoSamples, FileBytes: s.FileBytes, TrailingZero: s.TrailingZero, EndReason: s.EndReason,
		})
	})
	if err != nil {
		return err
	}
	for _, in := range recent {
		if in.Start < to && (in.End() > from || in.Start >= from) {
			s := SpanOf(in)
			if err := f(&s); err != nil {
				return err
			}
		}
	}
	return nil
}

// Day is what a stream has of one day of the store's time zone.
type Day struct {
	Date       string         // 2006-01-02
	Start, End media.Time     // of the day: 23 to 25 hours, mostly
	Recorded   media.Duration // recordings that overlap count twice
}

// Days returns the days of which the stream has something, in order. A span has
// no hole, so its days can be counted without looking into it.
func (st *Stream) Days(ctx context.Context) ([]Day, error) {
	days := make(map[media.Time]*Day)
	var day *Day
	err := st.Spans(ctx, 0, 1<<62, func(s *Span) error {
		for at := s.Start; at < s.End; at = day.End {
			if day == nil || at < day.Start || at >= day.End {
				d := dayOf(at, st.store.cfg.TimeZone)
				if day = days[d.Start]; day == nil {
					day = &d
					days[d.Start] = day
				}
			}
			day.Recorded += min(s.End, day.End).Sub(at)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []Day
	for _, start := range slices.Sorted(maps.Keys(days)) {
		all = append(all, *days[start])
	}
	return all, nil
}

// dayOf is the day of a zone that an instant is in.
func dayOf(at media.Time, zone *time.Location) Day {
	y, m, d := at.Std().In(zone).Date()
	day := Day{Start: midnight(y, m, d, zone), End: midnight(y, m, d+1, zone)}
	for ; at < day.Start; d-- { // clocks were set back over midnight
		day.Start, day.End = midnight(y, m, d-1, zone), day.Start
	}
	for ; at >= day.End; d++ {
		day.Start, day.End = day.End, midnight(y, m, d+2, zone)
	}
	day.Date = time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	return day
}

// midnight is when a date begins in a zone: the first instant of it, or of a
// later one where there is no such date. Where clocks change at midnight there
// may be no 0:00, or two; package time then says one of another date.
func midnight(y int, m time.Month, d int, zone *time.Location) media.Time {
	date := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	begun := func(t time.Time) bool {
		y, m, d := t.Date()
		return !time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Before(date)
	}
	if t := time.Date(y, m, d, 0, 0, 0, 0, zone); begun(t) && !begun(t.Add(-time.Second)) {
		return media.TimeOf(t)
	}
	const away = 36 * 60 * 60 // seconds: no zone is so far from UTC
	n := sort.Search(2*away, func(n int) bool {
		return begun(date.Add(time.Duration(n-away) * time.Second).In(zone))
	})
	return media.TimeOf(date.Add(time.Duration(n-away) * time.Second))
}
