package hil

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
)

// device speaks to the recorder on a bench, as a browser would.
type device struct {
	bench
	t      *testing.T
	client http.Client
}

func newDevice(t *testing.T, b bench) *device {
	return &device{bench: b, t: t, client: http.Client{
		Timeout: 30 * time.Second,
		// After a cut nothing of an old connection is of use.
		Transport: &http.Transport{DisableKeepAlives: true},
	}}
}

func (d *device) powerOn() {
	d.t.Helper()
	if err := d.PowerOn(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) do(method, path string, body, answer any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://"+d.Address(guestPort)+path, in)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(b))
	}
	switch to := answer.(type) {
	case nil:
		return nil
	case *[]byte:
		*to = b
		return nil
	}
	return json.Unmarshal(b, answer)
}

// page is the text of a page, whatever the status.
func (d *device) page(path string) (string, error) {
	res, err := d.client.Get("http://" + d.Address(guestPort) + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// health is what the lab reads of GET /healthz.
type health struct {
	Restored     string
	FilesToAdopt int
	Checks       []struct{ Name, Cause string }
}

// fault is the first thing that is wrong; "" when nothing is.
func (h *health) fault() string {
	for _, c := range h.Checks {
		if c.Cause != "" {
			return c.Name + ": " + c.Cause
		}
	}
	return ""
}

func (d *device) health() (h health, err error) {
	page, err := d.page("/healthz")
	if err == nil {
		err = json.Unmarshal([]byte(page), &h)
	}
	return h, err
}

// on is when the power came.
func (d *device) on() time.Time { return time.Now().Add(-d.Since()) }

// top is what the lab reads of GET /api/.
type top struct {
	Now90k  int64 `json:"now90k"`
	Cameras []struct {
		UUID      string `json:"uuid"`
		ShortName string `json:"shortName"`
		Streams   map[string]struct {
			Recordings   int   `json:"recordings"`
			Watermark90k int64 `json:"watermark90k"`
			MinStart90k  int64 `json:"minStartTime90k"`
			State        struct {
				Phase  string `json:"phase"`
				Reason string `json:"reason"`
			} `json:"state"`
			DirError string `json:"dirError"`
		} `json:"streams"`
	} `json:"cameras"`
}

func (d *device) top() (t top, err error) {
	err = d.do("GET", "/api/", nil, &t)
	return t, err
}

// try calls f five times a second until it gives no error, and returns its last
// one when that takes too long.
func try(limit time.Duration, f func() error) error {
	end := time.After(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-end:
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// until tries a thing until it gives no error.
func (d *device) until(what string, limit time.Duration, f func() error) {
	d.t.Helper()
	if err := try(limit, f); err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
}

// say waits until the console says a text for the first time since a place.
func (d *device) say(from int, text string, limit time.Duration) (line, int) {
	d.t.Helper()
	l, at, err := d.Console().wait(from, text, limit)
	if err != nil {
		d.t.Fatal(err)
	}
	return l, at
}

// addCameras configures all cameras of a server, main and sub streams.
func (d *device) addCameras(s *cameratest.Server, cameras int) {
	d.t.Helper()
	d.addCamerasAt(s, cameras, func(int) string { return "" })
}

// addCamerasAt says of each camera which sample directory is its; "" is the
// recorder's own.
func (d *device) addCamerasAt(s *cameratest.Server, cameras int, dir func(camera int) string) {
	d.t.Helper()
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		d.t.Fatal(err)
	}
	type stream struct {
		URL         string `json:"url"`
		Record      bool   `json:"record"`
		RetainBytes int64  `json:"retainBytes"`
		FlushIfSec  int    `json:"flushIfSec"`
		Dir         string `json:"sampleFileDir,omitempty"`
	}
	for c := 1; c <= cameras; c++ {
		streams := map[string]stream{}
		for _, kind := range []string{"main", "sub"} {
			streams[kind] = stream{
				URL:    fmt.Sprintf("rtsp://%s/%d/%s", net.JoinHostPort(d.Here(), port), c, kind),
				Record: true, RetainBytes: 1 << 40, FlushIfSec: 10, Dir: dir(c),
			}
		}
		body := map[string]any{"shortName": fmt.Sprintf("camera %d", c), "streams": streams}
		if err := d.do("POST", "/api/cameras/", body, nil); err != nil {
			d.t.Fatal(err)
		}
	}
}

// recording is nil when every stream records and something of it, newer than
// since, is durable.
func (d *device) recording(since media.Time, streams int) error {
	t, err := d.top()
	if err != nil {
		return err
	}
	n := 0
	for _, c := range t.Cameras {
		for kind, s := range c.Streams {
			if s.State.Phase != "recording" || s.Watermark90k <= int64(since) {
				return fmt.Errorf("%s %s is %s %s, durable up to %v", c.ShortName, kind, s.State.Phase, s.State.Reason, media.Time(s.Watermark90k))
			}
			n++
		}
	}
	if n != streams {
		return fmt.Errorf("%d streams, want %d", n, streams)
	}
	return nil
}

// waitRecording waits until every stream has something durable of this start.
func (d *device) waitRecording(streams int, limit time.Duration) {
	d.t.Helper()
	d.until("record", limit, func() error { return d.recording(0, streams) })
}

// emulate starts cameras on this host for the time of a test.
func emulate(t *testing.T, cfg cameratest.Config) *cameratest.Server {
	t.Helper()
	s, err := cameratest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// playing returns when a viewer of a path first began to get pictures, after a
// time.
func playing(s *cameratest.Server, path string, after time.Time) (time.Time, bool) {
	for _, e := range s.Events() {
		if e.What == cameratest.Playing && e.Path == path && e.Time.After(after) {
			return e.Time, true
		}
	}
	return time.Time{}, false
}
