package hil

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/record/recordtest"
	"holdfast/test/hil/nbd"
)

// mostLost is what a power cut may cost of a stream. What the device could not
// do because its host had no processor for it comes on top, and is printed.
const mostLost = 2 * time.Second

// mostBusy is how long the host may have kept the device from running in the
// seconds before a cut for the cut to say something about the device.
const mostBusy = time.Second

// live is what the cameras had sent at an instant.
type live struct {
	at   time.Time
	next map[string]uint64 // by path: the number of the next picture
}

func lookAt(s *cameratest.Server) live {
	l := live{time.Now(), map[string]uint64{}}
	for _, p := range s.Paths() {
		l.next[p] = s.Frame(p)
	}
	return l
}

// promise is a promise of the device that it broke. Any other error is of the
// bench, and proves nothing.
type promise struct{ err error }

func (p *promise) Error() string { return p.err.Error() }
func (p *promise) Unwrap() error { return p.err }

func broken(format string, args ...any) error { return &promise{fmt.Errorf(format, args...)} }

// joining is how long a viewer that asks may wait for the first key picture.
const joining = 3 * time.Second

// lost is how long the video is that a stream was sent between power on, at on,
// and a cut, and that the disk does not have: at the end, and wherever a session
// ended before. ok is false when none was sent.
func lost(s *cameratest.Server, k *kept, stream string, on time.Time, cut live) (d time.Duration, ok bool) {
	p := path(stream)
	began, ok := playing(s, p, on)
	if !ok || began.After(cut.at) {
		return 0, false
	}
	pictures, loop := s.Fixture(p).Pictures()
	return lacking(k.streams[stream], cut.next[p], cut.at.Sub(began), loop.Std()/time.Duration(pictures)), true
}

// lacking is how much a stream lacks of the pictures up to next, of which it was
// sent those of the last while.
func lacking(st *recordtest.Stream, next uint64, while, period time.Duration) time.Duration {
	first := next - min(next, uint64(while/period))
	var here []uint64 // the pictures of this start that are there
	if st != nil {
		for _, f := range slices.Backward(st.Frames) {
			if f.Frame < first {
				break
			}
			here = append(here, f.Frame)
		}
	}
	if n := len(here); n > 0 {
		// A viewer gets pictures from the next key picture on.
		if oldest := here[n-1]; time.Duration(oldest-first)*period <= joining {
			first = oldest
		}
	}
	if first >= next {
		return 0
	}
	return time.Duration(next-first-uint64(len(here))) * period
}

func TestMissingCountsHolesAndTheEnd(t *testing.T) {
	const period = 100 * time.Millisecond
	stream := func(ranges ...[2]uint64) *recordtest.Stream {
		st := &recordtest.Stream{}
		for _, r := range ranges {
			for n := r[0]; n < r[1]; n++ {
				f := recordtest.Frame{}
				f.Frame = n
				st.Frames = append(st.Frames, f)
			}
		}
		return st
	}
	for _, c := range []struct {
		name string
		st   *recordtest.Stream
		want time.Duration
	}{
		{"all", stream([2]uint64{400, 500}), 0},
		{"older ones too", stream([2]uint64{100, 200}, [2]uint64{405, 500}), 0},
		{"the last second", stream([2]uint64{405, 490}), time.Second},
		{"a session that ended between", stream([2]uint64{405, 450}, [2]uint64{470, 490}), 3 * time.Second},
		{"a late beginning", stream([2]uint64{450, 500}), 5 * time.Second},
		{"nothing of this start", stream([2]uint64{100, 200}), 10 * time.Second},
		{"no stream", nil, 10 * time.Second},
	} {
		if got := lacking(c.st, 500, 10*time.Second, period); got != c.want {
			t.Errorf("%s: %v missing, want %v", c.name, got, c.want)
		}
	}
}

// cutting cuts the power of one device again and again.
type cutting struct {
	t       *testing.T
	lane    lane
	rand    *rand.Rand
	dev     *device
	vm      *vm
	cameras *cameratest.Server
	before  *kept
	cut     live          // of the disk with the recordings; written under its lock, read when it is off
	window  time.Duration // how far back from the end of the last start it matters that the device could not run
	losses  []time.Duration
	made    int             // cuts so far
	unsure  int             // of them, those before which the host held the device up for too long to judge
	boots   []time.Duration // power on to every stream durable
	hangs   int             // starts that began anew by themselves
	pending int             // the most sectors that a cut found waiting
	busy    time.Duration   // the most that the host held the device up before a cut
}

