package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir"
)

// floorOf is the room that is kept free on a disk of a size, whoever fills it.
func floorOf(total int64) int64 { return min(max(1<<30, total/50), total/16) }

// room is what a directory knows of the room on its disk. directory.mu guards
// it.
type room struct {
	known bool            // false before it was asked, and while it cannot be
	space sampledir.Space // as last asked
	asked time.Time       // when that was

	// Recordings that were garbage then and not unlinked: their bytes will be
	// free without anything more being deleted.
	sizes   map[int64]int64 // by recording, whole blocks
	coming  int64           // what they add up to
	unsized int             // garbage whose size nobody knows any more
	waits   bool            // for that garbage: it gets less

	ahead   int64 // bytes of the last flush that added any: what comes before the next, about
	forCopy int64 // that a copy of the database did not find

	planned  bool      // a flush is to make room
	tried    time.Time // when one last did
	helpless string    // why none can; empty while one may
	barren   string    // why the flush under way makes no room; empty: it may
	paused   error     // why recording pauses; nil: it does not
}

// low reports whether the disk has less than its floor, with all that is on its
// way to be free.
func (r *room) low() bool { return r.known && r.space.Free+r.coming < floorOf(r.space.Total) }

// askRoom asks a disk how much room there is, and has a flush delete the oldest
// recordings when there is too little.
func (d *directory) askRoom(disk sampledir.Dir) (sp sampledir.Space, ok bool) {
	sp, err := disk.Space()
	ask, unasked := d.roomIs(sp, err)
	if unasked {
		d.store.log.Warn("nobody knows how much room there is", "dir", d.path, "err", err)
	}
	if ask {
		d.store.plan(nil, roomPlan, time.Now())
	}
	return sp, err == nil
}

