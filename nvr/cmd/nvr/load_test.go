package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/store"
)

var (
	loadTime    = flag.Duration("load", 5*time.Second, "how long TestRecordingGoesOnUnderLoad signs in and reads slowly")
	loadLogins  = flag.Int("logins", 300, "tries to sign in that it makes a second")
	loadReaders = flag.Int("readers", 60, "slow readers that it has at a time")
	loadSeed    = flag.Uint64("load-seed", 0, "what chooses its requests and those of TestMalformedRequestsDoNoHarm; 0: by chance")
)

// seeded returns a source of chance and says how to have it again.
func seeded(t *testing.T) *rand.Rand {
	seed := *loadSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-load-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// yard is a recorder with an owner that records emulated cameras and has a
// proxy before it, while others do to it what they can.
type yard struct {
	*testing.T
	*nvr
	cams  *cameratest.Server
	data  string
	url   string
	token string // of the owner
	owner string // the cookie of the same
	uuid  string // of the first camera

	stalls *stalls // of the machine
}

const yardPassword = "correct horse"

func newYard(t *testing.T, n int) *yard {
	t.Helper()
	flush := 2
	cams, config := cameras(t, n, "", func(c *store.StreamConfig) { c.FlushIfSec = &flush })
	y := &yard{T: t, cams: cams, data: t.TempDir(), stalls: watchStalls(t, t.TempDir())}
	if out, code := nvrCommand(t, "config", "import", config, "-data", y.data); code != 0 {
		t.Fatal(out)
	}
	y.nvr = start(t, "run", "-data", y.data, "-http", "127.0.0.1:0", "-trust-proxy", "127.0.0.1")
	y.url = y.address()
	body, _ := json.Marshal(map[string]string{"code": y.code(), "username": "owner", "password": yardPassword})
	status, text, cookie := y.ask("POST", "/api/claim", string(body))
	y.owner = cookie
	if status != 204 {
		t.Fatalf("claim: %d %s", status, text)
	}
	_, text, _ = y.ask("POST", "/api/users/1/tokens", `{"name":"test","scope":["live","recorded","export","administer"]}`, "Cookie", cookie)
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(text), &token); err != nil || token.Token == "" {
		t.Fatalf("token: %s", text)
	}
	y.token = token.Token
	for limit := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		_, text, _ := y.ask("GET", "/api/", "", "Authorization", "Bearer "+y.token)
		if strings.Count(text, `"phase":"recording"`) == 2*n {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("no recording: %s", text)
		}
	}
	var top struct{ Cameras []struct{ UUID string } }
	_, text, _ = y.ask("GET", "/api/", "", "Authorization", "Bearer "+y.token)
	if err := json.Unmarshal([]byte(text), &top); err != nil || len(top.Cameras) != n {
		t.Fatalf("cameras: %s", text)
	}
	y.uuid = top.Cameras[0].UUID
	return y
}

// try sends a request; header is pairs of name and value.
func (y *yard) try(c *http.Client, method, path, body string, header ...string) (status int, text, cookie string, err error) {
	r, err := http.NewRequest(method, y.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	set, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	return resp.StatusCode, string(b), set, err
}

// ask is try for requests that must have an answer.
func (y *yard) ask(method, path, body string, header ...string) (status int, text, cookie string) {
	y.Helper()
	status, text, cookie, err := y.try(http.DefaultClient, method, path, body, header...)
	if err != nil {
		y.Fatalf("%s %s: %v", method, path, err)
	}
	return status, text, cookie
}

// metrics reads what the recorder says of itself.
func (y *yard) metrics() map[string]float64 {
	y.Helper()
	status, text, _ := y.ask("GET", "/metrics", "", "Authorization", "Bearer "+y.token)
	if status != 200 {
		y.Fatalf("metrics: %d %s", status, text)
	}
	m := make(map[string]float64)
	for l := range strings.Lines(text) {
		if i := strings.LastIndexByte(l, ' '); i > 0 && l[0] != '#' {
			m[l[:i]], _ = strconv.ParseFloat(strings.TrimSpace(l[i+1:]), 64)
		}
	}
	return m
}

// whole ends the recorder and proves that it recorded every frame that was sent
// since it began, and that it had no fault to log. It returns how many frames are
// lost, and how many there are.
func (y *yard) whole() (lost, frames int) {
	y.Helper()
	sent, at := make(map[string]uint64), time.Now()
	for _, path := range y.cams.Paths() {
		sent[path] = y.cams.Frame(path)
	}
	y.terminate()
	behind := y.stalls.frames(at)
	streams := recorded(y.T, y.data, y.cams)
	for _, path := range y.cams.Paths() {
		st := streams[strings.Replace(path, "/", " ", 1)]
		if st == nil {
			y.Errorf("%s: nothing is recorded", path)
			continue
		}
		frames += len(st.Frames)
		for _, g := range st.Gaps() {
			y.Errorf("%s: %d frames are lost after frame %d", path, g.Missing, g.After.Frame)
			lost += g.Missing
		}
		if last := st.Frames[len(st.Frames)-1].Frame; last+behind < sent[path] {
			y.Errorf("%s: the last frame is %d, sent were %d; it may be %d behind", path, last, sent[path], behind)
		}
	}
	for l := range strings.Lines(y.logged()) {
		if strings.Contains(l, "level=ERROR") || strings.Contains(l, "panic") {
			y.Errorf("logged: %s", l)
		}
	}
	return lost, frames
}

// tally counts answers by what they are.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[what]++
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s []string
	for _, k := range slices.Sorted(maps.Keys(c.n)) {
		s = append(s, fmt.Sprintf("%s %d", k, c.n[k]))
	}
	return strings.Join(s, ", ")
}

