package store

import (
	"sync"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// entryTable numbers the sample entries.
type entryTable struct {
	mu    sync.Mutex // a leaf
	known [2][]db.SampleEntry
	saved [2]int // how many of known are in the database
}

// mostEntries is more than cameras have in years; only a fault makes more.
const mostEntries = 10_000

// full reports whether no further entry is taken.
func (t *entryTable) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.known[media.Video])+len(t.known[media.Audio]) >= mostEntries
}

func (t *entryTable) load(rows []db.SampleEntry) {
	for _, e := range rows {
		t.known[e.Kind] = append(t.known[e.Kind], e)
		t.saved[e.Kind]++
	}
}

// id returns the number of an entry, a new one when there is none like it.
// 0 for nil.
func (t *entryTable) id(e *media.SampleEntry) int32 {
	if e == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := int32(0)
	for i := range t.known[e.Kind] {
		k := &t.known[e.Kind][i]
		if k.Equal(e) {
			return k.ID
		}
		last = max(last, k.ID)
	}
	t.known[e.Kind] = append(t.known[e.Kind], db.SampleEntry{ID: last + 1, SampleEntry: *e})
	return last + 1
}

// get returns the entry of a number.
func (t *entryTable) get(kind media.Kind, id int32) (*media.SampleEntry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.known[kind] {
		if t.known[kind][i].ID == id {
			e := t.known[kind][i].SampleEntry
			return &e, true
		}
	}
	return nil, false
}

// unsaved returns the entries that are not in the database, and what to call
// when they are.
func (t *entryTable) unsaved() (rows []db.SampleEntry, saved func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n [2]int
	for k := range t.known {
		rows = append(rows, t.known[k][t.saved[k]:]...)
		n[k] = len(t.known[k])
	}
	return rows, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.saved = n
	}
}

// SampleEntry returns the video sample entry of an id, as recordings and
// /api/init name it.
func (s *Store) SampleEntry(id int32) (*media.SampleEntry, bool) {
	return s.entries.get(media.Video, id)
}

// AudioEntry is the same for audio sample entries, which have ids of their own.
func (s *Store) AudioEntry(id int32) (*media.SampleEntry, bool) {
	return s.entries.get(media.Audio, id)
}
