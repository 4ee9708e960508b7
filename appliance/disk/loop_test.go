package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loopDisk is a disk that the kernel knows, with the partition table of an
// image that was written to something larger.
func loopDisk(t *testing.T, size int64) Perm {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a loop device needs root")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	image(file)
	sectorOf := make([]byte, sector)
	copy(sectorOf, Marker)
	if _, err := file.WriteAt(sectorOf, permStart*sector); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool(t, "losetup"), "--find", "--show", "--partscan", file.Name()).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	disk := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command(tool(t, "losetup"), "--detach", disk).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	p := Perm{Disk: disk, Partition: disk + "p4"}
	if _, err := os.Stat(p.Partition); err != nil {
		// Some kernels read no table, and a container has no udev: make the node that the kernel would name.
		d, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		const length = (imageSectors - 33 - permStart) * sector
		if err := tell(d, unix.BLKPG_ADD_PARTITION, permNumber, permStart*sector, length); err != nil && err != unix.EBUSY {
			t.Skipf("the kernel takes no partition of a loop device: %v", err)
		}
		b, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(p.Partition), "dev"))
		if err != nil {
			t.Skipf("the kernel reads no partitions of a loop device: %v", err)
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(p.Partition, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil && err != unix.EEXIST {
			t.Skipf("no node for the partition: %v", err)
		}
		t.Cleanup(func() { os.Remove(p.Partition) })
	}
	return p
}

// The whole way on a real block device: grown while the kernel knows the old
// size, formatted, mounted by the kernel, and clean after use.
func TestFirstStartMakesAFileSystemThatTheKernelMounts(t *testing.T) {
	const size = 1500 << 20
	p := loopDisk(t, size)
	if ok, err := p.Fresh(); err != nil || !ok {
		t.Fatalf("fresh: %v, %v", ok, err)
	}
	made, err := p.Make(func(int64) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(size) - (permStart+33)*sector; made != want {
		t.Errorf("the file system has %d bytes, want %d: all of the disk", made, want)
	}
	if ok, err := p.Fresh(); err != nil || ok {
		t.Errorf("fresh after formatting: %v, %v", ok, err)
	}
	if _, err := p.Make(func(int64) error { return nil }); err == nil {
		t.Fatal("a partition in use was formatted")
	}

	target := t.TempDir()
	if err := p.Mount(target); err != nil {
		t.Fatal(err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(target, 0)
		}
	}()
	if ours, err := p.MountedAt(target); err != nil || !ours {
		t.Errorf("mounted at its place: %v, %v", ours, err)
	}
	if ours, err := p.MountedAt("/"); err != nil || ours {
		t.Errorf("mounted at /: %v, %v", ours, err)
	}
	options, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(options)) {
		if strings.Contains(line, target) {
			for _, o := range []string{"noatime", "nodev", "nosuid", "noexec"} {
				if !strings.Contains(line, o) {
					t.Errorf("mounted without %s: %s", o, line)
				}
			}
		}
	}
	dir := filepath.Join(target, "sample")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%016x.mp4", i)), bytes.Repeat([]byte{byte(i)}, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if out, err := exec.Command(tool(t, "e2fsck"), "-fn", p.Partition).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func TestDamagedFileSystemIsNeverFormatted(t *testing.T) {
	p := loopDisk(t, 200<<20)
	f, err := os.OpenFile(p.Partition, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	garbage := bytes.Repeat([]byte{0x5a}, 8192)
	if _, err := f.WriteAt(garbage, 0); err != nil {
		t.Fatal(err)
	}
	if ok, err := p.Fresh(); err != nil || ok {
		t.Errorf("fresh: %v, %v", ok, err)
	}
	if _, err := p.Make(func(int64) error { return nil }); err == nil {
		t.Error("it was formatted")
	}
	if err := p.Mount(t.TempDir()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mount: %v, want %v", err, unix.EINVAL)
	}
	got := make([]byte, len(garbage))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, garbage) {
		t.Errorf("it was written to (%v)", err)
	}
}