const cutCameras = 2

func newCutting(t *testing.T, m machine, seed uint64) *cutting {
	hasTools(t, m.lane)
	cameras := emulate(t, cameratest.Config{Cameras: cutCameras, Seed: seed})
	v := newVM(t, m)
	return &cutting{t: t, lane: m.lane, rand: rand.New(rand.NewPCG(seed, 0)), vm: v, dev: newDevice(t, v), cameras: cameras}
}

// begin lets the device record for the first time, to the second disk if there
// is one.
func (c *cutting) begin() {
	c.t.Helper()
	c.dev.powerOn()
	c.dev.until("serve", started, func() error { _, err := c.dev.top(); return err })
	c.dev.addCamerasAt(c.cameras, cutCameras, func(int) string {
		if c.vm.second == nil {
			return ""
		}
		return mediaSamples
	})
	c.dev.waitRecording(2*cutCameras, started)
}

// drives are the disks of the machine. The recordings are on the last one.
func (c *cutting) drives() []*nbd.Disk {
	if c.vm.second == nil {
		return []*nbd.Disk{c.vm.drive}
	}
	return []*nbd.Disk{c.vm.drive, c.vm.second.drive}
}

// planned is when and how a disk loses its power: as planned with it, or else
// when the time is over.
type planned struct {
	drive  *nbd.Disk
	behind *nbd.Disk // first this one goes; nil: nobody is waited for
	plan   func()
	limit  time.Duration
	how    nbd.Cut
	story  string
}

// anywhere plans a cut at any time, at any fill of the cache, or at any write.
func (c *cutting) anywhere(d *nbd.Disk, limit time.Duration, fill int, writes int64) planned {
	p := planned{drive: d, plan: func() {}, how: nbd.RandomCut(c.rand), limit: limit}
	switch c.rand.IntN(4) {
	case 0:
		p.limit = time.Duration(c.rand.IntN(6000)) * time.Millisecond
	case 1:
		n := 1 + c.rand.IntN(fill)
		p.plan = func() { d.CutFull(n, p.how) }
		p.story = fmt.Sprintf(" or when %d sectors waited", n)
	default:
		n := 1 + c.rand.Int64N(writes)
		p.plan = func() { d.CutAt(n, p.how) }
		p.story = fmt.Sprintf(" or at write %d", n)
	}
	p.story = fmt.Sprintf("%v after it recorded%s", p.limit, p.story)
	return p
}

// once cuts the power of the running device, each disk's at a moment of its own,
// and holds the disks to what must be on them. story says what happened.
func (c *cutting) once() (story string, err error) {
	drives := c.drives()
	if len(drives) == 2 {
		set, err := c.vary()
		if err != nil {
			return set, err
		}
		defer func() { story = set + ": " + story }()
		if c.rand.IntN(4) == 0 {
			return c.atCommit()
		}
	}
	c.watch()
	plans := []planned{c.anywhere(drives[len(drives)-1], 8*time.Second, 300, 120)}
	if len(drives) == 2 {
		// The database is written to for a moment each quarter of a minute.
		first := c.anywhere(drives[0], 20*time.Second, 40, 40)
		if c.rand.IntN(2) == 0 {
			plans[0].behind = drives[0]
			plans[0].story = "behind it, " + plans[0].story
		}
		plans = []planned{first, plans[0]}
	}
	return c.cutAs(plans)
}

// vary draws how often ext4 writes its journal by itself, at the most, and with
// how many pages the log of the database is taken over into it: a promise that
// depends on either is none. What ships is 5 s and 1024 pages.
func (c *cutting) vary() (set string, err error) {
	commit := [...]int{1, 5, 30}[c.rand.IntN(3)]
	pages := [...]int{50, 1024, 4000}[c.rand.IntN(3)]
	set = fmt.Sprintf("commit=%d, %d pages", commit, pages)
	from := c.dev.Console().here()
	if err := c.dev.do("POST", "/lab/pages", pages, nil); err != nil {
		return set, err
	}
	options := fmt.Sprintf("commit=%d", commit)
	if err := c.dev.do("POST", "/lab/mount", options, nil); err != nil {
		return set, err
	}
	_, _, err = c.dev.Console().wait(from, "holdfast: mounted with "+options+": <nil>", 30*time.Second)
	return set, err
}

