package hil

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/test/hil/nbd"
)

// order tells the mutants of the image to do something. They may not live to
// answer; the console tells whether they obeyed.
func (d *device) order(what string) {
	go func() { _ = d.do("POST", "/lab/"+what, nil, nil) }()
}

// shows waits until a page has a text.
func (d *device) shows(path, text string, limit time.Duration) {
	d.t.Helper()
	d.until("show "+text+" at "+path, limit, func() error {
		body, err := d.page(path)
		if err == nil && !strings.Contains(body, text) {
			err = &missing{text, body}
		}
		return err
	})
}

// missing is a page without a text.
type missing struct{ text, body string }

func (m *missing) Error() string { return "no " + m.text + " in:\n" + m.body }

// hanging is a device whose recorder, and whose process 1, hang on command.
func hanging(t *testing.T, cameras int) (*vm, *device, *cameratest.Server) {
	t.Helper()
	hasTools(t, lanes[0])
	s := emulate(t, cameratest.Config{Cameras: cameras})
	v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", hooks...)})
	d := newDevice(t, v)
	d.powerOn()
	d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
	d.addCameras(s, cameras)
	d.waitRecording(2*cameras, 60*time.Second)
	return v, d, s
}

// A recorder that hangs is killed and started again; what it did is kept and
// shown. The machine goes on.
func TestHungRecorderIsStartedAgain(t *testing.T) {
	needs(t, true)
	_, d, s := hanging(t, 1)
	for _, hang := range []struct {
		how   string
		limit time.Duration
	}{
		{"stop", 60 * time.Second},
		// It may be a disk that stalls, which it is given a minute for.
		{"deadlock", 150 * time.Second},
	} {
		how := hang.how
		from, began := d.Console().here(), time.Now()
		d.order(how)
		hangs, at := d.say(from, "holdfast: nvr hangs: silent", hang.limit)
		_, at = d.say(at, "holdfast: nvr ended: silent", 30*time.Second)
		ready, _ := d.say(at, "holdfast: nvr ready", 60*time.Second)
		note(t, lanes[0].name, "recorder: "+how, "noticed", "%5.1f s", hangs.at.Sub(began).Seconds())
		note(t, lanes[0].name, "recorder: "+how, "serves again", "%5.1f s", ready.at.Sub(began).Seconds())
		d.waitRecording(2, 60*time.Second)
		d.shows("/healthz", "silent for 20s", 10*time.Second)
		if l, ok := d.Console().has(from, "Linux version"); ok {
			t.Fatalf("the machine was reset: %s", l.text)
		}
	}
	if _, err := d.PowerCut(nbd.Cut{Kept: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := prove(d, s); err != nil {
		t.Error(err)
	}
	perm := filepath.Join(t.TempDir(), "perm")
	if err := d.Perm(perm); err != nil {
		t.Fatal(err)
	}
	crash, err := os.ReadFile(filepath.Join(perm, "holdfast", "crash"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(crash), "SIGABRT") || !strings.Contains(string(crash), "goroutine ") {
		t.Errorf("the crash that was kept holds no goroutines:\n%.1000s", crash)
	}
}

// A recorder that says it cannot trust the page cache gets it dropped, and
// when that did not help a reboot, whose reason is kept.
func TestPoisonedRecorderGetsAFreshCacheThenAReboot(t *testing.T) {
	needs(t, true)
	_, d, _ := hanging(t, 1)
	from := d.Console().here()
	d.order("poisoned")
	_, at := d.say(from, "holdfast: page cache dropped: done", 30*time.Second)
	_, at = d.say(at, "holdfast: nvr ready", 60*time.Second)
	d.waitRecording(2, 60*time.Second)
	d.order("poisoned")
	_, at = d.say(at, "holdfast: reboot: nvr does not trust the disk", 30*time.Second)
	_, _ = d.say(at, "holdfast: nvr ready", 120*time.Second)
	d.waitRecording(2, 60*time.Second)
	d.shows("/healthz", "nvr does not trust the disk", 10*time.Second)
	note(t, lanes[0].name, "recorder: poisoned twice", "reboot", "reason shown")
}

// When process 1 hangs, the hardware resets the machine. After three resets the
// device stays up and says why, instead of resetting for ever.
func TestHungProcessOneIsResetByHardwareUntilTheBrake(t *testing.T) {
	needs(t, true)
	v, d, _ := hanging(t, 1)
	const resets = 3
	at := 0
	for i := range resets {
		from, began := d.Console().here(), time.Now()
		d.order("unpet")
		_, at = d.say(from, "holdfast: petting stopped", 30*time.Second)
		var l line
		l, at = d.say(at, "Linux version", 90*time.Second)
		note(t, lanes[0].name, "process 1 stops petting", "reset by hardware", "%5.1f s", l.at.Sub(began).Seconds())
		if i == resets-1 {
			break
		}
		_, at = d.say(at, "holdfast: nvr ready", 60*time.Second)
		d.shows("/healthz", "petting stopped", 20*time.Second)
		d.waitRecording(2, 60*time.Second)
	}
	safe, _ := d.say(at, "holdfast: safe mode: ", 60*time.Second)
	d.shows("/healthz", "petting stopped", 30*time.Second)
	d.shows("/", "This device does not record", 10*time.Second)
	// Longer than the watchdog waits: it is petted in safe mode too.
	if l, _, err := d.Console().wait(at, "Linux version", 45*time.Second); err == nil {
		t.Errorf("%v after it reached safe mode the device was reset", l.at.Sub(safe.at))
	}
	note(t, lanes[0].name, "process 1 stops petting", "brake", "safe mode after %d resets, up for 45 s", resets)

	// Who pulls the plug and puts it in again gives it another try.
	if _, err := v.PowerCut(nbd.Cut{Kept: 1}); err != nil {
		t.Fatal(err)
	}
	d.powerOn()
	d.waitRecording(2, 60*time.Second)
}
