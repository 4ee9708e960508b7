package record_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// interval is a recording or a gap.
type interval struct {
	start, end media.Time
	what       string
}

// covered checks that each instant in [from, to) is in exactly one recording or
// gap of the stream, to within slack, and returns for how long each cause of a
// gap stands.
func covered(t *testing.T, st *store.Stream, from, to media.Time, slack media.Duration) map[store.Cause]media.Duration {
	t.Helper()
	var all []interval
	err := st.List(t.Context(), 0, 1<<60, func(r *store.RecordingInfo) error {
		all = append(all, interval{r.Start, r.End(), fmt.Sprint("recording ", r.No)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	causes := make(map[store.Cause]media.Duration)
	err = st.Gaps(t.Context(), 0, 1<<60, func(g *store.Gap) error {
		all = append(all, interval{g.Start, g.End, fmt.Sprintf("gap %s (%s)", g.Cause, g.Detail)})
		causes[g.Cause] += g.End.Sub(g.Start)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A recording of one picture has no duration, and stands before what follows.
	slices.SortFunc(all, func(a, b interval) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	at, last := from, "the beginning"
	for _, v := range all {
		if off := v.start.Sub(at); off > slack || off < -slack {
			t.Errorf("%s begins %v off the end of %s", v.what, off, last)
		}
		at, last = max(at, v.end), v.what
	}
	if off := to.Sub(at); off > slack || off < -slack {
		t.Errorf("%s ends %v before the end", last, off)
	}
	if t.Failed() {
		for _, v := range all {
			t.Logf("%v to %v: %s", v.start, v.end, v.what)
		}
	}
	return causes
}

// Recorded time and gaps are the time there was, whatever the camera does, in
// memory and in the database, over a stop and a start. Fails on a gap that is
// left out, written twice, or not taken back when a recording turns out to have
// begun before it was seen.
func TestEachInstantIsRecordedOrExplained(t *testing.T) {
	for _, tt := range []struct {
		fault string
		lasts time.Duration // until it records again, at least
		cause store.Cause   // of most of the time without pictures
		least time.Duration
	}{
		{"drop", 30 * time.Second, store.CameraEnded, 500 * time.Millisecond},
		{"stall 15s", time.Minute, store.NoFrames, 10 * time.Second},
		{"refuse 20s", time.Minute, store.CameraUnreachable, 10 * time.Second},
		{"refuse 20m", 22 * time.Minute, store.CameraUnreachable, 19 * time.Minute},
		{"frozen 20s", time.Minute, store.NoFrames, 15 * time.Second},
		{"jump 1h", time.Minute, store.BadTimestamps, 500 * time.Millisecond},
		{"backward 5", time.Minute, store.BadTimestamps, 500 * time.Millisecond},
		{"nokey 6m", 8 * time.Minute, store.BadTimestamps, 500 * time.Millisecond},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			if testing.Short() && tt.lasts > time.Minute {
				t.Skip("long")
			}
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, cameratest.Config{}, onCamera(nil))
				began := media.TimeOf(time.Now())
				st := b.s.Cameras()[0].Streams[0]
				const slack = media.Second / 10
				time.Sleep(90 * time.Second)
				f, err := cameratest.ParseFault(tt.fault)
				if err != nil {
					t.Fatal(err)
				}
				b.cams.Inject(f)
				for end := time.Now().Add(tt.lasts); time.Now().Before(end); {
					time.Sleep(7 * time.Second)
					if st.Info().State.Phase != store.Recording {
						covered(t, st, began, media.TimeOf(time.Now()), slack)
					}
				}
				causes := covered(t, st, began, media.TimeOf(time.Now()), slack)
				t.Logf("causes: %v", causes)
				if got := causes[tt.cause]; got.Std() < tt.least {
					t.Errorf("causes are %v, want %s for %v", causes, tt.cause, tt.least)
				}
				time.Sleep(4 * time.Minute)
				b.stop()

				// What the database alone knows, half an hour later.
				time.Sleep(30 * time.Minute)
				s, err := store.Open(t.Context(), store.Config{Dir: b.dir})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close(context.Background())
				down := covered(t, s.Cameras()[0].Streams[0], began, media.TimeOf(time.Now()), slack)
				if got := down[store.RecorderDown].Std(); got < 29*time.Minute || got > 31*time.Minute {
					t.Errorf("the recorder was down for %v", got)
				}
				delete(down, store.RecorderDown)
				for c, d := range causes {
					if off := down[c] - d; off > slack || off < -slack {
						t.Errorf("%s: %v in the database, %v in memory", c, down[c], d)
					}
				}
			})
		})
	}
}

// A camera that is away for hours costs one commit for each flush_if_sec and one
// row, whatever the number of streams. Fails on a commit per stream, or per try.
func TestCamerasThatAreAwayCostFewCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 8
		b := newBench(t, cameratest.Config{Cameras: streams}, func(s *cameratest.Server) store.Settings {
			var set store.Settings
			for i := range streams {
				set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: fmt.Sprint(i + 1), Streams: map[string]store.StreamConfig{
					"main": {URL: fmt.Sprintf("rtsp://10.0.0.8/%d/main", i+1), Record: true, RetainBytes: 1 << 40},
				}})
			}
			return set
		})
		began := media.TimeOf(time.Now())
		time.Sleep(time.Minute)
		before := strings.Count(b.log.String(), "msg=flushed")
		time.Sleep(2 * time.Hour)
		commits := strings.Count(b.log.String(), "msg=flushed") - before
		if commits > 60 || commits < 50 {
			t.Errorf("%d commits in two hours at flush_if_sec 120, want at most 60", commits)
		}
		for _, c := range b.s.Cameras() {
			causes := covered(t, c.Streams[0], began, media.TimeOf(time.Now()), media.Second/10)
			if causes[store.CameraUnreachable].Std() < 2*time.Hour || len(causes) != 1 {
				t.Errorf("camera %s: causes are %v", c.Name, causes)
			}
			n := 0
			if err := c.Streams[0].Gaps(t.Context(), 0, 1<<60, func(g *store.Gap) error {
				if n++; !g.Growing || !strings.Contains(g.Detail, "refused") {
					t.Errorf("gap %+v", g)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if n != 1 {
				t.Errorf("camera %s: %d gaps", c.Name, n)
			}
		}
		b.stop()
	})
}

