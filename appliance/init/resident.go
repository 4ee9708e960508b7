package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stayResident reads this program from the disk as a whole and keeps it in
// memory. It handles a disk that answers no more, and must not need that disk
// for a page of itself that was never run before, or that memory was short for.
// The heap needs no lock: there is no swap.
func (m *machine) stayResident() {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		m.console.say("process 1 is not locked in memory: %v", err)
		return
	}
	defer f.Close()
	n, err := lockSegments(f)
	if err != nil {
		m.console.say("process 1 is not locked in memory: %v", err)
		return
	}
	m.console.say("locked in memory: %d KiB of process 1", n>>10)
}

// lockSegments locks what maps, a file like /proc/self/maps, says is mapped
// from files, and returns its size in bytes.
func lockSegments(maps io.Reader) (uint64, error) {
	segments, err := fileSegments(maps)
	if err != nil {
		return 0, err
	}
	var size uint64
	for _, s := range segments {
		// Not unix.Mlock: these addresses are no slice of Go.
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK, uintptr(s.start), uintptr(s.end-s.start), 0); errno != 0 {
			return size, fmt.Errorf("lock %s: %w", s.file, errno)
		}
		size += s.end - s.start
	}
	return size, nil
}

// segment is one mapping of a file.
type segment struct {
	start, end uint64
	file       string
}

// fileSegments reads the segments that come from files and can be read.
//
//	00400000-00a3f000 r-xp 00000000 fe:02 1234      /gokrazy/init
func fileSegments(maps io.Reader) ([]segment, error) {
	var segments []segment
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			return nil, fmt.Errorf("read maps: line %q", lines.Text())
		}
		if f[4] == "0" || !strings.HasPrefix(f[1], "r") {
			continue // memory of no file, or a gap between segments
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read maps: %w", err)
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read maps: %w", err)
		}
		segments = append(segments, segment{start, end, strings.Join(f[5:], " ")})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read maps: %w", err)
	}
	if len(segments) == 0 {
		return nil, fmt.Errorf("read maps: no segment is of a file")
	}
	return segments, nil
}
