package cameratest

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"
)

// watcher is a plain client of the RTSP library that keeps all it sees.
type watcher struct {
	client *gortsplib.Client
	done   chan struct{} // closed when the session has ended
	desc   *description.Session

	lost atomic.Uint64 // RTP packets

	mu    sync.Mutex
	video []unit
	audio []audioFrame
	bad   int   // packets the decoder did not like
	err   error // why the session ended
}

// unit is an access unit as it came.
type unit struct {
	data       []byte // NAL units behind 4-byte lengths
	parameters int    // parameter sets among them
	rtp        uint32
	at         time.Time
}

type audioFrame struct {
	data []byte
	rtp  uint32
	at   time.Time
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// tryWatch plays url until the test ends.
func tryWatch(t *testing.T, url string, dial dialFunc, protocol gortsplib.Protocol) (*watcher, error) {
	t.Helper()
	u, err := base.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{done: make(chan struct{})}
	w.client = &gortsplib.Client{
		Scheme: u.Scheme, Host: u.Host, Protocol: &protocol, DialContext: dial,
		ReadTimeout:   time.Hour, // the viewer waits as long as the camera is silent
		OnPacketsLost: func(n uint64) { w.lost.Add(n) },
	}
	if err := w.client.Start(); err != nil {
		return nil, err
	}
	if err := w.play(u); err != nil {
		w.client.Close()
		return nil, err
	}
	go func() {
		err := w.client.Wait()
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		close(w.done)
	}()
	t.Cleanup(w.stop)
	return w, nil
}

func watch(t *testing.T, url string, dial dialFunc) *watcher {
	t.Helper()
	w, err := tryWatch(t, url, dial, gortsplib.ProtocolTCP)
	if err != nil {
		t.Fatalf("play %s: %v", url, err)
	}
	return w
}

func (w *watcher) play(u *base.URL) error {
	desc, _, err := w.client.Describe(u)
	if err != nil {
		return err
	}
	w.desc = desc
	if err := w.client.SetupAll(desc.BaseURL, desc.Medias); err != nil {
		return err
	}
	decode := func(c codec, dec func(*rtp.Packet) ([][]byte, error)) func(*rtp.Packet) {
		return func(pkt *rtp.Packet) {
			nals, err := dec(pkt)
			w.mu.Lock()
			defer w.mu.Unlock()
			if err != nil {
				if pkt.Marker {
					w.bad++
				}
				return
			}
			un := unit{rtp: pkt.Timestamp, at: time.Now()}
			for _, n := range nals {
				if c.kind(n) == nalParameters {
					un.parameters++
				}
				un.data = binary.BigEndian.AppendUint32(un.data, uint32(len(n)))
				un.data = append(un.data, n...)
			}
			w.video = append(w.video, un)
		}
	}
	for _, m := range desc.Medias {
		switch f := m.Formats[0].(type) {
		case *format.H264:
			d, err := f.CreateDecoder()
			if err != nil {
				return err
			}
			w.client.OnPacketRTP(m, f, decode(h264, d.Decode))
		case *format.H265:
			d, err := f.CreateDecoder()
			if err != nil {
				return err
			}
			w.client.OnPacketRTP(m, f, decode(h265, d.Decode))
		case *format.MPEG4Audio:
			d, err := f.CreateDecoder()
			if err != nil {
				return err
			}
			w.client.OnPacketRTP(m, f, func(pkt *rtp.Packet) {
				frames, err := d.Decode(pkt)
				w.mu.Lock()
				defer w.mu.Unlock()
				if err != nil {
					if pkt.Marker {
						w.bad++
					}
					return
				}
				for _, a := range frames {
					w.audio = append(w.audio, audioFrame{data: a, rtp: pkt.Timestamp, at: time.Now()})
				}
			})
		}
	}
	_, err = w.client.Play(nil)
	return err
}

func (w *watcher) stop() {
	w.client.Close()
	<-w.done
}

// ended reports whether the camera, or the network, ended the session.
func (w *watcher) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *watcher) units() []unit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.video[:len(w.video):len(w.video)]
}

func (w *watcher) sounds() []audioFrame {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.audio[:len(w.audio):len(w.audio)]
}

// verified proves every unit against the fixture and returns the marks.
func verified(t *testing.T, f *Fixture, units []unit) []Mark {
	t.Helper()
	marks := make([]Mark, len(units))
	for i, u := range units {
		m, err := f.Verify(nil, u.data)
		if err != nil {
			t.Fatalf("unit %d of %d: %v", i, len(units), err)
		}
		marks[i] = m
	}
	return marks
}

// holes returns how often the frame number did not rise by exactly one.
func holes(marks []Mark) int {
	n := 0
	for i := 1; i < len(marks); i++ {
		if marks[i].Frame != marks[i-1].Frame+1 {
			n++
		}
	}
	return n
}
