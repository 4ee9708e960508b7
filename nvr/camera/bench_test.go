package camera

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/pion/rtp"

	"holdfast/nvr/media"
)

// wire is one second of 1080p30 at 4 Mb/s as it stands on the wire: RTP in
// interleaved frames, a key picture of 60 kB and 29 others.
type wire struct {
	bytes   []byte
	packets []int // where each RTP header begins
}

// Of a camera with 1920x1080 that does not reorder pictures.
const (
	benchSPS = "Z0LAKNkAeAIn5YQAAAMABAAAAwDwPGDJIA=="
	benchPPS = "aOvjyyLA"
)

func newWire() *wire {
	w := &wire{}
	r := rand.New(rand.NewPCG(1, 2))
	seq := uint16(0)
	packet := func(ts uint32, marker bool, payload ...byte) {
		h := rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: ts, SSRC: 7, Marker: marker}
		seq++
		b, err := (&rtp.Packet{Header: h, Payload: payload}).Marshal()
		if err != nil {
			panic(err)
		}
		w.bytes = append(w.bytes, '$', 0, byte(len(b)>>8), byte(len(b)))
		w.packets = append(w.packets, len(w.bytes))
		w.bytes = append(w.bytes, b...)
	}
	sps, _ := base64.StdEncoding.DecodeString(benchSPS)
	pps, _ := base64.StdEncoding.DecodeString(benchPPS)
	for i := range 30 {
		ts := uint32(i * 3000)
		head, size := byte(0x41), 15200
		if i == 0 {
			packet(ts, false, sps...)
			packet(ts, false, pps...)
			head, size = 0x65, 60000
		}
		for at := 0; at < size; at += 1400 {
			p := make([]byte, min(1400, size-at)+2)
			for j := range p {
				p[j] = byte(1 + r.IntN(255))
			}
			p[0], p[1] = head&0xe0|28, head&0x1f
			if at == 0 {
				p[1] |= 0x80
				p[2] = 0x9a
				if head == 0x65 {
					p[2] = 0x88
				}
			}
			last := at+1400 >= size
			if last {
				p[1] |= 0x40
			}
			packet(ts, last, p...)
		}
	}
	return w
}

// next moves the second by one.
func (w *wire) next() {
	n := uint16(len(w.packets))
	for _, at := range w.packets {
		h := w.bytes[at:]
		binary.BigEndian.PutUint16(h[2:], binary.BigEndian.Uint16(h[2:])+n)
		binary.BigEndian.PutUint32(h[4:], binary.BigEndian.Uint32(h[4:])+90000)
	}
}

// canned is the connection of a camera that answers whatever is asked and then
// sends seconds of video as fast as they are read.
type canned struct {
	wire    *wire
	seconds int
	sdp     string            // tracks; empty: H.264
	answer  map[string]string // status lines for requests that are refused, by method or "SETUP track2"

	mu      sync.Mutex
	more    *sync.Cond
	answers bytes.Buffer
	playing bool
	closed  bool
	at      int
}

const h264Track = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"

func newCanned(seconds int) *canned {
	c := &canned{wire: newWire(), seconds: seconds}
	c.more = sync.NewCond(&c.mu)
	return c
}

func (c *canned) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := string(b)
	method, _, _ := strings.Cut(req, " ")
	_, seq, _ := strings.Cut(req, "CSeq: ")
	seq, _, _ = strings.Cut(seq, "\r\n")
	extra, body := "", ""
	for what, status := range c.answer {
		m, track, _ := strings.Cut(what, " ")
		if m == method && strings.Contains(req, track) {
			fmt.Fprintf(&c.answers, "RTSP/1.0 %s\r\nCSeq: %s\r\n\r\n", status, seq)
			c.more.Broadcast()
			return len(b), nil
		}
	}
	switch method {
	case "DESCRIBE":
		body = c.sdp
		if body == "" {
			body = h264Track
		}
		body = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=x\r\nt=0 0\r\n" + body
		extra = fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n", len(body))
	case "SETUP":
		_, channels, _ := strings.Cut(req, "interleaved=")
		channels, _, _ = strings.Cut(channels, "\r\n")
		extra = "Transport: RTP/AVP/TCP;unicast;interleaved=" + channels + "\r\nSession: 1\r\n"
	}
	fmt.Fprintf(&c.answers, "RTSP/1.0 200 OK\r\nCSeq: %s\r\n%s\r\n%s", seq, extra, body)
	c.playing = c.playing || method == "PLAY"
	c.more.Broadcast()
	return len(b), nil
}

func (c *canned) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.answers.Len() > 0:
			return c.answers.Read(b)
		case c.playing && c.at == len(c.wire.bytes):
			c.at = 0
			c.wire.next()
			c.seconds--
			continue
		case c.playing && c.seconds == 0:
			return 0, io.EOF
		case c.playing:
			n := copy(b, c.wire.bytes[c.at:])
			c.at += n
			return n, nil
		}
		c.more.Wait()
	}
}

