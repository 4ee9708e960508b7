package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// pair is a recorder with a camera on each of two disks in memory.
type pair struct {
	*bench
	disks map[string]*sampledirtest.Dir // by path
	other string                        // the path of the second
}

func newPair(t *testing.T) *pair {
	p := &pair{disks: make(map[string]*sampledirtest.Dir), other: t.TempDir()}
	p.bench = newBench(t, func(cfg *Config) {
		cfg.openDir = func(path string) (sampledir.Dir, error) {
			if p.disks[path] == nil {
				p.disks[path] = sampledirtest.New(sampledirtest.State{})
			}
			return p.disks[path].Reopen(), nil
		}
	})
	sec := 120
	for name, dir := range map[string]string{"well": "", "ill": p.other} {
		if _, err := p.s.AddCamera(t.Context(), CameraConfig{ShortName: name, Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.1/", Record: true, FlushIfSec: &sec, SampleFileDir: dir}}}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *pair) ill() *sampledirtest.Dir { return p.disks[p.other] }

// restarted ends the process as a supervisor sees it, and starts the next. The
// page cache is dropped between: of the ill disk only what is durable is left.
func (p *pair) restarted() {
	p.Helper()
	s := p.s
	p.s = nil
	if err := s.Close(context.Background()); err != nil && !errors.Is(err, ErrPoisoned) {
		p.Fatal(err)
	}
	if s.poisoned.Load() {
		s.db.Close() // as the end of the process would
	}
	p.disks[p.other] = sampledirtest.New(p.ill().Cut().Durable())
	p.start()
}

// records reports whether a camera records: its pictures become durable. The
// number of its first picture tells its runs apart.
func (p *pair) records(name string, d time.Duration, n int) bool {
	p.Helper()
	st := p.again(name)
	if st.Unavailable() != nil {
		st.Wait(DiskError, "unavailable")
		return false
	}
	f := newFeed(st.Begin(nil))
	f.n, f.dts = n, int64(n)*9000
	before := st.Info().Watermark
	f.play(p.T, d)
	f.run.End("test")
	return st.Info().Watermark > before
}

// doesNotSync ends the process by a kill, with a file on the ill disk whose entry
// is not durable yet. The next sync of that directory fails, and the one behind it
// would not.
func (p *pair) doesNotSync() *sampledirtest.Dir {
	p.Helper()
	f := newFeed(p.again("ill").Begin(nil))
	f.play(p.T, 2500*time.Millisecond)
	f.run.End("test")
	log := p.ill().Log()
	n := 0
	for log[n].Kind != sampledirtest.Sync {
		n++
	}
	killed := p.ill().Fork(n + 1)
	p.kill()
	p.disks[p.other] = killed
	killed.Fail(sampledirtest.DirSync, 1, 1, syscall.EIO)
	return killed
}

// kill ends the process. What would come now does not happen.
func (p *pair) kill() {
	p.Helper()
	s := p.s
	p.s = nil
	s.poisoned.Store(true)
	s.cfg.ByHand = true // nobody hears how it ends
	s.Close(context.Background())
	s.db.Close()
}

// mayBeLost is what is left of a disk when what is not durable is lost.
func mayBeLost(disk *sampledirtest.Dir) sampledirtest.State {
	return disk.Cut().State(func(int) sampledirtest.Fate { return sampledirtest.Lost }, rand.New(rand.NewPCG(1, 1)))
}

// believes makes sure that no recording is listed whose file may not be there.
func (p *pair) believes(left sampledirtest.State) {
	p.Helper()
	st := p.again("ill")
	for _, r := range list(p.T, st) {
		if _, ok := left.Files[st.fileID(r.No)]; !ok {
			p.Errorf("recording %d is listed, and its file may not be there", r.No)
		}
	}
}

// A sync of a directory that fails at the start leaves that directory alone, and
// the others record. A second sync would succeed, and a row would stand for a file
// that is in the page cache and not on the disk.
func TestDirectoryThatDoesNotSyncAtTheStartIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		killed := p.doesNotSync()
		p.start()
		if !p.records("well", time.Minute, 100) || p.records("ill", time.Minute, 100) {
			t.Error("the directory that does not sync is used, or the other is not")
		}
		time.Sleep(15 * time.Minute)
		if p.records("ill", time.Minute, 1000) {
			t.Error("the directory is used again by the same process")
		}
		select {
		case err := <-p.s.Again():
			if !errors.Is(err, ErrPoisoned) {
				t.Errorf("a restart is asked for with %v", err)
			}
		default:
			t.Error("no restart is asked for to use the directory again")
		}
		well(t, p.s, "")
		if s := strings.Join(faults(p.s), "\n"); !strings.Contains(s, p.other) || !strings.Contains(s, "not used before the next start") {
			t.Errorf("told is %q", s)
		}
		left := mayBeLost(killed)
		p.believes(left)
		s := p.s
		p.s = nil
		if err := s.Close(context.Background()); !errors.Is(err, ErrPoisoned) {
			t.Errorf("close: %v; the next start would believe the page cache", err)
		}
		p.disks[p.other] = sampledirtest.New(left)
		p.start()
		if !p.records("ill", time.Minute, 2000) {
			t.Error("the next start does not use the directory")
		}
	})
}

// A process that is killed after a sync failed at its start has asked nobody to
// drop the page cache. The next one does, once.
func TestProcessKilledInDoubtIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		killed := p.doesNotSync()
		p.start()
		if err := p.again("ill").Unavailable(); !errors.Is(err, sampledir.ErrUnsynced) {
			t.Fatalf("the directory that does not sync is %v", err)
		}
		left := mayBeLost(killed)
		time.Sleep(3 * time.Minute)
		p.kill()
		for _, byHand := range []bool{true, true, false} { // for a command by hand nobody drops it
			cfg := Config{Dir: p.dir, ByHand: byHand, noBallast: true}
			p.hook(&cfg)
			s, err := Open(t.Context(), cfg)
			if err == nil {
				s.Close(t.Context())
			}
			if !errors.Is(err, ErrPoisoned) {
				t.Fatalf("the next start, by hand: %v, gives %v", byHand, err)
			}
		}
		p.disks[p.other] = sampledirtest.New(left)
		p.start()
		p.believes(left)
		if !p.records("ill", time.Minute, 2000) || p.s.ends.of(doubtEnds) > 0 {
			t.Error("the start behind it does not use the directory, or is in doubt itself")
		}
	})
}

