package web

import (
	"fmt"
	"net/http"
	"sync"

	"holdfast/nvr/mp4"
)

// share counts what all requests hold of one thing together. A client that takes
// an answer slowly holds what it is made of for long.
type share struct {
	most   int // of all together
	always int // that one request has, whatever the others hold: connections bound these

	mu   sync.Mutex
	held int
}

// Bounds of what is served at once. A recording of a file takes half a KB, a row of a
// list less.
const (
	mostServed  = 2 * mp4.MaxSegments // recordings in files
	alwaysTaken = 64                  // of them in one file

	mostRows   = 1 << 17      // of one list
	mostListed = 2 * mostRows // rows of all lists
	alwaysRows = 512          // of one
	rowsAtOnce = 4096         // are asked for
)

// take makes room for n, until done is called; ok is false when there is none.
func (s *share) take(n int) (done func(), ok bool) {
	if n <= s.always {
		return func() {}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.most-s.held {
		return nil, false
	}
	s.held += n
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held -= n
	}, true
}

// list is the room that the rows of an answer take, which is known when they are
// there.
type list struct {
	share *share
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
	done, ok := l.share.take(rowsAtOnce)
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
