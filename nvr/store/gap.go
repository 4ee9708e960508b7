package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// Cause says why a stream did not record. The schema lists them, too.
type Cause string

// Causes of gaps.
const (
	CameraUnreachable Cause = "unreachable"    // not found, no answer, or nothing listens there
	LoginRefused      Cause = "login_refused"  // user and password are not taken
	NoFrames          Cause = "no_frames"      // it answers, and sends no pictures
	BadTimestamps     Cause = "bad_timestamps" // its pictures cannot be put on a timeline
	CameraEnded       Cause = "camera_ended"   // it ended the session, or does not begin one
	DiskSlow          Cause = "disk_slow"      // pictures fell out of memory before the disk took them
	DiskFull          Cause = "disk_full"
	DiskError         Cause = "disk_error"
	RecorderDown      Cause = "recorder_down"
	ClockSet          Cause = "clock"   // the wall clock was set forward: this time never was
	OtherCause        Cause = "other"   // the detail says it
	UnknownCause      Cause = "unknown" // the recorder stopped before it was written down

	notOwed Cause = "" // it was not to be recorded: no gap
)

// Gap is time in which a stream should have recorded and did not.
type Gap struct {
	Start, End media.Time
	Cause      Cause
	Detail     string // for people; may be empty
	Growing    bool   // it goes on: End is now
}

// note says why the stream does not record from a time on.
type note struct {
	at     media.Time
	cause  Cause
	detail string
}

// mostNotes bounds what is kept of a stream whose troubles change all the time
// while nothing can be committed. Behind that the last cause stands for all.
const mostNotes = 64

// join puts notes behind others. One that says the same cause again says
// nothing, and no more than mostNotes are kept.
func join(notes []note, more ...note) []note {
	for _, n := range more {
		k := len(notes)
		if k > 0 && notes[k-1].cause == n.cause || k >= mostNotes && n.cause != notOwed {
			continue
		}
		notes = append(notes, n)
	}
	return notes
}

// ledger accounts for the time of a stream that is to be recorded: each instant
// up to until is in a recording or in a gap, or was not owed. The stream's lock
// guards it. Gaps are not noted as they happen: they are what recordings leave
// over, so that both together are the whole time, whatever became of them.
type ledger struct {
	owed      bool       // the stream is to be recorded
	owedUntil media.Time // otherwise: up to here it was; 0: nothing is open from then
	until     media.Time

	// floor is what until was at the beginning of the open, or of the first that
	// went by its clock: gaps from before are of others. began is the same, or when
	// the stream was switched on since. here says that this was by that clock, and
	// no end of what was there before.
	floor, began media.Time
	here         bool

	// unset are the notes of an open whose clock is not set, mostNotes of them.
	// While it shows what is accounted for already, they become no gaps.
	unset []note

	// A wall time and the monotonic time (since the open) that belongs to it, by
	// which a step of the clock is told from time without pictures. At the
	// start, and behind what was adopted, there is none.
	seen     media.Time
	seenMono media.Duration
	seenOK   bool

	// notes say why nothing is recorded now. When a recording begins, they
	// become its own (recording.before).
	notes   []note
	attempt media.Time // since when a session is tried; 0: none, or it records
	ended   string     // why the last run ended
	planned bool       // there is a plan to write down what has no recording yet
	absence Gap        // that goes on, or did, as it was told

	gapTime [len(causes)]media.Duration // written down since the store was opened
}

// account is a ledger that is taken further by recordings and, at the end, up
// to now.
type account struct {
	st       *Stream
	until    media.Time
	seen     media.Time
	seenMono media.Duration
	seenOK   bool
	notes    []note // that belong in front of the next recording
	gaps     []db.Gap
	growing  bool   // the last gap goes on
	ended    string // why the last run ended
}

func (st *Stream) account() account {
	l := &st.ledger
	return account{st: st, until: l.until, seen: l.seen, seenMono: l.seenMono, seenOK: l.seenOK, ended: l.ended}
}

