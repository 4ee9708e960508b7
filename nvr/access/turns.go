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

// turns lets callers work a few at a time, in the order in which they came. When
// too many wait, the last one of the network that most of them are in is sent
// away: a crowd does not keep out who comes from elsewhere.
type turns struct {
	mu      sync.Mutex
	working int
	waiting []*turn // the oldest first
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
		i := slices.Index(t.waiting, crowding(t.waiting))
		t.waiting[i].begin <- ErrBusy
		t.waiting = slices.Delete(t.waiting, i, i+1)
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
	t.waiting[0].begin <- nil
	t.waiting = slices.Delete(t.waiting, 0, 1)
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

// crowding chooses the last of the largest network, and in that of the largest
// smaller one, and so on.
func crowding(waiting []*turn) *turn {
	for i := range networks {
		size := make(map[netip.Prefix]int)
		largest := waiting[len(waiting)-1].networks[i]
		for _, w := range waiting {
			size[w.networks[i]]++
		}
		for _, w := range slices.Backward(waiting) {
			if n := w.networks[i]; size[n] > size[largest] {
				largest = n
			}
		}
		var in []*turn
		for _, w := range waiting {
			if w.networks[i] == largest {
				in = append(in, w)
			}
		}
		waiting = in
	}
	return waiting[len(waiting)-1]
}
