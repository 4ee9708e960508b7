package store

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// ageEvery is how often recordings that are too old, and files that are gone,
// are looked for, beside each flush.
const ageEvery = time.Hour

// flushRetry is the pause after a failed flush (R16).
const flushRetry = time.Minute

// plan is a flush that a settled recording asks for.
type plan struct {
	at time.Time
	st *Stream
	no int32
}

// planner is the heap of planned flushes, earliest first (R14).
type planner struct {
	mu    sync.Mutex // a leaf
	plans planHeap
	wake  chan struct{}
	last  time.Time // when something was committed
	tally flushTally
	err   error // of the last flush, nil when it committed
}

func (p *planner) init() { p.wake = make(chan struct{}, 1) }

// plan asks for a flush at a time, on behalf of a recording.
func (s *Store) plan(st *Stream, no int32, at time.Time) {
	p := &s.plans
	p.mu.Lock()
	heap.Push(&p.plans, plan{at, st, no})
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next returns the earliest plan. Only the flusher takes plans away, so it
// stays until then.
func (p *planner) next() (plan, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.plans) == 0 {
		return plan{}, false
	}
	return p.plans[0], true
}

// drop removes a plan if it is the earliest. One that came before it meanwhile
// stays, and the flusher finds this one done when it comes to it.
func (p *planner) drop(done plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.plans) > 0 && p.plans[0] == done {
		heap.Pop(&p.plans)
	}
}

// holds reports whether a plan of a kind, like roomPlan, has not succeeded yet.
func (p *planner) holds(kind int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.plans, func(pl plan) bool { return pl.no == kind })
}

// flushed is when something was last committed.
func (p *planner) flushed() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *planner) committed(now time.Time, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.err = now, nil
	p.tally.add(took)
}

func (p *planner) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tally.failed++
	p.err = err
}

// failing is why the last flush did not commit, nil when it did.
func (p *planner) failing() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// whyGaps is the reason of a flush for time without recordings, and whyChanged
// of one that lowered limits may ask for.
const (
	whyGaps    = "time without recordings"
	whyChanged = "configuration changed"
)

// serve is the flusher's goroutine: it waits for the earliest plan, looks
// whether another flush has done its work meanwhile (R15), and flushes.
func (s *Store) serve(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	var notBefore time.Time          // after a failure
	aged := time.Now().Add(ageEvery) // when it is next looked for what is too old
	for {
		s.pulse.turnOfFlusher()
		if time.Until(aged) <= 0 {
			// Where nothing is recorded, nobody else flushes.
			aged = time.Now().Add(ageEvery)
			if s.retainsByAge() || s.overdue() || s.collectable() {
				if err := s.flush(ctx, "retention by days, and garbage"); err != nil && ctx.Err() == nil {
					s.log.Error("flush failed; trying again in a minute", "err", err)
					notBefore = time.Now().Add(flushRetry)
					aged = notBefore
				}
			}
		}
		p, ok := s.plans.next()
		wait := time.Until(aged)
		if ok && p.no == gapPlan && time.Until(p.at) <= 0 && !p.st.gapsDue(s.plans.flushed()) {
			s.plans.drop(p)
			continue
		}
		if ok {
			if p.no >= 0 && p.st.committed(p.no) {
				s.plans.drop(p)
				continue
			}
			planned := max(time.Until(p.at), time.Until(notBefore))
			if ok = planned <= 0; !ok {
				wait = min(wait, planned)
			}
		}
		if ok {
			why := whyGaps
			switch {
			case p.no == roomPlan:
				why = "a disk is short of room"
			case p.no == confPlan:
				why = whyChanged
			case p.no == morePlan:
				why = "more is to be deleted"
			case p.no == earlierPlan:
				why = "files of before the start"
			case p.no >= 0:
				why = fmt.Sprintf("%d sec after start of %s%s-%s recording %d/%d",
					p.st.settings().FlushIfSec, p.st.length(p.no), p.st.name, p.st.typ, p.st.id, p.no)
			}
			err := s.flush(ctx, why)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				s.log.Error("flush failed; trying again in a minute", "err", err)
				notBefore = time.Now().Add(flushRetry)
			default:
				// A recording that is still not committed waits for one before
				// it, whose own plan is to come.
				s.plans.drop(p)
				if p.no == gapPlan {
					p.st.gapsFlushed()
				}
			}
			continue
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.plans.wake:
		}
	}
}

