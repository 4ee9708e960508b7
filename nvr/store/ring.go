package store

import (
	"slices"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// What no disk has taken yet waits in memory, up to Config.RingBytes for all
// streams (storage.md rule 12). When there is more, whole groups of pictures
// fall out, the oldest first and no more than have to. What is kept behind them
// begins with its key frame, as a run of its own; the time between is a gap.

// excess is how many bytes the stream has to give up because the memory is full,
// 0 or less when it does not have to. Only a stream that holds much itself gives:
// one slow disk takes nothing from the streams of another.
func (st *Stream) excess() int64 {
	limit := st.store.cfg.RingBytes
	return min(st.store.ring.Load()-limit, st.unsyncedBytes-limit/(2*int64(max(1, st.store.streams.Load()))))
}

// given is how many fragments of a recording cannot be given up: the disk has
// them, or is at work on them, or an earlier file will be cut for them.
func (rec *recording) given() int {
	return max(rec.durable, rec.inWork, min(rec.promised, len(rec.taken)))
}

// relieve makes room in the memory. It reports whether of the growing recording
// all was given up that could be: no group of pictures is behind what goes, and it
// ends until the next key frame.
func (st *Stream) relieve() (cut bool) {
	why, paused := st.diskCause()
	cur := st.recent[len(st.recent)-1]
	for _, rec := range slices.Clone(st.recent) {
		n := rec.given()
		if n == 0 && rec.created && !paused {
			// The directory goes on trying this file with its first fragment;
			// another one for each group that falls out would leave many.
			n = min(1, len(rec.taken))
		}
		if rec.settled || rec.broken || n == len(rec.taken) && len(rec.pending) == 0 && len(rec.pendingAudio) == 0 {
			continue
		}
		if from, ok := st.groupBehind(rec, n); ok {
			st.skip(rec, n, from, why)
			return false
		}
		frames := rec.video.Samples
		st.shorten(rec, n, reasonSlowDisk)
		st.lostFrames += frames - rec.video.Samples
		rec.lost = why
		rec.lost.at = rec.start
		if rec == cur {
			return true
		}
		if !rec.created && n == 0 {
			// Otherwise its file is to come, or may hold more and the directory cuts it.
			st.forget(rec)
			return st.excess() > 0 && st.relieve() // those behind may be others now
		}
		if st.excess() <= 0 {
			return false
		}
	}
	return false
}

// groupBehind is the place of the first group of pictures in a recording behind
// so much, from its n-th fragment on, that the memory is not too full without it.
func (st *Stream) groupBehind(rec *recording, n int) (p place, ok bool) {
	for _, r := range st.recent[slices.Index(st.recent, rec)+1:] {
		if r.created && !r.broken {
			return place{}, false // it has its number for good
		}
	}
	excess, freed := max(1, st.excess()), int64(0)
	for i, f := range rec.taken[n:] {
		if freed >= excess && f.startsGroup() {
			return place{fragment: n + i, at: f.VideoTime, loses: true}, true
		}
		freed += f.cost
	}
	sounds := rec.pendingAudio
	for i, u := range rec.pending {
		for ; len(sounds) > 0 && sounds[0].at < rec.audioUnits(u.at); sounds = sounds[1:] {
			freed += unitCost(len(sounds[0].data))
		}
		if freed >= excess && u.sample.Key {
			return place{fragment: len(rec.taken), pending: i, at: u.at, loses: true}, true
		}
		freed += unitCost(len(u.data))
	}
	return place{}, false
}

// skip gives up what a recording holds from its n-th fragment up to a group of
// pictures. That goes on as the first recording of a run: under the same number
// where nothing is left before it and no file was begun, and otherwise behind
// the recording, which ends. What comes later stays where it is on the clock.
func (st *Stream) skip(rec *recording, n int, from place, why note) {
	at := slices.Index(st.recent, rec)
	whole := n == 0 && !rec.created
	frames, total := rec.video.Samples, rec.mediaDuration()
	ended, grows := rec.start.Add(rec.wallDuration()), !rec.sealed
	no := rec.no
	if !whole {
		no++
	}
	next, rest := rec.leave(from, no, n)
	if next.start = next.localStart; !grows {
		next.start = max(1, ended.Add(rest.past-total)) // the next one begins where it ends
	}
	if whole {
		next.prevMedia, next.prevRuns = rec.prevMedia, rec.prevRuns
		next.before, next.heirOf = join(rec.before, note{rec.start, why.cause, why.detail}), rec.heirOf
		if w := rec.rewrites; w != nil {
			next.rewrites = &mp4.Rewrites{RecordingNo: w.RecordingNo, From90k: w.From90k + from.at}
		}
		if rec.runOffset > 0 {
			st.endBefore(rec, rec.whyGone())
		}
	} else {
		rec.end(reasonSlowDisk)
		rec.lost = why
		next.prevMedia, next.prevRuns = rec.prevMedia+rec.mediaDuration(), rec.runsWith()
	}
	next.takeOver(rec, rest)
	st.lostFrames += frames - rec.video.Samples - next.video.Samples
	if whole {
		st.recent[at] = next
		st.begins(next, rec, grows, rest.past)
		return
	}
	later := slices.Clone(st.recent[at+1:])
	st.recent = append(slices.Clone(st.recent[:at+1]), next)
	m := move{st: st, behind: next, no: next.no + 1, ended: ended}
	for _, r := range later {
		st.recent = append(st.recent, m.move(r, place{}))
	}
	st.endsWith(m.behind)
}

// begins counts what comes behind a recording of which the beginning fell out, by
// so much, and which begins a run now.
func (st *Stream) begins(rec, old *recording, grows bool, lost media.Duration) {
	newRun := old.runOffset > 0
	if newRun {
		st.cumRuns++
	}
	if grows {
		return
	}
	st.cumMedia -= lost
	same := true
	for _, r := range st.recent[slices.Index(st.recent, rec)+1:] {
		r.prevMedia -= lost
		if !newRun {
			continue
		}
		r.prevRuns++
		if same = same && r.run == old.run && r.runOffset > old.runOffset; same {
			r.runOffset -= old.runOffset
		}
	}
	if newRun && same {
		old.run.offset -= old.runOffset
	}
}

// whyGone is why the run ended before a recording whose beginning fell out. One
// that was to be written again was lost by the sync that failed: the file before
// it may hold more than its row will say.
func (rec *recording) whyGone() string {
	if rec.rewrites != nil {
		return reasonDiskError
	}
	return reasonSlowDisk
}

// forget takes a recording of which nothing is left, and which has no file, out
// of the stream. Why nothing is left of it is said of the time before the next
// one. That has its number now, and so on: no numbers are without a file that a
// start has to look beyond, or that the database has to know of first.
func (st *Stream) forget(rec *recording) {
	defer st.tellLists(rec.start)
	i := slices.Index(st.recent, rec)
	later := slices.Clone(st.recent[i+1:])
	if len(later) == 0 || slices.ContainsFunc(later, func(r *recording) bool { return r.created || r.broken }) {
		st.settled(rec) // those have their numbers for good
		return
	}
	rec.release()
	if rec.runOffset > 0 {
		st.endBefore(rec, rec.whyGone())
	}
	later[0].before = join(join(rec.before, rec.lost), later[0].before...)
	if rec.runOffset == 0 && later[0].runOffset == 0 { // all there was of its run
		for _, r := range later {
			r.prevRuns--
		}
		st.cumRuns--
	}
	st.recent = slices.Clone(st.recent[:i])
	for _, r := range later {
		st.recent = append(st.recent, r.renumber(r.no-1))
	}
	st.nextNo--
}

// renumber gives a recording that has no file another number. It returns the one
// that has it.
func (rec *recording) renumber(no int32) *recording {
	next, rest := rec.leave(place{}, no, 0)
	next.runOffset, next.follows, next.start = rec.runOffset, rec.follows, rec.start
	next.prevMedia, next.prevRuns = rec.prevMedia, rec.prevRuns
	next.before, next.settled = rec.before, rec.settled
	next.rewrites, next.heirOf = rec.rewrites, rec.heirOf
	rec.broken, rec.moved, rec.before, rec.heirOf = true, true, nil, nil
	next.takeOver(rec, rest)
	return next
}

// giveBack takes the newest recording, of which nothing is left and which has no
// file, out of the stream: the next one has its number.
func (st *Stream) giveBack(rec *recording) {
	defer st.tellLists(rec.start)
	if rec.runOffset > 0 {
		st.endBefore(rec, rec.whyGone())
	} else {
		st.cumRuns--
	}
	st.notes = join(rec.before, rec.lost)
	rec.release()
	st.recent = st.recent[:len(st.recent)-1]
	st.nextNo = rec.no
}