// atCommit cuts both disks as soon as the device says that recordings have got
// their rows, and of what waits for a flush it keeps nothing.
func (c *cutting) atCommit() (story string, err error) {
	c.watch()
	if err := c.dev.committed(c.dev.Console().here(), "added", 3*time.Minute); err != nil {
		return "", err
	}
	var plans []planned
	for _, d := range c.drives() {
		plans = append(plans, planned{drive: d, plan: func() {}, story: "at a commit"})
	}
	return c.cutAs(plans)
}

// committed waits until a flush says that it has added, deleted or collected
// something.
func (d *device) committed(from int, what string, limit time.Duration) error {
	something := regexp.MustCompile(what + `=("[^"]|[0-9])`) // 1/0, or "/perm/media/nvr: 1/0"
	end := time.Now().Add(limit)
	for {
		l, at, err := d.Console().wait(from, "msg=flushed", time.Until(end))
		if err != nil {
			return err
		}
		if something.MatchString(l.text) {
			return nil
		}
		from = at
	}
}

// watch notes at the next cut what the cameras had sent. It comes before the
// cut is planned.
func (c *cutting) watch() {
	drives := c.drives()
	drives[len(drives)-1].OnCut(func() { c.cut = lookAt(c.cameras) })
}

// cutAs cuts the power of each disk as planned, then that of the machine, and
// holds what is on them to what must be there.
func (c *cutting) cutAs(plans []planned) (string, error) {
	stories := make([]string, len(plans))
	errs := make([]error, len(plans))
	pending := make([]int, len(plans))
	var cuts sync.WaitGroup
	for i, p := range plans {
		cuts.Go(func() {
			if p.behind != nil {
				<-p.behind.Off()
			}
			p.plan()
			select {
			case <-p.drive.Off():
			case <-time.After(p.limit):
			}
			o, err := p.drive.PowerOff(p.how)
			stories[i] = fmt.Sprintf("%s, kept %v: %d of %d sectors", p.story, o.Cut, o.Applied, o.Pending)
			errs[i] = err
			pending[i] = o.Pending
		})
	}
	cuts.Wait()
	c.pending = max(c.pending, slices.Max(pending))
	on := c.dev.on()
	_, err := c.dev.PowerCut(nbd.Cut{})
	if err := errors.Join(append(errs, err)...); err != nil {
		c.t.Fatal(err)
	}
	c.window = busyWindow + time.Since(c.cut.at)
	c.busy = max(c.busy, c.dev.Busy(c.window))
	return strings.Join(stories, "; second disk "), c.check(on)
}

// early cuts the power while the device starts.
func (c *cutting) early() (story string, err error) {
	c.dev.powerOn()
	c.watch()
	var plans []planned
	for _, d := range c.drives() {
		how, n := nbd.RandomCut(c.rand), 1+c.rand.Int64N(40)
		plans = append(plans, planned{
			drive: d, plan: func() { d.CutAt(n, how) }, limit: 30 * time.Second, how: how,
			story: fmt.Sprintf("30s after power on or at write %d", n),
		})
	}
	return c.cutAs(plans)
}

// check holds the disk, without power, to what must be on it. on is when the
// power came before the cut.
func (c *cutting) check(on time.Time) error {
	look := func(string) error { return nil }
	if *labFlag == "all" {
		look = check(c.t)
	}
	now, err := proveAnd(c.dev, c.cameras, look)
	if err != nil {
		return err
	}
	if err := now.after(c.before); err != nil {
		return err
	}
	c.before = now
	busy := c.dev.Busy(c.window)
	c.made++
	if busy > mostBusy {
		c.unsure++
	}
	for camera := 1; camera <= cutCameras; camera++ {
		for _, kind := range []string{"main", "sub"} {
			stream := fmt.Sprintf("camera %d %s", camera, kind)
			d, ok := lost(c.cameras, now, stream, on, c.cut)
			if !ok {
				continue
			}
			if busy <= mostBusy {
				c.losses = append(c.losses, d)
			}
			if d > mostLost+busy {
				return broken("%s lost %v", stream, d)
			}
		}
	}
	return nil
}

