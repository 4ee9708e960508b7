package store

import (
	"slices"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// A file whose sync failed is never synced again: the kernel may have dropped
// what was to be written, and reports success (storage.md rule 13). What is not
// durable of its recording is still in memory, and goes to another file as
// another recording. That one has to begin with a key frame, so the durable part
// of a group of pictures stays in memory, too, until the next key frame is
// durable; the recording that failed is cut back to where the group begins as
// soon as the other file has as much.

// mostBackOff is the longest pause before another file is begun of a stream
// whose files do not sync.
const mostBackOff = time.Minute

// backOff notes a failed sync. The next file is tried at the next step, and
// then after pauses that grow.
func (st *Stream) backOff(err error) {
	if pause := time.Second << min(st.syncFails, 10) >> 1; st.syncFails > 0 {
		st.syncAgain = time.Now().Add(min(pause*2, mostBackOff))
	}
	st.syncFails++
	st.syncErr = err
}

// hasEntry notes that the file of a recording is in the directory for good.
func (st *Stream) hasEntry(no int32) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.createdNo = max(st.createdNo, no)
}

// keeps counts bytes that stay in memory though they are durable.
func (st *Stream) keeps(n int64) {
	if !st.removed {
		st.keptBytes += n
		st.store.ring.Add(n)
	}
}

// durableSize is how long the durable part of the file is, in bytes.
func (rec *recording) durableSize() int64 {
	if rec.durable < len(rec.taken) {
		return rec.taken[rec.durable].pos
	}
	return rec.size
}

// startsGroup reports whether a fragment begins with a key frame.
func (f *fragment) startsGroup() bool { return len(f.Video) > 0 && f.Video[0].Key }

// keepGroup lets go of the bytes of durable fragments up to the newest key
// frame. A stream whose groups are longer than its share of the memory keeps
// none.
func (rec *recording) keepGroup() {
	if rec.durable < rec.promised {
		return
	}
	s := rec.st.store
	most := min(longestGOP, s.cfg.RingBytes/(4*max(1, s.streams.Load())))
	from, cost := rec.durable, int64(0)
	for i := rec.durable - 1; i >= rec.kept; i-- {
		if cost += rec.taken[i].cost; cost > most {
			break
		}
		if rec.taken[i].startsGroup() {
			from = i
			break
		}
	}
	rec.letGo(from)
}

// letGo forgets the bytes of the durable fragments before the n-th, and counts
// those that stay.
func (rec *recording) letGo(n int) {
	if n = min(n, rec.durable); rec.durable < rec.promised {
		n = 0
	}
	for ; rec.kept < n; rec.kept++ {
		rec.taken[rec.kept].payload = nil
	}
	rec.kept = min(rec.kept, rec.durable)
	cost := int64(0)
	for _, f := range rec.taken[rec.kept:rec.durable] {
		cost += f.cost
	}
	rec.st.keeps(cost - rec.keptCost)
	rec.keptCost = cost
}

// keepPromise settles what waited for this recording to be durable as far as it
// was in the file that failed, and returns it. Until then that file may turn out
// to hold more.
func (rec *recording) keepPromise() []*recording {
	if rec.durable < max(1, rec.promised) {
		return nil
	}
	return rec.release()
}

// release settles what waits for this recording.
func (rec *recording) release() []*recording {
	released := rec.heirOf
	rec.heirOf, rec.promised = nil, 0
	for _, old := range released {
		rec.st.settled(old)
	}
	return released
}

// place is where in a recording another one begins: with a fragment, or, behind
// all of them, with a picture that waits for one.
type place struct {
	fragment, pending int
	at                int64 // media time
	loses             bool  // between the end of what is durable and here something is lost
}

// goesOn is where the recording can go on in another file: at its beginning when
// nothing is durable, with the group that is kept, or else with the next key
// frame, if there is one.
func (rec *recording) goesOn() (p place, ok bool) {
	if rec.durable == 0 {
		return place{}, true
	}
	from := rec.durable
	if from == len(rec.taken) || !rec.taken[from].startsGroup() {
		from = rec.kept
	}
	for i, f := range rec.taken[from:] {
		if f.startsGroup() {
			return place{fragment: from + i, at: f.VideoTime, loses: from+i > rec.durable}, true
		}
	}
	for i, u := range rec.pending {
		if u.sample.Key {
			return place{len(rec.taken), i, u.at, i > 0 || len(rec.taken) > rec.durable}, true
		}
	}
	if rec.held != nil && rec.held.Key {
		return place{len(rec.taken), len(rec.pending), rec.video.Duration, true}, true
	}
	return place{}, false
}

