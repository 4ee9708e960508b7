package hil

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/record/recordtest"
	"holdfast/test/hil/nbd"
)

// outage is how long after the end of a fault a stream may still be away.
const outage = 15 * time.Second

// started is how long a start may take on a host that does other things too.
const started = 3 * time.Minute

// faulty is a device that records one camera to a second disk, which fails, and
// another one beside its database, which nothing may happen to.
type faulty struct {
	*device
	vm      *vm
	cameras *cameratest.Server
	from    int        // on the console, since the last start
	now     media.Time // of the device, when it was last asked
	since   media.Time // of the device, a little before the fault
	began   time.Time  // of the fault
	ended   time.Time
	claims  []claim
	rotated map[string]time.Time // when streams on the second disk were last seen to begin a recording
	count   map[string]int
}

// The cameras, as they are called.
const (
	onMedia = "camera 1"
	onPerm  = "camera 2"
)

// claim is what the device has called durable.
type claim struct {
	stream string
	upTo   media.Time
}

func newFaulty(t *testing.T, mutants ...mutant) *faulty {
	t.Helper()
	needsDisk(t)
	hasTools(t, lanes[0])
	s := emulate(t, cameratest.Config{Cameras: 2})
	v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", slices.Concat(hooks, mutants)...), media: mediaSize})
	f := &faulty{device: newDevice(t, v), vm: v, cameras: s, rotated: map[string]time.Time{}, count: map[string]int{}}
	f.powerOn()
	f.until("serve", started, func() error { _, err := f.top(); return err })
	f.addCamerasAt(s, 2, func(camera int) string {
		return map[int]string{1: mediaSamples, 2: ""}[camera]
	})
	f.waitRecording(4, started)
	// A recording that is committed, and one that is not.
	f.until("commit", started, func() error {
		t, err := f.top()
		if err != nil {
			return err
		}
		f.rotates(t)
		for _, c := range t.Cameras {
			for kind, st := range c.Streams {
				if st.Recordings < 2 {
					return fmt.Errorf("%s %s has %d recordings", c.ShortName, kind, st.Recordings)
				}
			}
		}
		return nil
	})
	return f
}

// rotates notes when recordings on the second disk begin.
func (f *faulty) rotates(t top) {
	for _, c := range t.Cameras {
		for kind, st := range c.Streams {
			if stream := c.ShortName + " " + kind; c.ShortName == onMedia && st.Recordings != f.count[stream] {
				f.count[stream], f.rotated[stream] = st.Recordings, time.Now()
			}
		}
	}
}

// betweenFiles waits for a time in which no file is created on the second disk: a
// directory whose sync fails ends the process (storage.md rule 14), and that
// is another story.
func (f *faulty) betweenFiles() {
	f.t.Helper()
	f.until("come between two rotations", 3*time.Minute, func() error {
		t, err := f.top()
		if err != nil {
			return err
		}
		f.rotates(t)
		for stream, at := range f.rotated {
			if d := time.Since(at); d < 4*time.Second || d > 40*time.Second {
				return fmt.Errorf("%s began a recording %v ago", stream, d)
			}
		}
		return nil
	})
}

// breaks begins the fault.
func (f *faulty) breaks(how func()) {
	f.t.Helper()
	f.until("answer", 30*time.Second, f.claim)
	f.from = f.Console().here()
	f.began, f.ended, f.since = time.Now(), time.Time{}, f.now.Add(-3*media.Second)
	how()
}

// mends ends the fault, a while after it is shown.
func (f *faulty) mends(after time.Duration, how func()) {
	f.t.Helper()
	<-time.After(after)
	_ = f.claim() // one that does not answer claims nothing
	how()
	f.ended = time.Now()
}

// claim remembers what the device calls durable now.
func (f *faulty) claim() error {
	t, err := f.top()
	if err != nil {
		return err
	}
	f.now = media.Time(t.Now90k)
	for _, c := range t.Cameras {
		for kind, st := range c.Streams {
			f.claims = append(f.claims, claim{c.ShortName + " " + kind, media.Time(st.Watermark90k)})
		}
	}
	return nil
}

