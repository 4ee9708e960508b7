package hil

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// console collects the lines that a device says on its serial port.
type console struct {
	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed by the next line
}

type line struct {
	at   time.Time
	text string
}

func newConsole() *console { return &console{more: make(chan struct{})} }

// What firmware and kernel paint with, not text.
var painting = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()].|[=>78c])|[\x00-\x08\x0b-\x1f\x7f]`)

// read takes lines until r ends.
func (c *console) read(r io.Reader) {
	b := bufio.NewReaderSize(r, 1<<16)
	for {
		s, err := b.ReadString('\n')
		if text := strings.TrimRight(painting.ReplaceAllString(s, ""), " \r\n\t"); text != "" {
			c.add(text)
		}
		if err != nil {
			return
		}
	}
}

func (c *console) add(text string) {
	c.mu.Lock()
	c.lines = append(c.lines, line{time.Now(), text})
	close(c.more)
	c.more = make(chan struct{})
	c.mu.Unlock()
}

// here is the place behind the last line, to wait from.
func (c *console) here() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// wait returns the first line at or after from that holds text, and the place
// behind it.
func (c *console) wait(from int, text string, limit time.Duration) (line, int, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		c.mu.Lock()
		more := c.more
		for ; from < len(c.lines); from++ {
			if strings.Contains(c.lines[from].text, text) {
				l := c.lines[from]
				c.mu.Unlock()
				return l, from + 1, nil
			}
		}
		c.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
			return line{}, from, fmt.Errorf("console: no %q within %v", text, limit)
		}
	}
}

// after is the place of the first line that came after an instant.
func (c *console) after(t time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, _ := slices.BinarySearchFunc(c.lines, t, func(l line, t time.Time) int { return l.at.Compare(t) })
	return at
}

// alive waits for a line at or after from that holds text, for as long as
// others come: false when there was none for the time of silence.
func (c *console) alive(from int, text string, silence time.Duration) bool {
	for {
		l, at, err := c.wait(from, "", silence)
		if err != nil || strings.Contains(l.text, text) {
			return err == nil
		}
		from = at
	}
}

// has returns the first line from a place on that holds text.
func (c *console) has(from int, text string) (line, bool) {
	l, _, err := c.wait(from, text, 0)
	return l, err == nil
}

// since returns the lines from a place on.
func (c *console) since(from int) []line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines[from:])
}

// count is how many lines from a place on hold text.
func (c *console) count(from int, text string) (n int) {
	for _, l := range c.since(from) {
		if strings.Contains(l.text, text) {
			n++
		}
	}
	return n
}

// tail is the last n lines.
func (c *console) tail(n int) string { return c.from(c.here() - n) }

// from is the lines from a place on, with their times.
func (c *console) from(from int) string {
	var b strings.Builder
	for _, l := range c.since(max(0, from)) {
		fmt.Fprintf(&b, "%s | %s\n", l.at.Format("15:04:05.000"), l.text)
	}
	return b.String()
}

func TestConsoleIsAliveWhileLinesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole()
		go func() {
			for _, text := range []string{"one", "two", "three", "Run /init", "five"} {
				time.Sleep(50 * time.Second)
				c.add(text)
			}
		}()
		begun := time.Now()
		if !c.alive(0, "Run /", time.Minute) {
			t.Error("taken for silent while lines came")
		}
		if at := c.after(begun.Add(149 * time.Second)); at != 2 {
			t.Errorf("line %d is the first after 149 s, want 2", at)
		}
		if c.alive(4, "Run /", time.Minute) {
			t.Error("taken for alive behind the last line")
		}
		// One line more came 50 s later, and then none.
		if d := time.Since(begun); d != 310*time.Second {
			t.Errorf("found out after %v, want 310 s", d)
		}
	})
}

func TestConsoleWaitsForALine(t *testing.T) {
	c := newConsole()
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); c.read(r) }()
	go func() {
		io.WriteString(w, "\x1b[2J\x1b[1;1Hone\r\n\r\ntw")
		io.WriteString(w, "o\nthree")
		w.Close()
	}()
	_, at, err := c.wait(0, "two", 10*time.Second)
	if err != nil || at != 2 {
		t.Fatalf("place %d, %v; want 2", at, err)
	}
	if _, _, err := c.wait(at, "one", time.Millisecond); err == nil {
		t.Error("an older line was found")
	}
	<-done
	if l, ok := c.has(0, "one"); !ok || l.text != "one" {
		t.Errorf("first line is %q", l.text)
	}
	if !strings.HasSuffix(c.tail(1), "| three\n") {
		t.Errorf("tail is %q", c.tail(1))
	}
}
