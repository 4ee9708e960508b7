package store

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// few makes sure that what waits for its row is what the last minutes brought.
func (b *bench) few(st *Stream) {
	b.Helper()
	st.mu.Lock()
	defer st.mu.Unlock()
	if n := len(st.recent); n > 8 {
		b.Errorf("%v: %d recordings wait for their rows", st.name, n)
	}
}

// A page of rows of one stream is damaged, and there is no copy to go back to: its
// oldest recordings stay, and everything else goes on.
func TestRowsThatCannotBeReadHoldUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		front, back := b.camera("front", plenty, 60), b.camera("back", plenty, 60)
		for range 400 { // a dozen pages, so that no row is added beside the first
			f := newFeed(front.Begin(nil))
			f.play(t, time.Second/2)
			f.run.End("test")
		}
		b.stop()
		f := &footage{T: t, dir: b.dir}
		f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
		f.sql(`UPDATE stream SET retain_days = 1`)
		f.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
		root := f.read(f.db(""))[f.page("recording"):]
		cell := root[binary.BigEndian.Uint16(root[12:]):]
		if root[0] != 5 {
			t.Fatalf("the root is a page of type %d: too few rows", root[0])
		}
		f.write(f.db(""), (int64(binary.BigEndian.Uint32(cell))-1)*4096, make([]byte, 4096))

		b.start()
		front, back = b.again("front"), b.again("back")
		x, y := newFeed(front.Begin(nil)), newFeed(back.Begin(nil))
		x.step, y.step = 9000*50, 9000*50
		for range 26 * 60 { // so that all that is damaged is too old in the end
			for range 12 {
				x.one()
				y.one()
				time.Sleep(5 * time.Second)
			}
		}
		b.few(front)
		b.few(back)
		if n := back.Info().Recordings; n > 25*60 {
			t.Errorf("%d recordings of the other stream: what is too old stays, too", n)
		}
		if fl := b.s.Flushes(); fl.Failed > 0 || b.s.plans.failing() != nil {
			t.Errorf("%d flushes failed, the last with %v", fl.Failed, b.s.plans.failing())
		}
		if n := strings.Count(b.log.String(), "recordings that should go stay"); n != 1 {
			t.Errorf("%d lines about it", n)
		}
		if _, err := os.Stat(filepath.Join(b.dir, suspectName)); err != nil {
			t.Errorf("the next start is not told: %v", err)
		}
		x.run.End("test")
		y.run.End("test")
		time.Sleep(3 * time.Second)
	})
}

// The database deletes nothing of one stream: the others keep to their limits, and
// so does it as soon as it can.
func TestRowsThatCannotBeDeletedHoldUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		front, back := b.camera("front", 16<<20, 60), b.camera("back", 16<<20, 60)
		play := func(d time.Duration) {
			x, y := newFeed(front.Begin(nil)), newFeed(back.Begin(nil))
			x.step, x.gop, x.size = 9000*50, 2, 60<<10 // 720 KiB a minute
			y.step, y.gop, y.size = x.step, x.gop, x.size
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Second) {
				x.one()
				y.one()
			}
			x.run.End("test")
			y.run.End("test")
			time.Sleep(3 * time.Second)
			b.few(front)
			b.few(back)
		}
		b.behindItsBack(`CREATE TRIGGER refuse BEFORE DELETE ON recording WHEN OLD.composite_id >> 32 = 1 BEGIN SELECT RAISE(ABORT, 'not today'); END`)
		play(time.Hour)
		if got := back.Info().FSBytes; got > 17<<20 {
			t.Errorf("the other stream takes %d bytes", got)
		}
		if got := front.Info().FSBytes; got < 30<<20 {
			t.Errorf("the stream takes %d bytes: the test proves nothing", got)
		}
		if fl := b.s.Flushes(); fl.Failed > 0 {
			t.Errorf("%d flushes failed", fl.Failed)
		}
		if l := b.log.String(); !strings.Contains(l, "recordings that should go stay") || !strings.Contains(l, "not today") {
			t.Error("the log does not tell")
		}
		b.behindItsBack("DROP TRIGGER refuse")
		play(10 * time.Minute)
		if got := front.Info().FSBytes; got > 17<<20 {
			t.Errorf("the stream takes %d bytes afterwards", got)
		}
		if !strings.Contains(b.log.String(), "are deleted again") {
			t.Error("the log does not tell that it is over")
		}
		b.stop()
		(&footage{T: t, dir: b.dir}).clean()
	})
}

// A stream whose rows cannot be read gives no room, and is not taken for one that
// has nothing left.
func TestStreamThatCannotBeReadGivesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Minute)
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		ask := func(ctx context.Context) (int, bool, error) {
			b.s.flushing.Lock()
			defer b.s.flushing.Unlock()
			sh := collectShare(st)
			n, blind := b.s.dropOldest(ctx, []*share{sh}, 1)
			return n, blind, sh.leftOut
		}
		if n, blind, err := ask(t.Context()); n != 1 || blind || err != nil {
			t.Errorf("%d recordings go, blind %v, %v", n, blind, err)
		}
		unread, cancel := context.WithCancel(t.Context())
		cancel()
		if n, blind, err := ask(unread); n != 0 || !blind || err == nil {
			t.Errorf("that cannot be read: %d recordings go, blind %v, %v", n, blind, err)
		}
	})
}