// again starts the device and waits until it records. A start that hangs is ended by
// the hardware watchdog, one that panics by the kernel, and the device then comes up by
// itself: it hardly ever may, and its console is shown, so that whose fault it was
// can be looked for.
func (c *cutting) again() error {
	from := c.dev.Console().here()
	if err := c.dev.PowerOn(); err != nil {
		c.t.Fatal(err)
	}
	record := func() error {
		return try(started, func() error { return c.dev.recording(0, 2*cutCameras) })
	}
	err := record()
	reset := c.dev.Console().count(from, "holdfast: init") > 1
	if reset {
		c.hangs++
		note(c.t, c.lane.name, "start", "began anew by itself", "number %d", len(c.boots)+1)
		c.t.Logf("a start began anew by itself:\n%s", c.dev.Console().from(from))
		if c.hangs > 1+len(c.boots)/100 {
			return fmt.Errorf("%d of %d starts began anew by themselves", c.hangs, len(c.boots)+1)
		}
		if err != nil {
			err = record()
		}
	}
	if err != nil {
		c.t.Logf("since power on:\n%s", c.dev.Console().from(from))
		err = fmt.Errorf("it does not record again: %w", err)
		for _, damage := range []string{"holdfast: perm damaged", "holdfast: nvr ended", "sample directory is not used"} {
			if l, ok := c.dev.Console().has(from, damage); ok {
				return broken("%v: %s", err, l.text)
			}
		}
		return err
	}
	if !reset {
		c.boots = append(c.boots, c.dev.Since())
	}
	return nil
}

// cuts takes the power n times, some of them twice in a row, and prints what
// that cost.
func (c *cutting) cuts(n int, seed uint64) {
	c.t.Helper()
	c.begin()
	for i := range n {
		story, err := c.once()
		c.t.Logf("cut %d: %s", i+1, story)
		if err == nil && c.rand.IntN(5) == 0 {
			story, err = c.early()
			c.t.Logf("cut %d, again: %s", i+1, story)
		}
		if err == nil {
			err = c.again()
		}
		if err != nil {
			c.t.Fatalf("cut %d, %s: %v", i+1, story, err)
		}
	}
	scenario := fmt.Sprintf("%d power cuts", n)
	if c.vm.second != nil {
		scenario += " of two disks"
	}
	note(c.t, c.lane.name, scenario, "lost, most", "%v", longest(c.losses).Round(time.Millisecond))
	note(c.t, c.lane.name, scenario, "not judged, the host was busy", "%d of %d", c.unsure, c.made)
	if *labFlag == "all" && c.unsure > c.made/4 {
		c.t.Errorf("%d of %d cuts came when the host had held the device up for more than %v: repeat it on an idle machine", c.unsure, c.made, mostBusy)
	}
	note(c.t, c.lane.name, scenario, "power on to recording, most", "%v", longest(c.boots).Round(100*time.Millisecond))
	note(c.t, c.lane.name, scenario, "sectors unflushed at a cut, most", "%d", c.pending)
	note(c.t, c.lane.name, scenario, "held up by its host before a cut, most", "%v", c.busy.Round(time.Millisecond))
	fmt.Printf("%s: %s, seed %d: milliseconds lost, %d streams at them:\n%s", c.lane.name, scenario, seed, len(c.losses), histogram(c.losses))
}

// shared splits the cuts that were asked for between one disk and two. What is
// part of every test run cuts one.
func shared() (one, two int) {
	if *labFlag != "all" {
		return *cutsFlag, 0
	}
	return *cutsFlag - *cutsFlag/2, *cutsFlag / 2
}

func TestPowerCutCostsTwoSecondsAndNothingOlder(t *testing.T) {
	needs(t, false)
	n, _ := shared()
	s := seed(t)
	newCutting(t, machine{lane: lanes[0], image: image(t, "amd64")}, s).cuts(n, s)
}

// The database on one disk, the recordings on another: each loses its power at a
// moment of its own, and of what it had not been told to flush a part of its own.
func TestPowerCutCostsTwoSecondsOnTwoDisks(t *testing.T) {
	needs(t, true)
	_, n := shared()
	s := seed(t)
	newCutting(t, machine{lane: lanes[0], image: image(t, "amd64", hooks...), media: mediaSize}, s).cuts(n, s)
}

// The same on the lanes that differ in firmware, kernel and processor.
func TestPowerCutOnTheOtherLanes(t *testing.T) {
	needs(t, true)
	for _, l := range lanes[1:] {
		t.Run(l.name, func(t *testing.T) {
			s := seed(t)
			newCutting(t, machine{lane: l, image: image(t, l.board)}, s).cuts(5, s)
		})
	}
}

