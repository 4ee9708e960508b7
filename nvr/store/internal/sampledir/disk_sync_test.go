package sampledir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast/nvr/store/internal/sampledir"
)

// A journal that is aborted within a sync leaves nothing to wait for, and Linux
// calls the sync done: syncfs, and that of the directory behind it.
func TestSyncOfAnAbortedJournalFails(t *testing.T) {
	// The file system lies in holes: what the journal has not written before it
	// cannot write once there is no room for it.
	disk := mountThin(t, 8, nil)
	d, files := disk.open(t, 2, 100)
	for _, set := range [][]sampledir.File{files, files[:1], nil} {
		errs, _ := d.SyncFiles(set)
		for i, err := range errs {
			if err != nil {
				t.Errorf("%d of %d files: %v", i, len(set), err)
			}
		}
	}
	must(t, d.Sync())

	disk.fill(t)
	for _, f := range files {
		if _, err := f.Append(0, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	for _, when := range []string{"then", "later"} {
		errs, entries := d.SyncFiles(files)
		for i, err := range errs {
			if err == nil {
				t.Errorf("file %d is called durable %s", i, when)
			}
		}
		if entries {
			t.Errorf("their entries are called durable %s", when)
		}
	}
	if d.Sync() == nil {
		t.Error("the directory is called durable")
	}
}

// A file whose blocks the disk does not take costs the others nothing, and is itself
// not called durable.
func TestFileThatIsNotWrittenFailsAlone(t *testing.T) {
	if os.Getpagesize() != 4096 {
		t.Skip("a hole of 8 KiB needs pages of 4")
	}
	disk := mountThin(t, 40, func(image *os.File) error { return syscall.Fallocate(int(image.Fd()), 0, 0, thinSize) })
	d, files := disk.open(t, 3, 8192)
	errs, entries := d.SyncFiles(files)
	must(t, errors.Join(errs...))
	if !entries {
		must(t, d.Sync())
	}
	const ill = 1 // it loses the place where its bytes are
	image, err := os.OpenFile(disk.image, os.O_RDWR, 0)
	must(t, err)
	defer image.Close()
	all, err := io.ReadAll(image)
	must(t, err)
	at := bytes.Index(all, pattern(ill, 8192))
	if at < 0 || at%4096 != 0 {
		t.Fatalf("its bytes are at %d of the disk", at)
	}
	const punch = 0x1 | 0x2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
	must(t, syscall.Fallocate(int(image.Fd()), punch, int64(at), 8192))
	disk.fill(t)
	for i, f := range files {
		_, err := f.Append(0, pattern(10+i, 8192))
		must(t, err)
	}
	errs, _ = d.SyncFiles(files)
	for i, err := range errs {
		if (err != nil) != (i == ill) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

// One sync of the whole file system makes entries durable with the files; that of a
// single file promises nothing of them, nor do those of a file system that is not
// synced as a whole.
func TestSyncOfFilesTellsOfEntries(t *testing.T) {
	d, files := mountThin(t, 8, nil).open(t, 3, 100)
	if !d.SyncsWhole() {
		t.Skip("several files are synced as one in Linux 5.17 or later only")
	}
	for n := range len(files) + 1 {
		errs, entries := d.SyncFiles(files[:n])
		must(t, errors.Join(errs...))
		if entries != (n >= 2) {
			t.Errorf("%d files: entries are durable: %v", n, entries)
		}
	}
	for name, other := range map[string]thin{
		"in memory":         {at: mountTmpfs(t, 8)},
		"without a journal": mountThin(t, 8, nil, "-O", "^has_journal"),
	} {
		d, files := other.open(t, 2, 100)
		if errs, entries := d.SyncFiles(files); errors.Join(errs...) != nil || entries || d.SyncsWhole() {
			t.Errorf("%s: %v, entries are durable: %v, synced as a whole: %v", name, errs, entries, d.SyncsWhole())
		}
	}
}

const thinSize = 32 << 20

// thin is an ext4 of thinSize in a file on a tmpfs that may be full, so that it cannot
// write what has no place there yet.
type thin struct{ dir, image, at string }

// mountThin mounts one on a tmpfs of so many MiB. place, if any, makes sure of the
// place of what shall have one. options are of mke2fs.
func mountThin(t *testing.T, mib int, place func(image *os.File) error, options ...string) thin {
	t.Helper()
	dir := mountTmpfs(t, mib)
	disk := thin{dir, filepath.Join(dir, "image"), filepath.Join(dir, "at")}
	image, err := os.Create(disk.image)
	must(t, err)
	defer image.Close()
	must(t, image.Truncate(thinSize))
	must(t, os.Mkdir(disk.at, 0o700))
	run(t, "mke2fs", append(append([]string{"-q", "-F", "-t", "ext4", "-b", "4096"}, options...), disk.image)...)
	if place != nil {
		must(t, place(image))
	}
	run(t, "mount", "-o", "loop", disk.image, disk.at)
	t.Cleanup(func() { exec.Command("umount", "-l", disk.at).Run() })
	return disk
}

func mountTmpfs(t *testing.T, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a mount needs root")
	}
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}

// open makes n sample files with so many bytes each. Other files stand between them on
// the disk, so that it does not write two of them as one.
func (k thin) open(t *testing.T, n, size int) (*sampledir.Disk, []sampledir.File) {
	t.Helper()
	d, err := sampledir.OpenDisk(k.at)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	var files []sampledir.File
	for i := range n {
		f, err := d.Create(int64(i))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		_, err = f.Append(0, pattern(i, size))
		must(t, err)
		must(t, f.Sync()) // that is when it gets its place
		between, err := os.Create(filepath.Join(k.at, fmt.Sprint("between", i)))
		must(t, err)
		_, err = between.Write(make([]byte, size))
		must(t, errors.Join(err, between.Sync(), between.Close()))
		files = append(files, f)
	}
	return d, files
}

// fill takes all room that is left.
func (k thin) fill(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", "cat /dev/zero > "+filepath.Join(k.dir, "ballast")).CombinedOutput(); err == nil {
		t.Fatalf("the disk is not full: %s", out)
	}
}

// pattern is content that is nowhere else on the disk.
func pattern(i, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("file %3d", i)), size/8+1)[:size]
}

// run runs a program of the system, or skips the test.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", name, err, out)
	}
}