// showsFault waits until API and /healthz say what is wrong with the second disk.
func (f *faulty) showsFault() {
	f.t.Helper()
	said := ""
	f.until("show the fault", 30*time.Second, func() error {
		t, err := f.top()
		if err != nil {
			return err
		}
		for _, c := range t.Cameras {
			for kind, st := range c.Streams {
				if (c.ShortName == onMedia) != (st.DirError != "") {
					return fmt.Errorf("%s %s says %q of its directory", c.ShortName, kind, st.DirError)
				}
				said = cmp.Or(st.DirError, said)
			}
		}
		return nil
	})
	f.shows("/healthz", "sample directory "+mediaSamples, 10*time.Second)
	note(f.t, lanes[0].name, f.t.Name(), "says", "after %.1f s: %.120s", time.Since(f.began).Seconds(), said)
}

// goesOn waits until the streams of cameras record, and something newer than now
// is durable.
func (f *faulty) goesOn(limit time.Duration, cameras ...string) {
	f.t.Helper()
	var since int64
	f.until("record "+strings.Join(cameras, " and "), limit, func() error {
		t, err := f.top()
		if err != nil {
			return err
		}
		if since == 0 {
			since = t.Now90k
		}
		n := 0
		for _, c := range t.Cameras {
			if !slices.Contains(cameras, c.ShortName) {
				continue
			}
			for kind, st := range c.Streams {
				if st.State.Phase != "recording" || st.DirError != "" || st.Watermark90k <= since {
					return fmt.Errorf("%s %s is %s %s, durable up to %v, %s", c.ShortName, kind, st.State.Phase, st.State.Reason, media.Time(st.Watermark90k), st.DirError)
				}
				n++
			}
		}
		if n != 2*len(cameras) {
			return fmt.Errorf("%d streams", n)
		}
		return nil
	})
}

// recovers waits until all is well again, and what memory held of the fault is
// durable: a first step may come to the end of a recording only, which is newer
// than the fault, and leave what is behind it to the next.
func (f *faulty) recovers(limit time.Duration) {
	f.t.Helper()
	f.goesOn(limit, onMedia, onPerm)
	defer f.goesOn(limit, onMedia, onPerm)
	note(f.t, lanes[0].name, f.t.Name(), "records again", "%.1f s after the fault's end", time.Since(f.ended).Seconds())
	page, err := f.page("/healthz")
	if err != nil || strings.Contains(page, "sample directory") {
		f.t.Errorf("/healthz: %v:\n%s", err, page)
	}
}

// story notes how often recorder and machine were started since a place on the
// console, and shows what they said of it.
func (f *faulty) story(from int) {
	f.t.Helper()
	c := f.Console()
	note(f.t, lanes[0].name, f.t.Name(), "starts", "%d of the recorder, %d of the machine", c.count(from, "holdfast: nvr started"), c.count(from, "Linux version"))
	for _, l := range c.since(from) {
		if strings.Contains(l.text, "holdfast: ") || strings.Contains(l.text, "sample directory") || strings.Contains(l.text, "Linux version") {
			f.t.Logf("%6.1f s  %.200s", l.at.Sub(f.began).Seconds(), l.text)
		}
	}
}

// again takes the power away and gives it back.
func (f *faulty) again() {
	f.t.Helper()
	if _, err := f.PowerCut(nbd.Cut{}); err != nil {
		f.t.Fatal(err)
	}
	f.from = f.Console().here()
	f.powerOn()
}

// stayed fails the test when the recorder or the machine was started again.
func (f *faulty) stayed() {
	f.t.Helper()
	for _, text := range []string{"holdfast: nvr ended", "holdfast: nvr hangs", "holdfast: nvr started", "Linux version"} {
		if l, ok := f.Console().has(f.from, text); ok {
			f.t.Errorf("the console says %q", l.text)
		}
	}
}

// gap is what the lab reads of GET …/gaps.
type gap struct {
	Start, End media.Time
	Cause      string
	Detail     string
}

// gaps are those of all streams since the fault began.
func (f *faulty) gaps() map[string][]gap {
	f.t.Helper()
	all := map[string][]gap{}
	t, err := f.top()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range t.Cameras {
		for kind := range c.Streams {
			var answer struct {
				Gaps []struct {
					StartTime90k, EndTime90k int64
					Cause, Detail            string
				}
			}
			if err := f.do("GET", fmt.Sprintf("/api/cameras/%s/%s/gaps?startTime90k=%d", c.UUID, kind, f.since), nil, &answer); err != nil {
				f.t.Fatal(err)
			}
			for _, g := range answer.Gaps {
				all[c.ShortName+" "+kind] = append(all[c.ShortName+" "+kind], gap{media.Time(g.StartTime90k), media.Time(g.EndTime90k), g.Cause, g.Detail})
			}
		}
	}
	return all
}

