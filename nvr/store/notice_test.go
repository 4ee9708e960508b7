package store

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// each gives what a watcher is told within a moment.
func each(t testing.TB, w *Watcher, f func(*Notice)) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		list, lost, err := w.Next(ctx)
		cancel()
		if err != nil {
			return
		}
		if lost {
			t.Fatal("some were lost")
		}
		for i := range list {
			f(&list[i])
		}
	}
}

// told is what a watcher is told within a moment, of one kind.
func told(t testing.TB, w *Watcher, change Change) (out []Notice) {
	t.Helper()
	each(t, w, func(n *Notice) {
		if n.Change == change {
			out = append(out, *n)
		}
	})
	return out
}

// A list that is kept up to date by what is told is the list that is asked for: of
// recordings from their beginning to their rows, and of gaps.
func TestWhatIsToldIsWhatIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 30)
		w := b.s.Watch()
		kept := make(map[int32]Span)
		gaps := make(map[media.Time]Gap)
		follow := func() {
			t.Helper()
			each(t, w, func(n *Notice) {
				if n.CameraID == 0 && n.Change < DirChanged || n.Stream != "main" && n.Change == RecordingsChanged {
					t.Errorf("of no stream: %+v", *n)
				}
				switch n.Change {
				case RecordingsChanged:
					for _, r := range n.Recordings {
						kept[r.FirstNo] = r
					}
				case GapChanged:
					gaps[n.Gap.Start] = n.Gap
				}
			})
		}
		compare := func(when string) {
			t.Helper()
			follow()
			n := 0
			for _, r := range list(t, st) {
				want, got := SpanOf(&r), kept[r.No]
				if r.Growing { // what is told is how it began
					want.End, want.Start, want.VideoSamples, want.FileBytes = got.End, got.Start, got.VideoSamples, got.FileBytes
				}
				if r.Uncommitted { // and its file takes headers still
					want.FileBytes = got.FileBytes
				}
				if n++; got != want {
					t.Errorf("%s: told of recording %d %+v, listed %+v", when, r.No, got, want)
				}
			}
			if n != len(kept) {
				t.Errorf("%s: told of %d recordings, %d are listed", when, len(kept), n)
			}
			n = 0
			err := st.Gaps(t.Context(), 0, 1<<62, func(g *Gap) error {
				if g.Cause == RecorderDown {
					return nil // from before
				}
				n++
				got, ok := gaps[g.Start]
				if !ok || got.Cause != g.Cause || got.Detail != g.Detail || got.Growing != g.Growing || !g.Growing && got.End != g.End {
					t.Errorf("%s: told of the gap %+v, listed %+v; of all %+v", when, got, *g, gaps)
				}
				return nil
			})
			if err != nil || n != len(gaps) {
				t.Errorf("%s: told of %d gaps, %d are listed: %v", when, len(gaps), n, err)
			}
		}
		f := newFeed(st.Begin(nil))
		f.play(t, 95*time.Second)
		compare("recording")
		f.run.End("the camera closed the connection")
		st.Wait(CameraEnded, "the camera closed the connection")
		time.Sleep(2 * time.Second)
		compare("ended")
		st.SetState(Connecting, "", nil)
		time.Sleep(10 * time.Second)
		st.Wait(CameraUnreachable, "no answer")
		compare("another cause")
		time.Sleep(20 * time.Second)
		f = newFeed(st.Begin(nil))
		f.play(t, 70*time.Second)
		compare("recording again")
		f.run.End("test over")
		time.Sleep(40 * time.Second)
		if st.Info().Unflushed > 0 {
			t.Error("not flushed")
		}
		compare("flushed")
	})
}