// A start that fails, or is told to stop, after a sync failed asks for an empty
// page cache all the same.
func TestStartThatFailsInDoubtSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		killed := p.doesNotSync()
		ctx, cancel := context.WithCancel(t.Context())
		killed.After = func() {
			if killed.Failed(sampledirtest.DirSync) > 0 {
				cancel()
			}
		}
		cfg := Config{Dir: p.dir, noBallast: true}
		p.hook(&cfg)
		if _, err := Open(ctx, cfg); !errors.Is(err, ErrPoisoned) || !errors.Is(err, context.Canceled) {
			t.Errorf("open: %v", err)
		}
		p.disks[p.other] = sampledirtest.New(mayBeLost(killed))
		p.start()
		if !p.records("ill", time.Minute, 2000) {
			t.Error("the next start does not use the directory")
		}
	})
}

// A disk that does not answer at the end makes no doubt go away, whoever ends the
// process then.
func TestCloseThatTimesOutIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		s := p.s
		p.s = nil
		s.doubts(fmt.Errorf("%w: %w", sampledir.ErrUnsynced, syscall.EIO))
		hangs := make(chan struct{})
		s.running.Go(func() { <-hangs })
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		err := s.Close(ctx)
		if !errors.Is(err, ErrPoisoned) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if s.ends.of(doubtEnds) == 0 {
			t.Error("a process that is killed now is believed")
		}
		close(hangs)
		synctest.Wait()
		s.db.Close()
	})
}

// A new directory whose sync fails is no directory: the meta file is in the page
// cache only, and a second try would find it there.
func TestNewDirectoryThatDoesNotSyncIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		third := t.TempDir()
		p.disks[third] = sampledirtest.New(sampledirtest.State{})
		p.disks[third].Fail(sampledirtest.DirSync, 1, 1, syscall.EIO)
		c := CameraConfig{ShortName: "new", Streams: map[string]StreamConfig{"main": {URL: "rtsp://10.0.0.1/", Record: true, SampleFileDir: third}}}
		for range 2 {
			if _, err := p.s.AddCamera(t.Context(), c); err == nil || !strings.Contains(err.Error(), "not used before the next start") {
				t.Errorf("a camera is added: %v", err)
			}
			time.Sleep(5 * time.Minute)
		}
		p.disks[third] = sampledirtest.New(p.disks[third].Cut().Durable())
		s := p.s
		p.s = nil
		if err := s.Close(context.Background()); !errors.Is(err, ErrPoisoned) {
			t.Errorf("close: %v", err)
		}
		p.start()
		if _, err := p.s.AddCamera(t.Context(), c); err != nil {
			t.Errorf("after a start: %v", err)
		}
	})
}