// allowed is what a fault may cost beside what a power cut may. Of a stream that
// may lose nothing, no picture is missing since before the fault and there is no
// gap.
type allowed struct {
	media  time.Duration // of what the second disk was to hold
	others time.Duration // of the camera beside it
	causes []string      // of gaps
	room   bool          // the oldest on the second disk may be deleted, for room
}

// settles takes the power away and holds the disks to all that was promised.
func (f *faulty) settles(may allowed) {
	f.t.Helper()
	if err := f.judge(may); err != nil {
		f.t.Error(err)
	}
}

// judge is settles whose caller hears of broken promises.
func (f *faulty) judge(may allowed) error {
	f.t.Helper()
	var errs []error
	breaks := func(format string, args ...any) { errs = append(errs, broken(format, args...)) }
	f.until("answer", 30*time.Second, f.claim)
	gaps := f.gaps()
	cut := lookAt(f.cameras)
	if _, err := f.PowerCut(nbd.Cut{}); err != nil {
		f.t.Fatal(err)
	}
	k, err := proveAnd(f, f.cameras, check(f.t))
	if err != nil {
		return err
	}
	for _, c := range f.claims {
		if !holds(k, c) && !(may.room && strings.HasPrefix(c.stream, onMedia) && deleted(k, c)) {
			breaks("%s was durable up to %v, and is not there", c.stream, c.upTo)
		}
	}
	for _, camera := range []string{onMedia, onPerm} {
		most := may.media
		if camera == onPerm {
			most = may.others
		}
		for _, kind := range []string{"main", "sub"} {
			stream := camera + " " + kind
			st := k.streams[stream]
			if st == nil {
				breaks("%s is not there", stream)
				continue
			}
			p := path(stream)
			pictures, loop := f.cameras.Fixture(p).Pictures()
			period := loop.Std() / time.Duration(pictures)
			missing := lacking(st, cut.next[p], cut.at.Sub(f.began), period)
			if limit := most + mostLost + f.Busy(busyWindow); missing > limit {
				breaks("%s lost %v, more than %v", stream, missing, limit)
			}
			var told time.Duration
			for _, g := range gaps[stream] {
				told += g.End.Sub(g.Start).Std()
				if most == 0 || !slices.Contains(may.causes, g.Cause) {
					breaks("%s: a gap of %v is called %s (%s)", stream, g.End.Sub(g.Start).Std(), g.Cause, g.Detail)
				}
			}
			// What the last second held is in no gap, nor what memory held when
			// the fault was not over.
			if !f.ended.IsZero() && missing > told+mostLost+f.Busy(busyWindow) {
				breaks("%s lost %v, and gaps account for %v", stream, missing, told)
			}
			var within time.Duration
			for _, g := range st.Gaps() {
				// Holes are where the fault was, and nowhere else. That is told by
				// the camera's clock, which is ours.
				slack := 3*time.Second + f.Busy(busyWindow)
				if at := g.After.Sent; at.Before(f.began.Add(-slack)) {
					breaks("%s: %d pictures are missing behind frame %d, %v before the fault", stream, g.Missing, g.After.Frame, f.began.Sub(at))
				}
				if at := g.Before.Sent; !f.ended.IsZero() && at.After(f.ended.Add(max(most, outage)+slack)) {
					breaks("%s: %d pictures are missing before frame %d, %v after the fault", stream, g.Missing, g.Before.Frame, at.Sub(f.ended))
				}
				within += time.Duration(g.Missing) * period
			}
			if most == 0 && within > f.Busy(time.Since(f.began)) {
				breaks("%s: %v are missing, and nothing may be", stream, within)
			}
			note(f.t, lanes[0].name, f.t.Name(), stream+" lost", "%.1f s within, %.1f s with the end; gaps say %.1f s", within.Seconds(), missing.Seconds(), told.Seconds())
		}
	}
	return errors.Join(errs...)
}