// Nothing is told twice, and nobody who tells waits for who reads.
func TestNoticesAreBounded(t *testing.T) {
	var s Store
	w := s.Watch()
	for range 5 * mostNotices {
		s.notices.tell(Notice{Change: ClockChanged})
	}
	if n := len(s.notices.kept); n > mostNotices || n < mostNotices/2 {
		t.Errorf("%d are kept", n)
	}
	if _, lost, err := w.Next(t.Context()); !lost || err != nil || w.Last() != 5*mostNotices {
		t.Errorf("lost: %t, %v, goes on from %d", lost, err, w.Last())
	}
	oldest := s.notices.kept[0].ID
	for id, want := range map[uint64]bool{0: false, oldest - 2: false, oldest - 1: true, 5 * mostNotices: true, 5*mostNotices + 1: false} {
		if _, ok := s.WatchFrom(id); ok != want {
			t.Errorf("all behind %d are kept: %t", id, ok)
		}
	}
	w, _ = s.WatchFrom(oldest - 1)
	for want := oldest; want <= 5*mostNotices; {
		got, lost, err := w.Next(t.Context())
		if err != nil || lost || len(got) > noticeBatch {
			t.Fatal(lost, err, len(got))
		}
		for i := range got {
			if got[i].ID != want {
				t.Fatalf("notice %d, want %d", got[i].ID, want)
			}
			want++
		}
	}

	// Many who tell and many who read.
	const many = 200
	var all sync.WaitGroup
	for range 4 {
		w := s.Watch()
		all.Go(func() {
			for n := 0; n < 4*many; {
				got, lost, err := w.Next(t.Context())
				if err != nil || lost {
					t.Error(lost, err)
					return
				}
				n += len(got)
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for range many {
				s.notices.tell(Notice{Change: ClockChanged})
			}
		})
	}
	all.Wait()
}

// A disk that gives errors, and one that is well again, is told with its streams.
func TestDirectoriesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 30)
		time.Sleep(2 * time.Second)
		w := b.s.Watch()
		d := st.dir
		for i, alarm := range []string{"garbage only grows", ""} {
			d.mu.Lock()
			d.alarm = alarm
			d.mu.Unlock()
			time.Sleep(2 * syncEvery)
			dirs := told(t, w, DirChanged)
			if len(dirs) != 1 || dirs[0].Dir.Alarm != alarm || dirs[0].Dir.Path != d.path || dirs[0].Dir.Floor == 0 {
				t.Errorf("%d: %+v", i, dirs)
			}
		}
		w, _ = b.s.WatchFrom(w.Last() - 4)
		if streams := told(t, w, StreamChanged); len(streams) != 2 || streams[0].Stream != "main" {
			t.Errorf("streams: %+v", streams)
		}
	})
}

// Each change of the configuration is told of the cameras that it changes, of no other.
func TestConfigurationIsTold(t *testing.T) {
	b := newBench(t, nil)
	w := b.s.Watch()
	st := b.camera("front", plenty, 30)
	b.camera("back", plenty, 30)
	names := func(change Change) (out string) {
		v := *w
		for _, n := range told(t, &v, change) {
			out += fmt.Sprint(n.CameraID, " ")
		}
		return out
	}
	if got := names(CameraChanged); got != "1 2 " {
		t.Errorf("added: %s", got)
	}
	told(t, w, 0)
	set := b.s.Export()
	if err := b.s.Import(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if got := names(CameraChanged); got != "" {
		t.Errorf("nothing changed: %s", got)
	}
	told(t, w, 0)
	c := set.Cameras[0].Streams["main"]
	c.RetainDays = 7
	set.Cameras[0].Streams["main"] = c
	if err := b.s.Import(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if got := names(CameraChanged); got != "2 " {
		t.Errorf("days of %s: %s", set.Cameras[0].ShortName, got)
	}
	told(t, w, 0)
	if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
		t.Fatal(err)
	}
	if got := names(CameraDeleted); got != "1 " {
		t.Errorf("deleted: %s", got)
	}
}

// A gap over a restart begins behind what was adopted, for who is told of its end too.
func TestGapOverARestartIsToldAsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 300)
		f := newFeed(st.Begin(nil))
		f.play(t, 90*time.Second)
		time.Sleep(2 * syncEvery)
		b = b.copied(new(badClock)) // its files have no rows
		f.run.End("test over")
		time.Sleep(time.Hour)
		b.start()
		st = b.again("front")
		w := b.s.Watch()
		time.Sleep(5 * time.Second)
		f = newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		defer f.run.End("test over")
		var listed []Gap
		if err := st.Gaps(t.Context(), 0, 1<<62, func(g *Gap) error {
			listed = append(listed, *g)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		got := told(t, w, GapChanged)
		if len(got) != 1 || len(listed) != 1 || got[0].Gap != listed[0] {
			t.Errorf("told %+v, listed %+v", got, listed)
		}
	})
}