// mustBreak cuts the power of a device that cannot keep the promise, until it
// is seen to break it.
func (c *cutting) mustBreak(scenario string, cut func() (string, error)) {
	c.t.Helper()
	const most = 12
	for i := range most {
		story, err := cut()
		c.t.Logf("cut %d: %s", i+1, story)
		if err == nil {
			err = c.again()
		}
		var seen *promise
		if errors.As(err, &seen) {
			note(c.t, c.lane.name, "must fail: "+scenario, fmt.Sprintf("seen at cut %d", i+1), "%.100s", strings.ReplaceAll(err.Error(), "\n", " "))
			return
		}
		if err != nil {
			c.t.Fatalf("cut %d: no proof of anything: %v", i+1, err)
		}
	}
	c.t.Errorf("%d power cuts of %s, and nothing was lost: the lab is blind", most, scenario)
}

func TestDiskThatLiesAboutFlushIsCaught(t *testing.T) {
	needs(t, true)
	c := newCutting(t, machine{lane: lanes[0], image: image(t, "amd64")}, seed(t))
	c.begin()
	// It begins to lie when there is something to lose.
	if story, err := c.once(); err != nil {
		t.Fatalf("%s: %v", story, err)
	}
	c.vm.disk.Lie = true
	if err := c.again(); err != nil {
		t.Fatal(err)
	}
	c.mustBreak("a disk that lies about flush", c.once)
	// Whatever that has left: it is recorded to, or the device says what is wrong.
	c.vm.disk.Lie = false
	if c.vm.cmd != nil {
		if _, err := c.dev.PowerCut(nbd.Cut{Kept: 1}); err != nil {
			t.Fatal(err)
		}
	}
	from := c.dev.Console().here()
	c.dev.powerOn()
	said := ""
	c.dev.until("record or say so", 2*started, func() error {
		if l, ok := c.dev.Console().has(from, "holdfast: perm damaged"); ok {
			said = l.text
			return nil
		}
		h, err := c.dev.health()
		if err != nil {
			return err
		}
		if said = h.fault(); said != "" {
			return nil
		}
		said = "it records; " + h.Restored
		return c.dev.recording(0, 2*cutCameras)
	})
	note(t, c.lane.name, "a disk that lied about flush", "says after a start", "%.160s", said)
}

func TestRecorderThatDoesNotSyncIsCaught(t *testing.T) {
	needs(t, true)
	c := newCutting(t, machine{lane: lanes[0], image: image(t, "amd64", noSync...)}, seed(t))
	c.begin()
	c.mustBreak("a recorder that does not sync its files", c.once)
}

func TestRecorderThatDoesNotSyncIsCaughtOnTwoDisks(t *testing.T) {
	needsDisk(t)
	c := newCutting(t, machine{lane: lanes[0], image: image(t, "amd64", slices.Concat(hooks, noSync)...), media: mediaSize}, seed(t))
	c.begin()
	c.mustBreak("a recorder that does not sync its files, two disks", c.once)
}

// What the database on its disk says of the other one is not true yet.
func TestRecorderThatCommitsBeforeItSyncsIsCaught(t *testing.T) {
	needsDisk(t)
	c := newCutting(t, machine{lane: lanes[0], image: image(t, "amd64", slices.Concat(hooks, commitFirst)...), media: mediaSize}, seed(t))
	c.begin()
	c.mustBreak("a recorder that commits before it syncs, two disks", c.atCommit)
}

// The garbage rows of a camera that was deleted go when its files are gone for
// good. ext4 makes a new file's entry durable together with the file, so nothing
// but an unlink shows whether a directory is synced; and it makes that durable
// by itself after a while, so it is mounted not to.
func TestFilesOfADeletedCameraDoNotComeBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants []mutant
		breaks  bool
	}{
		{"the recorder", nil, false},
		{"one that does not sync its directory", noDirSync, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t, slices.Concat(lazy, c.mutants)...)
			top, err := f.top()
			if err != nil {
				t.Fatal(err)
			}
			from := f.Console().here()
			for _, camera := range top.Cameras {
				if camera.ShortName == onMedia {
					if err := f.do("DELETE", "/api/cameras/"+camera.UUID+"/", nil, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := f.committed(from, "collected", time.Minute); err != nil {
				t.Fatal(err)
			}
			if _, err := f.PowerCut(nbd.Cut{}); err != nil {
				t.Fatal(err)
			}
			k, err := proveAnd(f, f.cameras, check(t))
			var seen *promise
			switch {
			case c.breaks && errors.As(err, &seen):
				note(t, lanes[0].name, "must fail: "+c.name, "seen", "%.100s", strings.ReplaceAll(err.Error(), "\n", " "))
			case c.breaks:
				t.Errorf("files that were gone are back, and the lab is blind: %v", err)
			case err != nil:
				t.Error(err)
			case k.streams[onMedia+" main"] != nil:
				t.Errorf("%d pictures of a camera that was deleted are there", frames(k.streams[onMedia+" main"]))
			}
		})
	}
}