// holds reports whether a stream's pictures reach to where they were called
// durable. The start of a recording may move by as much as pictures jitter.
func holds(k *kept, c claim) bool {
	const jitter = 500 * time.Millisecond
	if c.upTo == 0 { // nothing, since it was started
		return true
	}
	st := k.streams[c.stream]
	return st != nil && slices.ContainsFunc(st.Frames, func(f recordtest.Frame) bool {
		return c.upTo.Sub(f.At.Add(f.Duration)).Std().Abs() <= jitter
	})
}

// deleted reports whether all that a stream still has is newer than what was
// called durable.
func deleted(k *kept, c claim) bool {
	st := k.streams[c.stream]
	return st != nil && len(st.Frames) > 0 && st.Frames[0].At >= c.upTo
}

func TestClaimsAreHeldAgainstPictures(t *testing.T) {
	st := &recordtest.Stream{Name: "camera 1 main"}
	for i := range 30 { // ten a second, for three seconds
		st.Frames = append(st.Frames, recordtest.Frame{At: media.Time(1e6 + 9000*i), Duration: 9000})
	}
	k := &kept{streams: map[string]*recordtest.Stream{st.Name: st}}
	for _, c := range []struct {
		name          string
		claim         claim
		want, deleted bool
	}{
		{"the end", claim{stream: st.Name, upTo: 1e6 + 30*9000}, true, false},
		{"the middle", claim{stream: st.Name, upTo: 1e6 + 15*9000}, true, false},
		{"jitter", claim{stream: st.Name, upTo: 1e6 + 34*9000}, true, false},
		{"a second more", claim{stream: st.Name, upTo: 1e6 + 40*9000}, false, false},
		{"before all", claim{stream: st.Name, upTo: 1e6 - 10*9000}, false, true},
		{"another stream", claim{stream: "camera 2 main", upTo: 1e6 + 9000}, false, false},
		{"nothing claimed", claim{stream: st.Name, upTo: 0}, true, true},
	} {
		if got, gone := holds(k, c.claim), deleted(k, c.claim); got != c.want || gone != c.deleted {
			t.Errorf("%s: held %v, deleted %v, want %v, %v", c.name, got, gone, c.want, c.deleted)
		}
	}
}

var writes = []nbd.Op{nbd.Write}

// restarted are the causes of gaps where the recorder or the machine was started
// again, whose network comes later than its recorder.
var restarted = []string{"disk_error", "recorder_down", "unknown", "unreachable"}

// A disk that cannot write where footage would go costs nothing for as long as
// memory holds what comes: what is not durable is written again, from the key
// frame on that the directory keeps for it. Only a stream whose groups of
// pictures do not fit there could lose up to one of them.
func TestMediaDiskWithoutGoodDataCostsNothing(t *testing.T) {
	f := newFaulty(t)
	f.breaks(func() {
		f.vm.second.drive.Break(f.vm.second.footageFault())
	})
	f.showsFault()
	f.goesOn(outage, onPerm)
	f.mends(10*time.Second, f.vm.second.drive.Heal)
	f.recovers(outage)
	f.stayed()
	f.settles(allowed{})
}

func TestRecorderThatTrustsAFailedSyncIsCaught(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants []mutant
		where   func(m *secondDisk) nbd.Fault
		heals   bool
	}{
		{"data", trustSync, (*secondDisk).footageFault, true},
		{"journal", slices.Concat(trustSync, trustJournal), func(m *secondDisk) nbd.Fault {
			return nbd.Fault{Ops: writes, From: m.journal, To: m.rest, Err: syscall.EIO}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t, c.mutants...)
			f.betweenFiles()
			f.breaks(func() {
				f.vm.second.drive.Break(c.where(f.vm.second))
			})
			may := allowed{causes: []string{"disk_error"}}
			if c.heals {
				f.mends(10*time.Second, f.vm.second.drive.Heal)
				f.goesOn(outage, onMedia, onPerm)
				may.media = f.ended.Sub(f.began) + outage
			} else {
				<-time.After(10 * time.Second)
				may.media = time.Since(f.began)
			}
			if f.vm.second.drive.Stats().Faulty == 0 {
				t.Fatal("nobody wrote there")
			}
			err := f.judge(may)
			var seen *promise
			if !errors.As(err, &seen) {
				t.Fatalf("what a failed sync took was called durable, and the lab is blind: %v", err)
			}
			note(t, lanes[0].name, "must fail: a recorder that trusts a failed sync, "+c.name, "seen", "%.100s", strings.ReplaceAll(err.Error(), "\n", " "))
		})
	}
}

