package store

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/db/dbtest"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// A directory comes and goes while others are recorded to, and can come again.
func TestDirectoryComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		b := newBench(t, func(cfg *Config) { cfg.DirRoots = []string{root} })
		f := newFeed(b.camera("front", plenty, 30).Begin(nil))
		path := filepath.Join(root, "second")
		for range 2 {
			id, err := b.s.AddDir(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			f.play(t, 2*time.Second)
			if err := b.s.directory(id).backup(t.Context()); err != nil {
				t.Fatal(err)
			}
			uuid, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
				"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: path},
			}})
			if err != nil {
				t.Fatal(err)
			}
			g := newFeed(b.again("back").Begin(nil))
			g.play(t, 3*time.Second)
			used, ok := errors.AsType[*InUseError](b.s.DeleteDir(t.Context(), id))
			if !ok || !strings.Contains(used.Why, "back main") {
				t.Errorf("with a stream: %v", used)
			}
			if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
				t.Fatal(err)
			}
			if err := b.s.DeleteDir(t.Context(), id); err != nil {
				t.Fatalf("without: %v", err)
			}
			if names, err := os.ReadDir(path); err != nil || len(names) != 0 {
				t.Errorf("left are %v, %v", names, err)
			}
			if err := b.s.DeleteDir(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("again: %v", err)
			}
			f.play(t, 2*time.Second)
		}
		if _, ok := errors.AsType[*InUseError](b.s.DeleteDir(t.Context(), b.s.Dirs()[0].ID)); !ok {
			t.Error("the recorder's own directory goes")
		}
		f.run.End("test")
		b.stop()
		b.start()
		if n := len(b.s.Dirs()); n != 1 {
			t.Errorf("%d directories after a restart", n)
		}
		if got := everyPicture(t, b.again("front"), 0); got != f.n {
			t.Errorf("%d pictures, want %d", got, f.n)
		}
	})
}

// What cannot be a sample directory is refused, and left as it is.
func TestDirectoryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, outside := inMemory(t), t.TempDir() // the first where the others are: something moves there
		other := newBench(t, nil)
		b := newBench(t, func(cfg *Config) { cfg.DirRoots = []string{root} })
		if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		full := filepath.Join(root, "full")
		if err := errors.Join(os.Mkdir(full, 0o700), os.WriteFile(filepath.Join(full, "letters.txt"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Symlink(outside, filepath.Join(root, "link")), os.Rename(filepath.Join(other.dir, "sample"), filepath.Join(root, "foreign")),
			os.Symlink(filepath.Join(root, "foreign"), filepath.Join(other.dir, "sample"))); err != nil {
			t.Fatal(err)
		}
		good := filepath.Join(root, "good")
		if _, err := b.s.AddDir(t.Context(), good); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(good, filepath.Join(root, "alias")); err != nil {
			t.Fatal(err)
		}
		for path, says := range map[string]string{
			"relative":                     "absolute",
			filepath.Join(root, "file"):    "is not a directory",
			full:                           "letters.txt",
			filepath.Join(root, "foreign"): "another|belongs to an installation",
			filepath.Join(root, "a", "b"):  "no such file",
			filepath.Join(root, "..", "x"): "is not below",
			outside:                        "is not below",
			filepath.Join(root, "link"):    "is not below",
			filepath.Join(root, "link/x"):  "is not below",
			"/etc":                         "is not below",
			good:                           "already",
			filepath.Join(root, "alias"):   "by the name " + good,
		} {
			id, err := b.s.AddDir(t.Context(), path)
			e, ok := errors.AsType[*ConfigError](err)
			if !ok || e.Field != "path" || id != 0 || !strings.Contains(e.Problem, says[strings.LastIndex(says, "|")+1:]) {
				t.Errorf("%s: %d, %v, want %q", path, id, err, says)
			}
		}
		if _, err := os.Stat(filepath.Join(outside, "x")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("made in a place that is not allowed: %v", err)
		}
		if n := len(b.s.Dirs()); n != 2 {
			t.Errorf("%d directories", n)
		}
		// The same holds for what a camera names.
		_, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "x", Streams: map[string]StreamConfig{"main": {URL: "rtsp://x/", SampleFileDir: outside}}})
		if e, ok := errors.AsType[*ConfigError](err); !ok || e.Field != "streams.main.sampleFileDir" {
			t.Errorf("of a camera: %v", err)
		}
	})
}

