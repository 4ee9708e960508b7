package store

import (
	"errors"
	"fmt"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// Errors that end a run. The access units before the one refused are kept.
var (
	// ErrTooLong refuses the unit with which a recording would reach
	// media.MaxRecording, by its timestamps or by our clock, or a size that no
	// camera needs: no key frame for five minutes, a jump of the camera's
	// clock, or a stall (R1, R4).
	ErrTooLong = errors.New("recording would reach 5 minutes")

	// ErrBackward refuses a unit whose decode time does not rise (R5).
	ErrBackward = errors.New("timestamps do not rise")

	// ErrRemoved ends the run of a stream that was deleted.
	ErrRemoved = errors.New("stream was removed")
)

// Reasons for the end of a run that the store itself gives.
const (
	reasonDiskError = "disk error"
	reasonSlowDisk  = "disk too slow"
	reasonUnclean   = "recorder stopped without warning"
)

// Run is the recording of one camera session: its recordings follow each other
// without a gap. Append and End belong to one goroutine at a time.
type Run struct {
	st    *Stream
	audio *media.SampleEntry

	// The clock of the run: wall time at the first unit, moved on by the
	// monotonic clock only, so that steps of the wall clock during the run do
	// not show (time.md).
	wall0 media.Time
	mono0 time.Time
	steps int32 // of the clock before that

	rec    *recording     // nil before the first unit and after the end
	offset int32          // run offset of the next recording
	ahead  media.Duration // by which its files count more media before them than we do, see takeEarlier
	ended  bool

	// How often the camera's parameters changed, and since when.
	changes int
	changed time.Time
}

// Limits for what a camera may do to the disk and the database.
const (
	// largestFile ends a run before a recording gets larger, bytes.
	largestFile = 1 << 30

	// A camera that changes its parameters more often than this has a fault.
	mostChanges  = 4
	changePeriod = 10 * time.Second

	// soundAhead is how far sound may run ahead of the pictures.
	soundAhead = 10 * media.Second
)

// Begin starts a run of the stream. Nothing is created before the first unit.
// audio is nil when the run has no sound to record. A stream has one run at a
// time.
func (st *Stream) Begin(audio *media.SampleEntry) *Run {
	return &Run{st: st, audio: audio}
}

// Append takes the next access unit of the run and keeps its Data. It never
// waits for a disk. On an error the unit was not recorded, and the run has to
// be ended.
func (r *Run) Append(au media.AccessUnit) error {
	st := r.st
	st.stirred.Store(int64(au.Received.Sub(st.store.opened)))
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.removed:
		return ErrRemoved
	case r.ended:
		return errors.New("run has ended")
	case st.unusable != nil:
		return st.unusable
	case st.crowded != nil:
		return st.crowded
	case au.Kind == media.Audio:
		r.appendAudio(au)
		return nil
	case r.rec == nil:
		return r.first(au)
	}
	rec := r.rec
	d := au.DTS - rec.held.DTS
	offset := au.PTS - au.DTS
	switch {
	case offset < -int64(media.MaxRecording) || offset > int64(media.MaxRecording):
		return fmt.Errorf("%w: a picture is to be shown %v after it is decoded", ErrBackward, media.Duration(offset))
	case d <= 0:
		return fmt.Errorf("%w: %d after %d (90 kHz); pictures out of order, or the camera's clock was set back",
			ErrBackward, au.DTS, rec.held.DTS)
	case rec.video.Duration+d >= int64(media.MaxRecording):
		return fmt.Errorf("%w: %v so far and %v to the next frame", ErrTooLong,
			media.Duration(rec.video.Duration), media.Duration(d))
	case au.Received.Sub(rec.received) >= media.MaxRecording.Std():
		return fmt.Errorf("%w: no key frame for %v, while its timestamps say %v", ErrTooLong,
			au.Received.Sub(rec.received).Round(time.Second), media.Duration(rec.video.Duration))
	case rec.size+rec.pendingBytes > largestFile:
		return fmt.Errorf("%w: %d bytes without a key frame", ErrTooLong, rec.size+rec.pendingBytes)
	case au.Entry != rec.videoEntry && !au.Key && !au.Entry.Equal(rec.videoEntry):
		return errors.New("codec parameters changed between key frames")
	}
	if rec.broken || rec.starved {
		// The recording has ended; the next begins with a key frame.
		switch {
		case !au.Key:
			rec.held = &au
			st.live(rec, au)
			return nil
		case rec.broken:
			return r.restart(au, reasonDiskError)
		}
		return r.restart(au, reasonSlowDisk)
	}
	local := r.local(au)
	rec.push(int32(d))
	starves := st.excess() > 0 && st.relieve()
	rec = r.rec // what is left of it may be another one
	if starves {
		// The disk is too slow, and no group of pictures is left to give up but
		// the one that grows.
		if au.Key {
			return r.restart(au, reasonSlowDisk)
		}
		rec.starved = true
		rec.held = &au
		st.live(rec, au)
		return nil
	}
	set := au.Key && r.steps != st.store.clock.steps.Load()
	newEntry := au.Key && !au.Entry.Equal(rec.videoEntry)
	if newEntry && !r.mayChange(au.Received) {
		return fmt.Errorf("codec parameters changed more than %d times in %v", mostChanges, changePeriod)
	}
	if set || newEntry || au.Key && local >= rec.rotateAt {
		carry := rec.finishAudio()
		if set {
			rec.end(reasonClock)
			r.offset = 0
			r.setClock(au)
			local = r.wall0
		}
		st.seal(rec)
		return r.begin(au, local, carry)
	}
	rec.hold(au, local)
	st.live(rec, au)
	return nil
}

