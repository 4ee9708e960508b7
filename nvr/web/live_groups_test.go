package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// parts opens live.m4s without an upgrade.
func (r *recorder) parts(headers ...string) *multipart.Reader {
	r.Helper()
	resp := r.open(r.path("main/live.m4s"), headers...)
	typ, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/mixed" {
		r.Fatalf("Content-Type %q: %v", resp.Header.Get("Content-Type"), err)
	}
	return multipart.NewReader(resp.Body, params["boundary"])
}

// open sends a GET whose answer goes on.
func (r *recorder) open(path string, headers ...string) *http.Response {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	r.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.server.Client().Do(req)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		r.Fatalf("GET %s: %d %s", path, resp.StatusCode, b)
	}
	return resp
}

func (r *recorder) part(from *multipart.Reader) message {
	r.Helper()
	p, err := from.NextRawPart()
	if err != nil {
		r.Fatalf("live: %v", err)
	}
	m := message{head: p.Header}
	if m.body, err = io.ReadAll(p); err != nil {
		r.Fatalf("live: %v", err)
	}
	return m
}

// Each part has the pictures that view.m4s has of the same time, and comes when the
// next key frame does, or the session ends.
func TestLiveWithoutUpgradeSendsWholeGroups(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25) // key frames are 0, 10 and 20
	from := r.parts()
	cam.send(6) // up to the key frame 30
	for _, want := range []int{20, 30} {
		m := r.part(from)
		frames := 10
		if want == 30 {
			frames = 7
		}
		at := media.Duration(want) * frame
		for name, want := range map[string]string{
			"Content-Type":          `video/mp4; codecs="avc1.4d401e"`,
			"Content-Length":        fmt.Sprint(len(m.body)),
			"X-Media-Time-Range":    fmt.Sprintf("%d-%d", at, at+media.Duration(frames)*frame),
			"X-Prev-Media-Duration": "0",
			"X-Runs":                "1",
			"X-Dropped-Frames":      "",
		} {
			if got := m.head.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for n := range frames {
			if got := (message{body: m.body[:len(m.body)-(frames-1-n)*cam.size]}).frameNo(cam.size); got != want+n {
				t.Errorf("frame %d of the group is %d, want %d", n, got, want+n)
			}
		}
		if want == 20 {
			cam.send(6)
			cam.run.End("the camera closed the connection")
			r.restart() // so that all is in fragments
			same := r.get(r.path("main/view.m4s?s=0.%d-%d", at, at+10*frame))
			size := 10 * cam.size // its runs of samples may be cut where the disk was synced
			if same.status != 200 || !bytes.Equal(same.body[len(same.body)-size:], m.body[len(m.body)-size:]) {
				t.Errorf("view.m4s: %d with other pictures", same.status)
			}
			return
		}
	}
}

