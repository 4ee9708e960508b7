package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The file of resets has two slots. Each write goes to the one that is not the
// newest, in place, so that a power cut leaves one that holds; a directory is
// never touched after the first start.
//
//	slot: "HFRS" format u32 sequence u64 length u32 crc32c u32, JSON; little endian
const (
	slotSize   = 4096
	slotHead   = 24
	slotFormat = 1
	keepResets = 12
)

var slotMagic = [4]byte{'H', 'F', 'R', 'S'}

// history is what a device remembers of its starts and ends.
type history struct {
	Boots   uint64  `json:"boots"`
	Ran     int64   `json:"ran"`     // seconds that it has run, in all starts together
	Running bool    `json:"running"` // it runs, or its end was not written
	Ready   bool    `json:"ready"`   // its recorder was ready, in this start
	Silent  int     `json:"silent"`  // starts that ended without a word before that, since the last that was ready
	Rest    bool    `json:"rest"`    // it rests, as in safe mode, before the recorder is started
	Safe    bool    `json:"safe"`    // it runs in safe mode
	Forgive int64   `json:"forgive"` // resets before this Ran do not count any more
	Resets  []reset `json:"resets"`  // oldest first
}

// reset is one end of the machine that nobody ordered.
type reset struct {
	Time   string `json:"time"` // RFC 3339; "" when the clock was not set
	Boot   uint64 `json:"boot"`
	Ran    int64  `json:"ran"`
	Counts bool   `json:"counts"` // against the brake
	Reason string `json:"reason"`
}

// The brake: so many resets in such a time of running lead to safe mode.
// Running time, not clock time: a clock may be wrong, and a device that was
// switched off has not run well meanwhile.
const (
	brakeResets = 3
	brakeTime   = time.Hour
)

// The rest: a machine that resets without a word each time before the recorder
// is ready shows its diagnostics for a while. It may be power cuts, so it takes
// many in a row, and a site loses minutes.
const (
	restStarts = 6
	restTime   = 5 * time.Minute
)

// braked reports whether the device should start in safe mode, given how long
// it has run in all.
func (h *history) braked() bool {
	n := 0
	for _, r := range h.Resets {
		if r.Counts && r.Ran >= h.Forgive && h.Ran-r.Ran < int64(brakeTime/time.Second) {
			n++
		}
	}
	return n >= brakeResets
}

// begin accounts for the start of the machine: how the one before ended, if
// that was not written, and whether the brake holds. fired is the hardware's own
// word that it reset the machine.
func (h *history) begin(now time.Time, fired bool) (safe bool) {
	switch {
	case !h.Running && !fired:
	case fired && h.Running:
		h.add(now, "the hardware watchdog reset the machine; nothing was written before", true)
	case h.Running && h.Safe:
		// Somebody pulled the plug of a machine in safe mode: another try.
		h.Forgive = h.Ran + 1
	case h.Running && (h.Ready || h.Rest): // who pulls the plug of one that rests wants a try, too
		h.add(now, "power lost, or a reset without a word", false)
	case h.Running:
		h.add(now, "power lost, or a reset without a word, before the recorder was ready", false)
		h.Silent++
	}
	h.Boots++
	h.Running, h.Ready = true, false
	h.Safe = h.braked()
	h.Rest = !h.Safe && h.Silent >= restStarts
	if h.Rest {
		h.Silent = 0
	}
	return h.Safe
}

// ready notes that the recorder is ready: the machine can start.
func (h *history) ready() { h.Ready, h.Silent = true, 0 }

// add notes an end of the machine.
func (h *history) add(now time.Time, reason string, counts bool) {
	r := reset{Boot: h.Boots, Ran: h.Ran, Counts: counts, Reason: shorten(reason, 200)}
	if now.Year() >= 2025 {
		r.Time = now.UTC().Format(time.RFC3339)
	}
	h.Resets = append(h.Resets, r)
	if n := len(h.Resets) - keepResets; n > 0 {
		h.Resets = slices.Delete(h.Resets, 0, n)
	}
}

func shorten(s string, n int) string {
	s = oneLine(s)
	if len(s) > n {
		s = string(bytes.ToValidUTF8([]byte(s[:n]), nil)) + "…"
	}
	return s
}

