package access

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// TicketTime is how long after it was made a ticket is good.
	TicketTime = 30 * time.Second

	// Waiting to be used, of one session and of all: as many as a page shows
	// cameras; about 1 MiB.
	mostTicketsOf, mostTickets = 64, 4096
)

// tickets are those that nobody has used. They are of this process alone.
type tickets struct {
	mu   sync.Mutex
	open map[[32]byte]ticket
}

// ticket stands in once for the cookie of a session.
type ticket struct {
	session *session
	path    string
	made    time.Time // monotonic
}

// Ticket returns a secret that stands for the session of a subject once, within
// TicketTime, for one path, where a browser sends no cookie. One session has so
// many at a time, and the oldest makes room; while there are too many of all,
// it is ErrBusy. A subject without a session, and a token, which goes along
// with every request, is ErrForbidden.
func (a *Access) Ticket(by Subject, path string) (secret string, err error) {
	if by.session == nil || by.Token || by.ended() {
		return "", ErrForbidden
	}
	secret, hash := newSecret(false)
	now := time.Now()
	a.tickets.mu.Lock()
	defer a.tickets.mu.Unlock()
	var oldest [32]byte
	own := 0
	for h, t := range a.tickets.open {
		switch {
		case now.Sub(t.made) >= TicketTime || t.session.while.Err() != nil:
			delete(a.tickets.open, h)
		case t.session == by.session:
			if own++; own == 1 || t.made.Before(a.tickets.open[oldest].made) {
				oldest = h
			}
		}
	}
	switch {
	case own >= mostTicketsOf:
		delete(a.tickets.open, oldest)
	case len(a.tickets.open) >= mostTickets:
		return "", ErrBusy
	}
	a.tickets.open[hash] = ticket{by.session, path, now}
	return secret, nil
}

// Redeem returns the subject of a ticket's session as it is now, and takes down
// that it was used. It is false when that lets nobody in there. Whatever comes
// of it, the ticket is used.
func (a *Access) Redeem(secret, path string, from Peer) (Subject, bool) {
	hash := sha256.Sum256([]byte(secret))
	a.tickets.mu.Lock()
	t, ok := a.tickets.open[hash]
	delete(a.tickets.open, hash)
	a.tickets.mu.Unlock()
	if !ok || t.path != path || time.Since(t.made) >= TicketTime {
		return Subject{}, false
	}
	a.dateAnew()
	a.mu.RLock()
	defer a.mu.RUnlock()
	if t.session.while.Err() != nil || !a.use(t.session, from) {
		return Subject{}, false
	}
	return a.subjectOf(t.session), true
}
