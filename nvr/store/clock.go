package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// clockEvery is how often it is looked whether the wall clock was set.
const clockEvery = time.Second

// clockStep is by how much wall and monotonic clock have to differ before their
// difference is a step. A leap second is none, however it was read.
const clockStep = media.Second + media.Second/10

// mostBefore is how many opens of a boot are moved together, the newest. Each file
// names them (mp4.OpenStart), and takes no more than 64 KiB of such.
const mostBefore = 256

// reasonClock ends a run, and begins the next at the same picture.
const reasonClock = "clock was set"

// wallClock is the wall clock as far as the store has taken note of it. One that is
// not good goes on as before between a step and that note, so that nothing is
// moved that was timed by the clock that is right.
type wallClock struct {
	// base is the wall clock less the monotonic time since the open, when it was
	// last looked. It follows what is less than a step. All streams' locks are
	// held when a step is written to it.
	base atomic.Int64

	steps atomic.Int32 // how often it was set
	good  atomic.Bool  // it is known to be right

	notBefore media.Time // no clock that is right shows an earlier time

	// before are opens of this boot that went by the same clock while it showed no
	// possible time, oldest first. They are guarded as Store.open is.
	before []db.OpenRow
}

// first is the first open that went by the clock of this one.
func (c *wallClock) first(this *db.OpenRow) *db.OpenRow {
	if len(c.before) > 0 {
		return &c.before[0]
	}
	return this
}

// moved returns opens with their times moved.
func moved(opens []db.OpenRow, by media.Duration) []db.OpenRow {
	opens = slices.Clone(opens)
	for i := range opens {
		opens[i].Start, opens[i].End = opens[i].Start.Add(by), opens[i].End.Add(by)
	}
	return opens
}

// wall is the time now.
func (s *Store) wall() media.Time {
	mono := media.DurationOf(time.Since(s.opened))
	base := media.TimeOf(s.now()).Add(-mono)
	if known := media.Time(s.clock.base.Load()); !s.clock.good.Load() && stepped(base.Sub(known)) {
		base = known
	}
	return base.Add(mono)
}

func stepped(by media.Duration) bool { return by > clockStep || by < -clockStep }

// ClockGood reports whether the wall clock is known to be right: it was set since
// the store was opened, or showed at that time no earlier than it can have been.
func (s *Store) ClockGood() bool { return s.clock.good.Load() }

// initClock judges the clock at the beginning of the open. It is behind when it
// is before the last flush of the open before, by more than it may be followed;
// one that was itself at no possible time says nothing.
func (s *Store) initClock(now, base media.Time) {
	c := &s.clock
	c.notBefore = media.TimeOf(s.cfg.ClockNotBefore)
	c.base.Store(int64(base))
	least, last := c.notBefore, int32(0)
	for id, o := range s.ages.Load().opens {
		if o.End >= c.notBefore && id > last {
			least, last = max(c.notBefore, o.End.Add(-clockStep)), id
		}
	}
	c.good.Store(now >= least)
	if c.good.Load() {
		return
	}
	s.log.Warn("clock is not set: it is behind", "now", now, "least", least)
	// An end of the recorder does not make it another clock.
	next := s.open
	for next.BootID != "" && next.Start < c.notBefore && len(c.before) < mostBefore {
		o, ok := s.ages.Load().opens[next.ID-1]
		if !ok || o.BootID != next.BootID || next.Start < o.End.Add(-clockStep) {
			break
		}
		next = o.OpenRow
		c.before = slices.Insert(c.before, 0, next)
	}
}

// resumeClock says from when on a stream has what went by this open's clock,
// where that is more than this open.
func (s *Store) resumeClock(st *Stream) {
	b := s.clock.before
	if len(b) == 0 || st.until > b[len(b)-1].End.Add(clockStep) {
		return // all of it stands where it was accounted for already
	}
	st.floor = b[0].Start
	for id, o := range s.ages.Load().opens {
		if id < b[0].ID && o.End < s.clock.notBefore {
			st.floor = max(st.floor, min(o.End, st.until))
		}
	}
	st.began = st.floor
	if st.here = st.cfg.OwedFrom >= st.floor; st.here {
		st.began = st.cfg.OwedFrom
	}
}

// watchClock is the goroutine that takes note of steps.
func (s *Store) watchClock(ctx context.Context) {
	t := time.NewTicker(clockEvery)
	defer t.Stop()
	said := "" // each failure once
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := s.lookAtClock(ctx)
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			s.log.Error("clock was set; trying again every second to move what was recorded before", "err", err)
		}
	}
}

