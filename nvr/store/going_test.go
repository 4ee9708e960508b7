package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// twenty adds the cameras front and other, with some twenty recordings each.
func (b *bench) twenty() (front, other *Stream) {
	front, other = b.camera("front", plenty, 60), b.camera("other", plenty, 60)
	f, g := newFeed(front.Begin(nil)), newFeed(other.Begin(nil))
	for range 20 * 60 {
		f.play(b.T, time.Second)
		g.one()
	}
	f.run.End("test")
	g.run.End("test")
	time.Sleep(2 * time.Minute)
	return front, other
}

// A camera that is deleted goes a few recordings at a time, and is out of sight
// from the first moment; a start in between goes on with it. Fails without the
// bound of dropGoing, and without what takeGoing reads at the start.
func TestDeletedCameraGoesAFewRecordingsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4
		b := newBench(t, func(cfg *Config) { cfg.mostDeletions = most })
		st, _ := b.twenty()
		had := len(list(t, st))
		if had < 3*most {
			t.Fatalf("%d recordings", had)
		}
		rest := func() int {
			t.Helper()
			state, err := b.s.db.State(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(state.Deleted) == 0 {
				return 0
			}
			return int(state.Deleted[0].Recordings)
		}

		// Held, the flusher cannot go on behind it.
		c, _ := b.s.Camera(st.uuid)
		b.s.flushing.Lock()
		before := b.s.flushes
		if err := b.s.apply(t.Context(), &db.Change{DeleteCameras: []int32{c.ID}}, c.Streams); err != nil {
			t.Fatal(err)
		}
		if got := rest(); got != had {
			t.Errorf("%d of %d recordings are left by the change alone", got, had)
		}
		if _, ok := b.s.Camera(st.uuid); ok {
			t.Error("the camera is still to be seen")
		}
		for n := had - most; n > had-3*most; n -= most {
			if err := b.s.flushLocked(t.Context(), "test"); err != nil {
				t.Fatal(err)
			}
			if got := rest(); got != n {
				t.Errorf("%d recordings are left, want %d", got, n)
			}
		}
		if why := b.s.goingIn(st.dir); !strings.Contains(why, fmt.Sprint(had-2*most, " recordings")) {
			t.Errorf("in its directory: %q", why)
		}
		if b.s.flushes != before+2 {
			t.Errorf("%d flushes, want 2", b.s.flushes-before)
		}
		// The name is free.
		b.s.flushing.Unlock()
		b.camera("front", plenty, 60)

		b.stop()
		b.start()
		synctest.Wait()
		if got := rest(); got != 0 {
			t.Errorf("%d recordings are left after a start", got)
		}
		time.Sleep(time.Minute)
		b.stop()
		b.start()
		if got, want := len(b.files()), len(list(t, b.again("other"))); got != want || want < had-1 {
			t.Errorf("%d files for %d recordings", got, want)
		}
		b.stop()
		(&footage{T: t, dir: b.dir}).clean()
		b.start()
	})
}

// What retention deletes at the same time leaves a deleted camera its part of a flush.
func TestRetentionLeavesADeletedCameraItsPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.mostDeletions = 8 })
		st, other := b.twenty()
		b.s.flushing.Lock()
		defer b.s.flushing.Unlock()
		c, _ := b.s.Camera(st.uuid)
		if err := b.s.apply(t.Context(), &db.Change{DeleteCameras: []int32{c.ID}}, c.Streams); err != nil {
			t.Fatal(err)
		}
		other.mu.Lock()
		other.cfg.RetainBytes = 1 // nearly all of it is to go
		had := other.recordings
		other.mu.Unlock()
		left := b.s.going[0].left.n
		if err := b.s.flushLocked(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		if got := had - other.recordings; got != 8 {
			t.Errorf("retention deleted %d", got)
		}
		if got := left - b.s.going[0].left.n; got != 2 {
			t.Errorf("%d of the deleted camera went, want a quarter of 8", got)
		}
	})
}

