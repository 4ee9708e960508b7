package store

import (
	"context"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

const day = 24 * 60 * media.Minute

// longestOff is how much of the time between two opens counts for the age of
// recordings. The wall clock alone says how long it was, and may be wrong.
const longestOff = day

// ages counts how long ago a recording ended without trusting the wall clock
// (time.md rule 18). It is made at the start, and anew when the clock is
// set.
type ages struct {
	opens map[int32]pastOpen
}

// pastOpen is an open before this one.
type pastOpen struct {
	db.OpenRow                // its end is its last flush
	since      media.Duration // from that to the beginning of this open, as far as it counts
}

// readAges reads the history of opens. The newest have times that the database
// does not know yet; this open is the last of them.
func (s *Store) readAges(ctx context.Context, newest []db.OpenRow) (*ages, error) {
	a := &ages{make(map[int32]pastOpen)}
	this := newest[len(newest)-1]
	next, since := this.Start, media.Duration(0)
	err := s.db.Opens(ctx, func(o db.OpenRow) error {
		if o.ID >= this.ID {
			return nil
		}
		if i := int(o.ID - newest[0].ID); i >= 0 {
			o = newest[i]
		}
		since += min(max(next.Sub(o.End), 0), longestOff)
		a.opens[o.ID] = pastOpen{o, since}
		since += o.Duration
		next = o.Start
		return nil
	})
	return a, err
}

// least is how long ago a recording ended at least. running is the monotonic
// time since the beginning of this open.
func (a *ages) least(r *db.Recording, openID int32, now media.Time, running media.Duration) media.Duration {
	wall := now.Sub(r.End())
	if r.OpenID == openID {
		return min(wall, running)
	}
	o, ok := a.opens[r.OpenID]
	if !ok {
		return 0
	}
	return min(wall, min(max(o.End.Sub(r.End()), 0), o.Duration)+o.since+running)
}

// retainsByAge reports whether any stream has a limit in days.
func (s *Store) retainsByAge() bool {
	for _, st := range s.allStreams() {
		if st.settings().RetainDays > 0 {
			return true
		}
	}
	return false
}