func TestLiveWithoutUpgradeEndsAGroupWithTheSession(t *testing.T) {
	r := newRecorder(t, "admin")
	cam := r.camera("main")
	cam.send(7)
	from := r.parts()
	cam.run.End("the camera closed the connection")
	if m := r.part(from); m.frameNo(cam.size) != 6 || m.head.Get("X-Media-Time-Range") != fmt.Sprintf("0-%d", 7*frame) {
		t.Errorf("%v, the last frame is %d", m.head, m.frameNo(cam.size))
	}
	again := r.camera("main")
	again.send(11)
	if m := r.part(from); m.frameNo(again.size) != 9 || m.head.Get("X-Runs") != "2" {
		t.Errorf("%v, the last frame is %d", m.head, m.frameNo(again.size))
	}
	again.run.End("test over")
	r.part(from)
	if a := r.ask("DELETE", r.path(""), ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if m := r.part(from); string(m.body) != "the camera was deleted" || !strings.HasPrefix(m.head.Get("Content-Type"), "text/plain") {
		t.Errorf("%v %s", m.head, m.body)
	}
	if _, err := from.NextRawPart(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestSlowViewerOfGroupsGoesOnWithTheNewest(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	defer cam.run.End("test over")
	cam.size = 512 << 10
	cam.send(1)
	from := r.parts()
	// More than any socket holds, while nobody reads.
	cam.send(110)
	want, told := 0, 0
	for want < 110 {
		m := r.part(from)
		if n := m.head.Get("X-Dropped-Frames"); n != "" {
			var dropped int
			fmt.Sscan(n, &dropped)
			want, told = want+dropped, told+dropped
		}
		want += 10
		if got := m.frameNo(cam.size); got != want-1 {
			t.Fatalf("the last frame of the group is %d, want %d", got, want-1)
		}
	}
	if told == 0 || told%10 != 0 {
		t.Errorf("told of %d frames lost", told)
	}
}

func TestHeadOfLiveVideoEndsAtOnce(t *testing.T) {
	r := newRecorder(t, "view")
	if a := r.ask("HEAD", r.path("main/live.m4s"), ""); a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "multipart/mixed") {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// What live.m4s says of a recording is what lists and view.m4s say of it.
func TestLiveSaysOfARecordingWhatListsSay(t *testing.T) {
	r := newRecorder(t, "view")
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	live := make(map[string]map[string]bool) // what was said of each
	began := time.Now()
	for run := range 3 {
		cam := r.camera("main")
		cam.began = began.Add(time.Duration(run) * 10 * time.Minute)
		for range 25*75 + run { // more than a minute: two or three recordings
			cam.send(1)
			m := v.next()
			_, no, _ := strings.Cut(m.head.Get("X-Recording-Id"), ".")
			if live[no] == nil {
				live[no] = make(map[string]bool)
			}
			live[no][m.head.Get("X-Runs")+" runs, "+m.head.Get("X-Prev-Media-Duration")+" before"] = true
		}
		cam.run.End("test over")
	}
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	if len(list.Recordings) != 3 {
		t.Fatalf("%d rows, want one for each run", len(list.Recordings))
	}
	for i, row := range list.Recordings {
		if row.EndID == nil || row.RunStartID != row.StartID {
			t.Fatalf("run %d: %+v", i, row)
		}
		for no := row.StartID; no <= *row.EndID; no++ {
			a := r.get(r.path("main/view.m4s?s=%d", no))
			said := a.header.Get("X-Runs") + " runs, " + a.header.Get("X-Prev-Media-Duration") + " before"
			if got := live[fmt.Sprint(no)]; len(got) != 1 || !got[said] || a.header.Get("X-Runs") != fmt.Sprint(i+1) {
				t.Errorf("recording %d of run %d: live says %v, view.m4s %s", no, i+1, got, said)
			}
		}
	}
}

// However many watch, each message is made once, and all get all of it.
func TestLiveMessagesAreMadeOnceForAllViewers(t *testing.T) {
	const viewers, frames = 50, 100
	r := newRecorder(t, "view")
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	r.server.Config.Handler = s.handler()
	cam := r.camera("main")
	cam.send(1)
	next := make([]chan int, viewers)
	var all sync.WaitGroup
	for i := range viewers {
		next[i] = make(chan int, frames)
		v, _, err := r.watch(r.path("main/live.m4s"))
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for n := range frames {
				if got := v.next().frameNo(cam.size); got != n {
					t.Errorf("frame %d, want %d", got, n)
				}
				next[i] <- n
			}
		})
	}
	for n := range frames { // none is so slow that it loses some
		for i := range viewers {
			<-next[i]
		}
		if n+1 < frames {
			cam.send(1)
		}
	}
	all.Wait()
	if got := s.encoded.Load(); got != frames {
		t.Errorf("%d viewers of %d frames: %d messages were made", viewers, frames, got)
	}
	cam.run.End("test over")
	if _, _, kept := r.recorded("main"); kept != frames {
		t.Errorf("%d of %d frames were recorded", kept, frames)
	}
}

func TestLiveGroupsAreMadeOnceForAllViewers(t *testing.T) {
	r := newRecorder(t, "view")
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	r.server.Config.Handler = s.handler()
	cam := r.camera("main")
	cam.send(7)
	from := []*multipart.Reader{r.parts(), r.parts(), r.parts()}
	cam.send(4)
	for _, f := range from {
		if got := r.part(f).frameNo(cam.size); got != 9 {
			t.Errorf("a group ends with frame %d", got)
		}
	}
	cam.run.End("test over")
	for _, f := range from {
		r.part(f)
	}
	if got := s.encoded.Load(); got != 2 {
		t.Errorf("3 viewers of 2 groups: %d messages were made", got)
	}
}

// A camera that changes its picture is followed: the key frame says what decodes it
// from here.
func TestCodecChangeIsAnnouncedLive(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(10)
	defer func() { cam.run.End("test over") }()
	v, _, err := r.watch(r.path("main/live.m4s"))
	if err != nil {
		t.Fatal(err)
	}
	before := v.next()
	for range 9 {
		v.next()
	}
	cam.entry = videoEntry(1280, 720)
	cam.entry.Codec = "avc1.640028"
	cam.send(1)
	after := v.next()
	if got := after.head.Get("Content-Type"); after.frameNo(cam.size) != 10 || got != `video/mp4; codecs="avc1.640028"` {
		t.Errorf("frame %d is %s", after.frameNo(cam.size), got)
	}
	id := after.head.Get("X-Video-Sample-Entry-Id")
	if id == before.head.Get("X-Video-Sample-Entry-Id") {
		t.Errorf("sample entry %s, as before", id)
	}
	if a := r.get("/api/init/" + id + ".mp4"); a.status != 200 || a.header.Get("Content-Type") != after.head.Get("Content-Type") {
		t.Errorf("init segment: %d %v", a.status, a.header)
	}
}

// BenchmarkLive sends pictures of a 4 Mb/s camera to one viewer and to fifty of one
// stream, by turns, over loopback: how often a message is made for each picture, and
// how long after it came in each message is out. The viewers are in the same process,
// which takes its share of the processors.
func BenchmarkLive(b *testing.B) {
	const size = 20_000
	r := newRecorder(b, "view")
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	type crowd struct {
		typ    string
		n      int
		cam    *feed
		out    chan time.Time // a message is
		made   int64
		took   []time.Duration
		cpu    time.Duration
		frames int64
	}
	crowds := []*crowd{{typ: "main", n: 1}, {typ: "sub", n: 50}}
	var all sync.WaitGroup
	for _, c := range crowds {
		c.cam, c.out = r.camera(c.typ), make(chan time.Time, c.n)
		c.cam.size = size
		server := httptest.NewUnstartedServer(s.handler())
		server.Listener = &stamping{server.Listener, size / 2, c.out}
		server.Start()
		defer server.Close()
		for range c.n {
			conn, _, err := websocket.Dial(b.Context(), server.URL+r.path("%s/live.m4s", c.typ), nil)
			if err != nil {
				b.Fatal(err)
			}
			all.Go(func() {
				for {
					if _, _, err := conn.Read(context.Background()); err != nil {
						return
					}
				}
			})
			defer conn.CloseNow()
		}
	}
	for b.Loop() {
		for _, c := range crowds {
			made, cpu, at := s.encoded.Load(), cpuTime(b), time.Now()
			c.cam.send(1)
			for range c.n {
				c.took = append(c.took, (<-c.out).Sub(at))
			}
			c.made += s.encoded.Load() - made
			c.cpu += cpuTime(b) - cpu
			c.frames++
		}
	}
	for _, c := range crowds {
		slices.Sort(c.took)
		c.cam.run.End("test over")
		b.ReportMetric(float64(c.made)/float64(c.frames), fmt.Sprintf("made/picture-%d", c.n))
		b.ReportMetric(float64(c.cpu.Microseconds())/float64(c.frames), fmt.Sprintf("cpu-us/picture-%d", c.n))
		b.ReportMetric(c.took[len(c.took)*99/100].Seconds()*1e3, fmt.Sprintf("p99-ms-%d", c.n))
		if _, _, kept := r.recorded(c.typ); kept != c.frames {
			b.Errorf("%d of %d pictures were recorded", kept, c.frames)
		}
	}
}

// stamping is a listener whose connections say when they have written a piece of
// some size.
type stamping struct {
	net.Listener
	size int
	out  chan<- time.Time
}

func (l *stamping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &stamped{c, l}, err
}

type stamped struct {
	net.Conn
	of *stamping
}

func (c *stamped) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n >= c.of.size {
		c.of.out <- time.Now()
	}
	return n, err
}

// BenchmarkLiveMessage is what one viewer's encoding of a picture costs.
func BenchmarkLiveMessage(b *testing.B) {
	l := store.Live{Unit: media.AccessUnit{Key: true, Data: payload(1, 20_000), Entry: videoEntry(640, 360)}}
	s := new(server)
	b.ReportAllocs()
	for b.Loop() {
		s.encodeLive(&l)
	}
}
