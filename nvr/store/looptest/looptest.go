// Package looptest makes small real disks for tests: an ext4 of its own in a file,
// over a loop device, mounted as the appliance mounts its data partition.
package looptest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts an empty disk of so many bytes and returns where, and its device
// (/dev/loopN). It skips the test where that needs root or a tool that is not there.
// The end of the test unmounts it; a file that is open then fails the test. Options are
// of ext4, beside those of the appliance.
func Mount(tb testing.TB, size int64, options ...string) (dir, device string) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("mounting a loop device needs root")
	}
	run := func(name string, args ...string) string {
		tb.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			tb.Skipf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	file := filepath.Join(tb.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		tb.Fatal(err)
	}
	run("mke2fs", "-q", "-t", "ext4", "-m", "0", "-F", file)
	device = run("losetup", "--find", "--show", file)
	tb.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			tb.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	dir = tb.TempDir()
	if err := unix.Mount(device, dir, "ext4", unix.MS_NOATIME|unix.MS_LAZYTIME,
		strings.Join(append([]string{"errors=remount-ro"}, options...), ",")); err != nil {
		tb.Skipf("mount %s: %v", device, err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir, device
}

// Written is what the kernel counts of a device: how often its cache was flushed,
// and bytes written, both since it is there.
func Written(tb testing.TB, device string) (flushes, bytes int64) {
	tb.Helper()
	// Documentation/block/stat: the 7th is sectors written, the 16th flushes.
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "stat"))
	if err != nil {
		tb.Fatal(err)
	}
	f := strings.Fields(string(text))
	if len(f) < 16 {
		tb.Skipf("the kernel counts no flushes: %q", text)
	}
	sectors, _ := strconv.ParseInt(f[6], 10, 64)
	flushes, _ = strconv.ParseInt(f[15], 10, 64)
	return flushes, sectors * 512
}
