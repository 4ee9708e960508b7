package web

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// scrape returns the samples of /metrics by name and labels.
func (r *recorder) scrape() (map[string]float64, []byte) {
	r.Helper()
	a := r.get("/metrics")
	if a.status != 200 {
		r.Fatalf("%d %s", a.status, a.body)
	}
	samples := make(map[string]float64)
	for line := range strings.Lines(string(a.body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			r.Fatalf("sample %q: %v", line, err)
		}
		samples[line[:i]] = v
	}
	return samples, a.body
}

func TestMetricsAreWhatTheStoreSays(t *testing.T) {
	r := newRecorder(t, "view")
	r.stream("main").SetState(store.Recording, "", nil)
	cam := r.camera("main")
	cam.send(26)
	at := 0
	uuid, err := r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "shed", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.1/", Record: true, RetainBytes: 1 << 30, FlushIfSec: &at}}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := r.store.Camera(uuid)
	short := &feed{TB: t, run: c.Stream("main").Begin(nil), size: 100, entry: videoEntry(640, 360), began: time.Now()}
	short.send(2)
	short.run.End("test over")
	// When all is durable and committed, it stays as it is.
	got, body := r.scrape()
	for deadline := time.Now().Add(2 * time.Minute); r.stream("main").Info().Unsynced > 0 || r.store.Flushes().Committed == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing becomes durable")
		}
		got, body = r.scrape()
	}
	got, body = r.scrape()
	in := r.stream("main").Info()
	if in.Frames != 25 || in.Payload != 25*100 || in.Watermark == 0 || in.Unflushed != 1 {
		t.Errorf("the store says %+v", in)
	}
	flushes := r.store.Flushes()
	dirs := r.store.Dirs()
	if len(dirs) != 1 || dirs[0].Total == 0 || flushes.Committed == 0 {
		t.Fatalf("the store says %+v, %+v", dirs, flushes)
	}
	main := `{camera="Küche 1",stream="main"}`
	dir := fmt.Sprintf("{dir=%q}", dirs[0].Path)
	for name, want := range map[string]float64{
		"holdfast_stream_recording" + main:                            1,
		`holdfast_stream_recording{camera="Küche 1",stream="sub"}`:    0,
		"holdfast_stream_frames_total" + main:                         float64(in.Frames),
		`holdfast_stream_frames_total{camera="Küche 1",stream="sub"}`: 0,
		"holdfast_stream_bytes_total" + main:                          float64(in.Payload),
		"holdfast_stream_watermark_timestamp_seconds" + main:          float64(in.Watermark) / float64(media.Second),
		"holdfast_stream_ring_bytes" + main:                           0,
		"holdfast_stream_unflushed_recordings" + main:                 1,
		"holdfast_directory_garbage_rows" + dir:                       float64(dirs[0].Garbage),
		"holdfast_directory_size_bytes" + dir:                         float64(dirs[0].Total),
		"holdfast_directory_garbage_alarm" + dir:                      0,
		"holdfast_directory_error" + dir:                              0,
		"holdfast_flush_duration_seconds_count":                       float64(flushes.Committed),
		"holdfast_flush_duration_seconds_sum":                         flushes.Took.Seconds(),
		`holdfast_flush_duration_seconds_bucket{le="30"}`:             float64(flushes.Within[30*time.Second]),
		"holdfast_flushes_failed_total":                               0,
	} {
		if v, ok := got[name]; !ok || v-want > 1e-3 || want-v > 1e-3 {
			t.Errorf("%s is %v (%v), the store says %v", name, v, ok, want)
		}
	}
	for _, cause := range store.Causes() {
		name := fmt.Sprintf(`holdfast_stream_gap_seconds_total{camera="Küche 1",cause=%q,stream="main"}`, cause)
		if v, ok := got[name]; !ok || v != in.GapTime[cause].Std().Seconds() {
			t.Errorf("%s is %v (%v), the store says %v", name, v, ok, in.GapTime[cause])
		}
	}
	for _, name := range []string{"holdfast_directory_free_bytes" + dir, "holdfast_stream_watermark_age_seconds" + main,
		"go_goroutines", "process_resident_memory_bytes"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s", name)
		}
	}
	if _, ok := got[`holdfast_stream_watermark_age_seconds{camera="Küche 1",stream="sub"}`]; ok {
		t.Error("a stream that never recorded has a watermark")
	}
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
	cam.run.End("test over")
}

// Names of cameras are for those who may see cameras.
func TestMetricsNameNoCameraToStrangers(t *testing.T) {
	r := newRecorder(t, "")
	got, body := r.scrape()
	if strings.Contains(string(body), "Küche") || strings.Contains(string(body), "holdfast_stream_") {
		t.Errorf("%s", body)
	}
	if _, ok := got["holdfast_flush_duration_seconds_count"]; !ok {
		t.Errorf("no flushes in %s", body)
	}
}
