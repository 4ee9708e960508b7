package hil

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/test/hil/nbd"
)

// What becomes of a device whose database is damaged, or whose log of it is not
// written, on the disk that the machine starts from.

const (
	databaseFile = "/nvr/db"
	logFile      = "/nvr/db-wal"
)

// pieces returns where a file of the data partition stands on the disk, in its own
// order. With power on it is as of the last flush.
func (v *vm) pieces(name string) (list []region, err error) {
	debugfs, err := lookPath("debugfs")
	if err != nil {
		return nil, err
	}
	err = v.withPerm("pieces", func(copied string, start int64) error {
		if err := repair(copied); err != nil {
			return err
		}
		out, err := exec.Command(debugfs, "-R", "blocks "+name, copied).Output()
		if err != nil {
			return fmt.Errorf("blocks of %s: %w", name, err)
		}
		for _, f := range strings.Fields(string(out)) {
			block, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return fmt.Errorf("blocks of %s: %s", name, out)
			}
			at := start + block*4096
			if n := len(list); n > 0 && list[n-1].start+list[n-1].size == at {
				list[n-1].size += 4096
			} else {
				list = append(list, region{at, 4096})
			}
		}
		if len(list) == 0 {
			return fmt.Errorf("%s has no blocks", name)
		}
		return nil
	})
	return list, err
}

// within returns where so many bytes of a file stand, from an offset on.
func within(list []region, offset, size int64) (found []region) {
	for _, r := range list {
		if offset < r.size && size > 0 {
			n := min(size, r.size-offset)
			found = append(found, region{r.start + offset, n})
			offset, size = 0, size-n
		} else {
			offset -= min(offset, r.size)
		}
	}
	return found
}

func TestPiecesOfAFile(t *testing.T) {
	list := []region{{100, 10}, {300, 5}, {200, 20}}
	for _, c := range []struct {
		offset, size int64
		want         []region
	}{
		{0, 3, []region{{100, 3}}},
		{8, 4, []region{{108, 2}, {300, 2}}},
		{10, 25, []region{{300, 5}, {200, 20}}},
		{12, 6, []region{{302, 3}, {200, 3}}},
		{40, 1, nil},
	} {
		if got := within(list, c.offset, c.size); !slices.Equal(got, c.want) {
			t.Errorf("%d bytes from %d on: %v, want %v", c.size, c.offset, got, c.want)
		}
	}
}

// dust overwrites pieces of the disk. Power is off.
func (v *vm) dust(list []region) error {
	for _, r := range list {
		if _, err := v.medium.WriteAt(bytes.Repeat([]byte("dust"), int(r.size/4)), r.start); err != nil {
			return err
		}
	}
	return nil
}

// rootPage returns where the root of a table is in the database, in bytes. Power
// is off.
func (d *device) rootPage(table string) (at int64, err error) {
	perm := filepath.Join(d.t.TempDir(), "perm")
	defer os.RemoveAll(perm)
	if err := d.Perm(perm); err != nil {
		return 0, err
	}
	pool, err := sql.Open("sqlite", filepath.Join(perm, databaseFile))
	if err != nil {
		return 0, err
	}
	err = pool.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", table).Scan(&at)
	return (at - 1) * 4096, errors.Join(err, pool.Close())
}

// counted is how many recordings there are of each stream, whether they have
// rows or not.
func (d *device) counted() (map[string]int, error) {
	t, err := d.top()
	if err != nil {
		return nil, err
	}
	n := map[string]int{}
	for _, c := range t.Cameras {
		for kind, st := range c.Streams {
			n[c.ShortName+" "+kind] = st.Recordings
		}
	}
	return n, nil
}

