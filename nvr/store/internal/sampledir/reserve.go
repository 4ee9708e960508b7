package sampledir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SpaceAt says how much room the disk of any directory has.
func SpaceAt(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return spaceOf(&s), nil
}

func spaceOf(s *unix.Statfs_t) Space {
	unit := s.Frsize // Bsize is what transfers are best at: through FUSE it may be more
	if unit == 0 {
		unit = s.Bsize
	}
	return Space{
		Total: int64(s.Blocks) * unit, Free: int64(s.Bavail) * unit, BlockSize: unit,
		Disk: uint64(uint32(s.Fsid.Val[0]))<<32 | uint64(uint32(s.Fsid.Val[1])),
	}
}

// Reserve makes a file that takes so many bytes of its disk and holds nothing,
// and syncs it. Its entry is durable after a sync of its directory. The error is
// errors.ErrUnsupported where the file system cannot.
func Reserve(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path) // a part of it would be of little use
		}
	}()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return errors.Join(fmt.Errorf("allocate %s: %w", path, err), f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// Reserved reports whether a file takes at least so many bytes.
func Reserved(path string, size int64) bool {
	var s unix.Stat_t
	return unix.Stat(path, &s) == nil && s.Size >= size && s.Blocks*512 >= size
}