// committed reports whether a recording needs no flush any more.
func (st *Stream) committed(no int32) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.removed || no < st.committedNo
}

// share is what one flush does for one stream.
type share struct {
	st       *Stream
	recs     []*recording // settled, the oldest ones, in the order of their numbers
	add      []db.NewRecording
	bad      []db.Garbage // files that get no row
	del      []db.Garbage // recordings that become garbage
	delBytes []int64      // what each of them takes, whole blocks
	delSum   sums
	leftOut  error // why nothing of it is deleted; nil: what has to go goes
	addSum   sums
	onDisk   int64 // of its blocks, those that were there at the start
	waits    int64 // blocks of what has no row before the earlier files are adopted, and of these
	nextNo   int32
	cumMedia media.Duration
	cumRuns  int32

	gaps      []db.Gap
	account   account
	gapsAlone bool // all of them go on: no reason for a commit of their own
}

// sums add up what recordings take.
type sums struct {
	n              int32
	bytes, fsBytes int64
	duration       media.Duration
}

func (a *sums) add(r *db.Recording) {
	a.n++
	a.bytes += r.FileBytes
	a.fsBytes += r.FSBytes
	a.duration += r.WallDuration
}

// flush is the one transaction: settled recordings of all streams get their
// rows, what is beyond retention becomes garbage, and the garbage rows go
// whose files are gone. When it fails, nothing has changed and everything is
// still there for the next.
func (s *Store) flush(ctx context.Context, why string) error {
	defer s.pulse.beginFlush()()
	s.flushing.Lock()
	defer s.flushing.Unlock()
	return s.flushLocked(ctx, why)
}

func (s *Store) flushLocked(ctx context.Context, why string) (err error) {
	if s.poisoned.Load() {
		return ErrPoisoned
	}
	began := time.Now()
	defer func() { s.roomTried(err) }()
	batch := &db.Batch{
		OpenID: s.open.ID, Time: s.wall(), OpenDuration: media.DurationOf(time.Since(s.opened)),
	}
	var all []*share
	for _, st := range s.allStreams() {
		all = append(all, collectShare(st))
	}
	// After the recordings: each finds its entry.
	entries, saved := s.entries.unsaved()
	batch.Entries = entries
	for _, sh := range all {
		s.check(sh, entries)
		if err := s.retain(ctx, sh); err != nil {
			sh.leaveOut(err)
		}
	}
	n := 0
	for _, sh := range all {
		n += len(sh.del)
	}
	drops := s.dropGoing(ctx, n)
	s.makeRoom(ctx, all, drops)
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, sh := range all {
		s.explain(sh)
	}
	gone := make(map[*directory]int)
	for _, d := range s.dirs {
		d.mu.Lock()
		for _, id := range d.gone {
			batch.Collected = append(batch.Collected, db.Garbage{DirID: d.id, ID: id})
		}
		gone[d] = len(d.gone)
		d.mu.Unlock()
	}
	var shares []*share
	for again := true; again; {
		var work bool
		shares, work = fill(batch, all, drops)
		if !work && len(batch.Collected) == 0 && why != whyGaps && why != "stop" {
			s.tellLeftOut(all)
			s.tellKept(drops)
			return nil
		}
		err := s.db.Flush(ctx, batch)
		if again = leaveOutOf(all, drops, err); err != nil && !again {
			s.plans.failed(err)
			return s.verdict(err)
		}
	}
	if len(batch.Delete) >= s.cfg.mostDeletions || slices.ContainsFunc(drops, (*drop).goesOn) {
		defer s.plan(nil, morePlan, time.Now()) // there may be more
	}
	saved()
	s.ballast.keep()
	s.flushes++
	s.plans.committed(time.Now(), time.Since(began))
	for d, n := range gone {
		d.collected(n)
	}
	for _, sh := range shares {
		s.applied(ctx, sh)
	}
	s.dropped(drops)
	s.tellLeftOut(all)
	s.tellKept(drops)
	if !s.kept.Load() && !slices.ContainsFunc(all, func(sh *share) bool { return sh.leftOut != nil }) {
		s.damage.whole()
	}
	s.tellFlushed(why, batch, all, drops, time.Since(began))
	return nil
}

