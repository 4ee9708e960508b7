package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// Change is what a Notice tells of.
type Change int

const (
	CameraChanged     Change = iota + 1 // it was added, or is configured anew
	CameraDeleted                       // with all it has recorded
	StreamChanged                       // what Stream.Info says, but for what grows all the time
	StreamDeleted                       // with all it has recorded; Notice.StreamID
	RecordingsChanged                   // those of Notice.Recordings began, ended, or got their rows
	GapChanged                          // Notice.Gap began or ended
	ListsChanged                        // recordings and gaps of the stream are others from Notice.From on
	DirChanged                          // Notice.Dir was added, or does otherwise
	DirDeleted                          // Notice.Dir
	ClockChanged                        // the clock was set, and with it whatever was recorded may have moved
)

// Notice says that something has changed. It is told once, by who changed it;
// what it leaves out is to be asked.
type Notice struct {
	ID         uint64 // counts from 1 since the store was opened
	Change     Change
	CameraID   int32  // 0: of no camera
	CameraUUID string // of that camera
	Stream     string // its type; "": of the camera as a whole
	StreamID   int32  // of one that was deleted: another of its type may have come since
	Recordings []Span
	Gap        Gap
	From       media.Time
	Dir        DirInfo
}

// mostNotices are kept for who is slow, and for who comes back. mostRows are in one.
const (
	mostNotices = 1024
	mostRows    = 16
	noticeBatch = 64
)

// notices are the newest ones. They are kept once, however many read them: who
// falls behind the oldest has lost some and is told so. Nobody who tells waits.
type notices struct {
	mu   sync.Mutex // a leaf
	kept []Notice   // ascending, without holes
	last uint64     // ID of the newest there ever was
	more chan struct{}
}

// tell adds a notice. Any locks may be held but leaves.
func (n *notices) tell(what Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	what.ID = n.last
	if len(n.kept) == mostNotices {
		n.kept = append(n.kept[:0:0], n.kept[mostNotices/4:]...)
	}
	n.kept = append(n.kept, what)
	wake(&n.more)
}

// Watcher reads notices. It belongs to one goroutine, holds nothing that would have
// to be closed, and never slows the recorder.
type Watcher struct {
	n    *notices
	last uint64
}

// Watch begins with the next notice. What is asked of the store from now on is at
// least as new as that.
func (s *Store) Watch() *Watcher {
	n := &s.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	return &Watcher{n, n.last}
}

// WatchFrom begins behind a notice, and reports whether those behind it are all
// still kept.
func (s *Store) WatchFrom(id uint64) (*Watcher, bool) {
	n := &s.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	return &Watcher{n, id}, id <= n.last && n.last-id <= uint64(len(n.kept))
}

// Last is the ID of the newest notice that was read, or would have been.
func (w *Watcher) Last() uint64 { return w.last }

