package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// socket is where a disk is plugged in: one that was pulled out fails for good,
// and what is put in is another mount, though it may be the same disk.
type socket struct {
	path  atomic.Pointer[string] // of what is plugged in
	gone  atomic.Bool
	mount atomic.Int64
	wrote atomic.Int64 // what was changed since the last time it was asked
	quits atomic.Bool  // it is pulled out in the middle of the next sync
}

func newSocket(path string) *socket {
	s := &socket{}
	s.lead(path)
	return s
}

// lead makes another disk the one that is plugged in.
func (s *socket) lead(path string) { s.path.Store(&path) }

// pull and plug take the disk away and put one in.
func (s *socket) pull() { s.gone.Store(true); s.mount.Add(1) }
func (s *socket) plug() { s.gone.Store(false) }

func (s *socket) open(string) (sampledir.Dir, error) {
	path := *s.path.Load()
	if s.gone.Load() {
		return nil, &os.PathError{Op: "open sample directory", Path: path, Err: syscall.ENOENT}
	}
	if err := makeDir(path); err != nil {
		return nil, err
	}
	disk, err := sampledir.OpenDisk(path)
	if err != nil {
		return nil, err
	}
	return &plugged{disk, s, s.mount.Load()}, nil
}

type plugged struct {
	sampledir.Dir
	s     *socket
	mount int64
}

func (p *plugged) err() error {
	if p.Moved() {
		return syscall.EIO
	}
	return nil
}

func (p *plugged) Moved() bool { return p.s.gone.Load() || p.mount != p.s.mount.Load() }

func (p *plugged) file(f sampledir.File, err error) (sampledir.File, error) {
	if err != nil {
		return nil, err
	}
	return &pluggedFile{f, p}, nil
}

func (p *plugged) Create(id int64) (sampledir.File, error) {
	if err := p.err(); err != nil {
		return nil, err
	}
	p.s.wrote.Add(1)
	return p.file(p.Dir.Create(id))
}

func (p *plugged) Open(id int64) (sampledir.File, error) {
	if err := p.err(); err != nil {
		return nil, err
	}
	return p.file(p.Dir.Open(id))
}

func (p *plugged) Recover(id int64) (sampledir.File, error) {
	if err := p.err(); err != nil {
		return nil, err
	}
	return p.file(p.Dir.Recover(id))
}

func (p *plugged) Unlink(id int64) error {
	if err := p.err(); err != nil {
		return err
	}
	p.s.wrote.Add(1)
	return p.Dir.Unlink(id)
}

func (p *plugged) SyncFiles(files []sampledir.File) ([]error, bool) {
	return sampledirtest.SyncEach(files), false
}

func (p *plugged) Sync() error { return errors.Join(p.err(), p.Dir.Sync()) }

type pluggedFile struct {
	sampledir.File
	p *plugged
}

func (f *pluggedFile) Append(at int64, bufs ...[]byte) (int64, error) {
	if err := f.p.err(); err != nil {
		return 0, err
	}
	f.p.s.wrote.Add(1)
	return f.File.Append(at, bufs...)
}

