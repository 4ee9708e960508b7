package store

import (
	"context"
	"sync"

	"holdfast/nvr/media"
)

// Live is one picture as a live viewer gets it.
type Live struct {
	Place
	Unit     media.AccessUnit
	Duration media.Duration // an estimate: that of the picture before; of a Group the real one
	Dropped  int            // pictures this viewer missed just before this one

	made *made
}

// Place is where a picture is recorded, as listings of the recording have it.
type Place struct {
	EntryID        int32 // of Live.Unit.Entry
	RecordingNo    int32
	OpenID         int32
	RecordingStart media.Time
	MediaStart     media.Duration // of the picture since the recording's start, decode time
	PrevMedia      media.Duration // of all recordings of the stream before this one
	Runs           int32          // of the stream up to here, that of the recording counted
}

// Message returns what make makes of the picture. One viewer makes it, for all who
// get the picture: they must not change it. It is made again when the place of the
// picture has changed meanwhile.
func (l *Live) Message(make func(*Live) []byte) []byte {
	return l.made.message(l.Place, func() []byte { return make(l) })
}

// Group is a group of pictures that is complete, as a live viewer gets it.
type Group struct {
	Pictures []Live // the first is a key frame; shared by all viewers, not to be changed
	Dropped  int    // pictures this viewer missed just before it

	made *made
}

// Message is that of Live, for the whole group.
func (g *Group) Message(make func(*Group) []byte) []byte {
	return g.made.message(g.Pictures[0].Place, func() []byte { return make(g) })
}

// made is what was made of a picture or a group, for all its viewers.
type made struct {
	mu    sync.Mutex // a leaf
	place Place
	b     []byte
}

func (m *made) message(at Place, make func() []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.b == nil || m.place != at {
		m.place, m.b = at, make()
	}
	return m.b
}

// livePicture is one of the current group.
type livePicture struct {
	unit     media.AccessUnit
	rec      *recording // it changes when the picture is written again to another file
	at       media.Duration
	duration media.Duration // estimated
	made     *made          // nil: no viewer has had it
}

// live describes the picture, with its place as it is known now: a recording may
// still be moved, and so may those before it that count.
func (p *livePicture) live() Live {
	rec := p.rec
	if p.made == nil {
		p.made = new(made)
	}
	return Live{
		Unit: p.unit, Duration: p.duration, made: p.made,
		Place: Place{
			EntryID: rec.videoID, RecordingNo: rec.no, OpenID: rec.open.ID, RecordingStart: rec.start,
			MediaStart: p.at, PrevMedia: rec.prevMedia, Runs: rec.runsWith(),
		},
	}
}

// livestream is the part of a stream that live viewers follow: the current
// group of pictures, and who waits for the next one. The stream's lock guards
// it.
type livestream struct {
	gop      []livePicture // from the newest key frame on
	gopBytes int64
	gopStart uint64 // sequence number of gop[0]
	spacing  media.Duration
	viewers  int
	arrived  chan struct{} // closed at the next picture; made while somebody waits

	// The newest complete group, kept while anybody follows by groups.
	groupViewers int
	group        *Group
	groupStart   uint64        // sequence number of its first picture
	grouped      chan struct{} // closed at the next group; made while somebody waits
}

// longestGOP bounds what one stream keeps for viewers who join. A camera with
// longer groups makes them wait for the next key frame.
const longestGOP = 16 << 20

func (st *Stream) live(rec *recording, au media.AccessUnit) {
	at := media.Duration(au.DTS - rec.dts0)
	if n := len(st.gop); n > 0 {
		if d := media.Duration(au.DTS - st.gop[n-1].unit.DTS); d > 0 {
			st.spacing = d
			st.gop[n-1].duration = d // for a group; single pictures do not wait for it
		}
	}
	if au.Key || st.gopBytes > longestGOP {
		st.dropLive()
	}
	if au.Key || len(st.gop) > 0 {
		st.gop = append(st.gop, livePicture{unit: au, rec: rec, at: at, duration: st.spacing})
		st.gopBytes += int64(len(au.Data))
	}
	wake(&st.arrived)
}

