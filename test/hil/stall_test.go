package hil

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/test/hil/nbd"
)

// A disk that takes its time again and again, up to a minute for a flush, costs
// nothing for as long as memory holds what comes, be it that with the footage or
// that with the database. Nobody is started again for it.
func TestDiskThatStallsAgainAndAgainCostsNothing(t *testing.T) {
	f := newFaulty(t)
	stalls := stallsOf(seed(t))
	f.breaks(func() {})
	for i, st := range stalls {
		drive := f.vm.second.drive
		if st.perm {
			drive = f.vm.drive
		}
		f.stalls(drive, st)
		t.Logf("stall %d of %d: %d times %v, disk of the database: %t", i+1, len(stalls), st.flushes, st.each, st.perm)
	}
	f.ended = time.Now()
	f.recovers(outage)
	f.stayed()
	f.settles(allowed{})
}

// stalls lets a disk stall, and waits until all streams record behind it.
func (f *faulty) stalls(drive *nbd.Disk, st stall) {
	f.t.Helper()
	met := drive.Stats().Faulty
	drive.Break(nbd.Fault{Ops: []nbd.Op{nbd.Flush}, Delay: st.each, Times: st.flushes})
	f.until("flush", 2*time.Minute, func() error {
		if n := drive.Stats().Faulty - met; n < int64(st.flushes) {
			return fmt.Errorf("%d flushes", n)
		}
		return nil
	})
	<-time.After(st.each)
	f.goesOn(time.Minute, onMedia, onPerm)
}

// stall is a time in which a disk takes so long for each of some flushes in a row.
type stall struct {
	perm    bool // of the disk with the database
	flushes int
	each    time.Duration
}

// stallsOf draws stalls of a tenth of a second to a minute, short ones as often as
// long ones, and one of a minute.
func stallsOf(seed uint64) (list []stall) {
	r := rand.New(rand.NewPCG(seed, 0))
	const n = 10
	whole := r.IntN(n)
	for i := range n {
		total := time.Minute
		if i != whole {
			total = time.Duration(float64(100*time.Millisecond) * math.Pow(600, r.Float64()))
		}
		flushes := 1 + r.IntN(3)
		list = append(list, stall{r.IntN(3) == 0 && i != whole, flushes, total / time.Duration(flushes)})
	}
	return list
}