// readClock returns the wall clock less the monotonic time since the open, and
// that time; ok is false when they were not read together.
func (s *Store) readClock() (base media.Time, mono media.Duration, ok bool) {
	before := time.Now()
	wall := media.TimeOf(s.now())
	mono = media.DurationOf(before.Sub(s.opened))
	return wall.Add(-mono), mono, time.Since(before) <= clockEvery/10
}

// lookAtClock takes note of a step. The first one of a clock that was not known
// to be good says where all of this open belongs, and of those that went by the
// same clock, and moves it there (time.md rule 15); any other moves nothing (rule
// 16). Either splits the runs.
func (s *Store) lookAtClock(ctx context.Context) error {
	c := &s.clock
	base, _, ok := s.readClock()
	if !ok {
		return nil
	}
	if !stepped(base.Sub(media.Time(c.base.Load()))) {
		c.base.Store(int64(base))
		return nil
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	// A flush may have held it up: what was recorded meanwhile is moved, too.
	base, mono, ok := s.readClock()
	by := base.Sub(media.Time(c.base.Load()))
	if !ok || !stepped(by) || s.poisoned.Load() {
		return nil
	}
	// What was recorded under a clock that is still wrong follows it, too. A
	// recording may have begun before the open, and nothing before 1970.
	start := s.open.Start.Add(by)
	first := !c.good.Load() && (by > 0 || c.first(&s.open).Start.Add(by) > media.Time(media.MaxRecording))
	streams := s.allStreams()
	var moves []db.StreamMove
	past := s.ages.Load()
	if first {
		var err error
		opens := append(moved(c.before, by), db.OpenRow{ID: s.open.ID, Start: start, End: base.Add(mono), Duration: mono})
		if past, err = s.readAges(ctx, opens); err == nil {
			moves, err = s.move(ctx, streams, by, opens)
		}
		if err != nil {
			return s.verdict(err)
		}
	}
	// All at once, so that nobody reads one clock and is moved by the other.
	for _, st := range streams {
		st.mu.Lock()
	}
	c.base.Store(int64(base))
	c.steps.Add(1)
	if first {
		s.ages.Store(past)
		s.open.Start, c.before = start, moved(c.before, by)
		for i, st := range streams {
			st.moved(by, &moves[i])
		}
		c.good.Store(base.Add(mono) >= c.notBefore)
	}
	for _, st := range streams {
		st.mu.Unlock()
	}
	defer s.notices.tell(Notice{Change: ClockChanged})
	if !first {
		s.log.Warn("clock was set again; runs are split, nothing is moved", "by", by)
		return nil
	}
	s.log.Warn("clock was set; what was recorded since the start was moved", "by", by, "now", base.Add(mono))
	for _, st := range streams {
		begin, end, _, err := s.db.Range(ctx, st.id)
		if err != nil {
			// The transaction has happened; only the times shown are old.
			s.log.Warn("read range of stream", "camera", st.name, "stream", st.typ, "err", err)
			s.readVerdict(err)
			continue
		}
		st.mu.Lock()
		st.first, st.last = begin, end
		st.mu.Unlock()
	}
	return nil
}

// move is the transaction of a clock that was set. The caller holds flushing, so
// that what is committed stays the same.
func (s *Store) move(ctx context.Context, streams []*Stream, by media.Duration, opens []db.OpenRow) ([]db.StreamMove, error) {
	m := &db.Move{Opens: opens, Streams: make([]db.StreamMove, len(streams))}
	for i, st := range streams {
		var err error
		if m.Streams[i], err = s.moveOf(ctx, st, by); err != nil {
			return nil, err
		}
	}
	return m.Streams, s.db.Move(ctx, m)
}

// part is what a moved stream has at its new place: recordings, or a gap.
type part struct {
	start, end media.Time
	gap        *db.Gap
}

// moveOf says what becomes of the committed recordings and gaps of a stream.
func (s *Store) moveOf(ctx context.Context, st *Stream, by media.Duration) (db.StreamMove, error) {
	st.mu.Lock()
	l := st.ledger
	l.unset = slices.Clone(l.unset)
	first := s.clock.first(&s.open)
	m := db.StreamMove{ID: st.id, First: st.committedNo, Next: st.committedNo, By: by}
	if l.here && st.cfg.OwedFrom >= first.Start.Add(-clockStep) {
		m.OwedFrom = st.cfg.OwedFrom.Add(by)
	}
	st.mu.Unlock()

	// The first recording may have begun before the open, in what the camera had
	// kept.
	var parts []part
	err := s.db.Spans(ctx, st.id, max(1, first.Start.Add(-media.MaxRecording)), math.MaxInt64, m.Next, func(sp *db.Span) error {
		if sp.OpenID >= first.ID {
			m.First = min(m.First, sp.FirstNo)
			parts = append(parts, part{sp.Start.Add(by), sp.End.Add(by), nil})
		}
		return nil
	})
	if err != nil || l.floor == 0 {
		return m, err // nothing was ever accounted for
	}
	least := max(l.floor, first.Start)
	err = s.db.Gaps(ctx, st.id, least, math.MaxInt64, func(g *db.Gap) error {
		moved := *g
		moved.Start, moved.End = max(g.Start, least).Add(by), g.End.Add(by)
		parts = append(parts, part{moved.Start, moved.End, &moved})
		return nil
	})
	if err != nil {
		return m, err
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.start, b.start) })

	// What they leave over, from where the open before ended.
	from, at := l.began, l.floor
	m.GapsFrom = l.floor
	if l.here {
		from, at = from.Add(by), 1
		m.GapsFrom = max(1, min(l.floor, l.floor.Add(by)))
	}
	if l.seenOK {
		end := max(from, l.seen.Add(by))
		parts = append(parts, part{end, end, nil})
	}
	for _, p := range parts {
		m.Gaps = append(m.Gaps, s.leftOver(st.id, max(at, from), p.start, by, &l)...)
		if g := p.gap; g != nil {
			if g.Start = max(g.Start, at); g.Start < g.End {
				m.Gaps = append(m.Gaps, *g)
			}
		}
		at = max(at, p.end)
	}
	for i := range m.Gaps {
		if err := s.db.CheckGap(&m.Gaps[i]); err != nil {
			return m, fmt.Errorf("gap of %s %s: %w", st.name, st.typ, err)
		}
	}
	return m, nil
}

