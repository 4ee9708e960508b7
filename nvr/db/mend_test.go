package db

import (
	"math/rand/v2"
	"testing"
)

// A mend takes recordings from anywhere; the spans are those of what is left
// (sane compares).
func TestMendKeepsTheSpans(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHouse(t)
	h.fill(100, h.main)
	m := &Mend{}
	for _, no := range random.Perm(100)[:20] {
		m.Drop = append(m.Drop, CompositeID(h.main.ID, int32(no)))
	}
	m.Drop, m.Trash = m.Drop[:10], m.Drop[10:]
	h.must(h.Mend(t.Context(), m))
	h.sane()
	h.sameInSpans(0, 1<<60, 1<<31-1)
}