func (f *pluggedFile) Sync() error {
	if f.p.s.quits.Swap(false) {
		f.p.s.pull()
	}
	if err := f.p.err(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *pluggedFile) Truncate(size int64) error {
	if err := f.p.err(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// A disk that goes and comes back is used again without a restart. What memory
// held meanwhile is kept; what it could not hold is a gap.
func TestDiskThatGoesAndComesBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		ring int64
		away time.Duration
	}{{"memory holds all", 64 << 20, 2 * time.Minute}, {"memory holds a part", 1 << 20, 4 * time.Minute}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSocket(filepath.Join(t.TempDir(), "disk"))
				b := newBench(t, func(cfg *Config) { cfg.openDir, cfg.RingBytes = s.open, tt.ring })
				st := b.camera("front", plenty, 60)
				began := media.TimeOf(time.Now())
				f := newFeed(st.Begin(nil))
				f.size = 2 << 10
				for range 3 {
					f.play(t, 65300*time.Millisecond)
					s.pull()
					f.play(t, tt.away)
					if in := st.Info(); !strings.Contains(in.DirError, "no such file") {
						t.Errorf("while it is away the directory is shown as %q", in.DirError)
					}
					if n := b.s.ring.Load(); n > tt.ring+tt.ring/8 {
						t.Errorf("%d bytes in memory", n)
					}
					s.plug()
					f.play(t, 5*time.Second)
					if in := st.Info(); in.DirError != "" {
						t.Errorf("when it is back, the directory is shown as %q", in.DirError)
					}
				}
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				time.Sleep(3 * time.Minute)
				causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				if tt.ring > 8<<20 {
					if n := everyPicture(t, st, 0); n != f.n || causes[DiskError] > 0 {
						t.Errorf("%d pictures of %d; causes of gaps are %v", n, f.n, causes)
					}
				} else if lost := causes[DiskError]; lost < media.Minute {
					t.Errorf("causes of gaps are %v", causes)
				}
				next := 0
				for _, r := range list(t, st) {
					all := numbers(t, st, r.No)
					if all[0] < next || all[0]%f.gop != 0 {
						t.Errorf("recording %d begins with picture %d, the one before it ends with %d", r.No, all[0], next-1)
					}
					next = all[len(all)-1] + 1
				}
				b.stop()
				b.start()
				if n := len(list(t, b.again("front"))); n == 0 {
					t.Error("nothing is left after a restart")
				}
			})
		})
	}
}

// A disk that goes within a sync may have all of what was written. When it is
// back, what is written again to another file is cut off the first.
func TestTailOfADiskThatWasAwayIsCutOff(t *testing.T) {
	for _, gop := range []int{10, 25} {
		t.Run(fmt.Sprintf("group of %d", gop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSocket(filepath.Join(t.TempDir(), "disk"))
				b := newBench(t, func(cfg *Config) { cfg.openDir = s.open })
				st := b.camera("front", plenty, 60)
				f := newFeed(st.Begin(nil))
				f.gop = gop
				f.play(t, 5300*time.Millisecond)
				s.quits.Store(true)
				f.play(t, 10*time.Second)
				s.plug()
				f.play(t, 10*time.Second)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				time.Sleep(3 * time.Minute)
				if n := everyPicture(t, st, 0); n != f.n {
					t.Errorf("%d pictures of %d", n, f.n)
				}
				for _, r := range list(t, st) {
					fi, err := os.Stat(filepath.Join(*s.path.Load(), sampledir.Name(db.CompositeID(st.id, r.No))))
					if err != nil {
						t.Fatal(err)
					}
					if fi.Size() != r.FileBytes {
						t.Errorf("the file of recording %d has %d bytes, its row says %d", r.No, fi.Size(), r.FileBytes)
					}
				}
			})
		})
	}
}

// Another disk in the place of the one that went is left alone, and named.
func TestAnotherDiskThatComesBackIsNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		foreign := newSocket(filepath.Join(dir, "foreign"))
		newBench(t, func(cfg *Config) { cfg.openDir = foreign.open }).stop()
		s := newSocket(filepath.Join(dir, "disk"))
		b := newBench(t, func(cfg *Config) { cfg.openDir = s.open })
		b.camera("front", plenty, 60)
		b.stop()
		for _, name := range []string{"old", "swapped"} {
			if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(dir, "disk"))); err != nil {
				t.Fatal(err)
			}
		}
		changeMeta(t, filepath.Join(dir, "swapped"), func(m *sampledir.Meta) { m.DirUUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8" })
		b.start()
		st := b.again("front")
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		for path, says := range map[string]string{"foreign": "another installation", "empty": "no meta file",
			"old": "is an old copy", "swapped": "is another one of this installation"} {
			s.pull()
			f.play(t, 3*time.Second)
			s.lead(filepath.Join(dir, path))
			s.wrote.Store(0)
			s.plug()
			f.play(t, 30*time.Second)
			if in := st.Info(); !strings.Contains(in.DirError, says) {
				t.Errorf("%s: the directory is shown as %q", path, in.DirError)
			}
			if n := s.wrote.Load(); n > 0 {
				t.Errorf("%s: it was written to %d times", path, n)
			}
		}
		s.pull()
		f.play(t, time.Second)
		s.lead(filepath.Join(dir, "disk"))
		s.plug()
		f.play(t, 5*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures of %d", n, f.n)
		}
	})
}