// What is changed, deleted and added of the configuration is told, once each, and
// nothing of a directory after its end.
func TestChangesOfTheConfigurationAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.camera("front", plenty, 30)
		uuid, id := b.s.named("front").UUID, b.s.named("front").ID
		time.Sleep(2 * syncEvery)
		w := b.s.Watch()
		change := func(c CameraChange) {
			t.Helper()
			if err := b.s.ChangeCamera(t.Context(), uuid, c, CameraChange{}); err != nil {
				t.Fatal(err)
			}
		}
		// kinds are those of what was told of the camera, and of directories.
		kinds := func() (all []Change) {
			each(t, w, func(n *Notice) {
				if n.Change == CameraChanged || n.Change == CameraDeleted || n.Change == StreamDeleted {
					if n.CameraUUID != uuid || n.CameraID != id {
						t.Errorf("told %+v", *n)
					}
				} else if n.Change != DirChanged && n.Change != DirDeleted {
					return
				}
				all = append(all, n.Change)
			})
			return all
		}
		say := func(what string, want ...Change) {
			t.Helper()
			if got := kinds(); !slices.Equal(got, want) {
				t.Errorf("%s: told %v, want %v", what, got, want)
			}
		}
		change(CameraChange{Description: new("over the gate"), Streams: map[string]StreamChange{"sub": {URL: new("rtsp://10.0.0.1/sub")}}})
		say("changed", CameraChanged)
		change(CameraChange{Description: new("over the gate")})
		say("changed to what it is")
		sub := b.s.named("front").Stream("sub").id
		gone := b.s.Watch()
		if err := b.s.DeleteStream(t.Context(), uuid, "sub"); err != nil {
			t.Fatal(err)
		}
		say("deleted a stream", StreamDeleted, CameraChanged)
		if n := told(t, gone, StreamDeleted); len(n) != 1 || n[0].Stream != "sub" || n[0].StreamID != sub {
			t.Errorf("told %+v, want the stream %d", n, sub)
		}

		path := filepath.Join(t.TempDir(), "second")
		added := b.s.Watch()
		dir, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * syncEvery)
		say("added a directory", DirChanged)
		if n := told(t, added, DirChanged); len(n) != 1 || n[0].Dir.ID != dir || n[0].Dir.Path != path || !n[0].Dir.InUse {
			t.Errorf("told %+v, want the directory %d", n, dir)
		}
		// A stream that holds nothing moves there, and is another.
		change(CameraChange{Streams: map[string]StreamChange{"sub": {URL: new("rtsp://10.0.0.1/sub")}}})
		say("added a stream", CameraChanged)
		change(CameraChange{Streams: map[string]StreamChange{"sub": {SampleFileDir: &path}}})
		say("moved a stream", StreamDeleted, CameraChanged)
		if err := b.s.DeleteStream(t.Context(), uuid, "sub"); err != nil {
			t.Fatal(err)
		}
		say("deleted it", StreamDeleted, CameraChanged)
		removed := b.s.Watch()
		b.s.mu.RLock()
		d := b.s.directory(dir)
		b.s.mu.RUnlock()
		if err := b.s.DeleteDir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if b.s.tellDir(d, DirInfo{ID: dir}) {
			t.Error("told of a directory that is deleted")
		}
		time.Sleep(2 * syncEvery)
		say("deleted a directory", DirDeleted)
		if n := told(t, removed, DirDeleted); len(n) != 1 || n[0].Dir.ID != dir || n[0].Dir.Path != path {
			t.Errorf("told %+v, want the directory %d", n, dir)
		}
		if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
			t.Fatal(err)
		}
		say("deleted the camera", CameraDeleted)
	})
}