// A directory whose syncs fail for ever, each time it is written to, costs the
// others a few restarts, and then fewer and fewer. When it is well again, it is
// used without one.
func TestDirectoryThatEndsTheRecorderAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.records("ill", 3*time.Second, 0)
		n := 100
		pause := 30 * time.Second
		// life is up to the end of the process, or a day.
		life := func() (lived time.Duration, ended bool) {
			began := time.Now()
			for time.Since(began) < 24*time.Hour {
				p.records("well", 5*time.Second, n)
				p.records("ill", 5*time.Second, n)
				n += 100
				select {
				case <-p.s.Fatal():
					return time.Since(began), true
				default:
				}
				time.Sleep(pause)
			}
			return time.Since(began), false
		}
		p.ill().Fail(sampledirtest.DirSync, 1, -1, syscall.EIO)
		var lives []time.Duration
		for range 6 {
			d, ended := life()
			if !ended {
				t.Fatalf("a sync of the directory that fails does not end the process; lives are %v", lives)
			}
			lives = append(lives, d.Round(time.Minute))
			p.restarted()
			p.ill().Fail(sampledirtest.DirSync, 1, -1, syscall.EIO)
		}
		t.Logf("lives: %v", lives)
		for i, least := range []time.Duration{0, 0, 0, endsPause, 2 * endsPause, 4 * endsPause} {
			if lives[i] < least || lives[i] > least+2*absentRetry2 {
				t.Errorf("life %d lasts %v, want %v", i, lives[i], least)
			}
		}
		if in := p.again("ill").Info(); !strings.Contains(in.DirError, "ended the recorder 6 times in a row") {
			t.Errorf("it is shown as %q", in.DirError)
		}

		p.ill().Heal()
		pause = 10 * time.Minute
		if _, ended := life(); ended {
			t.Error("a directory that is well again ends the process")
		}
		if !p.records("ill", 5*time.Second, n) {
			t.Error("a directory that is well again is not used")
		}
		if fileSize(filepath.Join(p.dir, endsName)) != 0 {
			t.Error("what it did is not forgotten")
		}
	})
}

// What was left alone at the start is tried again by another process, later and
// later while others record, and soon where nothing does.
func TestRestartIsAskedForLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		doubt := fmt.Errorf("%w: %w", sampledir.ErrUnsynced, syscall.EIO)
		asked := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			select {
			case <-p.s.Again():
			case <-time.After(48 * time.Hour):
			}
			if d := time.Since(began); d != want {
				t.Errorf("a restart is asked for after %v, want %v", d, want)
			}
			p.restarted()
		}
		for _, want := range []time.Duration{10, 20, 40} {
			p.s.doubts(doubt)
			asked(want * time.Minute)
		}
		time.Sleep(2 * endsOver) // in which all is well
		p.restarted()
		p.s.doubts(doubt)
		asked(10 * time.Minute)
		for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			for _, d := range p.s.dirs {
				d.mu.Lock()
				d.unavailable = doubt
				d.mu.Unlock()
			}
			p.s.doubts(doubt)
			asked(want * time.Minute)
		}
	})
}

// One end of the process counts once, however many syncs of a directory fail before
// it has come: one of its goroutine and one of adoption.
func TestOneEndOfTheRecorderCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		d := p.again("ill").dir
		for range 2 {
			d.failed(syscall.EIO)
		}
		if n := p.s.ends.of(d.uuid); n != 1 {
			t.Errorf("one end of the process counts as %d", n)
		}
		p.restarted()
	})
}

// Of what earlier processes noted, damage says nothing.
func TestEndingsAreReadAsTheyStand(t *testing.T) {
	e := &endings{path: filepath.Join(t.TempDir(), endsName)}
	for _, n := range []int{1, 2, 3} {
		if err := errors.Join(e.set("a", n), e.set("b", 1)); err != nil {
			t.Fatal(err)
		}
		if e.of("a") != n || e.of("b") != 1 || e.of("c") != 0 {
			t.Errorf("%d, %d and %d times", e.of("a"), e.of("b"), e.of("c"))
		}
	}
	if err := errors.Join(e.set("a", 0), e.set("b", 0), e.set("b", 0)); err != nil || exists(e.path) {
		t.Errorf("all are forgotten: %v, %v", err, e.read())
	}
}