// Next waits for notices and returns some, the oldest first. lost says that this
// watcher was too slow: it has to ask for everything, and goes on from here. The
// error is that of ctx.
func (w *Watcher) Next(ctx context.Context) (_ []Notice, lost bool, _ error) {
	n := w.n
	for {
		n.mu.Lock()
		behind := n.last - w.last
		if behind > uint64(len(n.kept)) {
			w.last = n.last
			n.mu.Unlock()
			return nil, true, nil
		}
		if behind > 0 {
			kept := n.kept[len(n.kept)-int(behind):]
			out := slices.Clone(kept[:min(len(kept), noticeBatch)])
			w.last = out[len(out)-1].ID
			n.mu.Unlock()
			return out, false, nil
		}
		more := waitOn(&n.more)
		n.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// tell tells of a change of the stream. The caller holds its lock.
func (st *Stream) tell(what Notice) {
	if st.removed {
		return
	}
	what.CameraID, what.CameraUUID, what.Stream = st.cfg.CameraID, st.uuid, st.typ
	st.store.notices.tell(what)
}

// tellState tells that Info says something else.
func (st *Stream) tellState() { st.tell(Notice{Change: StreamChanged}) }

// tellLists tells that lists are others from a time on.
func (st *Stream) tellLists(from media.Time) { st.tell(Notice{Change: ListsChanged, From: from}) }

// tellRecording tells how a recording is listed now.
func (st *Stream) tellRecording(rec *recording) {
	if rec.video.Samples == 0 {
		st.tellLists(rec.start) // it may have been listed
		return
	}
	st.tell(Notice{Change: RecordingsChanged, Recordings: []Span{SpanOf(rec.info())}})
}

// tellBegun tells of a recording that is listed from now on, and of the gap that
// ends with it.
func (st *Stream) tellBegun(rec *recording) {
	switch {
	case rec.follows && len(rec.before) == 0:
	case st.absence.Growing:
		st.tellPresence(rec.start)
	case st.earlier == nil: // one that was over before anybody said why
		a, _ := st.unwritten()
		if n := len(a.gaps); n > 0 && a.gaps[n-1].End == rec.start {
			g := a.gaps[n-1]
			st.tell(Notice{Change: GapChanged, Gap: Gap{g.Start, g.End, Cause(g.Cause), g.Detail, false}})
		}
	}
	st.tellRecording(rec)
}

// tellAbsence tells of a gap that goes on from now, and of the one that ends with
// it, for another cause.
func (st *Stream) tellAbsence(cause Cause, detail string) {
	if !st.owed || st.earlier != nil {
		return
	}
	a, _ := st.unwritten()
	g := Gap{a.until, a.until, cause, detail, true} // shorter than a moment
	if a.growing {
		g.Start = a.gaps[len(a.gaps)-1].Start
	}
	st.tellPresence(g.Start)
	st.absence = g
	st.tell(Notice{Change: GapChanged, Gap: g})
}

// tellPresence tells that the gap that goes on, if one does, ended at a time.
func (st *Stream) tellPresence(end media.Time) {
	g := st.absence
	if !g.Growing {
		return
	}
	st.absence.Growing = false
	if g.End, g.Growing = end, false; g.Start < g.End && st.earlier == nil {
		st.tell(Notice{Change: GapChanged, Gap: g})
	} else {
		st.tellLists(g.Start) // there was none, or what is adopted says how much of one
	}
}

// tellAdopted tells of recordings of before the start.
func (st *Stream) tellAdopted(recs []*recording) {
	for _, rec := range recs {
		st.absence.Start = max(st.absence.Start, rec.start.Add(rec.wallDuration()))
	}
	if len(recs) > 0 {
		st.tellLists(recs[0].start)
	}
	st.tellState()
}

// tellCommitted tells what a flush has done for the stream.
func (st *Stream) tellCommitted(sh *share) {
	var rows []Span
	for i := range sh.add {
		rows = append(rows, SpanOf(committedInfo(&sh.add[i].Recording)))
		if len(rows) > mostRows {
			break
		}
	}
	switch {
	case len(sh.bad) > 0 || len(rows) > mostRows:
		st.tellLists(sh.recs[0].start)
	case len(rows) > 0:
		st.tell(Notice{Change: RecordingsChanged, Recordings: rows})
	}
	st.tellState()
}

// cameraState is what a notice of a camera is about.
type cameraState struct {
	uuid, name, description string
	streams                 [3]db.Stream // main, sub, ext, but for what recording changes
}

// configured describes the cameras, so that a change shows. The caller holds mu.
func (s *Store) configured() map[int32]cameraState {
	all := make(map[int32]cameraState)
	for _, c := range s.cameras {
		state := cameraState{uuid: c.UUID, name: c.Name, description: c.Description}
		for i, st := range c.Streams {
			cfg := st.settings()
			cfg.OwedFrom, cfg.NextNo, cfg.CumMedia, cfg.CumRuns = 0, 0, 0, 0
			cfg.Recordings, cfg.Bytes, cfg.FSBytes, cfg.Duration = 0, 0, 0, 0
			state.streams[i] = cfg
		}
		all[c.ID] = state
	}
	return all
}

// tellConfigured tells how the configuration differs from what it was.
func (s *Store) tellConfigured(was, is map[int32]cameraState) {
	for id, c := range is {
		for _, st := range was[id].streams {
			if st.ID != 0 && !slices.ContainsFunc(c.streams[:], func(o db.Stream) bool { return o.ID == st.ID }) {
				s.notices.tell(Notice{Change: StreamDeleted, CameraID: id, CameraUUID: c.uuid, Stream: st.Type, StreamID: st.ID})
			}
		}
		if was[id] != c {
			s.notices.tell(Notice{Change: CameraChanged, CameraID: id, CameraUUID: c.uuid})
		}
	}
	for id, c := range was {
		if _, ok := is[id]; !ok {
			s.notices.tell(Notice{Change: CameraDeleted, CameraID: id, CameraUUID: c.uuid})
		}
	}
}

// tellDir tells how a directory does, unless it was deleted: nothing is told of it
// after that.
func (s *Store) tellDir(d *directory, is DirInfo) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !slices.Contains(s.dirs, d) {
		return false
	}
	s.notices.tell(Notice{Change: DirChanged, Dir: is})
	return true
}

// dirSteps is by how much of a disk the room on it has to change to be told.
const dirSteps = 200

// watchDirs is the goroutine that tells how the directories do. It asks no disk: a
// directory that hangs has to be told of, too.
func (s *Store) watchDirs(ctx context.Context) {
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	told := make(map[*directory]DirInfo)
	for first := true; ; first = false {
		s.mu.RLock()
		dirs := slices.Clone(s.dirs)
		s.mu.RUnlock()
		maps.DeleteFunc(told, func(d *directory, _ DirInfo) bool { return !slices.Contains(dirs, d) })
		for _, d := range dirs {
			was, is := told[d], d.info()
			other := was.InUse != is.InUse || was.Error != is.Error || was.Alarm != is.Alarm
			moved := max(is.Free-was.Free, was.Free-is.Free)
			if !other && was.Path != "" && was.Total == is.Total && moved <= is.Total/dirSteps && was.low() == is.low() {
				continue
			}
			told[d] = is
			if first {
				continue
			}
			if !s.tellDir(d, is) || !other {
				continue
			}
			for _, st := range s.streamsIn(d) {
				st.mu.Lock()
				st.tellState()
				st.mu.Unlock()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
