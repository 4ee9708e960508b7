package nbd

import (
	"bytes"
	"errors"
	"slices"
	"time"
)

// ErrDropped is what a disk says to its server instead of an answer: the
// connection ends.
var ErrDropped = errors.New("the disk has gone")

// Fault is what is wrong with a piece of a disk: what becomes of the requests
// that touch it. The zero value counts them all and does nothing.
type Fault struct {
	// Ops are the requests that meet it; empty: all.
	Ops []Op
	// From and To bound the piece, in bytes from the disk's start, To outside of
	// it; 0 is the end of the disk. A flush is of no piece: it meets a fault that
	// names it, or one of the whole disk that names nothing.
	From, To int64
	// Spares is how data begins whose write does not meet it; empty: none.
	Spares []byte
	// Delay is how long they take before anything else. Heal and a cut end it.
	Delay time.Duration
	// Err is the answer; what was asked is not done. Nil: it is done.
	Err error
	// Drop: there is no answer, and the connection ends; the next one may fare
	// better. What was asked is not done.
	Drop bool
	// Times is how many requests meet it; 0: all, until Heal.
	Times int
}

// touches reports whether a request meets the fault.
func (f *Fault) touches(op Op, offset int64, length int, data []byte) bool {
	if len(f.Spares) > 0 && bytes.HasPrefix(data, f.Spares) {
		return false
	}
	if len(f.Ops) > 0 && !slices.Contains(f.Ops, op) {
		return false
	}
	if op == Flush {
		return len(f.Ops) > 0 || f.From == 0 && f.To == 0
	}
	return offset+int64(length) > f.From && (f.To == 0 || offset < f.To)
}

// Break gives the disk more faults, from the next request on.
func (d *Disk) Break(faults ...Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range faults {
		d.faults = append(d.faults, &f)
	}
}

// Heal takes all faults away. Requests that are delayed now go on at once.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
	close(d.healed)
	d.healed = make(chan struct{})
}

// begin lets a request meet the faults of its piece: their delays add up, and
// the first that has one gives the answer. data is what is to be written.
func (d *Disk) begin(op Op, offset int64, length int, data []byte) (err error) {
	d.mu.Lock()
	var wait time.Duration
	met := false
	for i, f := range d.faults {
		if f == nil || !f.touches(op, offset, length, data) {
			continue
		}
		met = true
		wait += f.Delay
		switch {
		case err != nil:
		case f.Drop:
			err = ErrDropped
		default:
			err = f.Err
		}
		if f.Times == 1 {
			d.faults[i] = nil
		} else if f.Times > 1 {
			f.Times--
		}
	}
	if met {
		d.stats.Faulty++
	}
	healed := d.healed
	d.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-healed:
		case <-d.done:
		}
	}
	return err
}