// pass accounts for the time up to a point at which the stream records again,
// or still does not. mono is the monotonic time of it.
func (a *account) pass(to media.Time, mono media.Duration, monoOK bool, why []note) {
	from := a.until
	if a.seenOK && monoOK {
		passed := max(0, mono-a.seenMono)
		if set := to.Add(-passed); set.Sub(a.seen) > clockStep && set > from {
			a.gap(from, set, note{cause: ClockSet, detail: "the clock was set forward by " + set.Sub(a.seen).Std().Round(time.Second).String()})
			from = set
		}
	}
	for i := range why {
		end := to
		if i+1 < len(why) {
			end = min(max(why[i+1].at, from), to)
		}
		a.gap(from, end, why[i])
		from = max(from, end)
	}
	a.until = max(a.until, to)
	a.seen, a.seenMono, a.seenOK = to, mono, monoOK
}

func (a *account) gap(from, to media.Time, why note) {
	if from >= to || from <= 0 || why.cause == notOwed {
		return
	}
	if n := len(a.gaps); n > 0 && a.gaps[n-1].End == from && a.gaps[n-1].Cause == string(why.cause) {
		a.gaps[n-1].End = to
		return
	}
	a.gaps = append(a.gaps, db.Gap{StreamID: a.st.id, Start: from, End: to, Cause: string(why.cause), Detail: why.detail})
}

// record accounts for the time up to a recording, and for its own. There is
// nothing in one of which nothing is left.
func (a *account) record(rec *recording, left bool) {
	a.notes = append(a.notes, rec.before...)
	if !left {
		if rec.lost.cause != "" {
			a.notes = append(a.notes, rec.lost)
		}
		return
	}
	if len(a.notes) == 0 && !rec.follows {
		a.notes = []note{{cause: OtherCause, detail: cmp.Or(shorten(a.ended), "connecting")}}
		if a.ended == reasonClock {
			a.notes[0].cause = ClockSet
		}
	}
	mono, monoOK := rec.sinceOpen-rec.arrival.Sub(rec.start), !rec.recovered
	if !rec.follows || len(a.notes) > 0 {
		a.pass(rec.start, mono, monoOK, a.notes)
	}
	wall := rec.wallDuration()
	end := rec.start.Add(wall)
	a.until = max(a.until, end)
	a.seen, a.seenMono, a.seenOK = end, mono+wall, monoOK
	a.notes, a.ended = nil, rec.endReason
	if rec.lost.cause != "" {
		n := rec.lost
		n.at = end
		a.notes = []note{n}
	}
}

// now accounts for the time up to now, in which there is no recording.
func (a *account) now(why []note) {
	l := &a.st.ledger
	s := a.st.store
	to := s.wall()
	if !l.owed {
		to = l.owedUntil
	}
	why = append(a.notes, why...)
	a.notes = nil
	if len(why) == 0 || to <= a.until && !l.owed {
		return
	}
	n := len(a.gaps)
	a.pass(to, media.DurationOf(time.Since(s.opened)), l.owed, why)
	a.growing = l.owed && len(a.gaps) > n
}

// idle reports whether nothing is being recorded of a stream that should be,
// and why is known.
func (st *Stream) idle() bool {
	l := &st.ledger
	return !st.removed && st.earlier == nil && len(st.recent) == 0 && len(l.notes) > 0 && (l.owed || l.owedUntil > l.until)
}

// owe begins or ends the time that has to be accounted for. from is the
// beginning.
func (l *ledger) owe(owed bool, from, now media.Time) {
	switch {
	case owed && !l.owed:
		l.began = max(l.until, from)
		if l.here = l.began == from; l.owedUntil > l.until {
			// Recordings from before it was switched off are not committed yet.
			l.notes = append(l.notes, note{l.owedUntil, notOwed, ""}, note{l.began, OtherCause, "connecting"})
		} else {
			l.until, l.notes = l.began, nil
		}
		l.owedUntil, l.attempt, l.seenOK = 0, 0, false
		if l.floor == 0 {
			l.floor = l.began
		}
	case !owed && l.owed:
		l.owedUntil = now
	}
	l.owed = owed
}