// fill puts the shares of streams into a batch, in the place of what an earlier try
// has put there. It returns those that have anything, and whether that is worth a
// commit.
func fill(batch *db.Batch, all []*share, drops []*drop) (shares []*share, work bool) {
	batch.Streams, batch.Add, batch.Gaps, batch.Delete, batch.Gone, batch.Discard = nil, nil, nil, nil, nil, nil
	for _, d := range drops {
		for _, g := range d.del {
			batch.Delete = append(batch.Delete, g.ID)
		}
		if d.gone {
			batch.Gone = append(batch.Gone, d.g.id)
		}
		work = work || d.gone || len(d.del) > 0
	}
	for _, sh := range all {
		if len(sh.recs) == 0 && len(sh.del) == 0 && len(sh.gaps) == 0 {
			continue
		}
		shares = append(shares, sh)
		work = work || len(sh.recs) > 0 || len(sh.del) > 0 || !sh.gapsAlone
		batch.Gaps = append(batch.Gaps, sh.gaps...)
		batch.Add = append(batch.Add, sh.add...)
		batch.Discard = append(batch.Discard, sh.bad...)
		for _, g := range sh.del {
			batch.Delete = append(batch.Delete, g.ID)
		}
		batch.Streams = append(batch.Streams, db.StreamUpdate{
			ID: sh.st.id, NextNo: sh.nextNo, CumMedia: sh.cumMedia, CumRuns: sh.cumRuns,
		})
	}
	return shares, work
}

// leaveOut keeps what a flush was to delete of a stream, whose rows the database
// does not read or does not delete: the rest is committed, and the next flush
// tries again.
func (sh *share) leaveOut(err error) {
	sh.del, sh.delBytes, sh.delSum, sh.leftOut = nil, nil, sums{}, err
}

// leaveOutOf leaves the deletions of a stream out when they are why the database
// refuses the batch, and reports that.
func leaveOutOf(all []*share, drops []*drop, err error) bool {
	bad, ok := errors.AsType[*db.RecordingError](err)
	if !ok || bad.Op != "delete" || db.Poisoned(err) || db.Full(err) {
		return false
	}
	id, _ := db.SplitID(bad.ID)
	for _, d := range drops {
		if d.g.id == id && d.leftOut == nil {
			d.leaveOut(err)
			d.g.dir.cannotDelete()
			return true
		}
	}
	for _, sh := range all {
		if sh.st.id == id && len(sh.del) > 0 {
			sh.leaveOut(err)
			sh.st.dir.cannotDelete()
			return true
		}
	}
	return false
}

// cannotDelete notes that this flush makes no room in the directory: rows that
// were to go stay.
func (d *directory) cannotDelete() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.barren = unreadable
}

// tellLeftOut notes of which streams a flush has left something out, in the log
// when that begins, changes and ends, and tells damage.
func (s *Store) tellLeftOut(all []*share) {
	for _, sh := range all {
		st, why := sh.st, ""
		if sh.leftOut != nil {
			why = sh.leftOut.Error()
			s.readVerdict(sh.leftOut)
		}
		st.mu.Lock()
		was := st.overdue
		st.overdue = why
		st.mu.Unlock()
		switch {
		case why == was:
		case why != "":
			s.log.Error("recordings that should go stay", "camera", st.name, "stream", st.typ, "err", sh.leftOut)
		default:
			s.log.Info("recordings that should go are deleted again", "camera", st.name, "stream", st.typ)
		}
	}
}