// ledger keeps the history on disk. Its methods wait for the disk: call them
// from a goroutine that may wait, or with a limit (within).
type ledger struct {
	now    func() time.Time
	uptime func() time.Duration

	mu       sync.Mutex
	file     slots // nil: nothing is kept
	sequence uint64
	history  history
	base     int64 // history.Ran at the start of the machine
}

// slots is the file of resets; tests put one in that fails.
type slots interface {
	io.WriterAt
	io.Closer
	Sync() error
}

func newLedger() *ledger { return &ledger{now: time.Now, uptime: uptime} }

// open reads the file, and makes it when there is none; before that, and when
// it fails, nothing is kept. Slots that do not hold are passed over: a device
// that lost its memory starts all the same.
func (l *ledger) open(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = writeFile(path, make([]byte, 2*slotSize), 0o600); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("open resets: %w", err)
	}
	for i := range int64(2) {
		b := make([]byte, slotSize)
		if _, err := f.ReadAt(b, i*slotSize); err != nil && err != io.EOF {
			f.Close()
			return fmt.Errorf("read resets: %w", err)
		}
		if h, seq, ok := readSlot(b); ok && seq > l.sequence {
			l.history, l.sequence = h, seq
		}
	}
	l.file, l.base = f, l.history.Ran
	return nil
}

// snapshot returns what is remembered, with the time of running up to date.
func (l *ledger) snapshot() history {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.history
	h.Ran = l.ran()
	h.Resets = slices.Clone(h.Resets)
	return h
}

// ran is how long the device has run by now, in seconds. Call it with mu held.
func (l *ledger) ran() int64 { return max(l.history.Ran, l.base+int64(l.uptime()/time.Second)) }

// change brings the time of running up to date, applies f, and writes.
func (l *ledger) change(f func(h *history, now time.Time)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Ran = l.ran()
	f(&l.history, l.now())
	if l.file == nil {
		return nil
	}
	b, err := writeSlot(l.history, l.sequence+1)
	if err != nil {
		return err
	}
	if _, err := l.file.WriteAt(b, int64((l.sequence+1)%2)*slotSize); err != nil {
		return fmt.Errorf("write resets: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("write resets: %w", err)
	}
	// Only now: after a failed write the next goes to the same slot, and leaves
	// the one that holds.
	l.sequence++
	return nil
}

// end notes why the machine is about to end. Reasons after the first are not
// kept: they follow from it.
func (l *ledger) end(reason string, counts bool) error {
	return l.change(func(h *history, now time.Time) {
		if h.Running && reason != "" {
			h.add(now, reason, counts)
		}
		h.Running = false
	})
}

// close lets go of the file, so that its file system can be unmounted.
func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file
	l.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

func writeSlot(h history, sequence uint64) ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write resets: %w", err)
	}
	for len(body) > slotSize-slotHead && len(h.Resets) > 0 {
		h.Resets = h.Resets[1:] // the oldest goes
		if body, err = json.Marshal(h); err != nil {
			return nil, fmt.Errorf("write resets: %w", err)
		}
	}
	b := make([]byte, slotSize)
	copy(b, slotMagic[:])
	binary.LittleEndian.PutUint32(b[4:], slotFormat)
	binary.LittleEndian.PutUint64(b[8:], sequence)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(body)))
	copy(b[slotHead:], body)
	binary.LittleEndian.PutUint32(b[20:], slotSum(b))
	return b, nil
}

// slotSum is the checksum of a slot: of everything but itself.
func slotSum(b []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:20], t), t, b[slotHead:])
}

func readSlot(b []byte) (h history, sequence uint64, ok bool) {
	n := binary.LittleEndian.Uint32(b[16:])
	if !bytes.Equal(b[:4], slotMagic[:]) || binary.LittleEndian.Uint32(b[4:]) != slotFormat ||
		n > slotSize-slotHead || binary.LittleEndian.Uint32(b[20:]) != slotSum(b) {
		return history{}, 0, false
	}
	if json.Unmarshal(b[slotHead:slotHead+n], &h) != nil {
		return history{}, 0, false
	}
	return h, binary.LittleEndian.Uint64(b[8:]), true
}

// writeFile makes a file that is there whole or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// errLate is what within returns when it did not wait any longer.
var errLate = errors.New("not done")

// within runs f and waits for it, but not for longer than d. f goes on by
// itself then.
func within(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("%w after %v", errLate, d)
	}
}
