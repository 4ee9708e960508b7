package db

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"holdfast/nvr/db/dbtest"
	"holdfast/nvr/media"
)

// tale is one life of a database whose I/O may fail: it is made, configured,
// written to until its log was taken over into the file, read and closed.
type tale struct {
	t    *testing.T
	vfs  *dbtest.VFS
	path string

	named    bool  // the camera is committed
	told     int32 // recordings that were called committed
	tried    int32
	poisoned bool
	errs     []error

	record bool   // what is done to the files, from the camera on
	marks  []mark // of the log
}

// mark is how far a tale had come at a place of the log.
type mark struct {
	changes     int // of the log before it
	told, tried int32
}

// mark notes how far the tale has come.
func (l *tale) mark() {
	if _, n := l.vfs.Recorded(); l.record {
		l.marks = append(l.marks, mark{n, l.told, l.tried})
	}
}

var every = flag.Bool("every", false, "let each operation of SQLite fail that there is, not a sample of them")

const taleFlushes = 40

func (l *tale) live() {
	ctx := context.Background()
	d, err := Open(ctx, Config{Path: l.path, VFS: l.vfs.Name()})
	if err != nil {
		if l.vfs.Failed() == 0 {
			l.t.Fatal(err)
		}
		if !strings.Contains(err.Error(), l.path) {
			l.t.Errorf("an error at open names no file: %v", err)
		}
		l.errs = append(l.errs, err)
		// Until there is a log, SQLite takes back what it wrote; there is
		// nothing yet to lose.
		logged := l.vfs.Counts()[dbtest.Op{Kind: dbtest.Write, File: dbtest.WAL}] > 0
		if l.poisoned = Poisoned(err); l.poisoned && logged && l.vfs.Later() > 0 {
			l.t.Errorf("after %v the files are changed %d times", err, l.vfs.Later())
		}
		return
	}
	h := &house{DB: d, t: l.t, path: l.path}
	// step does what a recorder does: it tries again when it may.
	step := func(f func() error) bool {
		for i := 0; !l.poisoned; i++ {
			err := f()
			if err == nil {
				return true
			}
			l.errs = append(l.errs, err)
			l.poisoned = d.poison.Load() != nil
			if l.poisoned != Poisoned(err) && !strings.HasPrefix(err.Error(), "read state: ") {
				l.t.Errorf("nothing more is written: %v, after %v", l.poisoned, err)
			}
			if l.vfs.Failed() == 0 || i == 2 {
				l.t.Fatalf("without a fault: %v", err)
			}
			if i == 1 {
				l.vfs.Heal()
			}
		}
		return false
	}
	step(func() (err error) {
		h.open, err = d.BeginOpen(ctx, OpenRow{BootID: "boot", Start: testEpoch})
		return err
	})
	c := &Change{Dirs: []Dir{{Path: "/disk1"}}}
	step(func() error { return d.ApplyConfig(ctx, c) })
	cam := &Change{}
	l.named = step(func() error {
		cam.Cameras = []CameraChange{{Camera: Camera{Name: "front"}, Streams: []Stream{
			{Type: "main", DirID: c.Dirs[0].ID, URL: "rtsp://camera/main", Record: true, RetainBytes: 1e9, FlushIfSec: 120}}}}
		return d.ApplyConfig(ctx, cam)
	})
	if l.record {
		l.vfs.Record(l.path)
	}
	l.mark()
	for no := range int32(taleFlushes) {
		b := &Batch{}
		if !step(func() error {
			state, err := d.State(ctx) // a fault of reading is the reader's alone
			if err != nil {
				return err
			}
			s := state.Streams[0]
			*b = Batch{Time: testEpoch.Add(media.Minute), OpenID: h.open.ID, OpenDuration: media.Minute,
				Streams: []StreamUpdate{{ID: s.ID, NextNo: no + 1, CumMedia: media.Duration(no+1) * media.Minute, CumRuns: 1}}}
			if len(state.Entries) == 0 {
				b.Entries = []SampleEntry{videoEntry, audioEntry}
			}
			r := h.recording(s, no)
			r.Playback.Video = make([]byte, 128<<10) // so that the log fills
			r.Playback.Video[0] = byte(no)
			b.Add = []NewRecording{r}
			l.tried = no + 1
			l.mark()
			return d.Flush(ctx, b)
		}) {
			break
		}
		l.told = no + 1
		l.mark()
	}
	if l.poisoned {
		later := l.vfs.Later()
		if _, err := d.BeginOpen(ctx, OpenRow{}); !Poisoned(err) {
			l.t.Errorf("a write after %v: %v", l.errs, err)
		}
		if err := d.Close(); !Poisoned(err) {
			l.t.Errorf("close after %v: %v", l.errs, err)
		}
		if n := l.vfs.Later() - later; n > 0 {
			l.t.Errorf("after %v the files are changed %d times", l.errs, n)
		}
		l.bury(d)
		return
	}
	if err := d.Close(); err != nil {
		l.poisoned = Poisoned(err)
		l.errs = append(l.errs, err)
		l.bury(d)
	}
}

// bury lets go of a database as the end of its process would.
func (l *tale) bury(d *DB) {
	l.vfs.Die()
	d.closeFiles()
}

