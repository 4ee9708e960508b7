package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"holdfast/nvr/access"
	"holdfast/nvr/store"
)

// metrics tells a scrape what the store knows, and keeps nothing itself.
type metrics struct {
	store   *store.Store
	streams bool // with those of streams: their labels name cameras
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("holdfast_"+name, help, labels, nil)
}

// What is told of a stream. Labels are names that the configuration bounds.
var (
	streamRecording = desc("stream_recording", "1 while the stream records, 0 while it should and does not.", "camera", "stream")
	streamFrames    = desc("stream_frames_total", "Pictures that came to be recorded since the recorder's start.", "camera", "stream")
	streamBytes     = desc("stream_bytes_total", "Bytes of pictures and sound that came to be recorded since the recorder's start.", "camera", "stream")
	streamWatermark = desc("stream_watermark_timestamp_seconds", "Wall time up to which the stream is durable.", "camera", "stream")
	streamAge       = desc("stream_watermark_age_seconds", "How long ago the newest durable picture came in, by the monotonic clock.", "camera", "stream")
	streamRing      = desc("stream_ring_bytes", "Memory taken by what is not durable yet.", "camera", "stream")
	streamUnflushed = desc("stream_unflushed_recordings", "Recordings that have no row in the database yet.", "camera", "stream")
	streamGaps      = desc("stream_gap_seconds_total", "Time in which the stream should have recorded and did not, committed since the recorder's start.", "camera", "stream", "cause")
)

// What is told of a sample directory.
var (
	dirGarbage = desc("directory_garbage_rows", "Sample files that are to go, or are gone and not yet committed as such.", "dir")
	dirSize    = desc("directory_size_bytes", "Size of the file system; absent while its disk does not answer.", "dir")
	dirFree    = desc("directory_free_bytes", "Room left on the file system; absent while its disk does not answer.", "dir")
	dirAlarm   = desc("directory_garbage_alarm", "1 while garbage of the directory only grows, although it is well.", "dir")
	dirError   = desc("directory_error", "1 while the directory is not used, takes no writes or does not answer.", "dir")
)

// What is told of the database.
var (
	flushTook   = desc("flush_duration_seconds", "How long the flushes took that committed.")
	flushFailed = desc("flushes_failed_total", "Flushes that did not commit; they are tried again.")
)

// metricsHandler answers /metrics.
func metricsHandler(s *store.Store, streams bool) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(metrics{s, streams}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// A file system that does not answer holds up a few requests, not each.
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: answerTime / 2})
}

func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		streamRecording, streamFrames, streamBytes, streamWatermark, streamAge, streamRing, streamUnflushed, streamGaps,
		dirGarbage, dirSize, dirFree, dirError, dirAlarm, flushTook, flushFailed,
	} {
		ch <- d
	}
}

func (m metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	if m.streams {
		for _, c := range m.store.Cameras() {
			for _, st := range c.Streams {
				in := st.Info()
				if in.Record {
					gauge(streamRecording, truth(in.State.Phase == store.Recording), c.Name, in.Type)
				}
				counter(streamFrames, float64(in.Frames), c.Name, in.Type)
				counter(streamBytes, float64(in.Payload), c.Name, in.Type)
				if in.Watermark != 0 {
					gauge(streamWatermark, float64(in.Watermark.Std().UnixMicro())/1e6, c.Name, in.Type)
					gauge(streamAge, in.DurableAge.Seconds(), c.Name, in.Type)
				}
				gauge(streamRing, float64(in.Unsynced), c.Name, in.Type)
				gauge(streamUnflushed, float64(in.Unflushed), c.Name, in.Type)
				for cause, d := range in.GapTime {
					counter(streamGaps, d.Std().Seconds(), c.Name, in.Type, string(cause))
				}
			}
		}
	}
	for _, d := range m.store.Dirs() {
		gauge(dirGarbage, float64(d.Garbage), d.Path)
		gauge(dirError, truth(d.Error != ""), d.Path)
		gauge(dirAlarm, truth(d.Alarm != ""), d.Path)
		if d.Total > 0 {
			gauge(dirSize, float64(d.Total), d.Path)
			gauge(dirFree, float64(d.Free), d.Path)
		}
	}
	f := m.store.Flushes()
	within := make(map[float64]uint64, len(f.Within))
	for d, n := range f.Within {
		within[d.Seconds()] = uint64(n)
	}
	ch <- prometheus.MustNewConstHistogram(flushTook, uint64(f.Committed), f.Took.Seconds(), within)
	counter(flushFailed, float64(f.Failed))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metrics answers everybody, as /healthz does, and tells of streams those who
// may see that there are these cameras, and any other.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) error {
	if s.Access != nil && s.Access.Unclaimed() {
		return s.may(r, access.LookAround, 0)
	}
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	h := s.someMetrics
	if callerOf(r).MayAll(access.LookAround) {
		h = s.allMetrics
	}
	h.ServeHTTP(w, r)
	return nil
}