func (c *canned) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.more.Broadcast()
	return nil
}
func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkSession is one second of video an operation, through the whole
// session but without a kernel.
func BenchmarkSession(b *testing.B) {
	c := newCanned(b.N)
	b.SetBytes(int64(len(c.wire.bytes)))
	b.ReportAllocs()
	n := 0
	err := Play(context.Background(), Config{
		URL:         "rtsp://10.0.0.7/main",
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}, Handler{AccessUnit: func(media.AccessUnit) error { n++; return nil }})
	if kindOf(err) != Closed || n != 30*b.N {
		b.Fatalf("%d access units of %d, %v", n, 30*b.N, err)
	}
}

// BenchmarkLibrarySession is the same with the library's depacketizer, doing
// the least that gives length-prefixed access units with times.
func BenchmarkLibrarySession(b *testing.B) {
	c := newCanned(b.N)
	b.SetBytes(int64(len(c.wire.bytes)))
	b.ReportAllocs()
	n, err := libraryPlay(c)
	if !errors.Is(err, io.EOF) || n != 30*b.N {
		b.Fatalf("%d access units of %d, %v", n, 30*b.N, err)
	}
}

func libraryPlay(c net.Conn) (int, error) {
	u, err := base.ParseURL("rtsp://10.0.0.7/main")
	if err != nil {
		return 0, err
	}
	tcp := gortsplib.ProtocolTCP
	client := &gortsplib.Client{
		Scheme: u.Scheme, Host: u.Host, Protocol: &tcp,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	if err := client.Start(); err != nil {
		return 0, err
	}
	defer client.Close()
	desc, _, err := client.Describe(u)
	if err != nil {
		return 0, err
	}
	var f *format.H264
	m := desc.FindFormat(&f)
	dec, err := f.CreateDecoder()
	if err != nil {
		return 0, err
	}
	if _, err := client.Setup(desc.BaseURL, m, 0, 0); err != nil {
		return 0, err
	}
	n := 0
	var keep media.AccessUnit
	client.OnPacketRTP(m, f, func(p *rtp.Packet) {
		pts, ok := client.PacketPTS(m, p)
		nals, err := dec.Decode(p)
		if err != nil || !ok {
			return
		}
		size, vcl := 0, false
		for _, nal := range nals {
			size += 4 + len(nal)
			vcl = vcl || nal[0]&0x1f <= 5
		}
		if !vcl {
			return
		}
		data := make([]byte, 0, size)
		for _, nal := range nals {
			if t := nal[0] & 0x1f; t == 7 || t == 8 {
				continue
			}
			data = binary.BigEndian.AppendUint32(data, uint32(len(nal)))
			data = append(data, nal...)
		}
		keep = media.AccessUnit{DTS: pts, PTS: pts, Key: mch264.IsRandomAccess(nals), Data: data, Received: time.Now()}
		n++
	})
	if _, err := client.Play(nil); err != nil {
		return 0, err
	}
	err = client.Wait()
	_ = keep
	return n, err
}

// BenchmarkReadOnly is the part of the library that both share: reading
// packets and forgetting them.
func BenchmarkReadOnly(b *testing.B) {
	c := newCanned(b.N)
	b.SetBytes(int64(len(c.wire.bytes)))
	b.ReportAllocs()
	u, _ := base.ParseURL("rtsp://10.0.0.7/main")
	tcp := gortsplib.ProtocolTCP
	client := &gortsplib.Client{
		Scheme: u.Scheme, Host: u.Host, Protocol: &tcp,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	if err := client.Start(); err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	desc, _, err := client.Describe(u)
	if err != nil {
		b.Fatal(err)
	}
	if err := client.SetupAll(desc.BaseURL, desc.Medias); err != nil {
		b.Fatal(err)
	}
	if _, err := client.Play(nil); err != nil {
		b.Fatal(err)
	}
	client.Wait()
}

// BenchmarkAssemble is the same second through the video track alone.
func BenchmarkAssemble(b *testing.B) {
	w := newWire()
	packets := make([]rtp.Packet, len(w.packets))
	b.SetBytes(int64(len(w.bytes)))
	b.ReportAllocs()
	n := 0
	v := newTrack(h264, func(media.AccessUnit) error { n++; return nil })
	for range b.N {
		for i, at := range w.packets {
			end := at + int(binary.BigEndian.Uint16(w.bytes[at-2:]))
			if err := packets[i].Unmarshal(w.bytes[at:end]); err != nil {
				b.Fatal(err)
			}
			v.packet(&packets[i])
		}
		w.next()
	}
	if n < 30*b.N-30 {
		b.Fatalf("%d units: %v", n, v.session.cause)
	}
}

// newTrack is a video track without a connection.
func newTrack(c codec, take func(media.AccessUnit) error) *videoTrack {
	s := newSession(&address{}, Config{}, Handler{AccessUnit: take})
	s.video.init(c)
	return &s.video
}