// A disk whose journal cannot be written: its file system goes read-only, and
// only a mount makes it writable again. Nobody is started again for it.
func TestMediaDiskWithoutJournalComesBackWithTheNextStart(t *testing.T) {
	f := newFaulty(t)
	f.betweenFiles()
	f.breaks(func() {
		f.vm.second.drive.Break(nbd.Fault{Ops: writes, From: f.vm.second.journal, To: f.vm.second.rest, Err: syscall.EIO})
	})
	f.showsFault()
	f.goesOn(outage, onPerm)
	<-time.After(10 * time.Second)
	f.stayed()
	f.settles(allowed{media: time.Since(f.began), causes: []string{"disk_error"}})
	f.mends(0, f.vm.second.drive.Heal)
	f.from = f.Console().here()
	f.powerOn()
	f.recovers(started)
	f.settles(downSince(f))
}

// downSince allows what it costs to be without power, or to be started again, until
// now.
func downSince(f *faulty) allowed {
	down := time.Since(f.began)
	return allowed{media: down, others: down, causes: restarted}
}

// A disk whose superblock cannot be read is not mounted; nothing is written to the
// empty directory where it should be.
func TestMediaDiskWithoutSuperblockIsMissedAndFound(t *testing.T) {
	f := newFaulty(t)
	f.breaks(func() {
		f.vm.second.cfg.Faults = []nbd.Fault{{Ops: []nbd.Op{nbd.Read, nbd.Write}, To: 4096, Err: syscall.EIO}}
		f.again()
	})
	f.goesOn(started, onPerm)
	f.showsFault()
	f.mends(10*time.Second, func() {
		if f.vm.second.drive.Stats().Faulty == 0 {
			t.Error("nobody asked for the superblock")
		}
		f.vm.second.cfg.Faults = nil
		f.vm.second.drive.Heal()
	})
	f.again()
	f.recovers(started)
	f.settles(downSince(f))
}

// A superblock that can be read and not written: what is mounted records on, and
// the next start either goes without the disk and says so, or records to it.
func TestMediaDiskWhoseSuperblockIsNotWrittenLosesNothing(t *testing.T) {
	f := newFaulty(t)
	fault := nbd.Fault{Ops: writes, To: 4096, Err: syscall.EIO}
	f.breaks(func() { f.vm.second.drive.Break(fault) })
	<-time.After(10 * time.Second)
	f.goesOn(outage, onMedia, onPerm)
	f.stayed()
	f.settles(allowed{})
	f.vm.second.cfg.Faults = []nbd.Fault{fault}
	f.from = f.Console().here()
	f.powerOn()
	f.goesOn(started, onPerm)
	said := "it records to the disk"
	f.until("record or say so", 30*time.Second, func() error {
		t, err := f.top()
		if err != nil {
			return err
		}
		for _, c := range t.Cameras {
			for kind, st := range c.Streams {
				if c.ShortName == onMedia && st.DirError != "" {
					said = st.DirError
				} else if st.Watermark90k == 0 {
					return fmt.Errorf("%s %s: nothing is durable, and nothing is said", c.ShortName, kind)
				}
			}
		}
		return nil
	})
	if f.vm.second.drive.Stats().Faulty == 0 {
		t.Error("nobody wrote the superblock")
	}
	note(t, lanes[0].name, t.Name(), "says after a start", "%.120s", said)
	f.mends(0, func() {
		f.vm.second.cfg.Faults = nil
		f.vm.second.drive.Heal()
	})
	f.again()
	f.recovers(started)
	f.settles(downSince(f))
}

// A disk that is pulled out loses what it had in its cache. The recorder goes on
// without it, and with it as soon as it is back, and is not started again for
// that. Nothing is lost: memory holds what comes meanwhile, and nothing that the
// cache held was called durable.
func TestMediaDiskThatIsPulledOutComesBack(t *testing.T) {
	f := newFaulty(t)
	f.betweenFiles()
	how := nbd.Cut{Kept: .5, Shuffled: true, Seed: seed(t)}
	f.breaks(func() {
		if _, err := f.vm.second.pull(how); err != nil {
			t.Fatal(err)
		}
		// By hand, since this kernel has no driver for the plugs of PCI. The disk
		// gets a new name when it is back.
		f.order("unplug")
		f.say(f.from, "holdfast: media unplugged: <nil>", 30*time.Second)
	})
	f.showsFault()
	f.goesOn(outage, onPerm)
	f.mends(10*time.Second, func() {
		if err := f.vm.second.plug(); err != nil {
			t.Fatal(err)
		}
		at := f.Console().here()
		f.order("rescan")
		f.say(at, "holdfast: media mounted", 20*time.Second)
	})
	f.recovers(outage)
	f.stayed()
	f.settles(allowed{})
}