// rewrite ends a recording whose file failed, and gives what is not durable of it
// to a new one, which it returns; nil when it cannot begin anywhere. What came
// behind the recording in the stream moves behind the new one: recordings are
// committed in the order of their numbers, and each file has its number in its
// name. Nothing of that is durable, because the files of a stream are written in
// their order.
func (st *Stream) rewrite(rec *recording, why error) *recording {
	from, ok := rec.goesOn()
	if !ok {
		return nil
	}
	at := slices.Index(st.recent, rec)
	later := slices.Clone(st.recent[at+1:])
	recent := slices.Clone(st.recent[:at+1])
	no := rec.no + 1
	for _, r := range later {
		if r.created {
			recent, no = append(recent, r), r.no+1
		}
	}
	m := move{st: st, behind: rec, no: no, why: why}
	first := m.move(rec, from)
	recent = append(recent, first)
	for _, r := range later {
		recent = append(recent, m.move(r, place{}))
	}
	st.recent = recent
	st.endsWith(m.behind)
	return first
}

// endsWith notes that the recordings of the stream end with one that was moved.
func (st *Stream) endsWith(last *recording) {
	st.nextNo, st.cumRuns, st.cumMedia = last.no+1, last.runsWith(), last.prevMedia
	if last.sealed {
		st.cumMedia += last.mediaDuration()
	}
}

// runsWith is how many runs of the stream there were up to this recording.
func (rec *recording) runsWith() int32 {
	if rec.runOffset == 0 && !rec.moved {
		return rec.prevRuns + 1
	}
	return rec.prevRuns
}

// move is one rewrite under way.
type move struct {
	st     *Stream
	behind *recording // the one made last; at first the one that failed
	no     int32      // of the next
	why    error
	set    media.Duration // by which the clock of the run was read anew
	ended  media.Time     // when the recording that was moved last ended, where it was
}

// move ends a recording at a place and makes the one that goes on from there.
func (m *move) move(old *recording, from place) *recording {
	st := m.st
	whole := from.fragment == 0 && from.pending == 0
	if old.run != m.behind.run {
		m.set = 0 // it has a clock of its own
	}
	ended := old.start.Add(old.wallDuration())
	next, rest := old.leave(from, m.no, min(from.fragment, old.durable))
	next.arrival, next.localStart, next.rotateAt = next.arrival.Add(m.set), next.localStart.Add(m.set), next.rotateAt.Add(m.set)
	next.rewrites = &mp4.Rewrites{RecordingNo: old.no, From90k: from.at}
	old.broken, old.moved = true, whole
	m.place(old, next, whole, from.loses)
	next.takeOver(old, rest)
	if whole {
		next.before, old.before = old.before, nil
		next.heirOf, old.heirOf = old.heirOf, nil
	}
	if old.created {
		next.heirOf = append(next.heirOf, old)
	} else if old == m.behind {
		st.settled(old)
	}
	m.behind, m.no, m.ended = next, m.no+1, ended
	return next
}

// rest is what a recording held from a place on.
type rest struct {
	tail            []*fragment
	pending, sounds []unit
	past            media.Duration // media time of the place
	shift           int64          // by which sounds move to the front, audio units
}

// leave ends the recording with its first fragments, so many, and makes the one
// that goes on from a place behind them. That has no place in the stream yet,
// and nothing in it before it takes the rest over.
func (rec *recording) leave(from place, no int32, keep int) (*recording, rest) {
	r := rest{
		tail: slices.Clone(rec.taken[from.fragment:]), pending: rec.pending[from.pending:],
		sounds: slices.Clone(rec.pendingAudio), past: media.Duration(from.at),
	}
	if from.fragment == len(rec.taken) && rec.audioEntry != nil {
		r.sounds = slices.DeleteFunc(r.sounds, func(u unit) bool { return u.at < rec.audioUnits(from.at) })
	}
	r.shift = rec.audioShift(from, r.tail, r.sounds)
	next := &recording{
		st: rec.st, run: rec.run, no: no, open: rec.open,
		videoEntry: rec.videoEntry, audioEntry: rec.audioEntry, videoID: rec.videoID, audioID: rec.audioID,
		dts0: rec.dts0 + from.at, received: rec.received.Add(r.past.Std()), arrival: rec.arrival.Add(r.past),
		sinceOpen: rec.sinceOpen + r.past, localStart: rec.localStart.Add(r.past), rotateAt: rec.rotateAt,
		held: rec.held, heldAudio: rec.heldAudio, heldAudioPos: max(0, rec.heldAudioPos-r.shift),
		sealed: rec.sealed, starved: rec.starved, trailingZero: rec.trailingZero, endReason: rec.endReason,
		lost: rec.lost, promised: max(0, rec.durable-from.fragment, rec.promised-from.fragment),
	}
	rec.held, rec.heldAudio, rec.lost = nil, nil, note{}
	rec.cut(keep)
	rec.sealed, rec.endReason = true, ""
	return next, r
}

