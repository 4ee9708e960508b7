package sampledir

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Through FUSE the block that transfers are best at may be larger than the one
// that is counted.
func TestRoomIsCountedInFragments(t *testing.T) {
	for _, bsize := range []int64{4096, 1 << 20} {
		for _, frsize := range []int64{4096, 0} {
			if frsize == 0 && bsize != 4096 {
				continue
			}
			sp := spaceOf(&unix.Statfs_t{Bsize: bsize, Frsize: frsize, Blocks: 1000, Bavail: 10})
			if sp.Total != 1000*4096 || sp.Free != 10*4096 || sp.BlockSize != 4096 {
				t.Errorf("blocks of %d and fragments of %d: %+v", bsize, frsize, sp)
			}
		}
	}
}
