package web

import (
	"testing"

	"holdfast/nvr/access"
)

// anyone is a caller who may watch, from an address.
func anyone(address string) *caller {
	return &caller{Subject: access.Nobody(access.Watching), peer: access.Peer{Address: address}}
}

// One who takes all that there is leaves others theirs, and all who do leave
// administrators theirs.
func TestNobodyTakesTheWholeShare(t *testing.T) {
	s := newShare(mostServed, alwaysTaken)
	a, b, c := anyone("192.0.2.1"), anyone("192.0.2.2"), anyone("192.0.2.3")
	admin := &caller{Subject: access.Nobody(access.Watching | access.Admin), peer: access.Peer{Address: "192.0.2.4"}}
	const part = 1 << 10
	all := func(of *caller) (n int, done []func()) {
		for {
			d, ok := s.take(of, part)
			if !ok {
				return n, done
			}
			n, done = n+part, append(done, d)
		}
	}
	var held []func()
	for _, x := range []struct {
		name string
		of   *caller
		want int
	}{
		{"the first", a, mostServed / 2}, {"the first again", a, 0},
		{"the second", b, mostServed / 4}, {"the third", c, 0},
		{"an administrator", admin, mostServed / 4},
	} {
		n, done := all(x.of)
		if n != x.want {
			t.Errorf("%s has %d, want %d", x.name, n, x.want)
		}
		held = append(held, done...)
	}
	if _, ok := s.take(c, alwaysTaken); !ok {
		t.Error("a short one is refused")
	}
	for _, done := range held {
		done()
	}
	if s.held != 0 || len(s.by) != 0 {
		t.Errorf("%d are held in the end, by %v", s.held, s.by)
	}
	if done, ok := s.take(c, mostServed/2); !ok {
		t.Error("the largest is refused though nobody else has any")
	} else {
		done()
	}
}