// overdue reports whether the last flush had to leave something out.
func (s *Store) overdue() bool {
	return s.kept.Load() || slices.ContainsFunc(s.allStreams(), func(st *Stream) bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.overdue != ""
	})
}

// collectShare gathers the settled recordings of a stream, in order, up to the
// first that is not settled (R20).
func collectShare(st *Stream) *share {
	st.mu.Lock()
	defer st.mu.Unlock()
	sh := &share{st: st}
	if st.removed {
		return sh
	}
	recs := st.recent
	if e := st.earlier; e != nil {
		recs, sh.waits = e.ready(st)
	}
	for _, rec := range recs {
		if !rec.settled {
			break
		}
		sh.recs = append(sh.recs, rec)
		sh.nextNo = rec.no + 1
		sh.cumMedia = rec.prevMedia + rec.mediaDuration()
		sh.cumRuns = rec.prevRuns
		if rec.runOffset == 0 && !rec.moved {
			sh.cumRuns++
		}
		if len(rec.taken) == 0 {
			if rec.created {
				sh.bad = append(sh.bad, db.Garbage{DirID: st.dir.id, ID: rec.id()})
			}
			continue
		}
		sh.add = append(sh.add, rec.row())
	}
	if len(sh.recs) == 0 {
		sh.nextNo, sh.cumMedia, sh.cumRuns = st.cfg.NextNo, st.cfg.CumMedia, st.cfg.CumRuns
	}
	return sh
}

// check sets aside what the schema would refuse, which would take all other
// recordings with it (R6), and adds up the rest.
func (s *Store) check(sh *share, entries []db.SampleEntry) {
	sh.add = slices.DeleteFunc(sh.add, func(row db.NewRecording) bool {
		err := s.db.Check(&row, entries...)
		if err == nil {
			sh.addSum.add(&row.Recording)
			if row.Flags&db.Recovered != 0 {
				sh.onDisk += row.FSBytes
			}
			return false
		}
		rec := sh.recs[slices.IndexFunc(sh.recs, func(rec *recording) bool { return rec.id() == row.ID })]
		if !rec.unfit { // the flush is tried again each minute when it fails
			s.log.Error("recording set aside: it does not fit the schema", "camera", sh.st.name, "stream", sh.st.typ, "err", err)
			rec.unfit = true
		}
		sh.bad = append(sh.bad, db.Garbage{DirID: row.DirID, ID: row.ID})
		return true
	})
}

// row is what the database gets of a settled recording.
func (rec *recording) row() db.NewRecording {
	st := rec.st
	p := rec.playback()
	wall := rec.wallDuration()
	r := db.NewRecording{
		Recording: db.Recording{
			ID: rec.id(), OpenID: rec.open.ID, DirID: st.dir.id, RunOffset: rec.runOffset,
			FileBytes: rec.size, FSBytes: st.blocks(rec.size), Start: rec.start,
			PrevMedia: rec.prevMedia, PrevRuns: rec.prevRuns,
			WallDuration: wall, MediaDelta: rec.mediaDuration() - wall,
			VideoSamples: int32(rec.video.Samples), KeySamples: int32(rec.video.Keys), VideoBytes: rec.video.Bytes,
			AudioSamples: int32(rec.audio.Samples), AudioBytes: rec.audio.Bytes,
			Fragments:  int32(len(rec.taken)),
			VideoEntry: rec.videoID, AudioEntry: rec.audioID, EndReason: rec.endReason,
		},
		Playback: db.Playback{Video: p.Video, Offsets: p.Offsets, Audio: p.Audio, Fragments: p.Fragments},
		Integrity: db.Integrity{
			MonotonicSinceOpen: rec.sinceOpen,
		},
	}
	if rec.trailingZero {
		r.Flags |= db.TrailingZero
	}
	if p.Offsets != nil {
		r.Flags |= db.HasOffsets
	}
	if rec.recovered {
		r.Flags |= db.Recovered
		return r
	}
	if rec.follows && rec.runOffset > 0 {
		delta := rec.localStart.Sub(rec.start)
		r.LocalTimeDelta = &delta
	}
	return r
}