// A directory that cannot be used at the start is used as soon as it can be: what
// an earlier process left there is adopted, and recording begins.
func TestDirectoryMissingAtTheStartIsUsedWhenItComes(t *testing.T) {
	t.Run("adopted before", func(t *testing.T) { missingAtTheStart(t, besideLimits{}) })
	t.Run("adopted beside", func(t *testing.T) { missingAtTheStart(t, besideLimits{part: 1, rows: 1, pause: time.Second}) })
}

func missingAtTheStart(t *testing.T, beside besideLimits) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newSocket(filepath.Join(dir, "disk"))
		b := newBench(t, func(cfg *Config) { cfg.openDir = s.open })
		st := b.camera("front", plenty, 3600)
		began := media.TimeOf(time.Now())
		f := newFeed(st.Begin(nil))
		f.play(t, 100*time.Second)
		synctest.Wait()
		c := &bench{T: t, dir: filepath.Join(dir, "copy"), log: new(journal)} // as after a power cut
		if err := os.CopyFS(c.dir, os.DirFS(b.dir)); err != nil {
			t.Fatal(err)
		}
		disk := filepath.Join(dir, "disk2")
		if err := os.CopyFS(disk, os.DirFS(*s.path.Load())); err != nil {
			t.Fatal(err)
		}
		known := f.n
		f.run.End("test")
		b.stop()

		s = newSocket(filepath.Join(dir, "mount point"))
		c.hook = func(cfg *Config) { cfg.openDir, cfg.beside = s.open, beside }
		c.start()
		st = c.again("front")
		for _, wait := range []time.Duration{5 * time.Second, 10 * time.Minute} {
			time.Sleep(wait)
			if err := st.Unavailable(); err == nil || !strings.Contains(err.Error(), "no meta file") {
				t.Errorf("without its disk the stream is %v", err)
			}
			st.Wait(DiskError, "no disk")
		}
		if n := s.wrote.Load(); n > 0 {
			t.Errorf("it was written to %d times", n)
		}
		s.lead(disk)
		time.Sleep(absentRetry2 + absentRetry)
		if err := st.Unavailable(); err != nil {
			t.Fatalf("with its disk: %v", err)
		}
		adopted(t, c.s)
		if n := everyPicture(t, st, 0); n < known-20 {
			t.Errorf("%d pictures were adopted, %d were durable about", n, known)
		}
		g := newFeed(st.Begin(nil))
		g.n, g.dts = 5000, 5000*9000
		g.play(t, 10*time.Second)
		g.run.End("test")
		st.Wait(CameraEnded, "test")
		time.Sleep(2 * time.Hour)
		causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
		if causes[DiskError] < 10*media.Minute {
			t.Errorf("causes of gaps are %v", causes)
		}
		recs := list(t, st)
		if last := numbers(t, st, recs[len(recs)-1].No); len(last) != 100 || recs[len(recs)-1].Uncommitted {
			t.Errorf("%d pictures were recorded since, want 100", len(last))
		}
	})
}

// hooked is a disk of which a test sees each file that is opened or recovered, and
// says how much room there is.
type hooked struct {
	sampledir.Dir
	open    func(id int64) error
	recover func(id int64) error
	space   func(*sampledir.Space)
}

func (h *hooked) Open(id int64) (sampledir.File, error) {
	if h.open != nil {
		if err := h.open(id); err != nil {
			return nil, err
		}
	}
	return h.Dir.Open(id)
}

func (h *hooked) Recover(id int64) (sampledir.File, error) {
	if h.recover != nil {
		if err := h.recover(id); err != nil {
			return nil, err
		}
	}
	return h.Dir.Recover(id)
}

func (h *hooked) Space() (sampledir.Space, error) {
	sp, err := h.Dir.Space()
	if h.space != nil {
		h.space(&sp)
	}
	return sp, err
}

