package sampledirtest

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"holdfast/nvr/store/internal/sampledir"
)

// What may become of a directory that forgets is what may become of one that
// does not. Fails when Forget drops the failed sync of a file, or an unlink
// that is not durable.
func TestForgettingChangesNoFate(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(15) {
		rng := rand.New(rand.NewPCG(seed, round))
		plain, forgets := New(State{}), New(State{})
		both := [2]*Dir{plain, forgets}
		open := make(map[int64][2]sampledir.File)
		size := make(map[int64]int64)
		longest := 0
		for range 400 {
			id := int64(rng.IntN(6) + 1)
			var n [2]int64
			var errs [2]error
			step, cut, data := rng.IntN(12), rng.Int64N(20), picked(rng)
			for i, d := range both {
				f := open[id][i]
				switch {
				case step == 0:
					errs[i] = d.Sync()
				case step == 1:
					errs[i] = d.WriteMeta(sampledir.Meta{CompleteOpen: int32(cut)})
				case step == 2:
					if f != nil {
						errs[i] = f.Close()
					}
					d.Unlink(id)
				case step == 3 && f != nil:
					size[id] = min(size[id], cut)
					errs[i] = f.Truncate(size[id])
				case step == 4 && f != nil:
					d.Fail(Sync, 1, 1, syscall.EIO)
					if f.Sync() == nil {
						t.Fatal("no sync failed")
					}
				case step < 8 && f != nil:
					errs[i] = f.Sync()
				case f != nil:
					n[i], errs[i] = f.Append(size[id], data)
				default:
					var files [2]sampledir.File = open[id]
					files[i], errs[i] = d.Create(id)
					open[id] = files
				}
			}
			must(t, errs[0])
			must(t, errs[1])
			if size[id] += n[0]; step == 2 {
				delete(open, id)
				delete(size, id)
			}
			if rng.IntN(10) == 0 {
				forgets.Forget()
			}
			longest = max(longest, forgets.Len())
			a, b := plain.Cut(), forgets.Cut()
			same := rng.Uint64()
			for _, fate := range []func(Op) Fate{
				func(Op) Fate { return Lost }, func(Op) Fate { return Kept },
				// Not those that draw lots: of files that are gone the one knows operations, the other does not.
				func(op Op) Fate {
					rng := rand.New(rand.NewPCG(same, uint64(op.Inode)<<32+uint64(op.At)<<16+uint64(len(op.Kind)+len(op.Data))))
					return []Fate{Lost, Kept, Zeroed}[rng.IntN(3)]
				},
			} {
				x := a.State(func(i int) Fate { return fate(a.Op(i)) }, rng)
				y := b.State(func(i int) Fate { return fate(b.Op(i)) }, rng)
				if !x.Equal(y) {
					t.Fatalf("round %d: a power cut leaves %v, of one that forgets %v", round, x, y)
				}
			}
		}
		if longest >= plain.Len() {
			t.Fatalf("round %d: %d operations, and all were kept", round, plain.Len())
		}
	}
}

func picked(rng *rand.Rand) []byte {
	b := make([]byte, rng.IntN(8)+1)
	for i := range b {
		b[i] = byte(rng.IntN(256))
	}
	return b
}
