package store

import (
	"context"
	"slices"
	"time"

	"holdfast/nvr/media"
)

// DirReport is a sample directory, what streams record to it, and how long that
// will be kept.
type DirReport struct {
	DirInfo
	Bytes        int64         // of recordings, in whole file system blocks
	GarbageBytes int64         // of files that are to be unlinked, as far as they are known
	WatermarkAge time.Duration // of the recording stream that is furthest behind; -1: none records
	Streams      []DirStream
	Forecast
}

// DirStream is what one stream has in a directory.
type DirStream struct {
	Camera *Camera
	Stream *Stream
	Bytes  int64
	Forecast
}

// Forecast is what recording takes, and how long it will be kept if it goes on
// like that. Of a directory it is the sum, and the stream kept shortest.
type Forecast struct {
	PerDay int64   // bytes a day, measured over the last day; -1: too little is recorded yet
	Days   float64 // that recordings will be kept; -1: not known, or for ever
}

// measureLeast is how much has to be recorded for a forecast.
const measureLeast = 10 * media.Minute

// maxForecast is a forecast beyond which nothing is said.
const maxForecast = 36500 // days

// DirReports returns a snapshot of the sample directories. What streams take is
// measured from what is listed of the last day.
func (s *Store) DirReports(ctx context.Context) ([]DirReport, error) {
	now := s.wall()
	var out []DirReport
	for _, info := range s.Dirs() {
		out = append(out, DirReport{DirInfo: info, GarbageBytes: info.going, WatermarkAge: -1})
	}
	uses := make([]*diskUse, len(out))
	disks := make(map[uint64]*diskUse)
	for i := range out {
		d := &out[i]
		use := disks[d.disk]
		if use == nil || d.disk == 0 {
			use = &diskUse{known: d.Total > 0, room: d.Free - d.Floor}
			disks[d.disk] = use
		}
		uses[i] = use
		use.room += d.going
		for _, c := range s.Cameras() {
			for _, st := range c.Streams {
				if st.dir == nil || st.dir.id != d.ID {
					continue
				}
				in := st.Info()
				perDay, err := st.perDay(ctx, &in, now)
				if err != nil {
					return nil, err
				}
				d.Bytes += in.FSBytes
				if in.State.Phase == Recording && in.Watermark != 0 {
					d.WatermarkAge = max(d.WatermarkAge, in.DurableAge)
				}
				d.Streams = append(d.Streams, DirStream{c, st, in.FSBytes, Forecast{perDay, -1}})
				use.room += in.FSBytes
				use.streams = append(use.streams, taker{perDay, in.RetainBytes, float64(in.RetainDays)})
			}
		}
	}
	next := make(map[*diskUse]int) // of its streams
	for i := range out {
		d, use := &out[i], uses[i]
		reach := use.reach()
		d.Forecast = Forecast{0, -1}
		for j := range d.Streams {
			f := &d.Streams[j].Forecast
			f.Days = use.streams[next[use]].forecast(reach)
			next[use]++
			if d.PerDay >= 0 {
				d.PerDay += f.PerDay
			}
			if f.PerDay < 0 {
				d.PerDay = -1
			}
			if f.Days >= 0 && (d.Days < 0 || f.Days < d.Days) {
				d.Days = f.Days
			}
		}
	}
	return out, nil
}

// perDay is what a stream takes of its disk in a day.
func (st *Stream) perDay(ctx context.Context, in *StreamInfo, now media.Time) (int64, error) {
	if !in.Record {
		return 0, nil
	}
	from := max(in.Start, now.Add(-day))
	measured := now.Sub(from)
	if in.Recordings == 0 || measured < measureLeast {
		return -1, nil
	}
	var bytes int64
	err := st.Spans(ctx, from, now, func(s *Span) error { bytes += s.FileBytes; return nil })
	return int64(float64(bytes) / float64(measured) * float64(day)), err
}

// taker is a stream as a forecast sees it: what it takes of a disk in a day, and
// its limits, 0 for none.
type taker struct {
	perDay int64 // -1: not known
	bytes  int64
	days   float64
}

// keeps is how many days the stream keeps when the oldest recording on the disk
// is so old.
func (t *taker) keeps(age float64) float64 {
	if t.days > 0 {
		age = min(age, t.days)
	}
	if t.bytes > 0 && t.perDay > 0 {
		age = min(age, float64(t.bytes)/float64(t.perDay))
	}
	return age
}

// forecast is how many days the stream will keep, -1 when that is not known or
// means nothing.
func (t *taker) forecast(reach float64) float64 {
	if reach < 0 || t.perDay <= 0 {
		return -1
	}
	if keeps := t.keeps(reach); keeps < maxForecast {
		return keeps
	}
	return -1
}

// diskUse is a disk as a forecast sees it.
type diskUse struct {
	known   bool
	room    int64 // what recordings may take of it, those that are there included
	streams []taker
}

// reach is how old the oldest recording on the disk will be when it is full:
// what goes for room is the oldest, whichever stream it is of, so streams without
// limits all go back as far. maxForecast when limits keep it from being full, -1
// when it is not known.
func (u *diskUse) reach() float64 {
	takes := func(age float64) (sum float64) {
		for i := range u.streams {
			sum += float64(u.streams[i].perDay) * u.streams[i].keeps(age)
		}
		return sum
	}
	if !u.known || slices.ContainsFunc(u.streams, func(t taker) bool { return t.perDay < 0 }) {
		return -1
	}
	lo, hi := 0.0, float64(maxForecast)
	if takes(hi) <= float64(u.room) {
		return hi
	}
	for range 64 {
		if mid := (lo + hi) / 2; takes(mid) <= float64(u.room) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}
