package sampledirtest

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"holdfast/nvr/store/internal/sampledir"
)

// must is for steps that are not what a test is about.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d *Dir, id int64) sampledir.File {
	t.Helper()
	f, err := d.Create(id)
	must(t, err)
	return f
}

func write(t *testing.T, f sampledir.File, at int64, s string) {
	t.Helper()
	if n, err := f.Append(at, []byte(s)); int(n) != len(s) || err != nil {
		t.Fatalf("append: %d, %v", n, err)
	}
}

// now is the moment after all operations so far.
func now(d *Dir) *Cut { return At(State{}, d.Log(), d.Len()) }

func TestOnlyWhatWasSyncedIsSure(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	write(t, f, 0, "abc")
	if st := now(d).Durable(); len(st.Files) != 0 {
		t.Errorf("before any sync there is %v", st.Files)
	}
	must(t, f.Sync())
	if st := now(d).Durable(); len(st.Files) != 0 {
		t.Errorf("P2: without a sync of the directory there is %v", st.Files)
	}
	must(t, d.Sync())
	write(t, f, 3, "def")
	must(t, f.Truncate(1))
	if got := string(now(d).Durable().Files[1]); got != "abc" {
		t.Errorf("P1: the file holds %q", got)
	}
	must(t, d.Unlink(1))
	if st := now(d).Durable(); string(st.Files[1]) != "abc" {
		t.Errorf("P5: the unlink is not undone: %v", st.Files)
	}
	must(t, d.Sync())
	if st := now(d).Durable(); len(st.Files) != 0 {
		t.Errorf("P2: after the sync of the directory there is %v", st.Files)
	}
}

func TestNothingOrdersWhatWasNotSynced(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	must(t, d.Sync())
	write(t, f, 0, "abc")
	write(t, f, 3, "def")
	c := now(d)
	if n := c.Unsynced(); n != 2 {
		t.Fatalf("%d operations are not synced, want 2", n)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	seen := make(map[string]bool)
	for range 10_000 {
		seen[string(c.State(func(int) Fate { return Any(rng) }, rng).Files[1])] = true
	}
	for _, want := range []string{"", "abc", "abcdef", "\x00\x00\x00def", "\x00\x00\x00", "ab", "abcde", "abc\x00\x00\x00"} {
		if !seen[want] {
			t.Errorf("P3, P4: the file never holds %q", want)
		}
	}
	if len(seen) < 100 {
		t.Errorf("%d contents: where is the garbage?", len(seen))
	}
}

func TestFailedSyncDropsForGood(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	must(t, d.Sync())
	write(t, f, 0, "abc")
	d.Fail(Sync, 1, 1, syscall.EIO)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	must(t, f.Sync())
	if got := string(d.Content().Files[1]); got != "abc" {
		t.Errorf("it reads as %q", got)
	}
	if got := string(now(d).Durable().Files[1]); got != "" {
		t.Errorf("a second sync made %q durable", got)
	}
	g := create(t, d, 2)
	must(t, g.Close())
	d.Fail(DirSync, 1, 1, syscall.EIO)
	if err := d.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync of the directory: %v", err)
	}
	must(t, d.Sync())
	if _, there := now(d).Durable().Files[2]; there {
		t.Error("a second sync of the directory made an entry durable")
	}
}

// A sync of several files is one of their entries, unless that fails; where one of
// the files fails, it is so now and then.
func TestSyncOfFilesIsOneOfEntries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files int
		fault Kind
		want  int // directories of two in which it is one of entries
	}{{"one", 1, "", 0}, {"two", 2, "", 2}, {"one of two fails", 2, Sync, 1}, {"the directory would fail", 2, DirSync, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			times := 0
			for begun := range 2 {
				d := New(State{})
				must(t, create(t, d, 100).Close())
				must(t, d.Sync())
				if begun == 1 {
					must(t, d.Unlink(100))
				}
				var files []sampledir.File
				for id := range tt.files {
					files = append(files, create(t, d, int64(id)))
				}
				if tt.fault != "" {
					d.Fail(tt.fault, 1, 1, syscall.EIO)
				}
				errs, entries := d.SyncFiles(files)
				if failed := errors.Join(errs...) != nil; failed != (tt.fault == Sync) || d.Failed(DirSync) > 0 {
					t.Errorf("%v", errs)
				}
				if _, durable := now(d).Durable().Files[0]; durable != entries {
					t.Errorf("the entry is durable: %v, it says %v", durable, entries)
				}
				if entries {
					times++
				}
				n := d.Len()
				if tt.fault == "" && entries {
					if _, entries := d.SyncFiles(files); !entries || d.Len() != n+len(files) {
						t.Errorf("nothing to do for the directory: %v, %d operations", entries, d.Len()-n)
					}
				}
			}
			if times != tt.want {
				t.Errorf("entries are durable %d times, want %d", times, tt.want)
			}
		})
	}
}

func TestMetaFileIsMadeDurably(t *testing.T) {
	d := New(State{})
	m := sampledir.Meta{CompleteOpen: 1}
	must(t, d.WriteMeta(m))
	log := d.Log()
	for n := range len(log) {
		if st := At(State{}, log, n).Durable(); st.Meta != nil {
			t.Errorf("it is sure after %d of %d operations", n, len(log))
		}
	}
	if st := At(State{}, log, len(log)).Durable(); st.Meta == nil || *st.Meta != m {
		t.Errorf("at the end it is %v", st.Meta)
	}
}

