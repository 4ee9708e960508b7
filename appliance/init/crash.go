package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// crashSize bounds each of the two crash files, the others what of a process's
// output one crash keeps: a dump is long, its cause stands at its beginning, and
// the goroutines of a recorder with many streams go on behind it.
const (
	crashSize = 256 << 10
	headSize  = 64 << 10
	leadSize  = 8 << 10 // of it: the log before the dump
	tailSize  = 128 << 10
	maxLine   = 1024 // on the console; a longer one is cut in pieces
)

// tail keeps the last output of a process and the beginning of its dump, and
// passes its lines on to the console. The process never waits for it.
type tail struct {
	pass func(line string)

	mu     sync.Mutex
	head   []byte // of the dump, with the log before it
	kept   []byte // behind the head
	lost   int    // bytes between the two
	line   []byte // begun, not passed on yet
	inside bool   // line goes on with one that was cut
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = append(t.line, b...)
	for {
		i := bytes.IndexByte(t.line, '\n')
		if i < 0 && len(t.line) < maxLine {
			break
		}
		if i < 0 || i >= maxLine {
			i = maxLine - 1
		}
		t.keep(t.line[:i+1])
		t.pass(string(t.line[:i+1]))
		t.line = append(t.line[:0], t.line[i+1:]...)
	}
	return len(b), nil
}

// dumpStart is how Go begins to say why it ends a process.
var dumpStart = regexp.MustCompile(`^(panic|fatal error|SIG[A-Z]+): `)

// keep keeps a line, or a piece of one.
func (t *tail) keep(line []byte) {
	full := len(t.head)+maxLine > headSize
	// A head that is full may be of something that only looked like a dump.
	if (t.head == nil || full) && !t.inside && dumpStart.Match(line) {
		lead := t.kept[max(0, len(t.kept)-leadSize):]
		t.head = append(make([]byte, 0, headSize), lead...)
		t.kept, t.lost, full = t.kept[:0], 0, false
	}
	t.inside = !bytes.HasSuffix(line, []byte("\n"))
	if t.head != nil && !full {
		t.head = append(t.head, line...)
		return
	}
	t.kept = append(t.kept, line...)
	if n := len(t.kept) - tailSize; n > tailSize {
		t.kept = append(t.kept[:0], t.kept[n:]...)
		t.lost += n
	}
}

// take returns what is kept, and forgets it.
func (t *tail) take() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(t.line)
	if n := len(t.kept) - tailSize; n > 0 {
		t.kept = t.kept[n:]
		t.lost += n
	}
	b := t.head
	if t.head != nil && t.lost > 0 {
		b = fmt.Appendf(b, "\n[%d bytes are left out]\n", t.lost)
	}
	b = append(b, t.kept...)
	t.head, t.kept, t.lost, t.line, t.inside = nil, nil, 0, nil, false
	return b
}

// writeCrash appends a crash to the file at path. When that would become too
// large, it takes the place of path.old first.
func writeCrash(path string, now time.Time, reason string, output []byte) error {
	head := fmt.Sprintf("==== %s, %v after start: %s\n", now.UTC().Format(time.RFC3339), uptime().Round(time.Second), oneLine(reason))
	if n := len(head) + len(output) + 1 - crashSize; n > 0 {
		output = slices.Concat(output[:headSize], output[headSize+n:])
	}
	if st, err := os.Stat(path); err == nil && st.Size()+int64(len(head)+len(output)+1) > crashSize {
		if err := os.Rename(path, path+".old"); err != nil {
			return fmt.Errorf("keep crash: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("keep crash: %w", err)
	}
	_, err = f.Write(append(append([]byte(head), output...), '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep crash: %w", err)
	}
	return nil
}

// lastCrash says what may be shown to everybody of the newest crash in the file
// at path: when, why, the first line of the dump, and where the first goroutine
// was. Arguments and the log stay in the file: they name cameras and addresses.
func lastCrash(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, crashSize))
	return crashSummary(string(bytes.ToValidUTF8(b, []byte("?"))))
}

// maxFrames bounds the functions that are shown of a stack.
const maxFrames = 50

// frame is the line of a function in a stack; what it was called with is no part
// of the match. The line of its file follows.
var frame = regexp.MustCompile(`^(created by )?[^\s()]+(\(\*[^\s()]+\)[^\s()]*)?`)

func crashSummary(crashes string) string {
	last := strings.LastIndex("\n"+crashes, "\n==== ")
	if last < 0 {
		return ""
	}
	lines := strings.Split(crashes[last:], "\n")
	summary := lines[0] + "\n"
	at := slices.IndexFunc(lines, dumpStart.MatchString)
	if at < 0 {
		return summary
	}
	summary += shorten(lines[at], 200) + "\n"
	lines = lines[at:]
	// Goroutine 0 is the runtime's own.
	at = slices.IndexFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "goroutine ") && !strings.HasPrefix(l, "goroutine 0 ")
	})
	if at < 0 {
		return summary
	}
	lines = lines[at+1:]
	for i := 0; i+1 < len(lines) && i < 2*maxFrames && strings.HasPrefix(lines[i+1], "\t"); i += 2 {
		summary += shorten(frame.FindString(lines[i]), 200) + "\n"
	}
	return summary
}