// The same without a word: the kernel knows the disk still, and gets errors. Its
// file system gives up, and only a mount makes it writable again.
func TestMediaDiskThatAnswersErrorsAloneComesBackWithTheNextStart(t *testing.T) {
	f := newFaulty(t)
	f.betweenFiles()
	how := nbd.Cut{Kept: .5, Shuffled: true, Seed: seed(t)}
	f.breaks(func() {
		if _, err := f.vm.second.pull(how); err != nil {
			t.Fatal(err)
		}
	})
	f.showsFault()
	f.goesOn(outage, onPerm)
	<-time.After(10 * time.Second)
	f.stayed()
	f.settles(allowed{media: time.Since(f.began), causes: []string{"disk_error"}})
	f.mends(0, func() {})
	f.from = f.Console().here()
	f.powerOn()
	f.recovers(started)
	f.settles(downSince(f))
}

// A disk that answers nothing for a minute costs nothing: memory holds what comes
// meanwhile, and nobody is started again for it.
func TestMediaDiskThatStallsForAMinuteCostsNothing(t *testing.T) {
	f := newFaulty(t)
	const stall = time.Minute
	f.breaks(func() {
		f.vm.second.drive.Break(nbd.Fault{Ops: []nbd.Op{nbd.Write, nbd.Flush}, Delay: stall, Times: 1})
	})
	for time.Since(f.began) < stall-10*time.Second {
		f.goesOn(outage, onPerm)
		f.waits()
		<-time.After(5 * time.Second)
	}
	f.mends(time.Until(f.began.Add(stall)), func() {
		if f.vm.second.drive.Stats().Faulty != 1 {
			t.Errorf("%d requests were delayed, want one", f.vm.second.drive.Stats().Faulty)
		}
	})
	f.recovers(outage)
	f.stayed()
	f.settles(allowed{})
}

// waits checks that of the streams on the second disk only the watermark shows
// that it does not answer.
func (f *faulty) waits() {
	f.t.Helper()
	top, err := f.top()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range top.Cameras {
		for kind, st := range c.Streams {
			if c.ShortName != onMedia {
				continue
			}
			if st.State.Phase != "recording" || st.DirError != "" {
				f.t.Errorf("%s %s is %s %s, %s", c.ShortName, kind, st.State.Phase, st.State.Reason, st.DirError)
			}
			if late := media.Time(top.Now90k).Sub(media.Time(st.Watermark90k)).Std(); late < time.Since(f.began)-5*time.Second {
				f.t.Errorf("%s %s: durable up to %v ago, and the disk has not answered for %v", c.ShortName, kind, late, time.Since(f.began))
			}
		}
	}
	if page, err := f.page("/healthz"); err != nil || strings.Contains(page, "sample directory") {
		f.t.Errorf("/healthz: %v:\n%s", err, page)
	}
}

// A disk that somebody else fills: the recorder says so, and records again as
// soon as there is room. As long as memory holds what comes, it costs nothing;
// what falls out is a gap that is called by its name.
func TestMediaDiskThatIsFullIsNamedAndRecordedToAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants []mutant
		full    time.Duration
		loses   bool
	}{
		{"for ten seconds", nil, 10 * time.Second, false},
		{"for longer than memory holds", smallRing, time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t, c.mutants...)
			f.breaks(func() {
				f.order("fill")
				f.say(f.from, "holdfast: media filled: <nil>", 20*time.Second)
			})
			f.showsFault()
			f.shows("/healthz", "no space left on device", 10*time.Second)
			f.goesOn(outage, onPerm)
			f.mends(c.full, func() {
				f.shows("/healthz", "no space left on device", 0)
				f.order("room")
				f.say(f.from, "holdfast: media has room: <nil>", 20*time.Second)
			})
			f.recovers(outage)
			f.stayed()
			may := allowed{room: true}
			if c.loses {
				may = allowed{media: f.ended.Sub(f.began) + outage, causes: []string{"disk_full"}, room: true}
				if n := len(f.gaps()[onMedia+" main"]); n == 0 {
					t.Error("no gap: memory held it all, and nothing was tried")
				}
			}
			f.settles(may)
		})
	}
}