// The first start makes the file system. Whenever the power goes in it, the
// next start makes it again, or finds it whole.
func TestPowerCutInTheFirstStartCostsNothing(t *testing.T) {
	needs(t, true)
	hasTools(t, lanes[0])
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 0))
	file := image(t, "amd64")
	const formatted = "holdfast: perm formatted"

	v := newVM(t, machine{lane: lanes[0], image: file})
	d := newDevice(t, v)
	d.powerOn()
	d.say(0, formatted, 60*time.Second)
	writes := v.drive.Stats().Writes
	if _, err := d.PowerCut(nbd.Cut{}); err != nil {
		t.Fatal(err)
	}
	again := 0
	for i := range 5 {
		cameras := emulate(t, cameratest.Config{Cameras: 1})
		v := newVM(t, machine{lane: lanes[0], image: file})
		d := newDevice(t, v)
		d.powerOn()
		how, n := nbd.RandomCut(r), 1+r.Int64N(writes)
		v.drive.CutAt(n, how)
		// How many writes it takes differs; what comes after them is cut too.
		select {
		case <-v.drive.Off():
		case <-time.After(30 * time.Second):
		}
		o, err := d.PowerCut(how)
		if err != nil {
			t.Fatal(err)
		}
		story := fmt.Sprintf("cut %d: at write %d of about %d, kept %v: %d of %d sectors", i+1, o.Write, writes, how, o.Applied, o.Pending)
		from := d.Console().here()
		d.powerOn()
		if err := try(60*time.Second, func() error { _, err := d.top(); return err }); err != nil {
			t.Fatalf("seed %d, %s: %v", s, story, err)
		}
		if _, ok := d.Console().has(from, formatted); ok {
			again++
			story += "; formatted again"
		}
		t.Log(story)
		d.addCameras(cameras, 1)
		d.waitRecording(2, 60*time.Second)
		if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
			t.Fatal(err)
		}
		k, err := prove(d, cameras)
		if err != nil {
			t.Fatalf("seed %d, %s: %v", s, story, err)
		}
		if len(k.streams) != 2 {
			t.Fatalf("seed %d, %s: %d streams recorded, want 2", s, story, len(k.streams))
		}
	}
	note(t, lanes[0].name, "5 power cuts in the first start", "formatted again", "%d", again)
}

func longest(list []time.Duration) (most time.Duration) {
	for _, d := range list {
		most = max(most, d)
	}
	return most
}

// histogram draws how many fall into each step of 200 ms.
func histogram(list []time.Duration) string {
	const step = 200 * time.Millisecond
	count := make([]int, max(mostLost, longest(list))/step+1)
	most := 1
	for _, d := range list {
		count[d/step]++
		most = max(most, count[d/step])
	}
	var b strings.Builder
	for i, n := range count {
		from := time.Duration(i) * step
		fmt.Fprintf(&b, "%5d to %4d ms %5d %s\n", from.Milliseconds(), (from + step).Milliseconds(), n, strings.Repeat("#", (40*n+most-1)/most))
	}
	return b.String()
}

func TestHistogramCountsEach(t *testing.T) {
	got := histogram([]time.Duration{0, 199 * time.Millisecond, 200 * time.Millisecond, 2100 * time.Millisecond})
	lines := strings.Split(strings.TrimRight(got, "\n"), "\n")
	if len(lines) != 11 || !strings.HasPrefix(lines[0], "    0 to  200 ms     2 ##") || !strings.HasPrefix(lines[10], " 2000 to 2200 ms     1 #") {
		t.Errorf("histogram:\n%s", got)
	}
}