// takeOver gives the recording what another one has left.
func (rec *recording) takeOver(old *recording, r rest) {
	var err error
	if rec.init, err = rec.header(); err != nil {
		panic("store: header of a recording that had one: " + err.Error())
	}
	rec.fill(r)
	if run := old.run; run != nil && run.rec == old {
		run.rec, run.offset = rec, rec.runOffset+1
	}
	rec.st.relabel(old, rec, r.past)
	rec.st.tellLists(min(old.start, rec.start))
}

// place gives next its place in the stream, and in the run.
func (m *move) place(old, next *recording, whole, loses bool) {
	st, failed := m.st, m.behind == old
	switch {
	case failed && whole:
		// It takes the place of old, but for the number. Those of a run follow
		// each other.
		next.prevMedia, next.prevRuns = old.prevMedia, old.prevRuns
		next.start, next.follows = old.start, old.follows
		if old.rewrites != nil {
			next.rewrites = old.rewrites
		}
		if old.runOffset > 0 {
			st.endBefore(old, reasonDiskError)
		}
	case failed:
		next.prevMedia, next.prevRuns = old.prevMedia+old.mediaDuration(), old.runsWith()
		next.start, next.follows = old.start.Add(old.wallDuration()), true
		if !loses && next.no == old.no+1 {
			next.runOffset = old.runOffset + 1
			return
		}
		old.end(reasonDiskError)
		if loses {
			// Behind a gap the clock is read anew.
			old.lost = diskNote(m.why)
			next.follows = false
			next.start = max(1, st.store.wall().Add(-media.DurationOf(time.Since(next.received))))
			m.set = next.start.Sub(next.arrival)
			next.arrival, next.localStart, next.rotateAt = next.start, next.start, next.rotateAt.Add(m.set)
			if r := old.run; r != nil {
				r.wall0 = r.wall0.Add(m.set)
			}
		}
	default:
		next.prevMedia, next.prevRuns = m.behind.prevMedia+m.behind.mediaDuration(), m.behind.runsWith()
		next.start, next.follows = old.start.Add(m.set), old.follows
		if old.follows && old.start == m.ended { // nothing between them was given up
			next.start = m.behind.start.Add(m.behind.wallDuration())
		}
		if old.runOffset > 0 {
			next.runOffset = m.behind.runOffset + 1
		}
		if old.rewrites != nil || !old.created {
			next.rewrites = old.rewrites
		}
	}
}

// endBefore makes the recording before rec the last of its run.
func (st *Stream) endBefore(rec *recording, reason string) {
	for i := slices.Index(st.recent, rec) - 1; i >= 0; i-- {
		if before := st.recent[i]; !before.moved {
			if before.run == rec.run && before.endReason == "" {
				before.end(reason)
			}
			return
		}
	}
}

// audioShift is by how much sounds move to the front, in audio units, in a
// recording that begins at a place of this one.
func (rec *recording) audioShift(from place, tail []*fragment, sounds []unit) int64 {
	if rec.audioEntry == nil {
		return 0
	}
	first := rec.heldAudioPos
	if len(sounds) > 0 {
		first = sounds[0].at
	}
	for _, f := range tail {
		if len(f.Audio) > 0 {
			first = f.AudioTime
			break
		}
	}
	return min(first, rec.audioUnits(rec.dts0+from.at)-rec.audioUnits(rec.dts0))
}

