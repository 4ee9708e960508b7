package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Tries to sign in or to claim: so many at once, then one in so long. Nobody is
// locked out for longer than that.
const (
	addressEvery, addressBurst = 2 * time.Second, 20
	accountEvery, accountBurst = 6 * time.Second, 10

	mostBuckets = 4096 // of a limiter; about 1 MiB
)

// tries is what tries are counted by: a name, an address, or a name from an
// address. A name that is unknown may hold anything, so they are not joined.
type tries struct{ name, address string }

// limiter is token buckets by key, of which it keeps a bounded number. The keys
// that find no place share one bucket.
type limiter struct {
	every time.Duration
	burst int

	mu      *sync.Mutex
	buckets map[tries]*rate.Limiter
	others  *rate.Limiter
	swept   time.Time
}

func newLimiter(every time.Duration, burst int) limiter {
	return limiter{
		every: every, burst: burst, mu: new(sync.Mutex),
		buckets: make(map[tries]*rate.Limiter), others: rate.NewLimiter(rate.Every(every), burst),
	}
}

// take takes a token, or returns a *LimitError.
func (l *limiter) take(key tries) error {
	now := time.Now() // monotonic: a clock that is set gives nobody tries
	r := l.bucket(key, now).ReserveN(now, 1)
	if after := r.DelayFrom(now); after > 0 {
		r.CancelAt(now)
		return &LimitError{after}
	}
	return nil
}

func (l *limiter) bucket(key tries, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[key]; b != nil {
		return b
	}
	if len(l.buckets) >= mostBuckets && now.Sub(l.swept) >= time.Second {
		l.swept = now
		for k, b := range l.buckets {
			if b.TokensAt(now) >= float64(l.burst) {
				delete(l.buckets, k) // as good as new
			}
		}
	}
	if len(l.buckets) >= mostBuckets {
		return l.others
	}
	b := rate.NewLimiter(rate.Every(l.every), l.burst)
	l.buckets[key] = b
	return b
}

// block is what one caller can have many addresses of: an IPv6 host owns a /64.
func block(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap()
	if a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}