// permLayout is where things stand on the disk that the machine starts from, in bytes.
type permLayout struct{ superblock, journal, rest int64 }

func (f *faulty) permLayout() (l permLayout) {
	f.t.Helper()
	err := f.vm.withPerm("perm-layout", func(copied string, start int64) error {
		first, last, err := journal(copied)
		l = permLayout{start, start + first*4096, start + (last+1)*4096}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

// The disk with the database cannot write where data stands, or its journal: the
// recorder, or the machine, is started again until it can, and nothing durable is
// lost on either disk.
func TestPermDiskThatCannotWriteIsRecordedToAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(permLayout) nbd.Fault
	}{
		{"data", func(l permLayout) nbd.Fault { return nbd.Fault{Ops: writes, From: l.rest, Err: syscall.EIO} }},
		{"journal", func(l permLayout) nbd.Fault {
			return nbd.Fault{Ops: writes, From: l.journal, To: l.rest, Err: syscall.EIO}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t)
			fault := c.fault(f.permLayout())
			from := f.Console().here()
			f.breaks(func() { f.vm.drive.Break(fault) })
			f.mends(15*time.Second, func() {
				if f.vm.drive.Stats().Faulty == 0 {
					t.Error("nobody wrote there")
				}
				f.vm.drive.Heal()
			})
			f.recovers(2 * started)
			f.story(from)
			f.settles(downSince(f))
		})
	}
}

// A disk that cannot be read when the machine starts, and can be later, as one
// whose current comes late: nobody pulls the plug, and it is recorded to.
func TestPermDiskThatCannotBeReadAtTheStartIsMountedAfterAll(t *testing.T) {
	f := newFaulty(t)
	l := f.permLayout()
	f.breaks(func() {
		if _, err := f.PowerCut(nbd.Cut{}); err != nil {
			t.Fatal(err)
		}
	})
	f.vm.machine.disk.Faults = []nbd.Fault{{Ops: []nbd.Op{nbd.Read}, From: l.superblock, To: l.superblock + 4096, Err: syscall.EIO}}
	from := f.Console().here()
	f.powerOn()
	f.say(from, "holdfast: perm damaged", started)
	f.shows("/healthz", "not recording: the data partition is damaged", started)
	f.mends(10*time.Second, f.vm.drive.Heal)
	f.say(from, "holdfast: perm mounted after all", 2*started)
	f.vm.machine.disk.Faults = nil
	f.recovers(2 * started)
	if n := f.Console().count(from, "Linux version"); n != 1 {
		t.Errorf("the machine was started %d times, want once", n)
	}
	f.story(from)
	f.settles(downSince(f))
}

// Nor can its superblock be written: what is mounted records on, and the next start
// mounts it or says that it cannot. It is never formatted.
func TestPermDiskWhoseSuperblockIsNotWrittenLosesNothing(t *testing.T) {
	f := newFaulty(t)
	l := f.permLayout()
	fault := nbd.Fault{Ops: writes, From: l.superblock, To: l.superblock + 4096, Err: syscall.EIO}
	f.breaks(func() { f.vm.drive.Break(fault) })
	<-time.After(10 * time.Second)
	f.goesOn(outage, onMedia, onPerm)
	f.stayed()
	f.settles(allowed{})
	f.vm.machine.disk.Faults = []nbd.Fault{fault}
	from := f.Console().here()
	f.powerOn()
	said := ""
	f.until("record or say so", started, func() error {
		if l, ok := f.Console().has(from, "holdfast: perm damaged"); ok {
			said = l.text
			return nil
		}
		said = "it records"
		return f.recording(0, 4)
	})
	if f.vm.drive.Stats().Faulty == 0 {
		t.Error("nobody wrote the superblock")
	}
	note(t, lanes[0].name, t.Name(), "says after a start", "%.120s", said)
	f.mends(0, func() {
		f.vm.machine.disk.Faults = nil
		f.vm.drive.Heal()
	})
	f.again()
	f.recovers(started)
	if l, ok := f.Console().has(from, "holdfast: perm is fresh"); ok {
		t.Errorf("the console says %q", l.text)
	}
	f.settles(downSince(f))
}