// wake wakes who waits on a channel.
func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// waitOn returns a channel for the next wake.
func waitOn(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// dropLive ends the current group of pictures and forgets it. Viewers who have not
// seen it to its end go on with the next key frame; those who follow by groups
// get it now.
func (st *Stream) dropLive() {
	if len(st.gop) > 0 && st.groupViewers > 0 {
		g := &Group{made: new(made)}
		for i := range st.gop {
			g.Pictures = append(g.Pictures, st.gop[i].live())
		}
		st.group, st.groupStart = g, st.gopStart
		wake(&st.grouped)
	}
	st.gopStart += uint64(len(st.gop))
	st.gop, st.gopBytes = nil, 0
}

// Follower is one live viewer of a stream. It belongs to one goroutine and
// never slows the recorder.
type Follower struct {
	st   *Stream
	next uint64 // sequence number of the picture to give next
}

// Follow begins with the newest key frame. Close ends it.
func (st *Stream) Follow() *Follower {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.viewers++
	return &Follower{st: st, next: st.gopStart}
}

// Next waits for the next picture. A viewer that is too slow goes on with the
// newest key frame and is told in Dropped what it missed. The error is ErrRemoved
// when the stream was deleted, or that of ctx.
func (f *Follower) Next(ctx context.Context) (Live, error) {
	st := f.st
	for {
		st.mu.Lock()
		if st.removed {
			st.mu.Unlock()
			return Live{}, ErrRemoved
		}
		dropped := 0
		if f.next < st.gopStart {
			dropped = int(st.gopStart - f.next)
			if len(st.gop) > 0 {
				f.next = st.gopStart
			}
		}
		if f.next >= st.gopStart && f.next < st.gopStart+uint64(len(st.gop)) {
			l := st.gop[f.next-st.gopStart].live()
			l.Dropped = dropped
			f.next++
			st.mu.Unlock()
			return l, nil
		}
		arrived := waitOn(&st.arrived)
		st.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return Live{}, ctx.Err()
		}
	}
}

// Close ends the follower.
func (f *Follower) Close() {
	st := f.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.viewers--; st.viewers == 0 {
		for i := range st.gop {
			st.gop[i].made = nil // as large as the pictures
		}
	}
}

// GroupFollower is a live viewer of whole groups of pictures. It belongs to one
// goroutine and never slows the recorder.
type GroupFollower struct {
	st   *Stream
	next uint64 // sequence number of the first picture of the group to give next
}

// FollowGroups begins with the group that goes on now. Close ends it.
func (st *Stream) FollowGroups() *GroupFollower {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.viewers++
	st.groupViewers++
	return &GroupFollower{st: st, next: st.gopStart}
}

// Next waits until a group is complete: the next one has begun, or the session of
// the camera has ended. A viewer that is too slow goes on with the newest group and is
// told in Dropped how many pictures it missed. Errors are those of Follower.Next.
func (f *GroupFollower) Next(ctx context.Context) (Group, error) {
	st := f.st
	for {
		st.mu.Lock()
		if st.removed {
			st.mu.Unlock()
			return Group{}, ErrRemoved
		}
		if st.group != nil && st.groupStart >= f.next {
			g := *st.group
			g.Dropped = int(st.groupStart - f.next)
			f.next = st.groupStart + uint64(len(g.Pictures))
			st.mu.Unlock()
			return g, nil
		}
		grouped := waitOn(&st.grouped)
		st.mu.Unlock()
		select {
		case <-grouped:
		case <-ctx.Done():
			return Group{}, ctx.Err()
		}
	}
}

// Late reports whether there is a newer group than Next gave last. Any goroutine may
// ask until Next is called again.
func (f *GroupFollower) Late() bool {
	f.st.mu.Lock()
	defer f.st.mu.Unlock()
	return f.st.group != nil && f.st.groupStart >= f.next
}

// Close ends the follower.
func (f *GroupFollower) Close() {
	st := f.st
	st.mu.Lock()
	defer st.mu.Unlock()
	st.viewers--
	if st.groupViewers--; st.groupViewers == 0 {
		st.group = nil
	}
}
