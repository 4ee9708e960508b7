package db

import (
	"flag"
	"math/rand/v2"
	"testing"

	"holdfast/nvr/db/dbtest"
)

var cutSeed = flag.Uint64("seed", 0, "of TestPowerCutInAnOperationOfSQLite; 0: any")

// The power fails between any two operations of SQLite on the database and its
// log, within commits and while the log is taken over into the file, and leaves
// any sectors of what was not synced, or garbage where the files had grown: what
// was called committed is there, and nothing is damaged. How the two files are
// made is not cut here (TestEveryOperationOfSQLiteFails).
func TestPowerCutInAnOperationOfSQLite(t *testing.T) {
	seed := *cutSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test ./nvr/db -run '^%s$' -seed %d", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newTale(t)
	l.record = true
	l.live()
	if l.told != taleFlushes || len(l.errs) > 0 {
		t.Fatalf("%d flushes, %v", l.told, l.errs)
	}
	log, all := l.vfs.Recorded()
	step := all / 60
	if testing.Short() {
		step = all / 30
	}
	if *every {
		step = 1
	}
	cuts, within := 0, make(map[dbtest.File]int) // a commit, and a checkpoint
	for n := range all + 1 {
		// Before each sync most is in doubt.
		if sync := n < all && log.Changes[n].Kind == dbtest.Sync; n%step != 0 && (!sync || testing.Short()) {
			continue
		}
		at := *l
		for _, m := range l.marks {
			if m.changes <= n {
				at.told, at.tried = m.told, m.tried
			}
		}
		for _, f := range []dbtest.File{dbtest.Main, dbtest.WAL} {
			if log.Unsynced(f, n) > 0 {
				within[f]++
			}
		}
		chance := rng.Float64()
		last := rng.IntN(1 + max(log.Unsynced(dbtest.Main, n), log.Unsynced(dbtest.WAL, n)))
		fates := []struct {
			left string
			fate dbtest.Fate
		}{
			{"nothing that was not synced", func(int, int) dbtest.Kept { return dbtest.Lost }},
			{"all", func(int, int) dbtest.Kept { return dbtest.Written }},
			{"any sectors", func(int, int) dbtest.Kept {
				if rng.Float64() < chance {
					return dbtest.Written
				}
				return []dbtest.Kept{dbtest.Lost, dbtest.Garbage}[rng.IntN(2)]
			}},
			{"what was written first", func(i, sector int) dbtest.Kept {
				if i < last || i == last && sector < 3 {
					return dbtest.Written
				}
				return dbtest.Lost
			}},
		}
		if log.Unsynced(dbtest.Main, n)+log.Unsynced(dbtest.WAL, n) == 0 {
			fates = fates[:1]
		}
		for _, f := range fates {
			cuts++
			at.left(f.left, func(path string) []byte {
				switch path {
				case l.path:
					return log.Left(dbtest.Main, n, f.fate)
				case l.path + "-wal":
					return log.Left(dbtest.WAL, n, f.fate)
				}
				return nil
			})
		}
		if t.Failed() {
			t.Fatalf("cut behind change %d of %d", n, all)
		}
	}
	t.Logf("%d operations, %d cuts, %d places in commits, %d in checkpoints", all, cuts, within[dbtest.WAL], within[dbtest.Main])
	if within[dbtest.WAL] < 5 || within[dbtest.Main] < 5 {
		t.Errorf("the power fails in too few commits or checkpoints: %v", within)
	}
}
