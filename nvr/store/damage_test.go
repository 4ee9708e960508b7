package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/db/dbtest"
)

// deaf is a disk that does not read the files of a database.
type deaf struct {
	v    *dbtest.VFS
	here atomic.Bool // for reads from end to end
}

func (k *deaf) fail(times int) {
	for _, file := range []dbtest.File{dbtest.Main, dbtest.WAL} {
		k.v.Fail(dbtest.Op{Kind: dbtest.Read, File: file}, 1, times, syscall.EIO)
	}
	k.here.Store(times < 0)
}

func (k *deaf) heal() {
	k.v.Heal()
	k.here.Store(false)
}

func (k *deaf) readable(ctx context.Context, path string) error {
	if k.here.Load() {
		return &os.PathError{Op: "read", Path: path, Err: syscall.EIO}
	}
	return db.Readable(ctx, path)
}

// copied is a bench on a disk that may not read, with a copy of its database and a
// stream that has recorded.
func copied(t *testing.T, v *dbtest.VFS, hook func(*Config)) (b *bench, k *deaf, f *feed) {
	t.Helper()
	k = &deaf{v: v}
	b = newBench(t, func(cfg *Config) {
		cfg.readable = k.readable
		if hook != nil {
			hook(cfg)
		}
	})
	f = newFeed(b.camera("front", plenty, 60).Begin(nil))
	f.play(t, backupFirst+time.Minute)
	if !strings.Contains(b.log.String(), "backed up database") {
		t.Fatal("no copy: the test proves nothing")
	}
	synctest.Wait() // nobody reads in the same instant: neither meets what the test plans nor holds a connection
	return b, k, f
}

// end ends a store whose process would be ended by an error of Fatal.
func (b *bench) end(f *feed) {
	b.Helper()
	f.run.End("test")
	b.s.stop()
	b.s.running.Wait()
	for _, d := range b.s.dirs {
		d.dir.Close()
	}
	b.s.poisoned.Store(false)
	if err := b.s.db.Close(); err != nil {
		b.Error(err)
	}
	b.s, b.log = nil, new(journal)
}

// A database that cannot be read for a while ends nothing and costs nothing, though
// SQLite says that it is malformed and a copy is there: it is shown, and everything
// is committed within a minute of its end.
func TestDatabaseThatCannotBeReadCostsNothing(t *testing.T) {
	for _, long := range []time.Duration{0, 20 * time.Second, 8 * time.Minute} {
		t.Run(fmt.Sprint(long), func(t *testing.T) {
			v, o := dbtest.New(t), newOutside(t)
			synctest.Test(t, func(t *testing.T) {
				b, k, f := copied(t, v, o.through(v))
				times := -1
				if long == 0 {
					times = 1 // and all is well when somebody looks
				}
				k.fail(times)
				shown := false
				for range int(max(long, 3*time.Minute) / time.Second) {
					f.play(t, time.Second)
					if err := b.s.Healthy(t.Context()); err != nil {
						t.Fatalf("a restart would lose what memory holds: %v", err)
					}
					shown = shown || strings.Contains(b.s.HealthChecks()[0].Cause, "cannot be read")
					if long > 0 {
						long -= time.Second
					} else if times < 0 {
						k.heal()
					}
				}
				if v.Failed() == 0 || !shown && times < 0 {
					t.Errorf("%d reads failed, shown: %v", v.Failed(), shown)
				}
				k.heal()
				f.play(t, 130*time.Second)
				select {
				case err := <-b.s.Fatal():
					t.Fatalf("the process ends: %v", err)
				default:
				}
				if _, err := os.Stat(filepath.Join(b.dir, suspectName)); err == nil {
					t.Error("the next start takes it for damaged")
				}
				if err := b.s.Healthy(t.Context()); err != nil || b.s.HealthChecks()[0].Cause != "" {
					t.Errorf("when it is well: %v, %v", err, b.s.HealthChecks()[0])
				}
				st := b.again("front")
				for _, r := range list(t, st) {
					if r.Uncommitted && r.End().Add(2*90000*60) < st.Info().Watermark {
						t.Errorf("recording %d is not committed", r.No)
					}
				}
				f.run.End("test")
			})
		})
	}
}

// A sector of the database that stays unreadable is damage: the process ends, the
// next start brings the copy back and all that was recorded.
func TestSectorThatStaysUnreadableBringsTheCopyBack(t *testing.T) {
	v := dbtest.NewDefault(t)
	synctest.Test(t, func(t *testing.T) {
		other := func() {}
		b, k, f := copied(t, v, func(cfg *Config) {
			cfg.at = func(point string) {
				if point == "copied" {
					other()
				}
			}
		})
		other = k.heal // the copy is in other sectors
		k.fail(-1)
		began := time.Now()
		var end error
		for end == nil && time.Since(began) < time.Hour {
			f.play(t, time.Second)
			select {
			case end = <-b.s.Fatal():
			default:
			}
		}
		if took := time.Since(began); end == nil || !strings.Contains(end.Error(), "the next start restores it") || took < unreadFor {
			t.Fatalf("after %v it ends with %v", took, end)
		}
		k.heal()
		want := len(list(t, b.again("front")))
		b.end(f)
		b.log = new(journal)
		k.fail(-1)
		began = time.Now()
		b.start()
		if took := time.Since(began); took < startUnread || took > startUnread+time.Minute {
			t.Errorf("the start waited %v for its disk", took)
		}
		if got := b.s.Restored(); !strings.Contains(got, "cannot be read") {
			t.Errorf("it says %q", got)
		}
		adopted(t, b.s)
		if got := len(list(t, b.again("front"))); got != want {
			t.Errorf("%d recordings, there were %d", got, want)
		}
		b.stop()
	})
}

