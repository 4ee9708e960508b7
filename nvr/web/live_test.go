package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// viewer is a client of live.m4s.
type viewer struct {
	testing.TB
	conn *websocket.Conn
}

func (r *recorder) watch(path string, headers ...string) (*viewer, *http.Response, error) {
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	c, resp, err := websocket.Dial(r.Context(), "ws"+strings.TrimPrefix(r.server.URL, "http")+path, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		return nil, resp, err
	}
	c.SetReadLimit(8 << 20)
	r.Cleanup(func() { c.CloseNow() })
	return &viewer{r.TB, c}, resp, nil
}

// message is what came: a text, or headers and a fragment.
type message struct {
	text map[string]any
	head textproto.MIMEHeader
	body []byte
}

func (v *viewer) next() message {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.Context(), 2*time.Minute)
	defer cancel()
	typ, b, err := v.conn.Read(ctx)
	if err != nil {
		v.Fatalf("live: %v", err)
	}
	var m message
	for _, breach := range thePage(v).checkMessage(typ == websocket.MessageText, b) {
		v.Errorf("live: %s", breach)
	}
	if typ == websocket.MessageText {
		if err := json.Unmarshal(b, &m.text); err != nil {
			v.Fatalf("live: %v in %s", err, b)
		}
		return m
	}
	rd := bufio.NewReader(bytes.NewReader(b))
	if m.head, err = textproto.NewReader(rd).ReadMIMEHeader(); err != nil {
		v.Fatalf("live: headers: %v in %.300q", err, b)
	}
	if m.body, err = io.ReadAll(rd); err != nil {
		v.Fatal(err)
	}
	return m
}

// frameNo is the number of the frame in a message, by its payload.
func (m message) frameNo(size int) int {
	if len(m.body) < size {
		return -1
	}
	n := int(m.body[len(m.body)-size+6])<<8 | int(m.body[len(m.body)-size+7])
	if !bytes.HasSuffix(m.body, payload(n, size)) {
		return -1
	}
	return n
}

func TestLiveBeginsWithTheGroupOfPicturesAtHand(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25) // key frames are 0, 10 and 20
	defer cam.run.End("test over")
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	for want := 20; want < 25; want++ {
		if got := v.next().frameNo(cam.size); got != want {
			t.Fatalf("frame %d, want %d", got, want)
		}
	}
	for want := 25; want < 40; want++ {
		cam.send(1)
		m := v.next()
		if got := m.frameNo(cam.size); got != want {
			t.Fatalf("frame %d, want %d", got, want)
		}
		if want != 39 {
			continue
		}
		var list recordingsJSON
		r.json(r.path("main/recordings"), &list)
		row := list.Recordings[0]
		for name, want := range map[string]string{
			"Content-Type":            `video/mp4; codecs="avc1.4d401e"`,
			"X-Recording-Start":       fmt.Sprint(int64(row.Start)),
			"X-Recording-Id":          fmt.Sprintf("%d.%d", row.OpenID, row.StartID),
			"X-Media-Time-Range":      fmt.Sprintf("%d-%d", 39*frame, 40*frame),
			"X-Prev-Media-Duration":   "0",
			"X-Runs":                  "1",
			"X-Video-Sample-Entry-Id": fmt.Sprint(row.VideoEntryID),
		} {
			if got := m.head.Get(name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if !bytes.HasPrefix(m.body[4:], []byte("moof")) {
			t.Errorf("body begins with %q", m.body[:8])
		}
	}
}

func TestSlowViewerJumpsToAKeyFrameAndIsTold(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.size = 512 << 10
	cam.send(1)
	defer cam.run.End("test over")
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	if got := v.next().frameNo(cam.size); got != 0 {
		t.Fatalf("frame %d, want 0", got)
	}
	// More than any socket holds, while nobody reads.
	cam.send(101)
	seen, told, want := 1, 0, 1
	for want <= 101 {
		m := v.next()
		if m.text != nil {
			if m.text["type"] != "dropped" {
				t.Fatalf("told %v", m.text)
			}
			n := int(m.text["frames"].(float64))
			told += n
			want += n
			if want%10 != 0 {
				t.Errorf("goes on with frame %d, which is no key frame", want)
			}
			continue
		}
		if got := m.frameNo(cam.size); got != want {
			t.Fatalf("frame %d, want %d", got, want)
		}
		seen++
		want++
	}
	if told == 0 || seen+told != 102 {
		t.Errorf("saw %d frames and was told of %d lost, of 102", seen, told)
	}
}

func TestLiveErrorsAreSaidInsideTheSocket(t *testing.T) {
	for _, c := range []struct{ anonymous, path, says string }{
		{"", "main/live.m4s", "-allow-anonymous"},
		{"view", "ext/live.m4s", "no stream"},
		{"view", "main/live.m4s?x=1", "unknown parameter"},
	} {
		r := newRecorder(t, c.anonymous)
		v, _, err := r.watch(r.path("%s", c.path))
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if m := v.next(); m.text["type"] != "error" || !strings.Contains(fmt.Sprint(m.text["message"]), c.says) {
			t.Errorf("%s: told %v, want an error with %q", c.path, m.text, c.says)
		}
		if _, _, err := v.conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("%s: after the error: %v", c.path, err)
		}
	}
}