// One that was deleted in a crash's time is ours, and empty: it is taken again.
func TestDirectoryThatWasOursIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		path := t.TempDir()
		id, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		b.s.mu.RLock()
		d := b.s.directory(id)
		b.s.mu.RUnlock()
		if err := b.s.forget(t.Context(), d); err != nil { // and the power fails
			t.Fatal(err)
		}
		b.stop()
		b.start()
		if len(b.s.Dirs()) != 1 {
			t.Fatal("it is there")
		}
		if _, err := b.s.AddDir(t.Context(), path); err != nil {
			t.Error(err)
		}
		if d := b.s.Dirs(); len(d) != 2 || d[1].Error != "" {
			t.Errorf("%+v", d)
		}
	})
}

// A directory whose disk is gone for good can go, too.
func TestDirectoryThatIsAwayGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		path := filepath.Join(t.TempDir(), "disk")
		id, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: path}}}); err != nil {
			t.Fatal(err)
		}
		f := newFeed(b.again("back").Begin(nil))
		f.play(t, 3*time.Second)
		f.run.End("test")
		b.stop()
		if err := os.Rename(path, path+"-away"); err != nil {
			t.Fatal(err)
		}
		b.start()
		if err := b.s.DeleteCamera(t.Context(), b.s.named("back").UUID); err != nil {
			t.Fatal(err)
		}
		if err := b.s.DeleteDir(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		b.stop()
		b.start()
		if n := len(b.s.Dirs()); n != 1 {
			t.Errorf("%d directories", n)
		}
	})
}

// Fair is the same number of days; limits are shorter.
func TestForecastIsWhatRetentionWillDo(t *testing.T) {
	const gb = 1e9
	for name, c := range map[string]struct {
		use  diskUse
		want []float64
	}{
		"one":                  {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}}}, []float64{10}},
		"as far as each other": {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}, {40 * gb, 0, 0}}}, []float64{2, 2}},
		"one limited":          {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}, {40 * gb, 20 * gb, 0}}}, []float64{8, 0.5}},
		"limit is no promise":  {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}, {40 * gb, 900 * gb, 0}}}, []float64{2, 2}},
		"days":                 {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 3}, {10 * gb, 0, 0}}}, []float64{3, 7}},
		"all limited":          {diskUse{true, 900 * gb, []taker{{10 * gb, 50 * gb, 30}, {10 * gb, 0, 14}}}, []float64{5, 14}},
		"one is off":           {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}, {0, 0, 0}}}, []float64{10, -1}},
		"not measured":         {diskUse{true, 100 * gb, []taker{{10 * gb, 0, 0}, {-1, 0, 0}}}, []float64{-1, -1}},
		"disk not known":       {diskUse{false, 0, []taker{{10 * gb, 0, 0}}}, []float64{-1}},
		"full":                 {diskUse{true, -gb, []taker{{10 * gb, 0, 0}}}, []float64{0}},
		"for ever":             {diskUse{true, 1e17, []taker{{1000, 0, 0}}}, []float64{-1}},
	} {
		reach := c.use.reach()
		for i := range c.use.streams {
			if got := c.use.streams[i].forecast(reach); math.Abs(got-c.want[i]) > 1e-6 {
				t.Errorf("%s: stream %d keeps %v days, want %v", name, i, got, c.want[i])
			}
		}
	}
}

// Reports measure what was recorded.
func TestDirReportsMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", 1<<30, 30)
		report := func() DirReport {
			t.Helper()
			all, err := b.s.DirReports(t.Context())
			if err != nil || len(all) != 1 || len(all[0].Streams) != 1 {
				t.Fatal(all, err)
			}
			return all[0]
		}
		if r := report(); r.PerDay != -1 || r.Days != -1 || r.WatermarkAge != -1 || r.Total == 0 || r.Floor != floorOf(r.Total) || !r.InUse {
			t.Errorf("before anything is recorded: %+v", r)
		}
		f := newFeed(st.Begin(nil))
		st.SetState(Recording, "", nil)
		f.gop, f.step, f.size = 1, 90000, 10_000
		f.play(t, 30*time.Minute)
		synctest.Wait() // for what the disk does at this instant
		r := report()
		in := st.Info()
		perDay := float64(in.Bytes) / float64(30*media.Minute) * float64(day)
		if math.Abs(float64(r.PerDay)-perDay) > perDay/100 || r.Streams[0].PerDay != r.PerDay {
			t.Errorf("%d bytes a day, want about %.0f", r.PerDay, perDay)
		}
		if most := float64(1<<30) / perDay; r.Days > most*1.01 || r.Days <= 0 {
			t.Errorf("%v days, want %v at most", r.Days, most)
		}
		if r.Bytes != in.FSBytes || r.WatermarkAge < 0 || r.WatermarkAge > 5*time.Second {
			t.Errorf("%d bytes, want %d; the watermark is %v old", r.Bytes, in.FSBytes, r.WatermarkAge)
		}
		f.run.End("test")
	})
}

