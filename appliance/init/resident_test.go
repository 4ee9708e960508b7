package main

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlySegmentsOfFilesAreLocked(t *testing.T) {
	got, err := fileSegments(strings.NewReader(`00400000-00a3f000 r-xp 00000000 fe:02 1234                               /gokrazy/init
00a3f000-01280000 r--p 0063f000 fe:02 1234                               /gokrazy/init
01280000-01281000 ---p 00e80000 fe:02 1234                               /gokrazy/init
01281000-012b2000 rw-p 00e80000 fe:02 1234                               /a name (deleted)
012b2000-012f9000 rw-p 00000000 00:00 0
c000000000-c000400000 rw-p 00000000 00:00 0                              [anon: Go: heap]
7ffd1a5f2000-7ffd1a5f4000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`))
	want := []segment{{0x400000, 0xa3f000, "/gokrazy/init"}, {0xa3f000, 0x1280000, "/gokrazy/init"}, {0x1281000, 0x12b2000, "/a name (deleted)"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "nonsense\n", "x-1000 r-xp 0 fe:02 1234 /gokrazy/init\n", "1000 r-xp 0 fe:02 1234 /gokrazy/init\n"} {
		if got, err := fileSegments(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %+v, no error", bad, got)
		}
	}
}

func TestProgramStaysInMemory(t *testing.T) {
	m := &machine{console: &console{ours: make(chan string, 1)}}
	before := locked(t)
	m.stayResident()
	line := <-m.console.ours
	if strings.Contains(line, unix.ENOMEM.Error()) || strings.Contains(line, unix.EPERM.Error()) {
		var limit unix.Rlimit
		err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
		t.Skipf("needs CAP_IPC_LOCK or a larger limit than %d bytes of locked memory (%v): %s", limit.Cur, err, line)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	segments, err := fileSegments(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range segments {
			_, _, _ = unix.Syscall(unix.SYS_MUNLOCK, uintptr(s.start), uintptr(s.end-s.start), 0)
		}
	})
	var want uint64
	for _, s := range segments {
		want += (s.end - s.start) >> 10
	}
	if got := locked(t) - before; got < want || want < 1<<10 {
		t.Errorf("%d KiB are locked, want %d: %s", got, want, line)
	}
	if want := "locked in memory: " + strconv.FormatUint(want, 10) + " KiB"; !strings.Contains(line, want) {
		t.Errorf("console says %q, want %q", line, want)
	}
	t.Log(line)
}

// locked is how much the kernel holds locked of this process, in KiB.
func locked(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmLck:\s+(\d+) kB`).FindSubmatch(b)
	if found == nil {
		t.Fatal("the kernel does not say what is locked")
	}
	n, err := strconv.ParseUint(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
