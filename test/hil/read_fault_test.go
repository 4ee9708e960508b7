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

// A disk that does not give back what is on it, footage or the database, costs
// the answers that need it, which say so: not one byte of another kind is sent,
// recording goes on, and what was refused is there when the disk reads again.
func TestReadThatFailsCostsItsAnswerOnly(t *testing.T) {
	f := newFaulty(t)
	// All of the database is read from its file, and none of it from the log, once
	// a commit is taken over at once.
	if err := f.do("POST", "/lab/pages", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.committed(f.Console().here(), "added", started); err != nil {
		t.Fatal(err)
	}
	database, err := f.vm.pieces(databaseFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		camera string // whose footage nobody has asked for, so that nothing of it is in memory
		says   string // in the log
		drive  *nbd.Disk
		pieces []region
	}{
		{"footage", onMedia, "input/output error", f.vm.second.drive, []region{{f.vm.second.footage, mediaSize - f.vm.second.footage}}},
		{"database", onPerm, "malformed", f.vm.drive, database},
	} {
		uuid, id := f.oldest(c.camera)
		var faults []nbd.Fault
		for _, p := range c.pieces {
			faults = append(faults, nbd.Fault{Ops: []nbd.Op{nbd.Read}, From: p.start, To: p.start + p.size, Err: syscall.EIO})
		}
		var got []byte
		var err error
		for range 4 { // a flush may read the pages first, and then they are in memory
			// Nothing of it is in memory then, but what is written to: a recorder that
			// cannot append to a page is another story.
			from := f.Console().here()
			f.order("drop")
			f.say(from, "holdfast: memory dropped: <nil>", 20*time.Second)
			f.goesOn(outage, onMedia, onPerm)
			f.breaks(func() { c.drive.Break(faults...) })
			if got, err = f.film(uuid, id); err != nil || c.drive.Stats().Faulty > 0 {
				break
			}
			c.drive.Heal()
		}
		if err == nil {
			t.Errorf("%s: %d bytes are sent, and no error (%d reads failed)", c.name, len(got), c.drive.Stats().Faulty)
		}
		note(t, lanes[0].name, t.Name(), c.name, "%d bytes, %.100v", len(got), err)
		l, _, err := f.Console().wait(f.from, c.says, 10*time.Second)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		t.Logf("%s: the log says %.300s", c.name, l.text)
		f.goesOn(outage, onMedia, onPerm)
		f.mends(10*time.Second, func() {
			if c.drive.Stats().Faulty == 0 {
				t.Errorf("%s: nobody read there", c.name)
			}
			c.drive.Heal()
		})
		whole, err := f.film(uuid, id)
		if err != nil || len(whole) < 100_000 || len(got) >= len(whole) {
			t.Errorf("%s, after it: %d bytes, %v", c.name, len(whole), err)
		}
		if !bytes.HasPrefix(whole, got) {
			t.Errorf("%s: the %d bytes that were sent are not those of the recording", c.name, len(got))
		}
		f.recovers(outage)
		f.stayed()
	}
	f.settles(allowed{})
}