// revives checks that a device that has got its power again, behind from on the
// console, finds its database lost, takes its copy, says so, lists all that was
// there, and records: nobody does anything for that.
func (d *device) revives(from int, there map[string]int) error {
	if _, _, err := d.Console().wait(from, "database restored from a copy", 2*started); err != nil {
		return broken("nothing is restored: %w", err)
	}
	var h health
	err := try(started, func() (err error) {
		h, err = d.health()
		return err
	})
	if err != nil {
		return err
	}
	note(d.t, lanes[0].name, d.t.Name(), "says", "%.160s", h.Restored)
	if !strings.Contains(h.Restored, "is restored from its copy of ") {
		return broken("/healthz does not say that the database is a copy, but %q", h.Restored)
	}
	if fault := h.fault(); fault != "" {
		return broken("it has its copy, and %s", fault)
	}
	if err := try(started, func() error { return d.recording(0, len(there)) }); err != nil {
		return broken("it does not record again: %w", err)
	}
	err = try(started, func() error {
		h, err := d.health()
		if err != nil {
			return err
		}
		now, err := d.counted()
		for stream, n := range there {
			if err == nil && now[stream] < n {
				err = fmt.Errorf("%s has %d recordings, and had %d", stream, now[stream], n)
			}
		}
		if err == nil && h.FilesToAdopt > 0 {
			err = fmt.Errorf("%d files are not looked into", h.FilesToAdopt)
		}
		return err
	})
	if err != nil {
		return broken("what was recorded does not come in: %w", err)
	}
	return nil
}

// A database that is damaged comes back by itself: as it was copied, with all that
// was recorded since. Some damage is found before anything else is read; for other
// the recorder that meets it ends, and the next one restores.
func TestDamagedDatabaseComesBackFromItsCopy(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants []mutant
		breaks  bool
	}{
		{"the recorder", nil, false},
		{"one that takes a copy as it is", staleCopy, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			needsDisk(t)
			hasTools(t, lanes[0])
			cameras := emulate(t, cameratest.Config{Cameras: 1})
			v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", slices.Concat(copySoon, c.mutants)...)})
			d := newDevice(t, v)
			d.powerOn()
			d.until("serve", started, func() error { _, err := d.top(); return err })
			from := d.Console().here()
			d.addCameras(cameras, 1)
			d.waitRecording(2, started)
			d.say(from, "backed up database", started)
			// Of these the copy knows nothing, nor of the start behind them.
			if err := d.committed(d.Console().here(), "added", started); err != nil {
				t.Fatal(err)
			}
			if _, err := d.PowerCut(nbd.Cut{}); err != nil {
				t.Fatal(err)
			}
			d.powerOn()
			d.waitRecording(2, started)
			for i, damage := range []struct {
				name string
				of   func(database, log []region) []region
			}{
				{"all of it", func(database, log []region) []region { return slices.Concat(database, log) }},
				// Nothing has been written to that one, so it is not in the log again.
				{"the users", func(database, _ []region) []region {
					at, err := d.rootPage("user")
					if err != nil {
						t.Fatal(err)
					}
					return within(database, at, 4096)
				}},
			} {
				there, err := d.counted()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.PowerCut(nbd.Cut{}); err != nil {
					t.Fatal(err)
				}
				before, err := prove(d, cameras)
				if err != nil {
					t.Fatal(err)
				}
				database, err := v.pieces(databaseFile)
				if err != nil {
					t.Fatal(err)
				}
				log, err := v.pieces(logFile)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.dust(damage.of(database, log)); err != nil {
					t.Fatal(err)
				}
				from = d.Console().here()
				d.powerOn()
				err = d.revives(from, there)
				var seen *promise
				if c.breaks {
					if !errors.As(err, &seen) {
						t.Fatalf("%s: nothing was seen, and the lab is blind: %v", damage.name, err)
					}
					note(t, lanes[0].name, "must fail: "+c.name, "seen", "%.100s", strings.ReplaceAll(err.Error(), "\n", " "))
					return
				}
				if err != nil {
					t.Fatalf("%s: %v", damage.name, err)
				}
				note(t, lanes[0].name, t.Name(), damage.name, "records and has it all %.1f s after power on, %d starts of the recorder",
					d.Since().Seconds(), d.Console().count(from, "holdfast: nvr started"))
				if err := d.committed(d.Console().here(), "added", started); err != nil {
					t.Fatal(err)
				}
				on, cut := d.on(), lookAt(cameras)
				if _, err := d.PowerCut(nbd.Cut{}); err != nil {
					t.Fatal(err)
				}
				now, err := proveAnd(d, cameras, check(t))
				if err == nil {
					err = now.after(before)
				}
				if err != nil {
					t.Fatalf("%s: %v", damage.name, err)
				}
				for stream := range now.streams {
					if missing, ok := lost(cameras, now, stream, on, cut); !ok || i == 0 && missing > mostLost+d.Busy(busyWindow) {
						t.Errorf("%s: %s lost %v", damage.name, stream, missing)
					}
				}
				if i == 0 {
					d.powerOn()
					d.waitRecording(2, started)
				}
			}
		})
	}
}