// The clock may be set while a directory that came late is adopted, and it has to
// be tried again. What the first try adopted stays.
func TestClockIsSetWhileALateDirectoryIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newSocket(filepath.Join(dir, "disk"))
		b := newBench(t, func(cfg *Config) { cfg.openDir = s.open })
		names := []string{"front", "back"}
		var feeds []*feed
		for _, name := range names {
			feeds = append(feeds, newFeed(b.camera(name, plenty, 3600).Begin(nil)))
		}
		playAll(t, feeds, 100*time.Second)
		synctest.Wait()
		c := &bench{T: t, dir: filepath.Join(dir, "copy"), log: new(journal)} // as after a power cut
		if err := os.CopyFS(c.dir, os.DirFS(b.dir)); err != nil {
			t.Fatal(err)
		}
		disk := filepath.Join(dir, "disk2")
		if err := os.CopyFS(disk, os.DirFS(*s.path.Load())); err != nil {
			t.Fatal(err)
		}
		known := feeds[0].n
		for _, f := range feeds {
			f.run.End("test")
		}
		b.stop()

		s = newSocket(filepath.Join(dir, "mount point"))
		var seen atomic.Int64
		c.hook = func(cfg *Config) {
			cfg.openDir = func(path string) (sampledir.Dir, error) {
				d, err := s.open(path)
				if err != nil {
					return nil, err
				}
				return &hooked{Dir: d, recover: func(id int64) error {
					if first := seen.Load(); c.s != nil && first != 0 && first != id>>32 {
						c.s.clock.steps.CompareAndSwap(0, 1)
					}
					seen.CompareAndSwap(0, id>>32)
					return nil
				}}, nil
			}
		}
		c.start()
		seen.Store(0)
		s.lead(disk)
		time.Sleep(2 * absentRetry2)
		if c.s.clock.steps.Load() != 1 || !strings.Contains(c.log.String(), "clock was set while") {
			t.Fatal("the clock was not set meanwhile")
		}
		for range 2 {
			for _, name := range names {
				st := c.again(name)
				if err := st.Unavailable(); err != nil {
					t.Fatalf("with its disk: %v", err)
				}
				if n := everyPicture(t, st, 0); n < known-20 {
					t.Errorf("%s: %d pictures were adopted, %d were durable about", name, n, known)
				}
			}
			c.stop()
			c.start()
		}
	})
}

// Of a directory that came late one file may not be read at first, and be read
// when it is tried again. The files before it come in, too.
func TestLateDirectoryIsTriedAgainFromItsFirstFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		names := []string{"front", "back"}
		for _, name := range names {
			l.runs(l.put(settings(name, plenty, 3600, false)).Stream("main"), 6).run.End("test")
		}
		time.Sleep(2 * time.Second)
		at := l.now()
		disk, files := l.dead()

		l = bear(t, disk, files, at)
		var away, ill, set atomic.Bool // the directory's goroutine asks
		away.Store(true)
		ill.Store(true)
		l.hook = func(cfg *Config) {
			cfg.openDir = func(string) (sampledir.Dir, error) {
				if away.Load() {
					return nil, syscall.ENODEV
				}
				return &hooked{Dir: l.disk.Reopen(), recover: func(id int64) error {
					st, no := db.SplitID(id)
					if st == l.main("back").id && no == 3 && ill.Swap(false) {
						return syscall.EIO
					}
					if st == l.main("front").id && !set.Swap(true) { // this try comes to nothing
						l.s.Load().clock.steps.Add(1)
					}
					return nil
				}}, nil
			}
		}
		l.mustOpen()
		away.Store(false)
		time.Sleep(2 * absentRetry2)
		if ill.Load() || !set.Load() || !strings.Contains(l.log.String(), "clock was set while") {
			t.Fatalf("the directory was not tried twice: %v, %v", ill.Load(), set.Load())
		}
		adopted(t, l.s.Load())
		for _, name := range names {
			st := l.main(name)
			if n := len(list(t, st)); n != 6 || st.Unavailable() != nil {
				t.Errorf("%s: of 6 files %d are listed; it is %v", name, n, st.Unavailable())
			}
		}
		l.close()
	})
}

