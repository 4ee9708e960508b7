package hil

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/test/hil/nbd"
)

// A device without a clock, and without anybody to ask, records from the first
// second on; a power cut takes nothing of it though time begins again.
func TestRecordsWithTheClockAt1970(t *testing.T) {
	needs(t, true)
	hasTools(t, lanes[0])
	cameras := emulate(t, cameratest.Config{Cameras: 1})
	v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64"), clock: "1970-01-01T00:00:00"})
	d := newDevice(t, v)
	d.powerOn()
	d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
	d.addCameras(cameras, 1)
	var before *kept
	for start := range 2 {
		d.waitRecording(2, 60*time.Second)
		top, err := d.top()
		if err != nil {
			t.Fatal(err)
		}
		note(t, lanes[0].name, "clock at 1970", "recorder's clock", "%v", time.Unix(top.Now90k/90000, 0).UTC())
		if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
			t.Fatal(err)
		}
		now, err := prove(d, cameras)
		if err == nil {
			err = now.after(before)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, st := range now.streams {
			if len(st.Frames) == 0 || before != nil && len(st.Frames) == frames(before.streams[name]) {
				t.Errorf("%s: start %d recorded nothing", name, start+1)
			}
		}
		before = now
		if start == 0 {
			d.powerOn()
		}
	}
}

// The network brings the time late: the clock is set while cameras are recorded.
// No picture is lost for it, the run is split, and all of it stands at the right
// time: what was recorded before it is moved.
func TestClockThatIsSetLateLosesNothing(t *testing.T) {
	needs(t, true)
	hasTools(t, lanes[0])
	cameras := emulate(t, cameratest.Config{Cameras: 1})
	v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", hooks...), clock: "1970-01-01T00:00:00"})
	d := newDevice(t, v)
	d.powerOn()
	d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
	d.addCameras(cameras, 1)
	d.waitRecording(2, 60*time.Second)
	from := d.Console().here()
	if err := d.do("POST", "/lab/clock", time.Now().Unix(), nil); err != nil {
		t.Fatal(err)
	}
	set, _ := d.say(from, "holdfast: clock set", 20*time.Second)
	if !strings.HasSuffix(set.text, "<nil>") {
		t.Fatal(set.text)
	}
	d.until("know the time", 10*time.Second, func() error {
		top, err := d.top()
		if now := media.Time(top.Now90k).Std(); err == nil && time.Since(now).Abs() > time.Minute {
			err = fmt.Errorf("its clock is at %v", now)
		}
		return err
	})
	right := media.TimeOf(time.Now().Add(-time.Hour))
	d.until("record at the right time", 60*time.Second, func() error { return d.recording(right, 2) })
	// Long enough for a key frame behind the step, and for its file.
	began := cameras.Frame("1/main")
	d.until("go on", 60*time.Second, func() error {
		if n := cameras.Frame("1/main"); n < began+200 {
			return fmt.Errorf("frame %d", n)
		}
		return nil
	})
	on, cut := d.on(), lookAt(cameras)
	if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
		t.Fatal(err)
	}
	k, err := prove(d, cameras)
	if err == nil {
		err = k.after(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, st := range k.streams {
		if missing, ok := lost(cameras, k, name, on, cut); !ok || missing > mostLost+d.Busy(busyWindow) {
			t.Errorf("%s lost %v at the end", name, missing)
		}
		first, last := st.Frames[0].At.Std(), st.Frames[len(st.Frames)-1].At.Std()
		if time.Since(first).Abs() > 20*time.Minute || time.Since(last).Abs() > 10*time.Minute {
			t.Errorf("%s was recorded from %v to %v", name, first, last)
		}
		if st.Frames[len(st.Frames)-1].Run != 1 {
			t.Errorf("%s has %d runs, want 2: the step splits the one there was", name, st.Frames[len(st.Frames)-1].Run+1)
		}
	}
	note(t, lanes[0].name, "clock set late", "runs", "2: the one that was there was split, and both stand right")
}

// A data partition that cannot be mounted is never formatted, whatever is on
// it. The device says what is wrong, and records again once it is mended.
func TestDamagedPermIsNotTouchedAndSaidSo(t *testing.T) {
	needs(t, true)
	for _, l := range []lane{lanes[0], lanes[2]} {
		t.Run(l.name, func(t *testing.T) {
			hasTools(t, l)
			cameras := emulate(t, cameratest.Config{Cameras: 1})
			v := newVM(t, machine{lane: l, image: image(t, l.board)})
			d := newDevice(t, v)
			d.powerOn()
			d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
			d.addCameras(cameras, 1)
			d.waitRecording(2, 60*time.Second)
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			before, err := prove(d, cameras)
			if err != nil {
				t.Fatal(err)
			}

			part, err := partition(v.medium, 4)
			if err != nil {
				t.Fatal(err)
			}
			whole := make([]byte, 64<<10)
			if _, err := v.medium.ReadAt(whole, part.start); err != nil {
				t.Fatal(err)
			}
			broken := bytes.Repeat([]byte("dust"), len(whole)/4)
			if err := v.damage(4, 0, broken); err != nil {
				t.Fatal(err)
			}
			from := d.Console().here()
			d.powerOn()
			said, _ := d.say(from, "holdfast: perm damaged: ", 60*time.Second)
			d.shows("/healthz", "not recording: the data partition is damaged", 60*time.Second)
			d.shows("/", "This device does not record", 10*time.Second)
			note(t, l.name, "data partition damaged", "says", "%s", said.text)
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			now := make([]byte, len(whole))
			if _, err := v.medium.ReadAt(now, part.start); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(now, broken) {
				t.Fatal("the device wrote to a partition that it could not read")
			}

			if err := v.damage(4, 0, whole); err != nil {
				t.Fatal(err)
			}
			d.powerOn()
			d.waitRecording(2, 60*time.Second)
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			after, err := prove(d, cameras)
			if err == nil {
				err = after.after(before)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// The data partition takes the whole disk, and the partition table's second
// copy stands at its end.
func TestLargeDiskIsUsedToItsEnd(t *testing.T) {
	needs(t, true)
	for _, l := range []lane{lanes[0], lanes[2]} {
		t.Run(l.name, func(t *testing.T) {
			hasTools(t, l)
			const size = 64 << 30
			cameras := emulate(t, cameratest.Config{Cameras: 1})
			v := newVM(t, machine{lane: l, image: image(t, l.board), size: size})
			d := newDevice(t, v)
			d.powerOn()
			made, _ := d.say(0, "holdfast: perm formatted: ", 3*time.Minute)
			note(t, l.name, "disk of 64 GiB", "first start", "%s", made.text)
			d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
			d.addCameras(cameras, 1)
			d.waitRecording(2, 60*time.Second)
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			part, err := partition(v.medium, 4)
			if err != nil {
				t.Fatal(err)
			}
			if free := size - part.start - part.size; free < 33*512 || free > 2<<20 {
				t.Errorf("%d bytes are left behind the data partition", free)
			}
			second := make([]byte, 8)
			if _, err := v.medium.ReadAt(second, size-512); err != nil || string(second) != "EFI PART" {
				t.Errorf("at the end of the disk stands %q, %v", second, err)
			}
			if _, err := prove(d, cameras); err != nil {
				t.Error(err)
			}
		})
	}
}