// storm tries to sign in, so many times a second: names that nobody has, wrong
// passwords and right ones, from many addresses through the proxy and from one.
func (y *yard) storm(ctx context.Context, rng *rand.Rand, rate int, guests []string) (tried int, answers *tally) {
	answers = new(tally)
	type login struct{ body, from string }
	logins := make(chan login)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	var work sync.WaitGroup
	for range 100 {
		work.Go(func() {
			for l := range logins {
				status, _, _, err := y.try(client, "POST", "/api/login", l.body, "X-Forwarded-For", l.from)
				if err != nil {
					answers.add("none")
					continue
				}
				answers.add(strconv.Itoa(status))
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for ctx.Err() == nil {
		for tried < int(time.Since(began).Seconds()*float64(rate)) && ctx.Err() == nil {
			from := fmt.Sprintf("198.%d.%d.%d", 18+rng.IntN(2), rng.IntN(256), rng.IntN(256))
			guest := guests[rng.IntN(len(guests))]
			name, password := fmt.Sprintf("name %d", rng.Uint32()), "a wrong password"
			switch n := rng.IntN(10); {
			case n < 2:
				from = "203.0.113.7" // the one
			case n < 5:
				name = guest
			case n < 6:
				name, password = guest, yardPassword
			}
			l := login{fmt.Sprintf(`{"username":%q,"password":%q}`, name, password), from}
			select {
			case logins <- l:
				tried++
			case <-ctx.Done():
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	close(logins)
	work.Wait()
	return tried, answers
}

// dawdle opens a connection, and takes or sends a byte of it every tenth of a
// second until the recorder has enough or ctx ends; then it comes again.
func (y *yard) dawdle(ctx context.Context, i int, cut *atomic.Int64) {
	for ctx.Err() == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(y.url, "http://"))
		if err != nil {
			return // it ends
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		path, header := "", "Host: localhost\r\nAuthorization: Bearer "+y.token+"\r\n"
		switch i % 4 {
		case 0: // longer than what the kernel takes at once
			path = fmt.Sprintf("GET /api/cameras/%s/main/view.mp4?s=0%s", y.uuid, strings.Repeat("&s=0", 40))
		case 1:
			path = fmt.Sprintf("GET /api/cameras/%s/main/live.m4s", y.uuid)
			if i/4%2 == 1 {
				break // by groups, each from another one on
			}
			header += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
		case 2:
			path = []string{"GET /api/?cameraConfigs=true", fmt.Sprintf("GET /api/cameras/%s/main/recordings?split90k=1", y.uuid), "GET /metrics"}[i/4%3]
		case 3:
			path = "POST " + []string{"/api/login", "/api/cameras/"}[i/4%2]
			header += "Content-Type: application/json\r\nContent-Length: 60000\r\n"
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\n%s\r\n", path, header)
		b := make([]byte, 1)
		tick := time.NewTicker(100 * time.Millisecond)
		for err == nil && ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			if i%4 == 3 {
				_, err = c.Write([]byte("{"))
			} else {
				_, err = c.Read(b)
			}
		}
		tick.Stop()
		stop()
		c.Close()
		if ctx.Err() == nil {
			cut.Add(1)
		}
	}
}

// signsIn signs in as a user who has nothing to do with the storm, as a person
// would: again after a second when refused. It returns how often and for how
// long it took.
func (y *yard) signsIn(ctx context.Context, from, name string) (tries int, took time.Duration, err error) {
	began := time.Now()
	last := ""
	for ctx.Err() == nil {
		tries++
		status, text, _, err := y.try(http.DefaultClient, "POST", "/api/login", fmt.Sprintf(`{"username":%q,"password":%q}`, name, yardPassword), "X-Forwarded-For", from)
		if err == nil && status == 204 {
			return tries, time.Since(began), nil
		}
		last = fmt.Sprintf("%d %s %v", status, text, err)
		<-time.After(time.Second)
	}
	return tries, time.Since(began), fmt.Errorf("%s from %s does not get in: %s", name, from, last)
}

// Whatever the network does, recording goes on: tries to sign in without end,
// and readers that hold all they can get, cost no frame, no memory beyond a
// bound, and do not keep out a user from elsewhere.
func TestRecordingGoesOnUnderLoad(t *testing.T) {
	rng := seeded(t)
	y := newYard(t, 2)
	guests := []string{"guest 1", "guest 2", "guest 3", "guest 4"}
	for _, name := range append(guests, "anna") {
		status, text, _ := y.ask("POST", "/api/users/", fmt.Sprintf(`{"user":{"username":%q,"password":%q}}`, name, yardPassword), "Cookie", y.owner)
		if status != 201 {
			t.Fatalf("user %s: %d %s", name, status, text)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), *loadTime)
	defer cancel()
	var work sync.WaitGroup
	var cut atomic.Int64
	for i := range *loadReaders {
		work.Go(func() { y.dawdle(ctx, i, &cut) })
	}
	var tried int
	var answers *tally
	work.Go(func() { tried, answers = y.storm(ctx, rng, *loadLogins, guests) })

	// Each time from another address, so that none is known to be hers.
	patience, enough := context.WithTimeout(t.Context(), time.Minute)
	defer enough()
	var longest time.Duration
	signed, most := 0, 0
	pause := time.NewTicker(2 * time.Second)
	defer pause.Stop()
	for ctx.Err() == nil && signed < 8 {
		select {
		case <-pause.C:
		case <-ctx.Done():
			continue
		}
		n, took, err := y.signsIn(patience, fmt.Sprintf("192.0.2.%d", 1+signed), "anna")
		if err != nil {
			t.Error(err)
			break
		}
		signed, most, longest = signed+1, max(most, n), max(longest, took)
	}
	if signed == 0 || most > 2 {
		t.Errorf("she signed in %d times, at worst by try %d", signed, most)
	}
	<-ctx.Done()
	work.Wait()
	after := y.metrics()
	peak := usageOf(t, y.cmd.Process.Pid).peak
	if peak >= 256<<20 {
		t.Errorf("the recorder took %d MiB", peak>>20)
	}
	if n := after["holdfast_flushes_failed_total"]; n > 0 {
		t.Errorf("%.0f flushes failed", n)
	}
	answers.mu.Lock()
	for status, n := range answers.n {
		if !slices.Contains([]string{"204", "401", "429", "503"}, status) {
			t.Errorf("%d tries were answered with %s", n, status)
		}
	}
	if answers.n["401"] == 0 || answers.n["429"] == 0 {
		t.Errorf("it was no load: %v", answers.n)
	}
	answers.mu.Unlock()
	lost, frames := y.whole()
	t.Logf("%d tries to sign in in %v, %.0f a second; answered: %v", tried, *loadTime, float64(tried)/loadTime.Seconds(), answers)
	t.Logf("a user from elsewhere signed in %d times, after %v at worst, by try %d", signed, longest.Round(time.Millisecond), most)
	t.Logf("%d slow readers, %d connections of them were cut off", *loadReaders, cut.Load())
	t.Logf("%d frames recorded, %d lost; the recorder took %d MiB at most", frames, lost, peak>>20)
	var slowest time.Duration
	flushes := regexp.MustCompile(`msg=flushed .* took=(\S+)`).FindAllStringSubmatch(y.logged(), -1)
	for _, m := range flushes {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Error(err)
		}
		slowest = max(slowest, d)
	}
	if len(flushes) == 0 {
		t.Error("there was no flush")
	}
	t.Logf("%d flushes, the slowest took %v", len(flushes), slowest)
}