// The process is killed behind the change alone: nothing is wrong with what it leaves,
// and the next one goes on. Fails when check does not know of deleted streams.
func TestStartGoesOnWithADeletedCamera(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		gone := f.state().Cameras[0]
		d, err := db.Open(t.Context(), db.Config{Path: f.dir + "/db"})
		f.must(err)
		f.must(d.ApplyConfig(t.Context(), &db.Change{DeleteCameras: []int32{gone.ID}}))
		f.must(d.Close())
		state := f.state()
		if len(state.Deleted) != 1 || state.Deleted[0].Recordings < 4 {
			t.Fatalf("deleted %+v", state.Deleted)
		}
		f.clean()
		b := &bench{T: t, dir: f.dir, log: new(journal), hook: func(cfg *Config) { cfg.mostDeletions = 1 }}
		b.start()
		if _, ok := b.s.Camera(gone.UUID); ok {
			t.Error("the camera is back")
		}
		time.Sleep(time.Minute)
		b.s.flushing.Lock()
		n := len(b.s.going)
		b.s.flushing.Unlock()
		if n != 0 {
			t.Errorf("%d deleted streams are left", n)
		}
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Error(err)
		}
		b.stop()
		f.clean()
		if got, want := len(b.files()), len(f.ids)-int(state.Deleted[0].Recordings); got != want {
			t.Errorf("%d files are left, want %d", got, want)
		}
		if s := f.state(); len(s.Deleted)+len(s.Garbage) > 0 {
			t.Errorf("left are %+v and %v", s.Deleted, s.Garbage)
		}
	})
}

// What is deleted makes room before anything else has to go, though one flush does not
// come to all of it. Fails without freed.
func TestDeletedCameraMakesRoomFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, func(cfg *Config) { small(disk, 64*mb)(cfg); cfg.mostDeletions = 1 })
		old, st := b.camera("old", 0, 20), b.camera("front", 0, 20)
		feeds := []*feed{newFeed(old.Begin(nil)), newFeed(st.Begin(nil))}
		feeds[0].size, feeds[1].size = 4<<10, 4<<10
		playAll(t, feeds, 9*time.Minute)
		for _, f := range feeds {
			f.run.End("test")
		}
		time.Sleep(time.Minute)
		had := len(list(t, st))
		leave(t, disk, 2*mb)
		c, _ := b.s.Camera(old.uuid)
		b.s.flushing.Lock()
		err := b.s.apply(t.Context(), &db.Change{DeleteCameras: []int32{c.ID}}, c.Streams)
		if err == nil {
			b.s.dirs[0].askRoom(b.s.dirs[0].dir)
			err = b.s.flushLocked(t.Context(), "test")
		}
		b.s.flushing.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := len(list(t, st)); got != had {
			t.Errorf("%d of %d recordings are left beside those of a deleted camera", got, had)
		}
		if n := free(t, disk); n < 15*mb {
			t.Errorf("%d MiB are free", n/mb)
		}
	})
}

// A directory does not go before the last row of a deleted camera in it.
func TestDirectoryOfADeletedCameraIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.mostDeletions = 1 })
		path := inMemory(t)
		id, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		uuid, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "front", Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.1/", Record: true, SampleFileDir: path}}})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := b.s.Camera(uuid)
		f := newFeed(c.Stream("main").Begin(nil))
		f.play(t, 8*time.Minute)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		b.s.flushing.Lock()
		err = b.s.apply(t.Context(), &db.Change{DeleteCameras: []int32{c.ID}}, c.Streams)
		b.s.flushing.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		err = b.s.DeleteDir(t.Context(), id)
		if in, ok := errors.AsType[*InUseError](err); !ok || !strings.Contains(in.Why, "recordings of deleted cameras are still to go") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		if err := b.s.DeleteDir(t.Context(), id); err != nil {
			t.Errorf("when all is gone: %v", err)
		}
	})
}

// The database deletes nothing of a deleted stream: everything else goes on, the log
// says so once, and it goes as soon as it can.
func TestDeletedCameraThatStaysHoldsUpNothing(t *testing.T) {
	for what, trigger := range map[string]string{
		"recording": `BEFORE DELETE ON recording WHEN OLD.composite_id >> 32 = 1`,
		"span":      `BEFORE DELETE ON span WHEN OLD.stream_id = 1`,
		"totals":    `BEFORE UPDATE OF total_recordings ON stream WHEN OLD.id = 1`,
	} {
		t.Run(what, func(t *testing.T) { deletedCameraStays(t, trigger) })
	}
}

