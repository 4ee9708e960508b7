package watchdog

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// Lease is the permission to pet. It runs out by itself unless it is renewed,
// and a lease that has run out or was ended stays so. All methods may be called
// from anywhere and never wait.
type Lease struct {
	born  time.Time
	until atomic.Int64 // since born; over when negative
}

// over is the value of a lease that has ended.
const over = math.MinInt64

// NewLease returns a lease that runs out after d.
func NewLease(d time.Duration) *Lease {
	l := &Lease{born: time.Now()}
	l.until.Store(int64(d))
	return l
}

// Renew makes the lease last for d from now, neither longer nor shorter. It
// does nothing for one that is over.
func (l *Lease) Renew(d time.Duration) {
	for {
		old := l.until.Load()
		now := time.Since(l.born)
		if old < int64(now) || l.until.CompareAndSwap(old, int64(now+d)) {
			return
		}
	}
}

// End ends the lease.
func (l *Lease) End() { l.until.Store(over) }

// Valid reports whether the lease lasts. Once it has said no, it is over.
func (l *Lease) Valid() bool {
	for {
		old := l.until.Load()
		if old == over {
			return false
		}
		if time.Since(l.born) <= time.Duration(old) {
			return true
		}
		if l.until.CompareAndSwap(old, over) {
			return false
		}
	}
}

// Keep calls pet every interval while the lease is valid, and returns when it
// is over or ctx is done; there is no way to begin again. Errors of pet are
// ignored: there is nobody to tell who must not be waited for, and the next turn
// tries again.
func Keep(ctx context.Context, l *Lease, interval time.Duration, pet func() error) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for l.Valid() {
		_ = pet()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
