package access

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

const (
	// No more hashes are worked on at a time: each takes 19 MiB and a core.
	mostHashes = 2
	// No more wait for that: who is one too many is sent away.
	mostWaiting = 30
)

// turns lets callers work a few at a time. Every other turn is that of who came
// first, the turns between are of the network that fewest of those who wait are
// in. When too many wait, the last one of the network that most of them are in
// is sent away: a crowd neither keeps out nor holds up who comes from elsewhere.
type turns struct {
	mu      sync.Mutex
	working int
	waiting []*turn // the oldest first
	few     bool    // whose turn it was: of the network with the fewest
}

// turn is one that waits.
type turn struct {
	networks [networks]netip.Prefix
	begin    chan error // gets nil when it is its turn, ErrBusy when it was sent away
}

// wait waits for a turn, which ends with done. Without one it returns ErrBusy,
// or the error of ctx.
func (t *turns) wait(ctx context.Context, from string) error {
	me := &turn{networks: networksOf(from), begin: make(chan error, 1)}
	t.mu.Lock()
	if t.working < mostHashes {
		t.working++
		t.mu.Unlock()
		return nil
	}
	t.waiting = append(t.waiting, me)
	if len(t.waiting) > mostWaiting {
		newest := slices.Clone(t.waiting)
		slices.Reverse(newest)
		t.call(first(newest, func(n, most int) bool { return n > most }), ErrBusy)
	}
	t.mu.Unlock()

	select {
	case err := <-me.begin:
		return err
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.waiting, me)
	if i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 && <-me.begin == nil {
		t.done() // it was its turn meanwhile
	}
	return ctx.Err()
}

// done ends a turn.
func (t *turns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.working--
		return
	}
	next := t.waiting[0]
	if t.few = !t.few; t.few {
		next = first(t.waiting, func(n, fewest int) bool { return n < fewest })
	}
	t.call(next, nil)
}

// call ends the waiting of one. Whoever holds mu calls it.
func (t *turns) call(w *turn, err error) {
	i := slices.Index(t.waiting, w)
	t.waiting = slices.Delete(t.waiting, i, i+1)
	w.begin <- err
}

// networks are those that an address is in, from the widest to itself; an IPv6
// host owns a /64.
const networks = 4

// Whatever is no address is in a network of its own.
func networksOf(address string) (list [networks]netip.Prefix) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return list
	}
	bits := [networks]int{24, 32, 48, 64}
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = [networks]int{8, 16, 24, 32}
	}
	for i, n := range bits {
		list[i], _ = a.Prefix(n) // n is one of its lengths
	}
	return list
}

// first returns the first of the network whose size is before that of all others,
// within that of such a smaller one, and so on; of the first one of several.
func first(waiting []*turn, before func(n, other int) bool) *turn {
	for i := range networks {
		in := make(map[netip.Prefix][]*turn)
		for _, w := range waiting {
			in[w.networks[i]] = append(in[w.networks[i]], w)
		}
		chosen := in[waiting[0].networks[i]]
		for _, w := range waiting {
			if n := in[w.networks[i]]; before(len(n), len(chosen)) {
				chosen = n
			}
		}
		waiting = chosen
	}
	return waiting[0]
}