func deletedCameraStays(t *testing.T, trigger string) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		front, back := b.camera("front", plenty, 60), b.camera("back", plenty, 60)
		f, g := newFeed(front.Begin(nil)), newFeed(back.Begin(nil))
		for range 4 * 60 {
			f.play(t, time.Second)
			g.one()
		}
		f.run.End("test")
		b.behindItsBack(`CREATE TRIGGER refuse ` + trigger + ` BEGIN SELECT RAISE(ABORT, 'not today'); END`)
		if err := b.s.DeleteCamera(t.Context(), front.uuid); err != nil {
			t.Fatal(err)
		}
		g.play(t, 10*time.Minute)
		g.run.End("test")
		time.Sleep(2 * time.Minute)
		if fl := b.s.Flushes(); fl.Failed > 0 {
			t.Errorf("%d flushes failed", fl.Failed)
		}
		if n := back.Info().Recordings; n < 10 {
			t.Errorf("%d recordings of the other stream", n)
		}
		if l := b.log.String(); strings.Count(l, "recordings of a deleted stream stay") != 1 || !strings.Contains(l, "not today") {
			t.Error("the log does not tell it once")
		}
		if !b.s.overdue() {
			t.Error("nobody tries again")
		}
		b.behindItsBack("DROP TRIGGER refuse")
		time.Sleep(2 * time.Hour)
		if b.s.overdue() || !strings.Contains(b.log.String(), "recordings of a deleted stream go again") {
			t.Error("it is not over")
		}
		b.stop()
		f2 := &footage{T: t, dir: b.dir}
		f2.clean()
		if s := f2.state(); len(s.Deleted) > 0 {
			t.Errorf("left are %+v", s.Deleted)
		}
	})
}

// One deleted camera that stays keeps another from going no more than live ones
// from making room in its place.
func TestDeletedCameraThatStaysKeepsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, func(cfg *Config) { small(disk, 64*mb)(cfg); cfg.mostDeletions = 4 })
		stays, goes, live := b.camera("stays", 0, 20), b.camera("goes", 0, 20), b.camera("live", 0, 20)
		feeds := []*feed{newFeed(stays.Begin(nil)), newFeed(goes.Begin(nil)), newFeed(live.Begin(nil))}
		for _, f := range feeds {
			f.size = 3 << 10
		}
		playAll(t, feeds, 9*time.Minute)
		for _, f := range feeds {
			f.run.End("test")
		}
		time.Sleep(time.Minute)
		b.behindItsBack(`CREATE TRIGGER refuse BEFORE DELETE ON recording WHEN OLD.composite_id >> 32 = 1 BEGIN SELECT RAISE(ABORT, 'not today'); END`)
		for _, st := range []*Stream{stays, goes} {
			if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		b.s.flushing.Lock()
		if len(b.s.going) != 1 || b.s.going[0].id != 1 {
			t.Errorf("%d deleted streams are left", len(b.s.going))
		}
		if why := b.s.goingIn(b.s.dirs[0]); !strings.Contains(why, "not today") {
			t.Errorf("of the directory it is said: %s", why)
		}
		b.s.flushing.Unlock()
		had := len(list(t, live))
		leave(t, disk, 2*mb)
		time.Sleep(5 * time.Minute)
		if got := len(list(t, live)); got >= had {
			t.Errorf("%d of %d recordings are left on a full disk: they wait for those that stay", got, had)
		}
	})
}

// A copy of the database from before the last files of a deleted camera were unlinked:
// it stays deleted, and goes. Fails when a restore takes its files for unknown ones.
func TestRestoreLeavesACameraDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFootage(t)
		gone := f.state().Cameras[0]
		d, err := db.Open(t.Context(), db.Config{Path: f.db("")})
		f.must(err)
		f.must(d.ApplyConfig(t.Context(), &db.Change{DeleteCameras: []int32{gone.ID}}))
		f.must(d.Close())
		deleted := f.state().Deleted[0]
		from := filepath.Join(t.TempDir(), "copy")
		f.must(os.WriteFile(from, f.read(f.db("")), 0o600))
		f.must(os.Remove(f.file(db.CompositeID(deleted.ID, 0)))) // later than the copy
		log := new(journal)
		_, err = Restore(t.Context(), f.dir, from, slog.New(slog.NewTextHandler(log, nil)))
		f.must(err)
		if got := f.state(); len(got.Deleted) != 1 || len(got.Cameras) != 1 || got.Cameras[0].UUID == gone.UUID {
			t.Errorf("cameras %+v, deleted %+v", got.Cameras, got.Deleted)
		}
		if got := f.state().Deleted; len(got) == 1 && got[0].Recordings != deleted.Recordings-1 {
			t.Errorf("%d recordings of the deleted camera, one of %d has no file", got[0].Recordings, deleted.Recordings)
		}
		if strings.Contains(log.String(), "there are files of streams that came after the copy") {
			t.Errorf("its files are taken for unknown ones:\n%s", log)
		}
		b := &bench{T: t, dir: f.dir, log: new(journal)}
		b.start()
		time.Sleep(time.Minute)
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Error(err)
		}
		b.stop()
		f.clean()
		if got, want := len(b.files()), len(f.ids)-int(deleted.Recordings); got != want {
			t.Errorf("%d files are left, want %d", got, want)
		}
	})
}
