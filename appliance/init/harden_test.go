package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What gokrazy reads, and takes for an order to start a shell.
func TestNothingIsHeardFromTheConsole(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "recorder", "listen")
	cmd.Stdin = strings.NewReader("a line on the console\n")
	out, err := cmd.CombinedOutput()
	if got, want := string(out), "deafen: <nil>; heard 0 bytes, EOF\n"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestNoProgramRunsWhereEverybodyWrites(t *testing.T) {
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=1777,size=1m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	program := filepath.Join(target, "ash")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); err != nil {
		t.Fatalf("a program that may run: %v", err)
	}
	if err := noPrograms(target); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("it runs still: %v", err)
	}
	var st unix.Statfs_t
	const want = unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV
	if err := unix.Statfs(target, &st); err != nil || st.Flags&want != want || st.Flags&unix.ST_RDONLY != 0 {
		t.Errorf("mount flags %#x, %v; want all of %#x", st.Flags, err, want)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o777 || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("mode or size changed: %v, %d blocks of %d (%v)", info.Mode(), st.Blocks, st.Bsize, err)
	}
	if err := noPrograms(t.TempDir()); err == nil {
		t.Error("a directory where nothing is mounted: no error")
	}
}