func mustDisk(t *testing.T, s *Store, id int32) *sampledir.Disk {
	t.Helper()
	disk, err := s.directory(id).disk()
	if err != nil {
		t.Fatal(err)
	}
	return disk.(*sampledir.Disk)
}

// Whichever write of the database fails under a new directory: either there is
// none, or it is used as soon as the database is well, and can go.
func TestDirectoryComesThoughTheDatabaseFails(t *testing.T) {
	refused, late := 0, 0
	for n, reached := 1, true; reached; n++ {
		v, o := dbtest.New(t), newOutside(t)
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, o.through(v))
			path := filepath.Join(t.TempDir(), "disk")
			v.Fail(dbtest.Op{Kind: dbtest.Write, File: dbtest.WAL}, n, 1, syscall.ENOSPC)
			id, err := b.s.AddDir(t.Context(), path)
			reached = v.Failed() > 0
			v.Heal()
			if err != nil {
				refused++
				if _, serr := os.Stat(path); !errors.Is(serr, os.ErrNotExist) || len(b.s.Dirs()) != 1 {
					t.Errorf("write %d: %v; left are the path (%v) and %+v", n, err, serr, b.s.Dirs())
				}
				if id, err = b.s.AddDir(t.Context(), path); err != nil {
					t.Fatalf("write %d: the second try: %v", n, err)
				}
			}
			if b.s.Dirs()[1].Error != "" {
				late++
			}
			time.Sleep(absentRetry + time.Second)
			uuid, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
				"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: path},
			}})
			if err != nil {
				t.Fatalf("write %d: a camera for it: %v", n, err)
			}
			st := b.again("back")
			f := newFeed(st.Begin(nil))
			f.play(t, 5*time.Second)
			if behind := media.TimeOf(time.Now()).Sub(st.Info().Watermark); behind > 3*media.Second {
				t.Errorf("write %d: what is recorded to it is durable up to %v ago", n, behind)
			}
			f.run.End("test")
			if err := errors.Join(b.s.DeleteCamera(t.Context(), uuid), b.s.DeleteDir(t.Context(), id)); err != nil {
				t.Errorf("write %d: %v", n, err)
			}
			b.stop()
		})
		if n > 100 || t.Failed() {
			t.Fatalf("write %d", n)
		}
	}
	if refused == 0 || late == 0 {
		t.Errorf("the directory was refused %d times, and %d times used later", refused, late)
	}
}

// A sync of the database that fails under a new directory ends the process at
// once.
func TestFaultUnderANewDirectoryEndsTheProcess(t *testing.T) {
	failed := 0
	for n, reached := 1, true; reached && n < 100; n++ {
		v := dbtest.New(t)
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), noBallast: true, openDB: func(ctx context.Context, c db.Config) (*db.DB, error) {
			c.VFS = v.Name()
			return db.Open(ctx, c)
		}})
		if err != nil {
			t.Fatal(err)
		}
		v.Fail(dbtest.Op{Kind: dbtest.Sync, File: dbtest.WAL}, n, 1, syscall.EIO)
		_, err = s.AddDir(t.Context(), filepath.Join(t.TempDir(), "disk"))
		if reached = v.Failed() > 0; reached {
			failed++
			if !errors.Is(err, ErrPoisoned) || !s.poisoned.Load() {
				t.Errorf("sync %d: %v, and the process goes on", n, err)
			}
		}
		v.Die()
		s.stop()
		s.running.Wait()
		for _, d := range s.dirs {
			if d.dir != nil {
				d.dir.Close()
			}
		}
	}
	if failed < 2 {
		t.Errorf("%d syncs", failed)
	}
}

// deadDir is a directory whose unlinks do what a test says.
type deadDir struct {
	sampledir.Dir
	unlink func() error
}

func (d *deadDir) Unlink(id int64) error {
	if err := d.unlink(); err != nil {
		return err
	}
	return d.Dir.Unlink(id)
}