// inherit goes on accounting where a stream does that this one takes the place
// of. What was written down of it is this one's already.
func (st *Stream) inherit(was *Stream) {
	was.mu.Lock()
	l := was.ledger
	l.notes, l.unset = slices.Clone(l.notes), slices.Clone(l.unset)
	was.mu.Unlock()
	l.planned = false
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ledger = l; len(l.notes) > 0 {
		st.planGaps()
	}
}

// noteAbsence notes why the stream does not record. A session that failed says
// it for the time since it was tried; the first after a recording for all the
// time since that.
func (st *Stream) noteAbsence(cause Cause, detail string) {
	l := &st.ledger
	n := note{l.attempt, cause, shorten(detail)}
	if l.attempt = 0; n.at == 0 {
		n.at = st.store.wall()
	}
	if k := len(l.notes); k == 0 || l.notes[k-1].cause != cause && k < mostNotes {
		l.notes = append(l.notes, n)
		st.tellAbsence(cause, n.detail)
	}
	if k := len(l.unset); !st.store.clock.good.Load() && (k == 0 || l.unset[k-1].cause != cause && k < mostNotes) {
		l.unset = append(l.unset, n)
	}
	st.planGaps()
}

// shorten cuts a text to what the database takes.
func shorten(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), db.MaxGapDetail)], "")
}

// These stand for the number of a recording in a plan that is for none.
const (
	gapPlan     = -1 // time without a recording
	roomPlan    = -2 // room on a disk
	confPlan    = -3 // a changed configuration
	earlierPlan = -4 // files of before the start that were adopted
	morePlan    = -5 // more to delete than one flush does
)

// gapsEvery is how often time without a recording is written down. Whoever
// flushes for another reason does it, too.
func (st *Stream) gapsEvery() time.Duration {
	return max(time.Duration(st.cfg.FlushIfSec)*time.Second, time.Minute)
}

// planGaps plans to write down why the stream does not record, if there is no
// such plan yet.
func (st *Stream) planGaps() {
	if l := &st.ledger; !l.planned && l.owed {
		l.planned = true
		st.store.plan(st, gapPlan, time.Now().Add(st.gapsEvery()))
	}
}

// gapsDue looks at such a plan when its time has come: whether there is still
// nothing recorded, and whether nobody has flushed since.
func (st *Stream) gapsDue(flushed time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ledger.planned = st.idle(); !st.ledger.planned {
		return false
	}
	next := flushed.Add(st.gapsEvery())
	if time.Until(next) <= 0 {
		return true
	}
	st.store.plan(st, gapPlan, next)
	return false
}

// gapsFlushed plans the next time.
func (st *Stream) gapsFlushed() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ledger.planned = false; st.idle() {
		st.planGaps()
	}
}

// explain adds the gaps that a flush can write down to a share: those in front
// of its recordings and, when nothing is recorded now, up to now.
func (s *Store) explain(sh *share) {
	st := sh.st
	unfit := make(map[int64]bool)
	for _, g := range sh.bad {
		unfit[g.ID] = true
	}
	st.mu.Lock()
	a := st.account()
	for _, rec := range sh.recs {
		left := len(rec.taken) > 0
		if left && unfit[rec.id()] {
			rec.lost, left = note{rec.start, OtherCause, "the database does not take the recording"}, false
		}
		a.record(rec, left)
	}
	work := len(a.gaps)
	if st.idleAfter(sh) {
		a.now(st.ledger.notes)
	}
	st.mu.Unlock()
	sh.gapsAlone = work == 0
	for i := range a.gaps {
		if err := s.db.CheckGap(&a.gaps[i]); err != nil {
			s.log.Error("gap is not written down", "camera", st.name, "stream", st.typ, "err", err)
			continue
		}
		sh.gaps = append(sh.gaps, a.gaps[i])
	}
	sh.account = a
}

// idleAfter reports whether the stream is idle once the share is committed.
func (st *Stream) idleAfter(sh *share) bool {
	l := &st.ledger
	return !st.removed && st.earlier == nil && len(st.recent) == len(sh.recs) && len(l.notes) > 0 && (l.owed || l.owedUntil > 0)
}