// A disk that is full and goes is missed, and is full when it is back; one with
// room is recorded to again.
func TestFullDiskThatGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSocket(filepath.Join(t.TempDir(), "disk"))
		var full atomic.Int64 // the mount that is
		full.Store(-1)
		b := newBench(t, func(cfg *Config) {
			cfg.openDir = func(path string) (sampledir.Dir, error) {
				d, err := s.open(path)
				if err != nil {
					return nil, err
				}
				mount := d.(*plugged).mount
				return &hooked{Dir: d, space: func(sp *sampledir.Space) {
					if sp.Total, sp.Free = 1<<30, 1<<29; full.Load() == mount {
						sp.Free = 0
					}
				}}, nil
			}
		})
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		full.Store(0)
		f.play(t, 10*time.Second)
		if in := st.Info(); !strings.Contains(in.DirError, "recording pauses") {
			t.Fatalf("a full directory is shown as %q", in.DirError)
		}
		s.pull()
		f.play(t, 5*time.Second)
		if in := st.Info(); !strings.Contains(in.DirError, "no such file") {
			t.Errorf("while it is away the directory is shown as %q", in.DirError)
		}
		s.plug()
		f.play(t, 5*time.Second)
		if in := st.Info(); in.DirError != "" {
			t.Errorf("when it is back with room, the directory is shown as %q", in.DirError)
		}
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures of %d", n, f.n)
		}
	})
}

// A camera that is deleted while its disk is away leaves nothing there, also of
// what the recorder had no row for.
func TestCameraDeletedWhileItsDiskIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newSocket(filepath.Join(dir, "disk"))
		b := newBench(t, func(cfg *Config) { cfg.openDir = s.open })
		f := newFeed(b.camera("front", plenty, 3600).Begin(nil))
		f.play(t, 100*time.Second)
		synctest.Wait()
		c := &bench{T: t, dir: filepath.Join(dir, "copy"), log: new(journal)} // as after a power cut
		disk := filepath.Join(dir, "disk2")
		for to, from := range map[string]string{c.dir: b.dir, disk: *s.path.Load()} {
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		}
		f.run.End("test")
		b.stop()
		left := func() []string {
			names, err := filepath.Glob(filepath.Join(disk, "*.mp4"))
			if err != nil {
				t.Fatal(err)
			}
			return names
		}
		if len(left()) == 0 {
			t.Fatal("there is no file")
		}

		s = newSocket(filepath.Join(dir, "mount point"))
		c.hook = func(cfg *Config) { cfg.openDir = s.open }
		c.start()
		if err := c.s.DeleteCamera(t.Context(), c.s.Cameras()[0].UUID); err != nil {
			t.Fatal(err)
		}
		c.stop()
		c.start()
		s.lead(disk)
		time.Sleep(2 * time.Minute)
		if names := left(); len(names) > 0 {
			t.Errorf("of a deleted camera there are %v", names)
		}
		time.Sleep(2 * ageEvery)
		state, err := c.s.db.State(t.Context())
		if err != nil || len(state.Garbage) > 0 {
			t.Errorf("%d garbage rows are left; %v", len(state.Garbage), err)
		}
	})
}