// A directory whose disk dies under the recorder can go without a restart,
// though files are still to be unlinked there.
func TestDirectoryWhoseDiskDiedGoes(t *testing.T) {
	for name, tt := range map[string]struct {
		pulled bool
		unlink func(released chan struct{}) error
		after  time.Duration // it goes; not before
	}{
		"pulled out": {true, func(chan struct{}) error { return nil }, 3 * time.Second},
		"read only":  {false, func(chan struct{}) error { return syscall.EROFS }, stuckAfter + 5*time.Second},
		"hangs": {false, func(released chan struct{}) error {
			<-released
			return nil
		}, stuckAfter + 5*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path, released := filepath.Join(t.TempDir(), "disk"), make(chan struct{})
				socket := newSocket(path)
				b := newBench(t, func(cfg *Config) {
					cfg.openDir = func(at string) (sampledir.Dir, error) {
						if at != path {
							return sampledir.OpenDisk(at)
						}
						dir, err := socket.open(at)
						return &deadDir{dir, func() error { return tt.unlink(released) }}, err
					}
				})
				id, err := b.s.AddDir(t.Context(), path)
				if err != nil {
					t.Fatal(err)
				}
				uuid, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
					"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: path}}})
				if err != nil {
					t.Fatal(err)
				}
				f := newFeed(b.again("back").Begin(nil))
				f.play(t, 3*time.Second)
				f.run.End("test")
				time.Sleep(2 * time.Second)
				if tt.pulled {
					socket.pull()
				}
				if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
					t.Fatal(err)
				}
				if !tt.pulled {
					time.Sleep(2 * time.Second)
					if _, ok := errors.AsType[*InUseError](b.s.DeleteDir(t.Context(), id)); !ok {
						t.Error("at the first trouble it goes, and leaves what it holds")
					}
				}
				time.Sleep(tt.after)
				if err := b.s.DeleteDir(t.Context(), id); err != nil {
					t.Error(err)
				}
				if n := len(b.s.Dirs()); n != 1 {
					t.Errorf("%d directories", n)
				}
				close(released)
			})
		})
	}
}

// No flush waits for the disk of a directory that goes, and a stream that comes to
// it meanwhile keeps it.
func TestFlushesGoOnWhileADirectoryGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, released := filepath.Join(t.TempDir(), "disk"), make(chan struct{})
		b := newBench(t, func(cfg *Config) {
			cfg.openDir = func(at string) (sampledir.Dir, error) {
				dir, err := sampledir.OpenDisk(at)
				if at != path || err != nil {
					return dir, err
				}
				return &deadDir{dir, func() error { <-released; return nil }}, nil
			}
		})
		id, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		camera := CameraConfig{ShortName: "back", Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.2/", Record: true, SampleFileDir: path}}}
		uuid, err := b.s.AddCamera(t.Context(), camera)
		if err != nil {
			t.Fatal(err)
		}
		f := newFeed(b.again("back").Begin(nil))
		f.play(t, 3*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // its file is being unlinked
		gone := make(chan error, 1)
		go func() { gone <- b.s.DeleteDir(t.Context(), id) }()
		synctest.Wait()
		if b.s.flushing.TryLock() {
			b.s.flushing.Unlock()
			if _, err := b.s.AddCamera(t.Context(), camera); err != nil {
				t.Error(err)
			}
		} else {
			t.Error("flushes wait for the disk")
		}
		close(released)
		err = <-gone
		if e, ok := errors.AsType[*InUseError](err); !ok || !strings.Contains(e.Why, "back main") {
			t.Errorf("a directory that got a stream goes: %v", err)
		}
	})
}

// A directory that goes while the database is copied to it waits for the end of
// that, and nothing of a copy is left in what is nobody's.
func TestDirectoryGoesBehindACopyOfTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		path := t.TempDir()
		id, err := b.s.AddDir(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		b.s.mu.RLock()
		d := b.s.directory(id)
		b.s.mu.RUnlock()
		disk := mustDisk(t, b.s, id)
		d.copying <- struct{}{} // a copy is under way
		ctx, cancel := context.WithCancel(t.Context())
		stop := d.stop
		d.stop = func() { stop(); cancel() }
		gone := make(chan error, 1)
		go func() { gone <- b.s.DeleteDir(t.Context(), id) }()
		<-ctx.Done() // it is asked to end
		synctest.Wait()
		if _, err := disk.ReadMeta(); err != nil {
			t.Errorf("the directory is emptied under a copy: %v", err)
		}
		if _, err := disk.BeginBackup(); err != nil {
			t.Errorf("the copy goes on: %v", err)
		}
		if err := disk.DropBackup(); err != nil {
			t.Error(err)
		}
		<-d.copying
		if err := <-gone; err != nil {
			t.Error(err)
		}
		if err := d.backup(t.Context()); !errors.Is(err, ErrNotFound) {
			t.Errorf("a copy that is late: %v", err)
		}
		if names, err := os.ReadDir(path); err != nil || len(names) != 0 {
			t.Errorf("left are %v, %v", names, err)
		}
	})
}

