package dbtest

import (
	"maps"
	"slices"
	"sync"
	"testing"
)

// Tally counts, for each kind of operation, the lives that were to meet a fault
// and those that did: a fault that is planned behind the end of its life proves
// nothing. Its methods may be called from any goroutine. The zero Tally is
// empty.
type Tally struct {
	mu    sync.Mutex
	kinds map[string]lives
}

type lives struct{ planned, reached int }

// Live lives until the fault is met, five times at most: how many connections a
// pool opens, and so what there is to fail, differs from life to life.
func (a *Tally) Live(kind string, life func() (reached bool)) {
	reached := false
	for i := 0; i < 5 && !reached; i++ {
		reached = life()
	}
	a.Count(kind, reached)
}

// Count counts one life.
func (a *Tally) Count(kind string, reached bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kinds == nil {
		a.kinds = make(map[string]lives)
	}
	n := a.kinds[kind]
	if n.planned++; reached {
		n.reached++
	}
	a.kinds[kind] = n
}

// Judge logs the counts, and fails the test when of any kind less than 90 % were
// reached.
func (a *Tally) Judge(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var all lives
	for _, kind := range slices.Sorted(maps.Keys(a.kinds)) {
		n := a.kinds[kind]
		all.planned += n.planned
		all.reached += n.reached
		if n.reached*10 < n.planned*9 {
			t.Errorf("%s: only %d of %d planned faults were reached", kind, n.reached, n.planned)
		} else if n.reached < n.planned {
			t.Logf("%s: %d of %d planned faults were reached", kind, n.reached, n.planned)
		}
	}
	t.Logf("%d operations failed, of %d that were to, each in a life of its own", all.reached, all.planned)
}
