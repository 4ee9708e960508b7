package store

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// end lets the power fail after n operations; of what was not synced, fate
// decides by operation. It returns the next life.
func (l *life) end(n int, fate func(sampledirtest.Op) sampledirtest.Fate) *life {
	l.Helper()
	cut := sampledirtest.At(l.begin, l.disk.Log(), n)
	return l.die(cut.State(func(i int) sampledirtest.Fate { return fate(cut.Op(i)) }, rand.New(rand.NewPCG(0, 0))))
}

// die leaves the database as it is, and st in the directory.
func (l *life) die(st sampledirtest.State) *life {
	l.Helper()
	l.mu.Lock()
	l.db = l.copyDB()
	l.mu.Unlock()
	next := bear(l.T, st, l.db, l.now())
	if err := l.close(); err != nil {
		l.Errorf("close: %v", err)
	}
	next.mustOpen()
	return next
}

func born(t *testing.T) (*life, *Stream) {
	l := bear(t, sampledirtest.State{}, nil, time.Time{})
	l.mustOpen()
	return l, l.put(settings("front", plenty, 300, false)).Stream("main")
}

func (l *life) finish() {
	l.Helper()
	l.survey()
	l.goOn(1_000_000)
	if err := l.close(); err != nil {
		l.Errorf("close: %v", err)
	}
}

// P4: a file that was begun and not synced may hold blocks of an older one.
// Its stream is recorded all the same.
func TestFileOfOldBlocksIsGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st := born(t)
		f := l.play(st, 0)
		f.play(l, 3500*time.Millisecond)
		f = l.next(f, "camera closed")
		f.play(l, 1200*time.Millisecond)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		content := l.disk.Content()
		content.Files[st.fileID(1)] = content.Files[st.fileID(0)]
		next := l.die(content)
		if err := next.main("front").Unavailable(); err != nil {
			t.Errorf("the stream is not recorded: %v", err)
		}
		if recs := list(t, next.main("front")); len(recs) != 1 || recs[0].No != 0 {
			t.Errorf("%d recordings, want the one", len(recs))
		}
		next.finish()
	})
}

// fileID is the composite id of a recording.
func (st *Stream) fileID(no int32) int64 { return db.CompositeID(st.id, no) }

// time.md rule 8: in a run each recording begins where the one before it ends.
// When the end of one is lost and the next is there, they are two runs.
func TestRunWithAHoleIsTwoRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st := born(t)
		time.Sleep(500 * time.Millisecond) // between two steps of the directory
		f := l.play(st, 0)
		for st.nextNo < 2 {
			f.play(l, 200*time.Millisecond)
		}
		f.play(l, time.Second) // both files were written to in one step
		log := l.disk.Log()
		begun := slices.IndexFunc(log, func(op sampledirtest.Op) bool { return op.Kind == sampledirtest.Create && op.ID == st.fileID(1) })
		after := begun
		for log[after].Kind != sampledirtest.Sync {
			after++
		}
		next := l.end(after, func(op sampledirtest.Op) sampledirtest.Fate {
			if op.ID == st.fileID(0) {
				return sampledirtest.Lost
			}
			return sampledirtest.Kept
		})
		recs := list(t, next.main("front"))
		if len(recs) != 2 {
			t.Fatalf("%d recordings, want 2", len(recs))
		}
		if gap := recs[1].Start.Sub(recs[0].End()); gap <= 0 || gap > 2*media.Second {
			t.Errorf("%v are missing between them", gap)
		}
		if recs[0].EndReason != reasonUnclean || recs[1].RunOffset != 0 || recs[1].PrevRuns != 1 {
			t.Errorf("the first ended for %q; the second is number %d of its run, %d runs before", recs[0].EndReason, recs[1].RunOffset, recs[1].PrevRuns)
		}
		next.finish()
	})
}

// What a failed sync did not take may be on the disk all the same, and is in
// another file, too. It comes back once.
func TestWhatWasWrittenAgainIsAdoptedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st := born(t)
		f := l.play(st, 0)
		f.play(l, 4500*time.Millisecond)
		l.disk.Fail(sampledirtest.Sync, 1, 1, syscall.EIO)
		f.play(l, 4*time.Second)
		next := l.end(l.disk.Len(), func(op sampledirtest.Op) sampledirtest.Fate {
			if op.Kind == sampledirtest.Truncate {
				return sampledirtest.Lost
			}
			return sampledirtest.Kept
		})
		recs := list(t, next.main("front"))
		if len(recs) != 2 || recs[1].PrevMedia != recs[0].MediaDuration || recs[1].RunOffset != 1 || recs[1].Start != recs[0].End() {
			t.Errorf("%d recordings, the first of %v, before the second %v", len(recs), recs[0].MediaDuration, recs[1].PrevMedia)
		}
		if got := next.survey().streams[st.id]; !got.has(piece{first: 0, n: f.n - 6}) {
			t.Errorf("of %d pictures there are %+v", f.n, got.recs)
		}
		next.finish()
		f.run.End("test")
	})
}

// Rule 1: what a row says of its file is on the disk, and no more than that,
// though a fragment was begun that fell out of memory.
func TestFileIsAsLongAsItsRowSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.hook = func(cfg *Config) { cfg.RingBytes = 6000 }
		l.mustOpen()
		f := l.play(l.put(settings("front", plenty, 5, false)).Stream("main"), 0)
		f.play(l, 4500*time.Millisecond)
		l.disk.Fail(sampledirtest.Append, 1, 12, syscall.EIO)
		f.play(l, 20*time.Second)
		f.run.End("test")
		time.Sleep(8 * time.Second)
		if n := len(list(t, f.run.st)); n < 2 {
			t.Errorf("%d recordings: nothing fell out of memory", n)
		}
		l.end(l.disk.Len(), func(sampledirtest.Op) sampledirtest.Fate { return sampledirtest.Lost }).finish()
	})
}