// A start waits for a disk that does not read for a while, and takes no copy, which
// is older.
func TestStartWaitsForADatabaseThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct {
		name      string
		suspected bool
		long      time.Duration
	}{{"once", false, 0}, {"a while", false, 20 * time.Second}, {"a while, suspected", true, 20 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			v := dbtest.NewDefault(t)
			synctest.Test(t, func(t *testing.T) {
				b, k, f := copied(t, v, nil)
				f.run.End("test")
				b.stop()
				if tt.suspected {
					if err := os.WriteFile(filepath.Join(b.dir, suspectName), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				b.log = new(journal)
				began := time.Now()
				if tt.long == 0 { // and all is well when somebody looks
					v.Fail(dbtest.Op{Kind: dbtest.Read, File: dbtest.Main}, 1, 1, syscall.EIO)
				} else {
					k.fail(-1)
					time.AfterFunc(tt.long, k.heal)
				}
				b.start()
				if took := time.Since(began); took < tt.long || took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if got := b.s.Restored(); got != "" || v.Failed() == 0 {
					t.Errorf("%d reads failed; %s", v.Failed(), got)
				}
				if strings.Contains(b.log.String(), "waiting for its disk") != (tt.long > 0) {
					t.Error("the log does not tell")
				}
				b.stop()
			})
		})
	}
}

// What a look at all of the database does not find ends the process the third time
// that something does not work, a flush that is whole between them begins anew, and
// once a day at most.
func TestDamageThatNoCheckFindsEndsTheProcessOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, f := copied(t, dbtest.New(t), nil)
		met := errors.New("malformed")
		meet := func(want bool) {
			t.Helper()
			synctest.Wait() // no flush ends in between
			b.s.look(t.Context(), met)
			select {
			case err := <-b.s.Fatal():
				if !want {
					t.Fatalf("the process ends: %v", err)
				}
			default:
				if want {
					t.Fatal("the process goes on")
				}
			}
		}
		meet(false)
		meet(false)
		f.play(t, 130*time.Second)
		meet(false)
		meet(false)
		meet(true)
		b.end(f)
		b.start()
		if got := b.s.Restored(); got != "" {
			t.Errorf("it says %q", got)
		}
		time.Sleep(time.Minute) // flushes are whole
		for range 2 * mostSound {
			meet(false)
		}
		if got := faults(b.s); len(got) != 1 || !strings.Contains(got[0], "though nothing damaged is found in it: malformed") {
			t.Errorf("it is shown as %q", got)
		}
		f = newFeed(b.again("front").Begin(nil))
		f.play(t, 130*time.Second)
		if got := faults(b.s); len(got) > 0 {
			t.Errorf("when it is well: %q", got)
		}
		time.Sleep(endEvery)
		meet(false)
		meet(false)
		meet(true)
		b.end(f)
	})
}

// Neither one read that fails inside of a check is damage, nor are two short
// failures an hour apart a sector that is lost.
func TestDiskThatStumblesIsNoDamage(t *testing.T) {
	v, o := dbtest.New(t), newOutside(t)
	synctest.Test(t, func(t *testing.T) {
		b, k, f := copied(t, v, o.through(v))
		v.Fail(dbtest.Op{Kind: dbtest.Read, File: dbtest.WAL}, 1, 1, syscall.EIO)
		if damage, err := b.s.judge(t.Context()); damage != nil || err != nil || v.Failed() != 1 {
			t.Errorf("after %d reads that failed: damage %v, %v", v.Failed(), damage, err)
		}
		v.Heal()
		for range 3 {
			k.here.Store(true)
			if damage, err := b.s.unreadable(t.Context()); damage != nil || err == nil {
				t.Errorf("damage %v, %v", damage, err)
			}
			k.here.Store(false) // and nobody looks
			f.play(t, time.Hour)
		}
		f.run.End("test")
	})
}

// What a start meets is looked at by the next one, and proves nothing to this.
func TestStartThatMeetsDamageProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, f := copied(t, dbtest.New(t), nil)
		f.run.End("test")
		opening := &Store{cfg: b.s.cfg, log: b.s.log} // it runs no goroutines yet
		opening.suspect(errors.New("malformed"))
		if _, err := os.Stat(filepath.Join(b.dir, suspectName)); err != nil {
			t.Error(err)
		}
		if got := opening.damage.noted; got != nil {
			t.Errorf("it is shown as %q", got)
		}
	})
}
