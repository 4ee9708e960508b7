package sampledir_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/nvr/store/internal/sampledir"
)

// A journal that is aborted within a sync leaves nothing to wait for, and Linux
// calls the sync done: syncfs, and that of the directory behind it.
func TestSyncOfAnAbortedJournalFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a mount needs root")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	run := func(name string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", name, err, out)
		}
	}
	// The file system lies in holes of a file on a disk that is about to be full:
	// what the journal has not written before it cannot write then.
	run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	run("mke2fs", "-q", "-F", "-t", "ext4", image)
	run("mount", "-o", "loop", image, at)
	t.Cleanup(func() { exec.Command("umount", "-l", at).Run() })
	d, err := sampledir.OpenDisk(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var files []sampledir.File
	for id := range int64(2) {
		f, err := d.Create(id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Append(0, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for _, set := range [][]sampledir.File{files, files[:1], nil} {
		for i, err := range d.SyncFiles(set) {
			if err != nil {
				t.Errorf("%d of %d files: %v", i, len(set), err)
			}
		}
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}

	if out, err := exec.Command("sh", "-c", "cat /dev/zero > "+filepath.Join(dir, "ballast")).CombinedOutput(); err == nil {
		t.Fatalf("the disk is not full: %s", out)
	}
	for _, f := range files {
		if _, err := f.Append(0, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	for i, err := range d.SyncFiles(files) {
		if err == nil {
			t.Errorf("file %d is called durable", i)
		}
	}
	if d.Sync() == nil {
		t.Error("the directory is called durable")
	}
}
