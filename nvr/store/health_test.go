package store

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// well holds that the store is healthy, or unwell with a reason that says why.
func well(t *testing.T, s *Store, why string) {
	t.Helper()
	began := time.Now()
	err := s.Healthy(t.Context())
	switch {
	case why == "" && err != nil:
		t.Errorf("unwell: %v", err)
	case why != "" && (err == nil || !strings.Contains(err.Error(), why)):
		t.Errorf("healthy says %v, want %q", err, why)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the answer took %v; a supervisor waits 20s", d)
	}
}

func TestOfflineCameraIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		b.camera("shed", plenty, 60) // never there
		f.play(t, 3*time.Minute)
		well(t, b.s, "")
		f.run.End("gone")
		for range 24 {
			<-time.After(time.Hour)
			well(t, b.s, "")
		}
	})
}

// A directory whose goroutine is gone, and says nothing, is no progress.
func TestUnitsThatGoNowhereAreAFaultAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		well(t, b.s, "")
		b.s.stop()
		f.play(t, 59*time.Second)
		if err := st.moves(); err != nil {
			t.Errorf("after less than a minute: %v", err)
		}
		f.play(t, 3*time.Second)
		well(t, b.s, "front main: pictures come, and none has become durable for 1m")
		// A directory that says what is wrong is shown, and tries again by itself.
		st.dir.mu.Lock()
		st.dir.err = errors.New("no space left on device")
		st.dir.mu.Unlock()
		if err := st.moves(); err != nil {
			t.Errorf("with a full disk: %v", err)
		}
	})
}

func TestRecordingLoopThatHangsIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		st.SetState(Recording, "", nil)
		f.play(t, 3*time.Minute)
		well(t, b.s, "")
		<-time.After(59 * time.Second)
		well(t, b.s, "")
		<-time.After(3 * time.Second)
		st.mu.Lock() // whoever hangs may hold it
		well(t, b.s, "front main: its recording loop has not moved for 1m")
		st.mu.Unlock()
		st.SetState(Waiting, "no frames for 10s", nil)
		<-time.After(time.Hour)
		well(t, b.s, "")
	})
}

func TestFlushMayTakeAMinuteAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		end := b.s.pulse.beginFlush()
		<-time.After(59 * time.Second)
		well(t, b.s, "")
		<-time.After(2 * time.Second)
		well(t, b.s, "a flush has been under way for 1m1s")
		end()
		well(t, b.s, "")
	})
}

// One flush after the other is progress, though there is always one.
func TestFlushesThatWaitForEachOtherAreNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		end := b.s.pulse.beginFlush()
		for range 10 {
			next := b.s.pulse.beginFlush()
			<-time.After(40 * time.Second)
			end()
			well(t, b.s, "")
			end = next
		}
		end()
	})
}

func TestFlusherThatIsGoneIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(Store) // nobody flushes it
		s.plans.init()
		began := time.Now()
		s.pulse.turnOfFlusher()
		s.plan(nil, 0, began.Add(2*time.Minute))
		<-time.After(2*time.Minute + 59*time.Second)
		if err := s.flusherAlive(); err != nil {
			t.Errorf("59s past due: %v", err)
		}
		<-time.After(2 * time.Second)
		if err := s.flusherAlive(); err == nil {
			t.Error("61s past due is no fault")
		}
		// It looked, failed, and tries again in a minute.
		s.pulse.turnOfFlusher()
		<-time.After(time.Minute + 59*time.Second)
		if err := s.flusherAlive(); err != nil {
			t.Errorf("after a failure: %v", err)
		}
		<-time.After(2 * time.Second)
		if err := s.flusherAlive(); err == nil {
			t.Error("a flusher that never came back after a failure is no fault")
		}
	})
}

func TestDatabaseThatIsSilentIsAFaultAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		well(t, b.s, "")
		p := &b.s.pulse
		p.mu.Lock()
		p.probing, p.probeSince = true, time.Now() // a question without an answer
		p.mu.Unlock()
		<-time.After(59 * time.Second)
		well(t, b.s, "")
		<-time.After(2 * time.Second)
		well(t, b.s, "the database has not answered for 1m1s")
		p.mu.Lock()
		p.probing = false
		p.mu.Unlock()
		well(t, b.s, "")
	})
}

// A disk that gives errors is tried again without a restart, and told of.
func TestFaultsOfADirectoryAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		dir := b.s.dirs[0]
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		f.play(t, 2500*time.Millisecond)
		told := func(want string) {
			t.Helper()
			if got := strings.Join(faults(b.s), "\n"); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		told("")
		d.mu.Lock()
		d.fail["write"] = []error{errDisk, errDisk, errDisk}
		d.mu.Unlock()
		f.play(t, 1500*time.Millisecond)
		told("sample directory " + dir.path + ": input/output error")
		well(t, b.s, "")
		f.play(t, 5*time.Second)
		told("")
		f.run.End("gone")
		<-time.After(1500 * time.Millisecond)
		dir.mu.Lock()
		dir.working = time.Now().Add(-61 * time.Second)
		dir.mu.Unlock()
		told("sample directory " + dir.path + ": the disk has not answered for 1m1s")
		well(t, b.s, "the disk has not answered for 1m1s")
	})
}

// Fails when a database that answers with an error ends the recorder, or when that
// is not shown.
func TestDatabaseThatRefusesIsShown(t *testing.T) {
	b := newBench(t, nil)
	b.s.stop() // questions are refused from here on
	well(t, b.s, "")
	if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "context canceled") {
		t.Errorf("told %q", got)
	}
}

func TestOpeningReportsProgress(t *testing.T) {
	var n atomic.Int64
	newBench(t, func(cfg *Config) { cfg.Progress = func() { n.Add(1) } })
	if n.Load() == 0 {
		t.Error("no progress was reported")
	}
}

// faults are the causes of all checks that fail.
func faults(s *Store) (causes []string) {
	for _, c := range s.HealthChecks() {
		if c.Cause != "" {
			causes = append(causes, c.Cause)
		}
	}
	return causes
}