// Who adds a directory again while it still goes is told so, and what goes takes
// nothing from the one that comes, by whatever path that is.
func TestDirectoryIsAddedAgainWhileItGoes(t *testing.T) {
	for _, link := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			path := t.TempDir()
			again := path
			id, err := b.s.AddDir(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if link {
				again = filepath.Join(t.TempDir(), "link")
				if err := os.Symlink(path, again); err != nil {
					t.Fatal(err)
				}
			}
			b.s.mu.RLock()
			d := b.s.directory(id)
			b.s.mu.RUnlock()
			d.copying <- struct{}{} // a copy is under way, which it waits for
			gone := make(chan error, 1)
			go func() { gone <- b.s.DeleteDir(t.Context(), id) }()
			synctest.Wait()
			_, err = b.s.AddDir(t.Context(), again)
			if e, ok := errors.AsType[*ConfigError](err); !link && (!ok || !strings.Contains(e.Problem, "deleted already")) || link && err != nil {
				t.Errorf("added while it goes: %v", err)
			}
			<-d.copying
			if err := <-gone; err != nil {
				t.Error(err)
			}
			if !link {
				if _, err := b.s.AddDir(t.Context(), path); err != nil {
					t.Error(err)
				}
			}
			b.stop()
			b.start()
			for _, d := range b.s.Dirs() {
				if d.Error != "" {
					t.Errorf("%s: %s", d.Path, d.Error)
				}
			}
			if n := len(b.s.Dirs()); n != 2 {
				t.Errorf("%d sample directories", n)
			}
		})
	}
}

// A disk that does not answer when a directory on it is to be added holds up
// nothing but that.
func TestDirectoryThatStallsWhileItIsAddedHoldsUpNoFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, answers := t.TempDir(), make(chan struct{})
		b := newBench(t, func(cfg *Config) {
			cfg.openDir = func(at string) (sampledir.Dir, error) {
				if at == path {
					<-answers
				}
				return sampledir.OpenDisk(at)
			}
		})
		added := make(chan error, 1)
		go func() {
			_, err := b.s.AddDir(t.Context(), path)
			added <- err
		}()
		synctest.Wait()
		if !b.s.flushing.TryLock() {
			t.Error("a flush would wait for it")
		} else {
			b.s.flushing.Unlock()
			_, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "x", Streams: map[string]StreamConfig{"main": {URL: "rtsp://x/", SampleFileDir: path}}})
			if e, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(e.Problem, "being added") {
				t.Errorf("a camera for it: %v", err)
			}
		}
		close(answers)
		if err := <-added; err != nil || len(b.s.Dirs()) != 2 {
			t.Errorf("when it answers: %v, %+v", err, b.s.Dirs())
		}
	})
}

// What the recorder has for itself in its data directory is no place for samples,
// whether it is there or not, by whatever name; what is beside it is.
func TestRecordersOwnNamesAreNoSampleDirectories(t *testing.T) {
	for _, anywhere := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) {
				cfg.OwnNames = []string{"tls"}
				if !anywhere {
					cfg.DirRoots = []string{cfg.Dir}
				}
			})
			link := filepath.Join(b.dir, "link")
			if err := os.Symlink(filepath.Join(b.dir, "sample"), link); err != nil {
				t.Fatal(err)
			}
			for _, own := range []string{"tls", "tls/x", "sample/x", "db.damaged-1", "sample-dirs", "lost+found", "other/../tls", "link/x"} {
				path := b.dir + "/" + own
				_, err := b.s.AddDir(t.Context(), path)
				if e, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(e.Problem, "is the recorder's own") {
					t.Errorf("%s: %v", own, err)
				}
				if own != "sample-dirs" {
					if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s is made: %v", own, err)
					}
				}
			}
			for _, good := range []string{"tls2", "dbs", "second"} {
				if _, err := b.s.AddDir(t.Context(), filepath.Join(b.dir, good)); err != nil {
					t.Errorf("%s: %v", good, err)
				}
			}
		})
	}
}