// leftOver are the gaps of time that has no part. Where the clock showed what was
// accounted for already, none were written down: up to the open the recorder was
// down, and behind that the notes of it say why.
func (s *Store) leftOver(streamID int32, from, to media.Time, by media.Duration, l *ledger) (gaps []db.Gap) {
	hole := func(to media.Time, n note) {
		if from < to {
			gaps = append(gaps, db.Gap{StreamID: streamID, Start: from, End: to, Cause: string(n.cause), Detail: n.detail})
			from = to
		}
	}
	down := note{cause: RecorderDown}
	if !l.here && from == l.began && from < s.clock.notBefore {
		down = note{cause: ClockSet, detail: "the clock was not set before either"}
	}
	hole(min(to, s.open.Start.Add(by)), down)
	why := note{cause: OtherCause, detail: "the clock was not set"}
	for i, n := range l.unset {
		if n.at.Add(by) >= to {
			break
		}
		if i > 0 {
			hole(n.at.Add(by), why)
		}
		why = n
	}
	hole(to, why)
	return gaps
}

// moved takes over what the transaction has done, and moves what is in memory.
func (st *Stream) moved(by media.Duration, m *db.StreamMove) {
	l := &st.ledger
	if m.OwedFrom != 0 {
		st.cfg.OwedFrom = m.OwedFrom
	}
	if l.here {
		l.floor, l.began = l.floor.Add(by), l.began.Add(by)
	}
	switch {
	case l.seenOK:
		l.seen = l.seen.Add(by)
		l.until = max(l.began, l.seen)
	case l.here:
		l.until = l.until.Add(by)
	}
	if l.owedUntil != 0 {
		l.owedUntil = l.owedUntil.Add(by)
	}
	if l.attempt != 0 {
		l.attempt = l.attempt.Add(by)
	}
	move := func(notes []note) {
		for i := range notes {
			if notes[i].at != 0 {
				notes[i].at = notes[i].at.Add(by)
			}
		}
	}
	move(l.notes)
	move(l.unset)
	l.absence.Start = l.absence.Start.Add(by)
	if st.state.Since != 0 {
		st.state.Since = st.state.Since.Add(by)
	}
	if st.watermark != 0 {
		st.watermark = st.watermark.Add(by)
	}
	first := st.store.clock.first(&st.store.open).ID
	for _, rec := range st.recent {
		if rec.open.ID < first {
			continue // by another clock
		}
		rec.start, rec.localStart = rec.start.Add(by), rec.localStart.Add(by)
		rec.arrival, rec.rotateAt = rec.arrival.Add(by), rec.rotateAt.Add(by)
		rec.movedBy += by
		if rec.lost.at != 0 {
			rec.lost.at = rec.lost.at.Add(by)
		}
		move(rec.before)
		if r := rec.run; r != nil && r.rec == rec {
			r.wall0 = r.wall0.Add(by)
		}
	}
}
