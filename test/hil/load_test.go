package hil

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/test/hil/nbd"
)

// usage is what the recorder took of the machine so far.
type usage struct {
	rss   int64         // bytes of its own
	self  time.Duration // of a processor
	busy  time.Duration // of all processors
	whole time.Duration
}

// usage asks the mutant of the image.
func (d *device) usage() (u usage, err error) {
	body, err := d.page("/lab/usage")
	if err != nil {
		return u, err
	}
	const tick = 10 * time.Millisecond
	number := func(s string) int64 {
		n, e := strconv.ParseInt(s, 10, 64)
		if e != nil {
			err = e
		}
		return n
	}
	for i, l := range strings.Split(body, "\n") {
		f := strings.Fields(l)
		switch {
		case i == 1: // pid (nvr) S …, the times stand at 14 and 15
			if len(f) < 15 {
				return u, fmt.Errorf("usage: %q", l)
			}
			u.self = time.Duration(number(f[13])+number(f[14])) * tick
		case len(f) > 1 && (f[0] == "RssAnon:"):
			u.rss = number(f[1]) << 10
		case len(f) > 8 && f[0] == "cpu":
			for j, s := range f[1:9] {
				u.whole += time.Duration(number(s)) * tick
				if j != 3 && j != 4 { // idle, waiting
					u.busy += time.Duration(number(s)) * tick
				}
			}
		}
	}
	return u, err
}

// mostFlushes is how often a second a disk may be told to flush its cache, with the
// database on it and whatever the number of streams (design, numbers).
const mostFlushes = 4

func TestEightCamerasLoseNoFrame(t *testing.T) {
	needs(t, true)
	const count = 8
	settle := *loadFlag / 5
	v, d, s := hanging(t, count)
	from := d.Console().here()
	// Memory is flat after the rings and the collector have found their size.
	<-time.After(settle)
	first, err := d.usage()
	if err != nil {
		t.Fatal(err)
	}
	most := first.rss
	flushes := v.drive.Stats().Flushes
	began := time.Now()
	for time.Since(began) < *loadFlag-settle {
		<-time.After(10 * time.Second)
		if err := d.recording(0, 2*count); err != nil {
			t.Fatal(err)
		}
		u, err := d.usage()
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, u.rss)
	}
	last, err := d.usage()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	flushed := float64(v.drive.Stats().Flushes-flushes) / took.Seconds()
	if l, ok := d.Console().has(from, "holdfast: nvr"); ok {
		t.Errorf("the console says %q", l.text)
	}
	on, cut := d.on(), lookAt(s)
	if _, err := d.PowerCut(nbd.Cut{}); err != nil {
		t.Fatal(err)
	}
	k, err := prove(d, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.after(nil); err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, st := range k.streams {
		if gaps := st.Gaps(); len(gaps) > 0 {
			t.Errorf("%s: %d pictures missing behind frame %d", name, gaps[0].Missing, gaps[0].After.Frame)
		}
		if n := len(st.Frames); n > 0 && st.Frames[n-1].Run != 0 {
			t.Errorf("%s: %d sessions, want one", name, st.Frames[n-1].Run+1)
		}
		if missing, ok := lost(s, k, name, on, cut); !ok || missing > mostLost+d.Busy(busyWindow) {
			t.Errorf("%s lost %v at the end", name, missing)
		}
		total += len(st.Frames)
	}
	if len(k.streams) != 2*count {
		t.Errorf("%d streams on the disk, want %d", len(k.streams), 2*count)
	}
	if flushed > mostFlushes {
		t.Errorf("%.1f flushes of the disk a second, want %d at most", flushed, mostFlushes)
	}
	const growth = 8 << 20
	if most-first.rss > growth {
		t.Errorf("memory grew from %d to %d MiB", first.rss>>20, most>>20)
	}
	scenario := fmt.Sprintf("%d cameras, %d streams, %v", count, 2*count, *loadFlag)
	note(t, lanes[0].name, scenario, "frames, all kept", "%d", total)
	note(t, lanes[0].name, scenario, "flushes of its disk", "%.1f a second", flushed)
	note(t, lanes[0].name, scenario, "memory after a fifth, most", "%.1f, %.1f MiB", float64(first.rss)/(1<<20), float64(most)/(1<<20))
	note(t, lanes[0].name, scenario, "recorder, of one emulated processor", "%.1f %%", 100*float64(last.self-first.self)/float64(took))
	note(t, lanes[0].name, scenario, "machine busy", "%.1f %%", 100*float64(last.busy-first.busy)/float64(last.whole-first.whole))
}
