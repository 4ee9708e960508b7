package hil

import (
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/test/hil/nbd"
)

// mostBoot is the time from power on to the first durable frame, on a host that
// does nothing else. Only the whole lab holds a start to it: a test run may have
// company.
const mostBoot = 25 * time.Second

// lap is one step of a start, and when it was reached.
type lap struct {
	what string
	at   time.Duration
}

// laps follows a start to its first durable frames. add, if not nil, configures
// cameras as soon as the recorder answers.
func laps(d *device, cameras *cameratest.Server, streams int, add func()) []lap {
	d.t.Helper()
	on := d.on()
	from := d.Console().after(on)
	var list []lap
	reached := func(what string, at time.Time) {
		list = append(list, lap{what, at.Sub(on).Round(10 * time.Millisecond)})
	}
	for _, step := range []struct{ what, text string }{
		{"kernel", "Linux version"},
		{"process 1", "holdfast: init"},
		{"process 1 in memory", "holdfast: locked in memory"},
		{"recorder ready", "holdfast: nvr ready"},
	} {
		l, _ := d.say(from, step.text, started)
		reached(step.what, l.at)
	}
	l, _ := d.say(from, "holdfast: address ", started)
	reached("network", l.at)
	d.until("serve", started, func() error { _, err := d.top(); return err })
	reached("HTTP", time.Now())
	if add != nil {
		add()
		reached("cameras configured", time.Now())
	}
	d.waitRecording(streams, started)
	durable := time.Now()
	first := durable
	for _, p := range cameras.Paths() {
		if at, ok := playing(cameras, p, on); ok && at.Before(first) {
			first = at
		}
	}
	reached("first packet", first)
	reached("every stream durable", durable)
	return list
}

func TestStartStuckInTheEmulatorIsMadeAgain(t *testing.T) {
	needs(t, false)
	hasTools(t, lanes[0])
	for stuck := 1; stuck <= 2; stuck++ {
		if stuck == 2 && *labFlag != "all" {
			continue
		}
		v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64"), stuck: stuck})
		v.silence = 40 * time.Second // a start that is well never is as silent
		if err := v.PowerOn(); (err == nil) != (stuck == 1) {
			t.Errorf("%d starts stuck: %v", stuck, err)
		}
		if v.stalls != stuck || v.starts != 2 {
			t.Errorf("%d starts stuck: counted %d, of %d starts", stuck, v.stalls, v.starts)
		}
	}
}

func TestBootsAndRecords(t *testing.T) {
	for _, l := range lanes {
		t.Run(l.name, func(t *testing.T) {
			needs(t, false)
			hasTools(t, l)
			cameras := emulate(t, cameratest.Config{Cameras: 2})
			v := newVM(t, machine{lane: l, image: image(t, l.board)})
			d := newDevice(t, v)
			d.powerOn()
			show := func(scenario string, list []lap) {
				t.Helper()
				for _, lap := range list {
					note(t, l.name, scenario, lap.what, "%5.1f s", lap.at.Seconds())
				}
				busy := d.Busy(d.Since())
				note(t, l.name, scenario, "of it held up by its host", "%5.1f s", busy.Seconds())
				if last := list[len(list)-1].at; *labFlag == "all" && last-busy > mostBoot {
					t.Errorf("%s took %v, %v of it without a processor; want at most %v", scenario, last, busy, mostBoot)
				}
			}
			show("first start", laps(d, cameras, 4, func() { d.addCameras(cameras, 2) }))

			// The plug is pulled, and put in again.
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			before, err := prove(d, cameras)
			if err != nil {
				t.Fatal(err)
			}
			d.powerOn()
			show("next start", laps(d, cameras, 4, nil))
			if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Fatal(err)
			}
			now, err := prove(d, cameras)
			if err == nil {
				err = now.after(before)
			}
			if err != nil {
				t.Error(err)
			}
			for name, st := range now.streams {
				if len(st.Frames) == frames(before.streams[name]) {
					t.Errorf("%s: nothing was recorded after the second start", name)
				}
			}
			if len(now.streams) != 4 {
				t.Errorf("%d streams on the disk, want 4", len(now.streams))
			}
		})
	}
}