// accounted takes over what a flush has committed.
func (st *Stream) accounted(a *account) {
	l := &st.ledger
	for i := range a.gaps {
		if c := slices.Index(causes[:], Cause(a.gaps[i].Cause)); c >= 0 {
			st.gapTime[c] += a.gaps[i].End.Sub(a.gaps[i].Start)
		}
	}
	l.until, l.seen, l.seenMono, l.seenOK, l.ended = max(l.until, a.until), a.seen, a.seenMono, a.seenOK, a.ended
	if !l.owed && l.until >= l.owedUntil {
		l.owedUntil = 0
	}
	if len(a.notes) > 0 && st.earlier == nil { // what is adopted says for itself what is before it
		// What was lost at the end belongs to what comes next.
		if len(st.recent) > 0 {
			st.recent[0].before = join(a.notes, st.recent[0].before...)
		} else {
			l.notes = join(a.notes, l.notes...)
		}
	}
	for len(l.notes) > 1 && l.notes[1].at <= l.until {
		l.notes = l.notes[1:]
	}
}

// Gaps calls f with each gap of the stream that has a part in [from, to), in
// their order: those in the database, and those that only memory knows yet.
func (st *Stream) Gaps(ctx context.Context, from, to media.Time, f func(*Gap) error) error {
	done, err := st.store.ask(ctx)
	if err != nil {
		return err
	}
	defer done()
	// First what is in memory: what is committed from now on is in this copy.
	st.mu.Lock()
	a, until := st.unwritten()
	st.mu.Unlock()

	var last *Gap // held back: memory may know that it goes on
	err = st.store.db.Gaps(ctx, st.id, from, to, func(g *db.Gap) error {
		if g.Start >= until {
			return nil
		}
		var err error
		if last != nil {
			err = f(last)
		}
		last = &Gap{g.Start, min(g.End, until), Cause(g.Cause), g.Detail, false}
		return err
	})
	if err != nil {
		return err
	}
	for i := range a.gaps {
		g := &a.gaps[i]
		growing := a.growing && i == len(a.gaps)-1
		if last != nil && last.End == g.Start && last.Cause == Cause(g.Cause) {
			last.End, last.Growing = g.End, growing
			continue
		}
		if g.Start >= to || g.End <= from {
			continue
		}
		if last != nil {
			if err := f(last); err != nil {
				return err
			}
		}
		last = &Gap{g.Start, g.End, Cause(g.Cause), g.Detail, growing}
	}
	if last != nil {
		return f(last)
	}
	return nil
}

// unwritten accounts for what memory alone knows. The database may have gaps that
// begin before until and go on behind it. The caller holds the stream's lock.
func (st *Stream) unwritten() (a account, until media.Time) {
	a = st.account()
	until, earlier := a.until, st.earlier
	for _, rec := range st.recent {
		if earlier != nil && rec.no >= earlier.end {
			a.passEarlier()
			earlier = nil
		}
		left := rec.video.Samples > 0
		if left && rec.start < until && rec.start.Add(rec.wallDuration()) >= until {
			until = rec.start // it began before the gap was seen to end
		}
		a.record(rec, left)
	}
	if earlier != nil {
		a.passEarlier()
	}
	// A recording is listed from its second picture on; up to then it is a gap.
	if n := len(st.recent); n == 0 || st.recent[n-1].sealed || st.recent[n-1].starved || st.recent[n-1].broken || st.recent[n-1].video.Samples == 0 {
		a.now(st.ledger.notes)
	}
	return a, until
}

// diskCause says why the stream's disk does not take what there is, and whether
// recording to it pauses.
func (st *Stream) diskCause() (why note, paused bool) {
	if st.dir == nil {
		return note{cause: DiskError}, false
	}
	st.dir.mu.Lock()
	err := st.dir.err
	paused = st.dir.room.paused != nil
	st.dir.mu.Unlock()
	if err == nil {
		return note{cause: DiskSlow}, paused
	}
	return diskNote(err), paused
}

// diskNote is the note of an error of a disk.
func diskNote(err error) note {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return note{cause: DiskFull, detail: shorten(err.Error())}
	}
	return note{cause: DiskError, detail: shorten(err.Error())}
}
