// Package disk makes and mounts the data partition, /perm: on the very first
// start of a device it takes the rest of the disk and gets a file system, on
// each later one it is mounted. The same code mounts it with the options that
// the recorder's promises rest on.
//
//	image ─ marker ─► grow (GPT) ─► ext4, all but the first sector ─► marker goes ─► mount
//	        cut here: again         cut here: again                   cut here: mount
//
// A partition without the marker is never written to, whatever is on it and
// whether or not it mounts: a mount that fails is a reason to speak, not to
// format. Which disk it is follows from the root file system alone, since a
// second disk may carry a copy of the same image.
//
// Disks for recordings that a user adds do not belong here yet; they come with
// the appliance's daemon.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// permNumber is the number of the data partition on the disk of an image.
const permNumber = 4

// label is that of the file system.
const label = "holdfast"

// Perm is the data partition of the disk that this system was started from.
type Perm struct {
	Disk, Partition string // device files
}

// Find returns the data partition of the disk that the root file system is on.
// It needs /sys and /dev.
func Find() (Perm, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return Perm{}, fmt.Errorf("find own disk: %w", err)
	}
	return find("/sys", "/dev", uint64(st.Dev))
}

func find(sys, dev string, device uint64) (Perm, error) {
	link := filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)))
	root, err := filepath.EvalSymlinks(link)
	if err != nil {
		return Perm{}, fmt.Errorf("find own disk: %w", err)
	}
	if n, err := number(root); err != nil || n != 2 && n != 3 {
		return Perm{}, fmt.Errorf("find own disk: the root file system is on %s, which is not partition 2 or 3", filepath.Base(root))
	}
	disk := filepath.Dir(root)
	siblings, err := os.ReadDir(disk)
	if err != nil {
		return Perm{}, fmt.Errorf("find own disk: %w", err)
	}
	for _, s := range siblings {
		if n, err := number(filepath.Join(disk, s.Name())); err == nil && n == permNumber {
			return Perm{Disk: filepath.Join(dev, filepath.Base(disk)), Partition: filepath.Join(dev, s.Name())}, nil
		}
	}
	return Perm{}, fmt.Errorf("find own disk: %s has no partition %d", filepath.Base(disk), permNumber)
}

// number is that of a partition in /sys.
func number(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "partition"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Fresh reports whether the partition is as the image brought it.
func (p Perm) Fresh() (bool, error) {
	f, err := os.Open(p.Partition)
	if err != nil {
		return false, fmt.Errorf("read marker: %w", err)
	}
	defer f.Close()
	return fresh(f)
}

// Make grows the partition to the end of the disk and formats it. It refuses a
// partition that is not fresh. It returns the size of the file system in bytes.
//
// How long it takes grows with the disk: half a minute for a terabyte on a PC,
// minutes on a Pi. progress is called all the while, with that size; its error
// ends the work.
func (p Perm) Make(progress func(size int64) error) (int64, error) {
	f, err := os.OpenFile(p.Partition, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return 0, fmt.Errorf("format: %w", err)
	}
	defer f.Close()
	if ok, err := fresh(f); err != nil {
		return 0, err
	} else if !ok {
		return 0, errors.New("format: the partition is not fresh")
	}
	if err := p.grow(); err != nil {
		return 0, err
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		return 0, fmt.Errorf("format: %w", err)
	}
	if err := format(f, size, label, func() error { return progress(size) }); err != nil {
		return 0, err
	}
	return size, nil
}

// grow rewrites the partition table and tells the kernel.
func (p Perm) grow() error {
	d, err := os.OpenFile(p.Disk, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("grow partition: %w", err)
	}
	defer d.Close()
	bytes, err := d.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("grow partition: %w", err)
	}
	start, length, err := grow(d, uint64(bytes)/sector, permNumber)
	if err != nil {
		return err
	}
	if err := tell(d, unix.BLKPG_RESIZE_PARTITION, permNumber, int64(start)*sector, int64(length)*sector); err != nil {
		return fmt.Errorf("grow partition: tell the kernel: %w", err)
	}
	return nil
}

// blkpgPartition is struct blkpg_partition of linux/blkpg.h.
type blkpgPartition struct {
	start, length int64 // bytes
	number        int32
	name, volume  [64]byte
}

// tell tells the kernel of one partition, while others of the disk are in use.
// Offset and length are in bytes.
func tell(d *os.File, op int32, number int, start, length int64) error {
	part := blkpgPartition{start: start, length: length, number: int32(number)}
	arg := unix.BlkpgIoctlArg{
		Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part)),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// Mount options of state: no access times, nothing to execute or to open as a
// device, and read-only as soon as the file system is found damaged, since
// a recorder that goes on would believe that it keeps what it loses.
const (
	mountFlags = unix.MS_NOATIME | unix.MS_LAZYTIME | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	mountData  = "errors=remount-ro"
)

// Mount mounts the partition at target.
func (p Perm) Mount(target string) error {
	err := unix.Mount(p.Partition, target, "ext4", mountFlags, mountData)
	switch err {
	case nil:
		return nil
	case unix.EINVAL:
		return fmt.Errorf("mount %s: there is no file system on it that holds: %w", p.Partition, err)
	case unix.EUCLEAN:
		return fmt.Errorf("mount %s: its file system is damaged: %w", p.Partition, err)
	}
	return fmt.Errorf("mount %s: %w", p.Partition, err)
}

// MountedAt reports whether what is mounted at target is this partition, and
// not one of another disk.
func (p Perm) MountedAt(target string) (bool, error) {
	var dir, dev unix.Stat_t
	if err := errors.Join(unix.Stat(target, &dir), unix.Stat(p.Partition, &dev)); err != nil {
		return false, fmt.Errorf("look at %s: %w", target, err)
	}
	return uint64(dir.Dev) == uint64(dev.Rdev), nil
}