func TestViewersOfADeletedCameraAreTold(t *testing.T) {
	r := newRecorder(t, "admin")
	cam := r.camera("main")
	cam.send(1)
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	v.next()
	if a := r.ask("DELETE", r.path(""), ""); a.status != 204 {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	if m := v.next(); m.text["message"] != "the camera was deleted" {
		t.Errorf("told %v", m.text)
	}
}

func TestOtherSitesSeeNothingLive(t *testing.T) {
	r := newRecorder(t, "view")
	_, resp, err := r.watch(r.path("main/live.m4s"), "Origin", "http://evil.example")
	if err == nil || resp == nil || resp.StatusCode != 403 {
		t.Errorf("a socket of another site: %v", err)
	}
	if _, _, err := r.watch(r.path("main/live.m4s"), "Origin", r.server.URL); err != nil {
		t.Errorf("a socket of our own page: %v", err)
	}
	if a := r.ask("HEAD", r.path("main/live.m4s"), "", "Upgrade", "websocket", "Connection", "Upgrade"); a.status != 426 {
		t.Errorf("HEAD: %d, want 426", a.status)
	}
}

func TestViewersLeaveWhenTheServerEnds(t *testing.T) {
	r := newRecorder(t, "view")
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	if _, _, err := v.conn.Read(t.Context()); err == nil {
		t.Error("a message after the end")
	}
}

// An idle viewer is pinged, or browsers and routers would give it up.
func TestIdleViewerIsPinged(t *testing.T) {
	r := newRecorder(t, "view")
	st := r.stream("main")
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		pings := make(chan time.Time, 10)
		go func() {
			server, err := websocket.Accept(&hijacked{conn: near}, upgrade(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx = server.CloseRead(ctx)
			f := st.Follow()
			defer f.Close()
			_, err = next(ctx, server, f, func() error { return nil })
			if err == nil || errors.Is(err, errViewer) && ctx.Err() == nil {
				t.Errorf("ended with %v", err)
			}
			server.CloseNow()
		}()
		began := time.Now()
		rd := bufio.NewReader(far)
		if _, err := http.ReadResponse(rd, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			head := make([]byte, 2)
			if _, err := io.ReadFull(rd, head); err != nil {
				t.Fatal(err)
			}
			body := make([]byte, head[1]&0x7f)
			if _, err := io.ReadFull(rd, body); err != nil {
				t.Fatal(err)
			}
			if head[0] != 0x89 {
				t.Fatalf("frame %x, want a ping", head[0])
			}
			pings <- time.Now()
			// The answer, masked with zeros.
			if _, err := far.Write(append([]byte{0x8a, 0x80 | byte(len(body)), 0, 0, 0, 0}, body...)); err != nil {
				t.Fatal(err)
			}
		}
		if first, second := (<-pings).Sub(began), (<-pings).Sub(began); first != pingAfter || second != 2*pingAfter {
			t.Errorf("pings after %v and %v, want every %v", first, second, pingAfter)
		}
		far.Close()
		synctest.Wait()
	})
}

func upgrade() *http.Request {
	r, _ := http.NewRequest("GET", "http://nvr/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	return r
}

// hijacked is a ResponseWriter over a pipe.
type hijacked struct {
	conn   net.Conn
	header http.Header
}

func (h *hijacked) Header() http.Header {
	if h.header == nil {
		h.header = http.Header{}
	}
	return h.header
}

func (h *hijacked) Write(b []byte) (int, error) { return h.conn.Write(b) }

func (h *hijacked) WriteHeader(status int) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %s %s\r\n", strconv.Itoa(status), http.StatusText(status))
	h.header.Write(&b)
	b.WriteString("\r\n")
	h.conn.Write(b.Bytes())
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

func TestPictureOfUnknownLengthGetsANominalOne(t *testing.T) {
	l := store.Live{Unit: media.AccessUnit{Key: true, Data: payload(1, 50), Entry: videoEntry(640, 360)}, Place: store.Place{MediaStart: 100, PrevMedia: 7000, Runs: 3}}
	b := new(server).encodeLive(&l)
	if !bytes.Contains(b, []byte("X-Media-Time-Range: 100-3100\r\nX-Prev-Media-Duration: 7000\r\nX-Runs: 3\r\n")) {
		t.Errorf("%.400q", b)
	}
	if !bytes.Contains(b, []byte("\r\n\r\n\x00\x00")) || !bytes.HasSuffix(b, payload(1, 50)) {
		t.Errorf("%.400q", b)
	}
}
