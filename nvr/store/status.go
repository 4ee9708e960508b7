package store

import (
	"slices"
	"time"
)

var causes = [...]Cause{
	CameraUnreachable, LoginRefused, NoFrames, BadTimestamps, CameraEnded, DiskSlow, DiskFull, DiskError,
	RecorderDown, ClockSet, OtherCause, UnknownCause,
}

// Causes returns all causes of gaps.
func Causes() []Cause { return slices.Clone(causes[:]) }

// flushTimes are the bounds by which commits are counted: well under a second
// is usual, tens of seconds is a memory card that stalls.
var flushTimes = [...]time.Duration{
	10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second,
}

// FlushInfo counts the flushes since the store was opened.
type FlushInfo struct {
	Committed int64
	Failed    int64
	Took      time.Duration           // of all that committed
	Within    map[time.Duration]int64 // how many of them took no longer
}

// flushTally counts flushes. The planner's lock guards it.
type flushTally struct {
	committed, failed int64
	took              time.Duration
	within            [len(flushTimes)]int64
}

func (t *flushTally) add(took time.Duration) {
	t.committed++
	t.took += took
	for i, limit := range flushTimes {
		if took <= limit {
			t.within[i]++
		}
	}
}

// Flushes returns a snapshot of what flushes there were. It waits for none.
func (s *Store) Flushes() FlushInfo {
	p := &s.plans
	p.mu.Lock()
	defer p.mu.Unlock()
	in := FlushInfo{p.tally.committed, p.tally.failed, p.tally.took, make(map[time.Duration]int64)}
	for i, limit := range flushTimes {
		in.Within[limit] = p.tally.within[i]
	}
	return in
}

// DirInfo is a snapshot of a sample directory.
type DirInfo struct {
	ID      int32
	Path    string
	InUse   bool   // false: it is missing, or not ours; Error says why
	Error   string // why it takes no writes now, "" when it does
	Garbage int    // rows: of files that are to go, and of such that are gone since the last flush
	Alarm   string // why they only grow, "" when they do not

	// Of its disk; all 0 when it cannot be asked now.
	Total, Free int64
	Floor       int64 // what is kept free of it; below that the oldest recordings go

	disk  uint64 // the same for directories that share their room; 0: not known
	going int64  // bytes of garbage that is to be unlinked, as far as they are known
}

// low reports whether the disk has less than its floor.
func (in *DirInfo) low() bool { return in.Free < in.Floor }

// Dirs returns a snapshot of the sample directories. It asks each disk that
// does not hang how much room it has.
func (s *Store) Dirs() []DirInfo {
	s.mu.RLock()
	dirs := slices.Clone(s.dirs)
	s.mu.RUnlock()
	infos := make([]DirInfo, 0, len(dirs))
	for _, d := range dirs {
		in := d.info()
		in.Total, in.Free, in.Floor, in.disk = 0, 0, 0, 0
		if disk, err := d.disk(); err == nil && d.hangs() < syncEvery {
			if sp, err := disk.Space(); err == nil {
				in.Total, in.Free, in.Floor, in.disk = sp.Total, sp.Free, floorOf(sp.Total), sp.Disk
			}
		}
		infos = append(infos, in)
	}
	return infos
}

// DirStates is Dirs without asking the disks: what is told of room is as old as
// the last step of each.
func (s *Store) DirStates() []DirInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	infos := make([]DirInfo, 0, len(s.dirs))
	for _, d := range s.dirs {
		infos = append(infos, d.info())
	}
	return infos
}

// info describes the directory as memory knows it.
func (d *directory) info() DirInfo {
	in := DirInfo{ID: d.id, Path: d.path, InUse: d.fault() == nil, Error: d.problem()}
	if err := d.stuck(); err != nil && in.Error == "" {
		in.Error = err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	in.Garbage, in.Alarm, in.going = len(d.held), d.alarm, d.room.coming
	if d.room.known {
		in.Total, in.Free, in.disk = d.room.space.Total, d.room.space.Free, d.room.space.Disk
		in.Floor = floorOf(in.Total)
	}
	return in
}