// left opens what is left of the database, and fails the test when that is
// damaged, or less than what was called committed.
func (l *tale) left(what string, read func(path string) []byte) {
	l.t.Helper()
	dir := inMemory(l.t)
	defer os.RemoveAll(dir) // there are thousands of them, in memory
	path := filepath.Join(dir, "db")
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if b := read(l.path + suffix); b != nil {
			if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	d, err := Open(l.t.Context(), Config{Path: path})
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
		return
	}
	defer d.Close()
	h := &house{DB: d, t: l.t}
	h.sane()
	streams := h.state().Streams
	if len(streams) == 0 {
		if l.named {
			l.t.Errorf("%s: the camera is lost", what)
		}
		return
	}
	got := h.numbers(streams[0])
	for no := range l.told {
		if !slices.Contains(got, no) {
			l.t.Errorf("%s: recording %d of %d is lost", what, no, l.told)
		}
	}
	if n := int32(len(got)); n > l.tried || streams[0].NextNo != n {
		l.t.Errorf("%s: %d recordings, the next is %d; %d were written", what, n, streams[0].NextNo, l.tried)
	}
}

func newTale(t *testing.T) *tale {
	return &tale{t: t, vfs: dbtest.New(t), path: filepath.Join(inMemory(t), "db")}
}

// inMemory makes a directory that needs no disk, where there is one.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "nvr-db-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Whatever operation of SQLite's fails, once or for a while: what was called
// committed is there after a power cut, what can be tried again succeeds then,
// and after a failed write or sync nothing is written any more.
func TestEveryOperationOfSQLiteFails(t *testing.T) {
	calm := newTale(t)
	calm.live()
	if calm.told != taleFlushes || len(calm.errs) > 0 {
		t.Fatalf("without a fault: %d flushes, %v", calm.told, calm.errs)
	}
	counts := calm.vfs.Counts()
	t.Logf("operations: %v", counts)
	var tally dbtest.Tally
	poisoned := 0
	for op, count := range counts {
		if op.File == "other" {
			continue
		}
		samples := 10
		if testing.Short() {
			samples = 3
		}
		step := max(1, count/samples)
		if *every {
			step = 1
		}
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			for times, word := range map[int]string{1: "once", -1: "for ever"} {
				t.Run(fmt.Sprintf("%v/%v/%s", op, errno, word), func(t *testing.T) {
					for n := 1; n <= count; n += step {
						l := newTale(t)
						l.t = t
						l.vfs.Fail(op, n, times, errno)
						l.live()
						if l.poisoned {
							poisoned++
						}
						failed := l.vfs.Failed() > 0
						tally.Count(op.String(), failed)
						lasting := op.Kind == dbtest.Sync || op.Kind == dbtest.Write && errno == syscall.EIO
						if failed && lasting && !l.poisoned {
							t.Errorf("%v, and the database goes on", op)
						}
						if !l.poisoned && len(l.errs) > 0 && l.named && l.told != taleFlushes {
							t.Errorf("%d of %d flushes after %v", l.told, taleFlushes, l.errs)
						}
						l.left("files as they are", func(path string) []byte { b, _ := os.ReadFile(path); return b })
						l.left("what was synced", l.vfs.Synced)
						os.RemoveAll(filepath.Dir(l.path))
						l.vfs.Forget()
						if t.Failed() {
							t.Fatalf("%v number %d of %d failed %s with %v: %v", op, n, count, word, errno, l.errs)
						}
					}
				})
			}
		}
	}
	tally.Judge(t)
	t.Logf("%d of them end the process", poisoned)
}

// A read that fails leaves nothing in doubt: the change is refused, and made when
// the disk reads again.
func TestReadThatFailsPoisonsNothing(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENODEV} {
		t.Run(errno.Error(), func(t *testing.T) {
			v := dbtest.New(t)
			path := filepath.Join(t.TempDir(), "db")
			open := func() *DB {
				d, err := Open(t.Context(), Config{Path: path, VFS: v.Name()})
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			if err := open().Close(); err != nil {
				t.Fatal(err)
			}
			refused := 0
			for n := 1; n < 50; n++ {
				d := open() // with nothing in SQLite's memory
				add := func() error {
					return d.ApplyAccess(t.Context(), &AccessChange{Users: []User{{Name: fmt.Sprint("anna", n)}}})
				}
				failed := v.Failed()
				for _, file := range []dbtest.File{dbtest.Main, dbtest.WAL} {
					v.Fail(dbtest.Op{Kind: dbtest.Read, File: file}, n, -1, errno)
				}
				err := add()
				if v.Heal(); err != nil {
					if refused++; Poisoned(err) || !Unread(err) && !Damaged(err) {
						t.Errorf("read %d fails: %v", n, err)
					}
					err = add()
				}
				if err := errors.Join(err, d.Close()); err != nil {
					t.Errorf("when the disk reads again: %v", err)
				}
				if v.Failed() == failed {
					break
				}
			}
			if refused == 0 {
				t.Error("nothing failed: the test proves nothing")
			}
		})
	}
}

// The header is read without SQLite, and whoever opens the database waits for it as
// for the rest.
func TestHeaderThatIsNotReadIsUnread(t *testing.T) {
	err := fmt.Errorf("open database: %w", &os.PathError{Op: "read", Path: "db", Err: syscall.EIO})
	if !Unread(err) || Damaged(err) {
		t.Errorf("unread %v, damaged %v", Unread(err), Damaged(err))
	}
}
