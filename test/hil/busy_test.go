package hil

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// busyWindow is how far back before a cut it matters that a device could not
// run.
const busyWindow = 5 * time.Second

// queue watches how long the threads of a process that are ready to run wait
// for a processor of this host: what else runs here is no fault of the device.
// Where the host is a virtual machine itself, and is not run, nothing here can
// see it but a clock that jumps.
type queue struct {
	mu      sync.Mutex
	samples []waits
	stop    chan struct{}
	done    chan struct{}
}

// waits is how long each thread has waited since it began, and how much later
// than due the sample was taken, summed up over all samples.
type waits struct {
	at   time.Time
	all  map[string]time.Duration
	late time.Duration
}

// sampleEvery is how often the queue is looked at; less than slack too late is
// what any timer is.
const (
	sampleEvery = 200 * time.Millisecond
	slack       = 20 * time.Millisecond
)

func watchQueue(pid int) *queue {
	q := &queue{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(q.done)
		t := time.NewTimer(0)
		defer t.Stop()
		var due time.Time
		var late time.Duration
		for {
			select {
			case <-t.C:
			case <-q.stop:
				return
			}
			if d := time.Since(due); !due.IsZero() && d > slack {
				late += d
			}
			w := readWaits(pid)
			w.late = late
			q.take(w)
			due = time.Now().Add(sampleEvery)
			t.Reset(sampleEvery)
		}
	}()
	return q
}

func (q *queue) take(w waits) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.samples = append(q.samples, w)
}

// waited is the longest that a thread has waited within the last d before the
// newest sample, and how much this process itself was too late.
func (q *queue) waited(d time.Duration) (most time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.samples) == 0 {
		return 0
	}
	last := q.samples[len(q.samples)-1]
	var first waits // nobody has waited before the process began
	for _, s := range q.samples {
		if last.at.Sub(s.at) < d {
			break
		}
		first = s
	}
	for thread, waited := range last.all {
		most = max(most, waited-first.all[thread])
	}
	return most + last.late - first.late
}

func (q *queue) close() {
	close(q.stop)
	<-q.done
}

// readWaits reads /proc/<pid>/task/*/schedstat: time on a processor, time spent
// waiting for one, turns. Where there is none, nobody waited.
func readWaits(pid int) waits {
	w := waits{at: time.Now(), all: map[string]time.Duration{}}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
			w.all[f] = time.Duration(waited)
		}
	}
	return w
}

func TestQueueCountsTheLastSecondsOfTheThreadThatWaitedMost(t *testing.T) {
	q := &queue{}
	at := time.Unix(0, 0)
	for i := range 40 {
		// One thread waits 10 ms of each 200, the other waited for long at first.
		w := waits{at: at.Add(time.Duration(i) * sampleEvery), all: map[string]time.Duration{
			"a": time.Duration(i) * 10 * time.Millisecond, "b": time.Minute,
		}}
		// The host was away for a second, long ago, and for 300 ms lately.
		if i >= 5 {
			w.late += time.Second
		}
		if i >= 30 {
			w.late += 300 * time.Millisecond
		}
		q.take(w)
	}
	if got, want := q.waited(5*time.Second), 550*time.Millisecond; got != want {
		t.Errorf("waited %v, want %v", got, want)
	}
	if got, want := q.waited(time.Hour), time.Minute+1300*time.Millisecond; got != want {
		t.Errorf("waited %v in all, want %v", got, want)
	}
	if w := readWaits(os.Getpid()); len(w.all) == 0 {
		t.Log("this kernel does not tell: no allowance is made")
	}
}
