package hil

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"holdfast/test/hil/nbd"
)

// film fetches a recording of a camera's main stream as a file. With an error come
// the bytes that were sent before it.
func (d *device) film(uuid string, id int) ([]byte, error) {
	res, err := d.client.Get(fmt.Sprintf("http://%s/api/cameras/%s/main/view.mp4?s=%d", d.Address(guestPort), uuid, id))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return nil, cmp.Or(err, fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(b)))
	}
	return b, err
}

// oldest is the first recording of a camera's main stream.
func (d *device) oldest(camera string) (uuid string, id int) {
	d.t.Helper()
	top, err := d.top()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range top.Cameras {
		if c.ShortName == camera {
			uuid = c.UUID
		}
	}
	var answer struct {
		Recordings []struct{ StartID int }
	}
	if err := d.do("GET", "/api/cameras/"+uuid+"/main/recordings", nil, &answer); err != nil {
		d.t.Fatal(err)
	}
	for _, r := range answer.Recordings {
		if id == 0 || r.StartID < id {
			id = r.StartID
		}
	}
	return uuid, id
}

// A disk that does not give back the footage on it costs the answers that need
// it, and the log says so: not one byte of another kind is sent, recording goes
// on, and what was refused is there when the disk reads again.
func TestFootageThatIsNotReadCostsItsAnswerOnly(t *testing.T) {
	f := newFaulty(t)
	uuid, id := f.oldest(onMedia)
	// Nothing of it is in memory then, but what is written to: a recorder that
	// cannot append to a page is another story.
	from := f.Console().here()
	f.order("drop")
	f.say(from, "holdfast: memory dropped: <nil>", 20*time.Second)
	f.goesOn(outage, onMedia, onPerm)
	drive := f.vm.second.drive
	f.breaks(func() {
		drive.Break(nbd.Fault{Ops: []nbd.Op{nbd.Read}, From: f.vm.second.footage, Err: syscall.EIO})
	})
	got, err := f.film(uuid, id)
	if err == nil {
		t.Errorf("%d bytes are sent, and no error (%d reads failed)", len(got), drive.Stats().Faulty)
	}
	note(t, lanes[0].name, t.Name(), "sent", "%d bytes, %.100v", len(got), err)
	f.say(f.from, "send sample file: ", 10*time.Second)
	f.say(f.from, "input/output error", 10*time.Second)
	f.goesOn(outage, onMedia, onPerm)
	f.mends(10*time.Second, drive.Heal)
	whole, err := f.film(uuid, id)
	if err != nil || len(whole) < 100_000 || len(got) >= len(whole) {
		t.Errorf("after it: %d bytes, %v", len(whole), err)
	}
	if !bytes.HasPrefix(whole, got) {
		t.Errorf("the %d bytes that were sent are not those of the recording", len(got))
	}
	f.recovers(outage)
	f.stayed()
	f.settles(allowed{})
}
