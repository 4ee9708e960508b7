package store

import (
	"context"

	"holdfast/nvr/media"
)

// Live is one picture as a live viewer gets it.
type Live struct {
	Unit           media.AccessUnit
	EntryID        int32 // of Unit.Entry
	RecordingNo    int32
	OpenID         int32
	RecordingStart media.Time
	MediaStart     media.Duration // of the picture since the recording's start, decode time
	Duration       media.Duration // an estimate: that of the picture before
	PrevMedia      media.Duration // of all recordings of the stream before this one
	PrevRuns       int32
	Dropped        int // pictures this viewer missed just before this one
}

// livestream is the part of a stream that live viewers follow: the current
// group of pictures, and who waits for the next one. The stream's lock guards
// it.
type livestream struct {
	gop      []Live // from the newest key frame on
	gopBytes int64
	gopStart uint64 // sequence number of gop[0]
	spacing  media.Duration
	viewers  int
	arrived  chan struct{} // closed at the next picture; made while there are viewers
}

// longestGOP bounds what one stream keeps for viewers who join. A camera with
// longer groups makes them wait for the next key frame.
const longestGOP = 16 << 20

func (st *Stream) live(rec *recording, au media.AccessUnit) {
	at := media.Duration(au.DTS - rec.dts0)
	if n := len(st.gop); n > 0 {
		if d := media.Duration(au.DTS - st.gop[n-1].Unit.DTS); d > 0 {
			st.spacing = d
		}
	}
	if au.Key || st.gopBytes > longestGOP {
		st.dropLive()
	}
	if au.Key || len(st.gop) > 0 {
		st.gop = append(st.gop, Live{
			Unit: au, EntryID: rec.videoID,
			RecordingNo: rec.no, OpenID: rec.open.ID, RecordingStart: rec.start,
			MediaStart: at, Duration: st.spacing, PrevMedia: rec.prevMedia, PrevRuns: rec.prevRuns,
		})
		st.gopBytes += int64(len(au.Data))
	}
	if st.arrived != nil {
		close(st.arrived)
		st.arrived = nil
	}
}

// dropLive forgets the current group of pictures. Viewers who have not seen
// it to its end go on with the next key frame.
func (st *Stream) dropLive() {
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
// newest key frame and is told in Dropped what it missed.
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
			l := st.gop[f.next-st.gopStart]
			l.Dropped = dropped
			f.next++
			st.mu.Unlock()
			return l, nil
		}
		if st.arrived == nil {
			st.arrived = make(chan struct{})
		}
		arrived := st.arrived
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
	f.st.mu.Lock()
	defer f.st.mu.Unlock()
	f.st.viewers--
}
