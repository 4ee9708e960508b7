package web

import (
	"slices"
	"sync"
)

// Bounds of what slow viewers of whole groups of pictures hold in memory.
const (
	mostLate    = 32 << 20 // bytes of groups with which all of them are late
	mostLateOne = 16 << 20 // of one user, or one address; a group is as long at most, or little more
)

// sending knows the groups of pictures that viewers are sent at this moment. All
// who get a group share its bytes, and the newest one of a stream is there anyhow;
// but each slow viewer may be late with another one, which is there for it alone.
// Where those are too many bytes, the viewer that is late for longest is cut off,
// of the user who holds the most.
type sending struct {
	most, mostOne int64

	mu  sync.Mutex
	all []*sent // as they were begun
	sum int64   // bytes of all, those that are shared more than once
}

// sent is a group that one viewer is sent.
type sent struct {
	who   string // a user or an address
	group []byte // shared with who else is sent it
	late  func() bool
	cut   func() // ends the viewer
}

// begin counts a group in, until done is called, and cuts off who holds too much
// then.
func (s *sending) begin(g *sent) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, g)
	s.sum += int64(len(g.group))
	for s.sum > min(s.most, s.mostOne) {
		slow := s.tooMuch()
		if slow == nil {
			break
		}
		s.remove(slow)
		slow.cut()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.remove(g)
	}
}

// tooMuch is who has to go; nil: nobody.
func (s *sending) tooMuch() *sent {
	type held struct {
		who   string
		group *byte
	}
	counted := make(map[held]bool)
	bytes := make(map[string]int64) // of each; of all under no name
	first := make(map[string]*sent)
	most := ""
	for _, g := range s.all {
		if len(g.group) == 0 || !g.late() {
			continue
		}
		for _, h := range []held{{"", &g.group[0]}, {g.who, &g.group[0]}} {
			if !counted[h] {
				counted[h] = true
				bytes[h.who] += int64(len(g.group))
			}
		}
		if first[g.who] == nil {
			first[g.who] = g
		}
		if most == "" || bytes[g.who] > bytes[most] {
			most = g.who
		}
	}
	if most != "" && (bytes[most] > s.mostOne || bytes[""] > s.most) {
		return first[most]
	}
	return nil
}

// remove takes a group out, if it is still in.
func (s *sending) remove(g *sent) {
	if i := slices.Index(s.all, g); i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
		s.sum -= int64(len(g.group))
	}
}
