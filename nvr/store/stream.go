package store

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// ErrNotFound is the kind of every answer that a thing does not exist.
var ErrNotFound = errors.New("not found")

// Camera is a camera as configured. It is a snapshot and never changes.
type Camera struct {
	ID          int32
	UUID        string
	Name        string
	Description string
	Streams     []*Stream // main, sub, ext, those that exist
}

// Stream returns the stream of a type ("main", "sub", "ext"), nil when the
// camera has none.
func (c *Camera) Stream(typ string) *Stream {
	for _, st := range c.Streams {
		if st.typ == typ {
			return st
		}
	}
	return nil
}

// Stream is one stream of a camera: what it records and what it has recorded.
// Its methods may be called from any goroutine.
type Stream struct {
	store *Store
	id    int32
	typ   string
	uuid  string // of the camera
	name  *name  // of the camera
	dir   *directory

	mu  sync.Mutex // taken after Store.mu; no I/O, no SQL and no other lock under it
	cfg db.Stream  // as configured

	// unusable says why the stream cannot be recorded: a file of it could not
	// be read at the start, or for so long that too many recordings wait behind it.
	unusable error

	// crowded says why nothing is recorded while the database commits nothing and
	// too many recordings wait for their rows.
	crowded error

	// overdue says why the last flush did not delete what should go of it, "" when
	// it did.
	overdue string

	earlier *earlier // nil: all files of before the start are adopted

	removing bool // it is being deleted: its directory begins nothing for it
	removed  bool // it is deleted
	state    State

	nextNo   int32 // of the recording that begins next
	cumMedia media.Duration
	cumRuns  int32

	// recent recordings are not in the database; ascending.
	recent []*recording

	// What the database holds.
	committedNo int32 // every recording below has its row, or never will
	recordings  int32
	bytes       int64
	fsBytes     int64
	duration    media.Duration
	first       media.Time // start of the oldest row, 0 when there is none
	last        media.Time // end of the newest row

	// createdNo is the highest number whose file is known to be durable. Files
	// are found again after a crash because no more than probeAhead numbers in
	// a row can be without one (storage.md).
	createdNo int32

	watermark     media.Time // up to here the stream is durable; 0 before the first
	durableTo     time.Time  // the same on the monotonic clock
	unsyncedBytes int64      // of samples that are not durable, as unitCost counts
	keptBytes     int64      // of samples that are durable, see keepGroup
	lostFrames    int        // that fell out of memory, since the directory last said so

	// What came to be recorded since the store was opened.
	frames  int64 // pictures
	payload int64 // bytes of pictures and sound

	// Syncs of files that failed, one after the other, and when the next file is tried.
	syncFails int
	syncErr   error
	syncAgain time.Time

	// For Healthy, which takes no lock that may never come back: monotonic
	// times since the store was opened, 0 for none.
	stirred   atomic.Int64 // the recording loop last gave a unit, or said what it does
	records   atomic.Bool  // the loop says that it records
	undurable atomic.Int64 // since when units come and none has become durable; 0: none wait

	ledger
	livestream
}

// name is what a camera is called, which may change.
type name struct{ atomic.Pointer[string] }

func (n *name) String() string { return *n.Load() }

// cameraID is the id of its camera.
func (st *Stream) cameraID() int32 { return st.settings().CameraID }