// named lists the cameras of the database. Power is off.
func (d *device) named() (names []string, err error) {
	perm := filepath.Join(d.t.TempDir(), "perm")
	defer os.RemoveAll(perm)
	if err := d.Perm(perm); err != nil {
		return nil, err
	}
	pool, err := sql.Open("sqlite", filepath.Join(perm, databaseFile))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	answer, err := pool.Query("SELECT name FROM camera")
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	for answer.Next() {
		var name string
		if err := answer.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, answer.Err()
}

// What the log of the database did not take is in the page cache still, as if the
// disk had it. A recorder that is started again on that commits behind pages that
// are not there, and the next power cut takes all of it; so process 1 drops the
// cache before.
func TestCommitBehindALogThatWasNotWrittenIsDurable(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants []mutant
		breaks  bool
	}{
		{"the machine", nil, false},
		{"one that does not drop the page cache", noDrop, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			needsDisk(t)
			hasTools(t, lanes[0])
			cameras := emulate(t, cameratest.Config{Cameras: 1})
			v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", c.mutants...)})
			d := newDevice(t, v)
			d.powerOn()
			d.until("serve", started, func() error { _, err := d.top(); return err })
			d.addCameras(cameras, 1)
			d.waitRecording(2, started)
			from := d.Console().here()
			if err := d.committed(from, "added", started); err != nil {
				t.Fatal(err)
			}
			log, err := v.pieces(logFile)
			if err != nil {
				t.Fatal(err)
			}
			var faults []nbd.Fault
			for _, r := range log {
				faults = append(faults, nbd.Fault{Ops: writes, From: r.start, To: r.start + r.size, Err: syscall.EIO})
			}
			from = d.Console().here()
			v.drive.Break(faults...)
			d.say(from, "holdfast: nvr ended: ", started)
			// Before the next start commits: a second one in ten minutes that cannot
			// is a reboot, which takes the page cache with it.
			v.drive.Heal()
			d.say(from, "holdfast: page cache dropped: done", started)
			since := media.TimeOf(time.Now().Add(-time.Second))
			d.until("record", 2*started, func() error { return d.recording(since, 2) })
			if l, ok := d.Console().has(from, "Linux version"); ok {
				t.Fatalf("no proof of anything: the machine was started again: %s", l.text)
			}
			const acknowledged = "came after the fault"
			body := map[string]any{"shortName": acknowledged, "streams": map[string]any{"main": map[string]any{"url": "rtsp://192.0.2.1/", "record": false}}}
			if err := d.do("POST", "/api/cameras/", body, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := d.PowerCut(nbd.Cut{}); err != nil {
				t.Fatal(err)
			}
			names, err := d.named()
			if err != nil {
				t.Fatal(err)
			}
			durable := slices.Contains(names, acknowledged)
			switch {
			case c.breaks && durable:
				t.Errorf("what was committed behind a log that is not there was kept, and the lab is blind")
			case c.breaks:
				note(t, lanes[0].name, "must fail: "+c.name, "seen", "a camera that was added is gone; there are %q", names)
			case !durable:
				t.Errorf("a camera that was added is gone; there are %q", names)
			default:
				if _, err := proveAnd(d, cameras, check(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