// fill gives the recording its samples.
func (rec *recording) fill(r rest) {
	rec.size = int64(len(rec.init))
	past, shift, cost := r.past, r.shift, int64(0)
	for _, old := range r.tail {
		f := *old
		f.ID, f.Seq, f.Start, f.pos = rec.id(), uint32(len(rec.taken)+1), rec.start, rec.size
		f.videoEnd -= int64(past)
		if len(f.Video) > 0 {
			f.VideoTime -= int64(past)
		}
		if len(f.Audio) > 0 {
			f.AudioTime -= shift
		}
		if f.End && rec.endReason == "" {
			f.End, f.EndReason = false, ""
		}
		f.size -= f.headerSize
		f.headerSize = int64(f.HeaderSize())
		f.size += f.headerSize
		for _, s := range f.Video {
			rec.video.Append(s)
		}
		for _, s := range f.Audio {
			rec.audio.Append(s)
		}
		rec.size += f.size
		cost += f.cost
		rec.taken = append(rec.taken, &f)
	}
	for _, u := range r.pending {
		u.at -= int64(past)
		rec.pending = append(rec.pending, u)
		rec.video.Append(u.sample)
		rec.pendingBytes += int64(len(u.data))
		cost += unitCost(len(u.data))
	}
	for _, u := range r.sounds {
		u.at -= shift
		rec.pendingAudio = append(rec.pendingAudio, u)
		rec.audio.Append(u.sample)
		rec.pendingBytes += int64(len(u.data))
		cost += unitCost(len(u.data))
	}
	rec.st.unsynced(cost)
}

// relabel tells live viewers who join now where the pictures are.
func (st *Stream) relabel(old, next *recording, past media.Duration) {
	for i := range st.gop {
		if p := &st.gop[i]; p.rec == old && p.at >= past {
			p.rec, p.at = next, p.at-past
		}
	}
}

// reconcile brings a recording that is adopted, and that holds again what others
// before it held, together with those: nothing is kept twice. The one that
// reaches further is kept; the files that failed may hold more than anybody was
// promised, or the new one less. It returns what has to be cut.
func (st *Stream) reconcile(rec *recording) (cuts []*recording) {
	w := rec.rewrites
	if w == nil || len(rec.taken) == 0 {
		return nil
	}
	for _, old := range st.recent {
		if rec.repeats(old) && old.reach(w) > rec.reach(w) {
			rec.drop(st)
			return nil
		}
	}
	st.cumMedia, st.cumRuns = rec.prevMedia, rec.prevRuns
	for i, old := range st.recent {
		if i == 0 {
			st.cumMedia, st.cumRuns = old.prevMedia, old.prevRuns
		}
		switch {
		case !rec.repeats(old):
		case old.no != w.RecordingNo:
			old.drop(st)
		case old.cutAt(w.From90k):
			cuts = append(cuts, old)
		}
		if len(old.taken) > 0 {
			st.cumMedia, st.cumRuns = old.prevMedia+old.mediaDuration(), old.runsWith()
		}
	}
	rec.prevMedia, rec.prevRuns = st.cumMedia, st.cumRuns
	return cuts
}

// repeats reports whether a recording holds again what old, a recording before
// it, holds or held.
func (rec *recording) repeats(old *recording) bool {
	w := rec.rewrites
	if w == nil || old.open.ID != rec.open.ID && len(old.taken) > 0 { // an empty file says nothing of itself
		return false
	}
	return old.no == w.RecordingNo || old.no > w.RecordingNo && (old.rewrites == nil || old.rewrites.RecordingNo >= w.RecordingNo)
}

// reach is up to where a recording holds what was rewritten, in media time of the
// one that w names; 0 when it has nothing to do with that.
func (rec *recording) reach(w *mp4.Rewrites) int64 {
	switch {
	case len(rec.taken) == 0:
		return 0
	case rec.no == w.RecordingNo:
		return rec.video.Duration
	case rec.rewrites != nil && rec.rewrites.RecordingNo == w.RecordingNo:
		return rec.rewrites.From90k + rec.video.Duration
	}
	return 0
}

// drop makes an adopted recording one of which nothing is kept.
func (rec *recording) drop(st *Stream) {
	rec.cut(0)
	rec.moved, rec.runOffset, rec.endReason = true, 0, ""
	rec.prevMedia, rec.prevRuns = st.cumMedia, st.cumRuns
}

// cutAt cuts an adopted recording at a media time, where a fragment begins. It
// reports whether there is something to cut.
func (rec *recording) cutAt(at int64) bool {
	for i, f := range rec.taken {
		if f.startsGroup() && f.VideoTime == at {
			rec.cutBytes += rec.size - f.pos
			rec.cut(i)
			rec.endReason = ""
			rec.moved = i == 0
			return i > 0
		}
	}
	return false
}