// empty reports whether the stream holds nothing, on its disk or in memory.
func (st *Stream) empty() bool {
	if st.dir.fault() != nil {
		return false // nobody has looked
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.recordings == 0 && len(st.recent) == 0 && st.earlier == nil && st.unusable == nil
}

// State is what a stream is doing, for people.
type State struct {
	Phase   string     // "off", "connecting", "recording" or "waiting"
	Since   media.Time // when it began to record, or stopped
	Reason  string     // why it waits: the error of the last session
	Skipped []string   // what the camera offers and is not recorded, and why
}

// Phases of a stream.
const (
	Off        = "off"
	Connecting = "connecting"
	Recording  = "recording"
	Waiting    = "waiting"
)

// SetState notes what the stream is doing. The recording loop calls it, and
// Wait for the phase Waiting.
func (st *Stream) SetState(phase, reason string, skipped []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setState(phase, reason, skipped)
	if phase == Waiting {
		st.noteAbsence(OtherCause, reason)
	}
}

// Wait notes that the stream does not record, and why: the session that was
// tried has failed. The reason is for people, without passwords; the gap keeps
// the first that comes with its cause.
func (st *Stream) Wait(cause Cause, reason string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setState(Waiting, reason, nil)
	st.noteAbsence(cause, reason)
}

func (st *Stream) setState(phase, reason string, skipped []string) {
	if phase == Connecting && st.attempt == 0 {
		st.attempt = st.store.wall()
	}
	// Tries to reach a camera do not make it away for a shorter time.
	absent := func(phase string) bool { return phase == Connecting || phase == Waiting }
	if st.state.Phase != phase && !(absent(st.state.Phase) && absent(phase)) {
		st.state.Since = st.store.wall()
	}
	same := st.state.Phase == phase && st.state.Reason == reason && slices.Equal(st.state.Skipped, skipped)
	st.state.Phase, st.state.Reason, st.state.Skipped = phase, reason, skipped
	if !same {
		st.tellState()
	}
	st.stirred.Store(int64(time.Since(st.store.opened)))
	st.records.Store(phase == Recording)
}

// ID is the number of the stream. It never changes and is never used again.
func (st *Stream) ID() int32 { return st.id }

// Type is "main", "sub" or "ext".
func (st *Stream) Type() string { return st.typ }

// Source is where a stream comes from.
type Source struct {
	URL                string // without credentials
	Username, Password string
	Transport          string // tcp or udp

	// NoPassword says, for people, why there is a password and it cannot be read;
	// "" when it can, or when there is none. The camera must not be asked then:
	// it would refuse, and many lock who is refused out.
	NoPassword string
}

// Source returns where the stream is to be recorded from; ok is false when it
// is not to be recorded. It has the password in it: it is for the recording
// loop only.
func (st *Stream) Source() (s Source, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s = Source{URL: st.cfg.URL, Username: st.cfg.Username, Password: st.cfg.Password, Transport: st.cfg.Transport}
	s.NoPassword = noPassword(st.cfg.PasswordLost)
	return s, st.cfg.Record
}

// noPassword is what to do about a password that cannot be read, "" when it can.
func noPassword(why string) string {
	if why == "" {
		return ""
	}
	return "enter the password of this camera again: the one that is kept cannot be read, " + why
}

// settings returns what the stream is set to.
func (st *Stream) settings() db.Stream {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.cfg
}

// Unavailable says why the stream's directory cannot be written to, nil when
// it can.
func (st *Stream) Unavailable() error {
	if st.dir == nil {
		return errors.New("no sample directory")
	}
	if err := st.dir.fault(); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return cmp.Or(st.unusable, st.crowded)
}

// mostUnflushed recordings of a stream may wait in memory for a database that
// commits nothing, some 30 kB each: those of 16 hours, when no run ends early.
const mostUnflushed = 1000

// crowds ends the recording of a stream of which too many recordings wait for a
// database that commits nothing. The caller holds the lock.
func (st *Stream) crowds() {
	if len(st.recent) < mostUnflushed {
		return
	}
	if err := st.store.plans.failing(); err != nil {
		st.crowded = fmt.Errorf("%d recordings wait for their rows: the database commits nothing: %w", len(st.recent), err)
	}
}

// StreamInfo is a snapshot of a stream.
type StreamInfo struct {
	ID            int32
	Type          string
	URL           string // without password
	Username      string
	Transport     string
	Record        bool
	RetainBytes   int64 // 0: no limit of its own
	RetainDays    int32 // 0: no limit
	FlushIfSec    int32
	SampleFileDir string
	State         State
	DirError      string // why its directory does not take writes now
	DirAlarm      string // why the garbage of its directory only grows

	// Totals over committed, unflushed and growing recordings.
	Recordings int
	Bytes      int64 // in sample files
	FSBytes    int64 // in whole file system blocks
	Duration   media.Duration
	Start, End media.Time // of all there is; both 0 when there is nothing

	Watermark media.Time // up to here the current recording is durable
	Unsynced  int64      // bytes in memory that are not durable
	Unflushed int        // recordings without a row
	ToAdopt   int        // files of before the start that are not looked into yet, about; not in the totals

	// Since the store was opened.
	Frames  int64                    // pictures that came to be recorded
	Payload int64                    // bytes of them and of sound
	GapTime map[Cause]media.Duration // time without recording, as far as it is committed

	// DurableAge is how long ago the newest picture came in that is durable,
	// whatever the wall clock did since. It counts while Watermark is not 0.
	DurableAge time.Duration

	Viewers int // live viewers
}

// Info returns a snapshot of the stream.
func (st *Stream) Info() StreamInfo {
	var dirError, dirAlarm string
	if st.dir != nil {
		dirError, dirAlarm = st.dir.problem(), st.dir.alarmed()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	in := StreamInfo{
		ID: st.id, Type: st.typ, URL: st.cfg.URL, Username: st.cfg.Username, Transport: st.cfg.Transport,
		Record: st.cfg.Record, RetainBytes: st.cfg.RetainBytes, RetainDays: st.cfg.RetainDays, FlushIfSec: st.cfg.FlushIfSec,
		State: st.state, DirError: dirError, DirAlarm: dirAlarm,
		Recordings: int(st.recordings), Bytes: st.bytes, FSBytes: st.fsBytes, Duration: st.duration,
		Start: st.first, End: st.last,
		Watermark: st.watermark, Unsynced: st.unsyncedBytes, ToAdopt: st.toAdopt(), Viewers: st.viewers,
		Frames: st.frames, Payload: st.payload, GapTime: make(map[Cause]media.Duration, len(causes)),
		DurableAge: max(0, time.Since(st.durableTo)),
	}
	for i, c := range causes {
		in.GapTime[c] = st.gapTime[i]
	}
	if st.dir != nil {
		in.SampleFileDir = st.dir.path
	}
	for _, rec := range st.recent {
		if rec.video.Samples == 0 {
			continue
		}
		in.Recordings++
		in.Unflushed++
		in.Bytes += rec.size
		in.FSBytes += st.blocks(rec.size)
		in.Duration += rec.wallDuration()
		if in.Start == 0 || rec.start < in.Start {
			in.Start = rec.start
		}
		in.End = max(in.End, rec.start.Add(rec.wallDuration()))
	}
	return in
}

// seal ends a recording: nothing is added to it any more.
func (st *Stream) seal(rec *recording) {
	rec.sealed = true
	if rec.broken {
		rec.cut(rec.durable)
	}
	st.cumMedia = rec.prevMedia + rec.mediaDuration()
	if rec.broken || len(rec.taken) == 0 && len(rec.pending) == 0 {
		st.settled(rec) // the directory has nothing to do for it
	}
	st.tellRecording(rec)
}

// shorten cuts a recording back to its first n fragments. When it was sealed,
// what came after it is counted without that, and what follows it in its run
// becomes a run of its own, because something is missing between them. What
// their files say of themselves is older than that; their rows count.
func (st *Stream) shorten(rec *recording, n int, reason string) {
	defer st.tellLists(rec.start)
	before := rec.mediaDuration()
	rec.cut(n)
	if !rec.sealed {
		return
	}
	lost := before - rec.mediaDuration()
	split := rec.endReason == ""
	rec.end(reason)
	st.cumMedia -= lost
	first, same := true, true // a run that was split goes on under other offsets
	for _, r := range st.recent[slices.Index(st.recent, rec)+1:] {
		r.prevMedia -= lost
		if !split {
			continue
		}
		if same = same && r.run == rec.run && r.runOffset > rec.runOffset; same {
			r.runOffset -= rec.runOffset + 1
		}
		if !first {
			r.prevRuns++
		}
		first = false
	}
	if first {
		return
	}
	st.cumRuns++
	if same {
		rec.run.offset -= rec.runOffset + 1
	}
}

// settled notes that all that is to be kept of a recording is durable, and
// plans its flush: when its first instant is flush_if_sec old (R10), but no
// sooner than that after the last flush. A recording is a minute old by now, and
// those of sixteen streams would each have a flush of its own otherwise (R11).
func (st *Stream) settled(rec *recording) {
	rec.settled = true
	rec.letGo(len(rec.taken))
	rec.release()
	rec.lighten()
	if st.earlier != nil {
		st.holdBack()
	}
	st.crowds()
	i := slices.Index(st.recent, rec)
	for i > 0 && st.recent[i-1].moved {
		i--
	}
	if i > 0 && !rec.moved && len(rec.taken) == 0 && st.recent[i-1].run == rec.run && st.recent[i-1].endReason == "" {
		// Nothing of it is left, so the one before it is the last of the run.
		st.recent[i-1].endReason = rec.endReason
	}
	at := rec.received
	if flushed := st.store.plans.flushed(); flushed.After(at) {
		at = flushed
	}
	st.store.plan(st, rec.no, at.Add(time.Duration(st.cfg.FlushIfSec)*time.Second))
	st.rests()
}

// unsynced counts bytes that wait in memory to become durable.
func (st *Stream) unsynced(n int64) {
	if st.removed {
		return
	}
	if n > 0 && st.undurable.Load() == 0 {
		st.undurable.Store(int64(time.Since(st.store.opened)))
	}
	st.unsyncedBytes += n
	st.store.ring.Add(n)
}

// rests notes when no units wait and none are to come. What falls out of memory
// while more come has not become durable.
func (st *Stream) rests() {
	if n := len(st.recent); st.unsyncedBytes == 0 && (n == 0 || st.recent[n-1].sealed) {
		st.undurable.Store(0)
	}
}

// rotation is how long recordings are. minRotation spares a run a first
// recording of a moment.
const (
	rotation    = media.Minute
	minRotation = 10 * media.Second
)

// nextRotation is the time from which the next key frame begins a new
// recording: once a minute, at a second that differs from stream to stream so
// that files are not all created at once. Bit-reversed stream numbers spread
// evenly however many there are.
func (st *Stream) nextRotation(start media.Time) media.Time {
	offset := media.Time(uint64(bits.Reverse32(uint32(st.id))) * uint64(rotation) >> 32)
	least := start.Add(minRotation)
	t := least - (least-offset)%media.Time(rotation)
	if t < least {
		t += media.Time(rotation)
	}
	return t
}

// blocks rounds a file's size up to whole file system blocks (R28).
func (st *Stream) blocks(size int64) int64 {
	b := int64(4096)
	if st.dir != nil {
		b = cmp.Or(st.dir.blockSize.Load(), b)
	}
	return (size + b - 1) / b * b
}