// End ends the run for the given reason, in words for people. The last unit
// is kept, with duration 0 (R3). End may be called more than once.
func (r *Run) End(reason string) {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	if rec := r.rec; rec != nil {
		if !rec.broken && !rec.starved {
			rec.push(0)
			rec.trailingZero = true
			if rec.heldAudio != nil {
				rec.pushAudio(rec.nominalAudio())
			}
		}
		switch {
		case rec.broken:
			reason = reasonDiskError
		case rec.starved:
			reason = reasonSlowDisk
		}
		if rec.starved && rec.leavesNothing() {
			st.giveBack(rec)
			st.planGaps()
		} else {
			rec.end(reason)
			st.seal(rec)
		}
		r.rec = nil
	}
	st.rests()
	st.dropLive()
}

// first begins the first recording of the run.
func (r *Run) first(au media.AccessUnit) error {
	if !au.Key {
		return errors.New("the first picture of a run is not a key frame")
	}
	r.setClock(au)
	return r.begin(au, r.wall0, nil)
}

// setClock reads the wall clock; the run goes by the monotonic one from here.
func (r *Run) setClock(au media.AccessUnit) {
	r.mono0 = au.Received
	r.steps = r.st.store.clock.steps.Load()
	r.wall0 = r.st.store.wall().Add(-media.DurationOf(time.Since(au.Received)))
}

// mayChange counts a change of the camera's parameters.
func (r *Run) mayChange(now time.Time) bool {
	if now.Sub(r.changed) > changePeriod {
		r.changes, r.changed = 0, now
	}
	r.changes++
	return r.changes <= mostChanges
}

// local is when the unit came in, on the clock of the run.
func (r *Run) local(au media.AccessUnit) media.Time {
	return r.wall0.Add(media.DurationOf(au.Received.Sub(r.mono0)))
}

// restart ends the recording where its file ends, with a gap behind it, and
// begins another as the first of a run. A recording of which nothing is left
// and no file was begun gives its number back, so that a disk that takes
// nothing for days does not fill the memory with what there is not. A number
// whose place another file has is never tried again.
func (r *Run) restart(au media.AccessUnit, reason string) error {
	rec, st := r.rec, r.st
	rec.heldAudio = nil
	if rec.lost.cause == "" {
		rec.lost = note{rec.start, DiskError, reason}
	}
	if rec.cut(rec.given()); rec.leavesNothing() {
		st.giveBack(rec)
	} else {
		rec.end(reason)
		st.seal(rec)
	}
	r.offset = 0
	r.setClock(au)
	return r.begin(au, r.wall0, nil)
}

// leavesNothing reports whether nothing is left of a recording, on the disk
// neither: its number is still to be had.
func (rec *recording) leavesNothing() bool {
	return len(rec.taken) == 0 && len(rec.pending) == 0 && !rec.created && !rec.broken
}

// begin makes au the first unit of a new recording. carry is a sound that
// came before it and belongs behind it, or nil. When the camera's parameters
// cannot be written down, the run is left without a recording.
func (r *Run) begin(au media.AccessUnit, local media.Time, carry *media.AccessUnit) error {
	st := r.st
	previous := r.rec
	r.rec = nil
	for _, e := range []*media.SampleEntry{au.Entry, r.audio} {
		if e == nil {
			continue
		}
		if err := db.CheckEntry(&db.SampleEntry{ID: 1, SampleEntry: *e}); err != nil {
			return fmt.Errorf("%s of the camera: %w", e.Kind, err)
		}
		if st.store.entries.full() {
			return fmt.Errorf("%s of the camera: too many different codec parameters were seen", e.Kind)
		}
	}
	rec := &recording{
		st:         st,
		run:        r,
		no:         st.nextNo,
		runOffset:  r.offset,
		start:      local,
		prevMedia:  st.cumMedia,
		prevRuns:   st.cumRuns,
		open:       &st.store.open,
		videoEntry: au.Entry,
		audioEntry: r.audio,
		videoID:    st.store.entries.id(au.Entry),
		audioID:    st.store.entries.id(r.audio),
		dts0:       au.DTS,
		received:   au.Received,
		arrival:    local,
		sinceOpen:  media.DurationOf(max(0, au.Received.Sub(st.store.opened))),
	}
	if r.offset > 0 {
		rec.follows = true
		rec.start = previous.start.Add(previous.wallDuration())
	}
	var err error
	if rec.init, err = rec.header(); err != nil {
		return err
	}
	rec.size = int64(len(rec.init))
	rec.rotateAt = st.nextRotation(local)
	rec.hold(au, local)
	if carry != nil {
		rec.holdAudio(*carry)
	}
	if r.offset == 0 {
		st.cumRuns++
		rec.before, st.notes, st.attempt = st.notes, nil, 0
	}
	st.nextNo++
	r.offset++
	st.recent = append(st.recent, rec)
	r.rec = rec
	st.live(rec, au)
	return nil
}

func (r *Run) appendAudio(au media.AccessUnit) {
	rec := r.rec
	if rec == nil || r.audio == nil || rec.broken || rec.starved {
		return // sound without pictures has no recording to go to
	}
	if rec.audioPos(au) > rec.audioUnits(rec.video.Duration)+rec.audioUnits(int64(soundAhead)) {
		return // nor has sound that runs away from them
	}
	if rec.heldAudio != nil {
		// The timeline of a track never goes back: a sound that comes too
		// early shortens the one before it, to half of its length at most.
		d := max(rec.audioPos(au)-rec.heldAudioPos, int64(rec.nominalAudio())/2, 1)
		if d >= rec.audioUnits(int64(media.MaxRecording)) {
			return
		}
		rec.pushAudio(int32(d))
	}
	rec.holdAudio(au)
}
