package web

import (
	"sync"

	"holdfast/nvr/mp4"
)

// films counts the recordings in all files that are being served. A client that
// takes such a file slowly holds its layout for hours.
type films struct {
	mu         sync.Mutex
	recordings int
}

// Bounds of what is served at once, in recordings; each takes half a KB.
const (
	mostServed  = 2 * mp4.MaxSegments
	alwaysTaken = 64 // in one file, which is served whatever the others are: connections bound these
)

// take makes room for a file of n recordings, until done is called; ok is false
// when there is none.
func (f *films) take(n int) (done func(), ok bool) {
	if n <= alwaysTaken {
		return func() {}, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > mostServed-f.recordings {
		return nil, false
	}
	f.recordings += n
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.recordings -= n
	}, true
}
