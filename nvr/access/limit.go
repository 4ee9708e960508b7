package access

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Tries to sign in or to claim: so many at once, then one in so long. Nobody is
// locked out for longer than that.
const (
	addressEvery, addressBurst = 2 * time.Second, 20
	accountEvery, accountBurst = 6 * time.Second, 10

	// Who has not tried a name for so long from a network is a newcomer to it.
	newcomerEvery = 10 * time.Minute

	// Of a limiter, 8 bytes each. So many that a thousand new names a second,
	// each of which takes one try for accountEvery, leave all others theirs.
	cells = 1 << 16
)

// tries is what tries are counted by: a name, an address, or a name from an
// address. A name that is unknown may hold anything, so they are not joined.
type tries struct{ name, address string }

// limiter counts tries by key, in a table that does not grow. Keys that fall
// into one cell share its tries; which do, nobody outside can know.
type limiter struct {
	every time.Duration
	burst int
	cell  func(tries) uint64 // of a key; tests keep all apart
	began time.Time

	mu *sync.Mutex
	// full is when all tries of a cell are back, since began: each try that is
	// taken puts it off by every.
	full []time.Duration
}

func newLimiter(every time.Duration, burst int) limiter {
	seed := maphash.MakeSeed()
	return limiter{
		every: every, burst: burst, began: time.Now(),
		cell: func(key tries) uint64 { return maphash.Comparable(seed, key) % cells },
		mu:   new(sync.Mutex), full: make([]time.Duration, cells),
	}
}

// take takes a try, or returns a *LimitError.
func (l *limiter) take(key tries) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.cell(key)
	now := time.Since(l.began) // monotonic: a clock that is set gives nobody tries
	full := max(l.full[i], now) + l.every
	if after := full - now - time.Duration(l.burst)*l.every; after > 0 {
		return &LimitError{after}
	}
	l.full[i] = full
	return nil
}

// nameLimiter counts tries by name. Whoever polls takes nearly every try of a
// name that comes back, so there are as many again for newcomers: of those each
// network has one. It takes a hundred networks to keep a newcomer out, and a name
// has no more than twice the tries.
type nameLimiter struct {
	all, newcomers limiter // by name
	known          limiter // by name and network
}

func newNameLimiter() nameLimiter {
	return nameLimiter{
		all: newLimiter(accountEvery, accountBurst), newcomers: newLimiter(accountEvery, accountBurst),
		known: newLimiter(newcomerEvery, 1),
	}
}

// take takes a try from an address, or returns a *LimitError.
func (l *nameLimiter) take(key tries, address string) error {
	newcomer := l.known.take(tries{key.name, block(address, 48)}) == nil
	err := l.all.take(key)
	if err != nil && newcomer && l.newcomers.take(tries{name: key.name}) == nil {
		return nil
	}
	return err
}

// block is what one caller can have many addresses of: an IPv6 host owns a /64,
// and who has a line often a /48; bits says which.
func block(address string, bits int) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap()
	if a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return address
	}
	return p.String()
}