// look is askRoom. The error says that recording pauses.
func (d *directory) look() error {
	d.askRoom(d.dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.room.paused
}

// fits reports whether what memory holds for the directory can be written though
// recording pauses: at the end of the process it would be lost, and nothing comes
// behind it. A quarter of the floor is left for the database.
func (d *directory) fits() bool {
	var held int64
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		held += st.unsyncedBytes + st.blocks(1)*int64(len(st.recent))
		st.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	sp := d.room.space
	return d.room.known && sp.Free-held >= floorOf(sp.Total)/4
}

// roomIs takes the answer over. It reports whether a flush has to make room,
// and whether the answer is the first that is none.
func (d *directory) roomIs(sp sampledir.Space, err error) (ask, unasked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.room
	if err != nil || sp.Total <= 0 {
		unasked = r.known
		r.known = false
		return false, unasked && err != nil
	}
	r.known, r.space, r.asked = true, sp, time.Now()
	r.recount(d.garbage)
	floor := floorOf(sp.Total)
	switch {
	case r.paused != nil && sp.Free >= floor/4*3:
		r.paused = nil
	case r.paused == nil && r.helpless != "" && sp.Free < floor/2:
		r.paused = fmt.Errorf("sample directory %s: recording pauses: %d of %d MB are free, and %s; it goes on at %d MB: %w",
			d.path, sp.Free>>20, sp.Total>>20, r.helpless, (floor/4*3)>>20, syscall.ENOSPC)
	}
	if sp.Free >= floor {
		r.helpless = ""
	}
	ask = r.low() && !r.planned && !r.waits && (r.helpless == "" || time.Since(r.tried) >= flushRetry)
	r.planned = r.planned || ask
	return ask, false
}

// recount forgets what was unlinked: from now on it counts as free.
func (r *room) recount(garbage []int64) {
	sizes, before := r.sizes, r.unsized
	r.sizes, r.coming, r.unsized = make(map[int64]int64), 0, 0
	for _, id := range garbage {
		n, ok := sizes[id]
		if !ok {
			r.unsized++
			continue
		}
		r.sizes[id] = n
		r.coming += n
	}
	// What cannot be unlinked is not waited for.
	r.waits = r.unsized > 0 && r.unsized != before
}

// expect gives the directory a file to unlink whose garbage row is committed,
// and notes what that frees.
func (d *directory) expect(id, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.hold(id) {
		return
	}
	r := &d.room
	if r.sizes == nil {
		r.sizes = make(map[int64]int64)
	}
	r.sizes[id] = size
	r.coming += size
}

// Why a flush makes no room.
const (
	nothingLeft = "nothing is left to delete"
	unreadable  = "the database does not read what could be deleted"
)

// makeRoom adds to a flush what has to go so that every disk keeps its floor
// free until the next one: of its directories the oldest recordings, whichever
// stream they are of. What is garbage already, what goes by the limits of
// streams, and what deleted cameras have counts as free.
func (s *Store) makeRoom(ctx context.Context, all []*share, drops []*drop) {
	for _, dirs := range s.disks() {
		var shares []*share
		for _, sh := range all {
			if slices.Contains(dirs, sh.st.dir) {
				shares = append(shares, sh)
			}
		}
		need := s.needs(dirs, shares) - freed(drops, dirs)
		if need <= 0 {
			continue
		}
		n, blind := s.dropOldest(ctx, shares, need)
		barren := ""
		if n == 0 && !slices.ContainsFunc(shares, func(sh *share) bool { return len(sh.recs) > 0 }) {
			if barren = nothingLeft; blind {
				barren = unreadable
			}
		}
		for _, d := range dirs {
			d.mu.Lock()
			d.room.barren = barren
			d.mu.Unlock()
		}
	}
}

// disks are the directories in use, those of one disk together.
func (s *Store) disks() (disks [][]*directory) {
	place := make(map[uint64]int)
	for _, d := range s.dirs {
		if d.fault() != nil {
			continue
		}
		d.mu.Lock()
		disk := d.room.space.Disk
		d.mu.Unlock()
		if i, ok := place[disk]; ok {
			disks[i] = append(disks[i], d)
			continue
		}
		if disk != 0 {
			place[disk] = len(disks)
		}
		disks = append(disks, []*directory{d})
	}
	return disks
}

// needs is how many bytes too few the disk of the directories has.
func (s *Store) needs(dirs []*directory, shares []*share) int64 {
	var added, have, want, free int64
	for _, sh := range shares {
		added += sh.addSum.fsBytes - sh.onDisk
		have += sh.delSum.fsBytes
	}
	unsure := false
	var asked time.Time
	for i, d := range dirs {
		d.mu.Lock()
		r := &d.room
		r.barren = ""
		unsized := 0
		for _, id := range d.garbage {
			if _, ok := r.sizes[id]; !ok {
				unsized++
			}
		}
		unsure = unsure || !r.known || r.waits || unsized > r.unsized
		if added > 0 {
			r.ahead = added
		}
		have += r.coming
		if !r.asked.Before(asked) { // one that fails is not asked
			free, asked = r.space.Free, r.asked
		}
		if i == 0 {
			// Without what comes before the next flush, each recording would want
			// a commit of its own.
			floor := floorOf(r.space.Total)
			want = floor + min(r.ahead, floor)
		}
		want += min(r.forCopy, r.space.Total/16)
		d.mu.Unlock()
		if d.path == s.resolve(defaultDir) {
			want += s.ballast.missing()
		}
	}
	if unsure {
		return 0
	}
	return want - have - free
}

// dropOldest chooses the oldest recordings of some streams until they free so
// many bytes, and returns how many they are. Those of a stream go in the order
// of their numbers, as everywhere; which stream is next is told by the open and,
// within one, by the wall clock: a clock that was wrong before a restart does
// not make footage of today the oldest. A stream whose rows cannot be read does
// without, and blind says so.
func (s *Store) dropOldest(ctx context.Context, shares []*share, need int64) (n int, blind bool) {
	var queues []*oldest
	for _, sh := range shares {
		q := &oldest{sh: sh}
		if k := len(sh.del); k > 0 {
			_, no := db.SplitID(sh.del[k-1].ID)
			q.next = no + 1 // those before go already
		}
		sh.st.mu.Lock()
		q.end = sh.st.committedNo
		removed := sh.st.removed
		sh.st.mu.Unlock()
		if !removed {
			queues = append(queues, q)
		}
	}
	for ; need > 0 && n < s.cfg.mostDeletions; n++ {
		var first *oldest
		for _, q := range queues {
			if err := q.fill(ctx, s.db); err != nil {
				q.rows, q.next, q.sh.leftOut, blind = nil, q.end, err, true
			}
			if len(q.rows) > 0 && (first == nil || q.compare(first) < 0) {
				first = q
			}
		}
		if first == nil {
			return n, blind
		}
		r := &first.rows[0]
		sh := first.sh
		sh.del = append(sh.del, db.Garbage{DirID: r.DirID, ID: r.ID})
		sh.delBytes = append(sh.delBytes, r.FSBytes)
		sh.delSum.add(r)
		need -= r.FSBytes
		first.rows = first.rows[1:]
	}
	return n, blind
}

// oldest are the recordings of a stream that can go, read by and by.
type oldest struct {
	sh        *share
	rows      []db.Recording
	next, end int32 // numbers that were not read yet
}

func (q *oldest) fill(ctx context.Context, d *db.DB) error {
	const atOnce = 32
	if len(q.rows) > 0 || q.next >= q.end {
		return nil
	}
	from := q.next
	q.next = q.end
	return d.RecordingsByNo(ctx, q.sh.st.id, from, q.end, func(r *db.Recording) error {
		_, no := db.SplitID(r.ID)
		switch {
		case r.DirID != q.sh.st.dir.id: // it would free nothing here
			return db.ErrStop
		case len(q.rows) == atOnce:
			q.next = no
			return db.ErrStop
		}
		q.rows = append(q.rows, *r)
		return nil
	})
}

func (q *oldest) compare(p *oldest) int {
	a, b := &q.rows[0], &p.rows[0]
	return cmp.Or(cmp.Compare(a.OpenID, b.OpenID), cmp.Compare(a.Start, b.Start))
}

// roomTried notes how a flush ended: whether another one can be of help.
func (s *Store) roomTried(err error) {
	for _, d := range s.dirs {
		d.mu.Lock()
		r := &d.room
		r.tried = time.Now()
		r.planned = r.planned && err != nil // it is tried again then
		switch {
		case !r.low():
			r.helpless = ""
		case err != nil:
			r.helpless = "the database does not commit what would make room"
		default:
			r.helpless = r.barren
		}
		d.mu.Unlock()
	}
}