func TestFailedSyncKeepsTheMetaSyncedBefore(t *testing.T) {
	d := New(State{})
	m := sampledir.Meta{CompleteOpen: 1, InProgressOpen: 2}
	must(t, d.WriteMeta(m))
	d.Fail(SyncMeta, 1, 1, syscall.EIO)
	if err := d.WriteMeta(sampledir.Meta{CompleteOpen: 2}); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v", err)
	}
	if st := now(d).Durable(); st.Meta == nil || *st.Meta != m {
		t.Errorf("what is sure of it is %v", st.Meta)
	}
}

func TestFaultsComeWhenTheyShouldAndGo(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	d.Fail(Append, 2, 2, syscall.ENOSPC)
	at := int64(0)
	for i, fails := range []bool{false, true, true, false} {
		n, err := f.Append(at, []byte("abcdef"))
		at += n
		if (err != nil) != fails || fails && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("append %d: %v", i, err)
		}
	}
	if d.Failed(Append) != 2 {
		t.Errorf("%d failed", d.Failed(Append))
	}
	d.Fail(Unlink, 1, -1, syscall.EIO)
	for range 3 {
		if err := d.Unlink(1); !errors.Is(err, syscall.EIO) {
			t.Errorf("unlink: %v", err)
		}
	}
	d.Heal()
	must(t, d.Unlink(1))
}

func TestFullDiskTakesWhatFits(t *testing.T) {
	d := New(State{})
	d.SetCapacity(2 * BlockSize)
	f, g := create(t, d, 1), create(t, d, 2)
	write(t, f, 0, "abc")
	n, err := g.Append(0, make([]byte, 5000))
	if n != BlockSize || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("append: %d, %v", n, err)
	}
	must(t, d.Unlink(1))
	if n, err = g.Append(n, make([]byte, 904)); n != 904 || err != nil {
		t.Errorf("append where there is room: %d, %v", n, err)
	}
	if s, err := d.Space(); s.Free != 0 || err != nil {
		t.Errorf("space: %+v, %v", s, err)
	}
}

// Fails when an operation does not count what it takes or gives back.
func TestFilesTakeTheirBlocks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	d := New(State{Files: map[int64][]byte{1: make([]byte, 5000), 2: nil}})
	files := make(map[int64]sampledir.File)
	compare := func(what string, d *Dir) {
		t.Helper()
		var want int64
		for _, n := range d.Sizes() {
			want += (n + BlockSize - 1) / BlockSize * BlockSize
		}
		if s, err := d.Space(); s.Total-s.Free != want || err != nil {
			t.Fatalf("%s: %d bytes are taken (%v), the files have %d", what, s.Total-s.Free, err, want)
		}
	}
	for range 400 {
		id := int64(rng.IntN(5) + 1)
		f := files[id]
		switch step := rng.IntN(8); {
		case step == 0: // its file may be open still
			d.Unlink(id)
		case step == 1 && f == nil:
			files[id], _ = d.Recover(id)
		case f == nil:
			files[id], _ = d.Create(id)
		case step == 2:
			must(t, f.Close())
			delete(files, id)
		case step == 3:
			must(t, f.Truncate(rng.Int64N(20_000)))
		default:
			n, err := f.Size()
			must(t, err)
			if step == 4 {
				d.Fail(Append, 1, 1, syscall.EIO)
			}
			f.Append(n, make([]byte, rng.IntN(6000)))
		}
		if files[id] == nil {
			delete(files, id)
		}
		compare("after an operation", d)
	}
	compare("killed", d.Fork(d.Len()))
	compare("after a power cut", New(d.Content()))
}

func TestPowerCutLeavesAStateToGoOnFrom(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	write(t, f, 0, "abc")
	must(t, errors.Join(f.Sync(), d.Sync()))
	st := now(d).Durable()
	e := New(st)
	g, err := e.Recover(1)
	must(t, err)
	must(t, errors.Join(g.Truncate(1), g.Sync()))
	if got := string(At(st, e.Log(), e.Len()).Durable().Files[1]); got != "a" {
		t.Errorf("after the cut: %q", got)
	}
	if string(st.Files[1]) != "abc" || e.OpenFiles() != 1 {
		t.Errorf("the first state is %q now; %d files open", st.Files[1], e.OpenFiles())
	}
}

func TestKilledProcessLeavesWhatWasNotSynced(t *testing.T) {
	d := New(State{})
	f := create(t, d, 1)
	must(t, d.Sync())
	write(t, f, 0, "abc")
	e := d.Fork(d.Len())
	write(t, f, 3, "def")
	if got := string(e.Content().Files[1]); got != "abc" {
		t.Errorf("the next process reads %q", got)
	}
	if !d.Fork(d.Len()).Content().Equal(d.Content()) {
		t.Error("a fork is not the same")
	}
	if got := string(now(e).Durable().Files[1]); got != "" {
		t.Errorf("the end of a process made %q durable", got)
	}
	g, err := e.Recover(1)
	must(t, err)
	must(t, g.Sync())
	if got := string(now(e).Durable().Files[1]); got != "abc" {
		t.Errorf("after a sync %q is durable", got)
	}
}
