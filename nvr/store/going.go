package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"holdfast/nvr/db"
)

// A deleted camera is out of sight at once. Its recordings go the way of those
// that are beyond retention: some with each flush, so that no transaction takes
// long, whatever it had (storage.md, Deleted cameras).

// going is a deleted stream that has rows still. Store.flushing guards it.
type going struct {
	id      int32
	dir     *directory
	left    sums   // its recordings
	overdue string // why the last flush left them; empty: it did not
}

// drop is what one flush does for a deleted stream.
type drop struct {
	g       *going
	del     []db.Garbage // its oldest recordings
	size    []int64      // what each of them takes, whole blocks
	sum     sums
	gone    bool  // nothing is left behind them
	leftOut error // why nothing of it is deleted
}

// leaveOut keeps all of a deleted stream, for the next flush.
func (d *drop) leaveOut(err error) {
	d.del, d.size, d.sum, d.gone, d.leftOut = nil, nil, sums{}, false, err
}

// takeGoing notes the deleted streams of the database. The caller holds flushing,
// or is alone.
func (s *Store) takeGoing(rows []db.Stream) {
	was := s.going
	s.going = nil
	for _, row := range rows {
		if i := slices.IndexFunc(was, func(g *going) bool { return g.id == row.ID }); i >= 0 {
			s.going = append(s.going, was[i])
			continue
		}
		s.going = append(s.going, &going{id: row.ID, dir: s.directory(row.DirID),
			left: sums{n: row.Recordings, bytes: row.Bytes, fsBytes: row.FSBytes, duration: row.Duration}})
	}
}

// goesOn reports whether the next flush has something to do for the stream.
func (d *drop) goesOn() bool { return !d.gone && d.leftOut == nil }

// dropGoing chooses the oldest recordings of deleted streams, as many as a flush
// may delete beside n others, and always some: what the others want to delete again
// and again, and the database does not take, holds nobody up. No more does what
// stayed the last time, which comes last.
func (s *Store) dropGoing(ctx context.Context, n int) (drops []*drop) {
	n = min(n, s.cfg.mostDeletions*3/4)
	slices.SortStableFunc(s.going, func(a, b *going) int { return cmp.Compare(min(len(a.overdue), 1), min(len(b.overdue), 1)) })
	for _, g := range s.going {
		d := &drop{g: g, gone: true}
		err := s.db.RecordingsByNo(ctx, g.id, 0, math.MaxInt32, func(r *db.Recording) error {
			if n >= s.cfg.mostDeletions {
				d.gone = false
				return db.ErrStop
			}
			n++
			d.del = append(d.del, db.Garbage{DirID: r.DirID, ID: r.ID})
			d.size = append(d.size, r.FSBytes)
			d.sum.add(r)
			return nil
		})
		if err != nil {
			n -= len(d.del)
			d.leaveOut(err)
		}
		drops = append(drops, d)
	}
	return drops
}

// freed is what deleted streams free of directories: with this flush, and with those
// that follow it at once. One that waits for its turn, or stayed the last time, frees
// nothing: others must not wait for it.
func freed(drops []*drop, dirs []*directory) (bytes int64) {
	for _, d := range drops {
		if len(d.del) > 0 && d.g.overdue == "" && slices.Contains(dirs, d.g.dir) {
			bytes += d.g.left.fsBytes
		}
	}
	return bytes
}

// dropped brings the memory in line with the transaction.
func (s *Store) dropped(drops []*drop) {
	for _, d := range drops {
		d.g.left.n -= d.sum.n
		d.g.left.bytes -= d.sum.bytes
		d.g.left.fsBytes -= d.sum.fsBytes
		d.g.left.duration -= d.sum.duration
		for i, g := range d.del {
			if dir := s.directory(g.DirID); dir != nil {
				dir.expect(g.ID, d.size[i])
			}
		}
		if d.gone {
			s.going = slices.DeleteFunc(s.going, func(g *going) bool { return g == d.g })
			s.log.Info("deleted stream is gone", "stream", d.g.id)
		}
	}
}

// tellKept is tellLeftOut of deleted streams.
func (s *Store) tellKept(drops []*drop) {
	s.kept.Store(slices.ContainsFunc(drops, func(d *drop) bool { return d.leftOut != nil }))
	for _, d := range drops {
		why := ""
		if d.leftOut != nil {
			why = d.leftOut.Error()
			s.readVerdict(d.leftOut)
		}
		was := d.g.overdue
		d.g.overdue = why
		switch {
		case why == was:
		case why != "":
			s.log.Error("recordings of a deleted stream stay", "stream", d.g.id, "err", d.leftOut)
		default:
			s.log.Info("recordings of a deleted stream go again", "stream", d.g.id)
		}
	}
}

// goingIn says how much of deleted streams is in a directory, "" when nothing is.
// The caller holds flushing.
func (s *Store) goingIn(d *directory) string {
	n := int32(0)
	streams, why := 0, ""
	for _, g := range s.going {
		if g.dir == d {
			n += g.left.n
			streams++
			why = cmp.Or(why, g.overdue)
		}
	}
	if streams == 0 {
		return ""
	}
	if why != "" {
		return fmt.Sprintf("%d recordings of deleted cameras cannot be deleted: %s; nvr check says more", n, why)
	}
	return fmt.Sprintf("%d recordings of deleted cameras are still to go: try again in a minute", n)
}