// A stream that is not to be recorded owes nothing; a wrong password is named.
func TestOnlyWhatIsOwedIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cameratest.Config{User: "admin", Password: "right"}, onCamera(func(c *store.StreamConfig) {
			c.Username, c.Password = "admin", "wrong"
		}))
		st := b.s.Cameras()[0].Streams[0]
		began := media.TimeOf(time.Now())
		time.Sleep(10 * time.Minute)
		off := onCamera(func(c *store.StreamConfig) { c.Record = false })(b.cams)
		if err := b.s.Import(t.Context(), off); err != nil {
			t.Fatal(err)
		}
		ended := media.TimeOf(time.Now())
		// Not a whole number of groups: a stream that is let in at the instant of
		// a key frame owes nothing.
		time.Sleep(time.Hour + 300*time.Millisecond)
		causes := covered(t, st, began, ended, media.Second/10)
		if causes[store.LoginRefused].Std() < 9*time.Minute {
			t.Errorf("causes are %v", causes)
		}
		right := onCamera(func(c *store.StreamConfig) { c.Username, c.Password = "admin", "right" })(b.cams)
		if err := b.s.Import(t.Context(), right); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		b.stop()
		s, err := store.Open(t.Context(), store.Config{Dir: b.dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(context.Background())
		n := 0
		err = s.Cameras()[0].Streams[0].Gaps(t.Context(), ended, 1<<60, func(g *store.Gap) error {
			if n++; g.End.Sub(g.Start) > 40*media.Second { // a refused login closes the door for 30 s
				t.Errorf("gap %+v after it was switched off", g)
			}
			return nil
		})
		if err != nil || n == 0 {
			t.Errorf("%d gaps, %v", n, err)
		}
	})
}