// Nor does one whose files are not adopted, however many there are: the disk is
// away, or does not read one of them.
func TestDeletedCameraLeavesNoFileThatWasNotAdopted(t *testing.T) {
	for _, tt := range []struct {
		name string
		runs int // that are left, of both streams
		away bool
	}{{"disk is away", 400, true}, {"file cannot be read", 6, false}} {
		if testing.Short() {
			tt.runs = min(tt.runs, 100)
		}
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk, files, at, _ := left(t, tt.runs)
				l := bear(t, disk, files, at)
				var away atomic.Bool
				away.Store(tt.away)
				l.hook = func(cfg *Config) {
					if !tt.away {
						l.disk.Fail(sampledirtest.Recover, 4, 1, syscall.EIO)
					}
					cfg.openDir = func(string) (sampledir.Dir, error) {
						if away.Load() {
							return nil, syscall.ENODEV
						}
						return l.disk.Reopen(), nil
					}
				}
				l.mustOpen()
				all := l.s.Load().allStreams()
				i := slices.IndexFunc(all, func(st *Stream) bool { return st.Unavailable() != nil })
				if i < 0 {
					t.Fatal("all streams are well")
				}
				of := func() (n int) {
					for id := range l.disk.Content().Files {
						if st, _ := db.SplitID(id); st == all[i].id {
							n++
						}
					}
					return n
				}
				if n := of(); n < tt.runs/2 {
					t.Fatalf("there are %d files", n)
				}
				l.deleteCamera(l.camera(all[i].name.String()))
				away.Store(false)
				time.Sleep(3 * ageEvery)
				if n := of(); n > 0 {
					t.Errorf("%d files of the camera are left", n)
				}
				state, err := l.s.Load().db.State(t.Context())
				if err != nil || len(state.Garbage) > 0 {
					t.Errorf("%d garbage rows are left; %v", len(state.Garbage), err)
				}
				if err := l.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A camera whose disk is away can be changed: only a new stream needs the disk.
func TestCameraIsChangedWhileItsDiskIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.Mkdir(disk, 0o700); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, nil)
		sec := 60
		camera := func(name, host string, types ...string) Settings {
			c := CameraConfig{ShortName: name, Description: host, Streams: make(map[string]StreamConfig)}
			for _, typ := range types {
				c.Streams[typ] = StreamConfig{URL: "rtsp://" + host + "/", Record: true, RetainDays: len(host), FlushIfSec: &sec, SampleFileDir: disk}
			}
			return Settings{Cameras: []CameraConfig{c}}
		}
		if err := b.s.Import(t.Context(), camera("front", "10.0.0.1", "main")); err != nil {
			t.Fatal(err)
		}
		b.stop()
		if err := os.Rename(disk, disk+" in a drawer"); err != nil {
			t.Fatal(err)
		}
		b.start()
		if b.again("front").Unavailable() == nil {
			t.Fatal("the disk is there")
		}
		if err := b.s.Import(t.Context(), camera("front", "10.0.0.123", "main")); err != nil {
			t.Errorf("a change of address and limit: %v", err)
		}
		for _, set := range []Settings{camera("front", "10.0.0.4", "main", "sub"), camera("back", "10.0.0.4", "main")} {
			err := b.s.Import(t.Context(), set)
			ce, ok := errors.AsType[*ConfigError](err)
			if !ok || !strings.HasSuffix(ce.Field, ".sampleFileDir") || !strings.Contains(ce.Problem, "cannot take a new stream now: ") || !strings.Contains(ce.Problem, disk) {
				t.Errorf("a new stream on a disk that is away: %v", err)
			}
		}
		for range 2 {
			in := b.again("front").Info()
			if in.URL != "rtsp://10.0.0.123/" || in.RetainDays != 10 || len(b.s.Cameras()) != 1 || len(b.s.Cameras()[0].Streams) != 1 {
				t.Errorf("the camera is at %s, keeps %d days, of %d cameras", in.URL, in.RetainDays, len(b.s.Cameras()))
			}
			b.stop()
			if err := os.Rename(disk+" in a drawer", disk); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			b.start()
		}
		if err := b.again("front").Unavailable(); err != nil {
			t.Errorf("with its disk: %v", err)
		}
	})
}

// A directory that comes late is recorded to at once, however long the database
// takes to commit what was adopted of it.
func TestDirectoryThatComesWaitsForNoCommit(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	s, err := Open(t.Context(), Config{Dir: dir, noBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.AddDir(t.Context(), path)
	if err == nil {
		err = errors.Join(s.Close(t.Context()), os.Rename(path, path+"-away"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), Config{Dir: dir, noBallast: true}); err != nil {
		t.Fatal(err)
	}
	s.mu.RLock()
	d := s.directory(id)
	s.mu.RUnlock()
	if err := os.Rename(path+"-away", path); d.fault() == nil || err != nil {
		t.Fatalf("it is not away: %v", err)
	}
	d.stop()
	<-d.ended         // the goroutine below is its own now
	s.flushing.Lock() // a commit goes on and on
	arrived := make(chan struct{})
	go func() {
		d.arrive(t.Context())
		close(arrived)
	}()
	select {
	case <-arrived:
	case <-time.After(time.Minute):
		t.Error("it waits for a commit")
	}
	if err := d.fault(); err != nil || !s.plans.holds(earlierPlan) {
		t.Errorf("it is %v; a flush is planned: %v", err, s.plans.holds(earlierPlan))
	}
	s.flushing.Unlock()
	<-arrived
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
