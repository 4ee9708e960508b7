package web

import (
	"fmt"
	"net/http"
	"sync"

	"holdfast/nvr/access"
	"holdfast/nvr/mp4"
)

// share counts what all requests hold of one thing together. A client that takes
// an answer slowly holds what it is made of for long. Nobody keeps all others
// out: administrators have what they ask for as long as there is some, everybody
// else a part.
type share struct {
	most   int // of all together
	always int // that one request has, whatever the others hold: connections bound these
	one    int // of one caller who is no administrator; 0: any
	kept   int // of most, for administrators

	mu   sync.Mutex
	held int
	by   map[string]int // by user or address, those who are no administrators
}

// newShare makes a share of which one caller has a half, which is what the largest
// answer takes, and administrators keep a quarter.
func newShare(most, always int) share {
	return share{most: most, always: always, one: most / 2, kept: most / 4}
}

// Bounds of what is served at once. A recording of a file takes half a KB, a row of a
// list less.
const (
	mostServed  = 2 * mp4.MaxSegments // recordings in files
	alwaysTaken = 64                  // of them in one file

	mostInMemory   = 64 << 20  // bytes of samples that are not on the disk yet
	alwaysInMemory = 256 << 10 // of them in one file

	mostRows   = 1 << 17      // of one list
	mostListed = 2 * mostRows // rows of all lists
	alwaysRows = 512          // of one
	rowsAtOnce = 4096         // are asked for
)

// take makes room for n of a caller, until done is called; ok is false when there is
// none.
func (s *share) take(c *caller, n int) (done func(), ok bool) {
	if n <= s.always {
		return func() {}, true
	}
	who, free := followerOf(c), s.most
	admin := c.May(access.Administer, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !admin {
		free -= s.kept
		if s.one > 0 && n > s.one-s.by[who] {
			return nil, false
		}
	}
	if n > free-s.held {
		return nil, false
	}
	s.hold(who, admin, n)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hold(who, admin, -n)
	}, true
}

// hold counts n more. Whoever holds mu calls it.
func (s *share) hold(who string, admin bool, n int) {
	s.held += n
	if admin {
		return
	}
	if s.by == nil {
		s.by = make(map[string]int)
	}
	if s.by[who] += n; s.by[who] == 0 {
		delete(s.by, who)
	}
}

// list is the room that the rows of an answer take, which is known when they are
// there.
type list struct {
	share *share
	of    *caller
	rows  int // that there is room for
	done  []func()
}

// grow makes room for one row more than there are. An error is the answer.
func (l *list) grow(rows int) error {
	switch {
	case rows >= mostRows:
		return badRequest("more than %d rows: ask for a shorter time", mostRows)
	case rows < max(l.share.always, l.rows):
		return nil
	}
	done, ok := l.share.take(l.of, rowsAtOnce)
	if !ok {
		return &httpError{http.StatusServiceUnavailable, fmt.Sprintf("more than %d rows are listed at this moment: ask for a shorter time, or later", mostListed-alwaysRows)}
	}
	l.rows = rows + rowsAtOnce
	l.done = append(l.done, done)
	return nil
}

// end lets go of the room.
func (l *list) end() {
	for _, done := range l.done {
		done()
	}
}