// retain chooses what has to go so that the stream keeps within its bytes and
// its days: its oldest recordings, each once (R25 to R29). What this flush adds
// counts.
func (s *Store) retain(ctx context.Context, sh *share) error {
	st := sh.st
	st.mu.Lock()
	over := st.fsBytes + sh.addSum.fsBytes + sh.waits - st.cfg.RetainBytes
	upTo := st.committedNo
	removed := st.removed
	if st.cfg.RetainBytes == 0 {
		over = 0 // it shares what the disk has (makeRoom)
	}
	days := media.Duration(st.cfg.RetainDays) * day
	st.mu.Unlock()
	if over <= 0 && days == 0 || removed {
		return nil
	}
	now, running := s.wall(), media.DurationOf(time.Since(s.opened))
	return s.db.RecordingsByNo(ctx, st.id, 0, upTo, func(r *db.Recording) error {
		tooOld := days > 0 && s.ages.Load().least(r, s.open.ID, now, running) > days
		if over <= 0 && !tooOld || len(sh.del) >= s.cfg.mostDeletions {
			return db.ErrStop
		}
		sh.del = append(sh.del, db.Garbage{DirID: r.DirID, ID: r.ID})
		sh.delBytes = append(sh.delBytes, r.FSBytes)
		sh.delSum.add(r)
		over -= r.FSBytes
		return nil
	})
}

// applied brings the memory in line with the transaction.
func (s *Store) applied(ctx context.Context, sh *share) {
	st := sh.st
	first, last, _, err := s.db.Range(ctx, st.id)
	if err != nil {
		// The transaction has happened; only the times shown are old.
		s.log.Warn("read range of stream", "camera", st.name, "stream", st.typ, "err", err)
		s.readVerdict(err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.recent = st.recent[len(sh.recs):]
	st.crowded = nil
	st.recordings += sh.addSum.n - sh.delSum.n
	st.bytes += sh.addSum.bytes - sh.delSum.bytes
	st.fsBytes += sh.addSum.fsBytes - sh.delSum.fsBytes
	st.duration += sh.addSum.duration - sh.delSum.duration
	if err == nil {
		st.first, st.last = first, last
	}
	st.accounted(&sh.account)
	st.committedNo = sh.nextNo
	st.createdNo = max(st.createdNo, st.committedNo-1)
	st.cfg.NextNo, st.cfg.CumMedia, st.cfg.CumRuns = sh.nextNo, sh.cumMedia, sh.cumRuns
	s.discard(sh.bad)
	st.tellCommitted(sh)
	for i, g := range sh.del {
		if d := s.directory(g.DirID); d != nil {
			d.expect(g.ID, sh.delBytes[i])
		}
	}
}

// discard hands files whose garbage rows are committed to their directories.
func (s *Store) discard(garbage []db.Garbage) {
	for _, g := range garbage {
		if d := s.directory(g.DirID); d != nil {
			d.discard(g.ID)
		}
	}
}

// idString names a recording: stream/number.
func idString(id int64) string {
	st, no := db.SplitID(id)
	return fmt.Sprintf("%d/%d", st, no)
}

type planHeap []plan

func (h planHeap) Len() int           { return len(h) }
func (h planHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h planHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *planHeap) Push(x any)        { *h = append(*h, x.(plan)) }
func (h *planHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}
