package web

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/mp4"
)

// deadlines is a ResponseWriter that notes how often it was given more time.
type deadlines struct {
	httptest.ResponseRecorder
	given int
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	if time.Until(t) > answerTime/2 {
		d.given++
	}
	return nil
}

// A download may take hours as long as it moves: each piece gets its time.
func TestLongAnswersGetTimeForEachPiece(t *testing.T) {
	const pieces = 10
	data := bytes.Repeat([]byte("x"), pieces*patientPiece-5)
	for name, send := range map[string]func(io.Writer) (int64, error){
		"written": func(w io.Writer) (int64, error) { n, err := w.Write(data); return int64(n), err },
		"copied":  func(w io.Writer) (int64, error) { return io.CopyN(w, bytes.NewReader(data), int64(len(data))) },
	} {
		d := &deadlines{ResponseRecorder: *httptest.NewRecorder()}
		n, err := send(newPatient(d, httptest.NewRequest("GET", "/", nil)))
		if err != nil || n != int64(len(data)) || !bytes.Equal(d.Body.Bytes(), data) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if d.given < pieces {
			t.Errorf("%s: %d deadlines for %d pieces", name, d.given, pieces)
		}
	}
}

// A client is cut off that takes less than api.md says, and not one that takes
// as much.
func TestSlowClientIsNotCutOff(t *testing.T) {
	const piece = 64 << 10
	for name, c := range map[string]struct {
		every time.Duration
		whole bool
	}{"as fast as it must be": {answerTime - time.Second, true}, "slower": {2 * answerTime, false}} {
		synctest.Test(t, func(t *testing.T) {
			conn := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(10*piece))
				_, _ = newPatient(w, r).Write(make([]byte, 10*piece))
			})).dial()
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for err == nil && n < 10*piece {
				time.Sleep(c.every)
				var m int64
				m, err = io.CopyN(io.Discard, resp.Body, piece)
				n += m
			}
			if whole := err == nil && n == 10*piece; whole != c.whole {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
		})
	}
}

// late is a connection to a client that takes so many bytes of a file until the
// deadline is over, each time.
type late struct {
	*httptest.ResponseRecorder
	takes int64
	calls int
}

func (l *late) SetWriteDeadline(time.Time) error { return nil }

func (l *late) ReadFrom(r io.Reader) (int64, error) {
	l.calls++
	n, err := io.CopyN(l.ResponseRecorder, r, l.takes)
	if err == io.EOF {
		return n, nil
	}
	return n, cmp.Or(err, os.ErrDeadlineExceeded)
}

// The kernel is given much to copy at a time, and a client that is slow with it
// is not cut off, unless it takes less than api.md says.
func TestKernelCopiesMuchAtATime(t *testing.T) {
	const size = 10<<20 + 17
	f, err := os.Create(filepath.Join(t.TempDir(), "film"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewRequest("GET", "/", nil)
	overTLS := httptest.NewRequest("GET", "https://localhost/", nil)
	for name, c := range map[string]struct {
		r     *http.Request
		takes int64
		whole bool
		calls int // at most
	}{
		"fast":               {plain, 1 << 30, true, 3},
		"slow":               {plain, patientPiece, true, size/patientPiece + 1},
		"too slow":           {plain, patientPiece - 1, false, 1},
		"fast, over TLS":     {overTLS, 1 << 30, true, size/patientPiece + 1},
		"too late, over TLS": {overTLS, patientPiece - 1, false, 1},
	} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		w := &late{ResponseRecorder: httptest.NewRecorder(), takes: c.takes}
		n, err := newPatient(w, c.r).ReadFrom(&io.LimitedReader{R: f, N: size})
		if whole := err == nil && n == size && w.Body.Len() == size; whole != c.whole || w.calls > c.calls {
			t.Errorf("%s: %d bytes by %d calls, %v", name, n, w.calls, err)
		}
	}
}

// fromFiles is a connection that notes how many bytes it was left to copy from
// a file.
type fromFiles struct {
	*httptest.ResponseRecorder
	copied int64
}

func (w *fromFiles) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseRecorder, r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			w.copied += n
		}
	}
	return n, err
}

// The server hands the samples of recorded video to the connection as files,
// so that the kernel copies them.
func TestVideoGoesFromFileToSocket(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(100)
	cam.run.End("test over")
	r.restart()
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	path := r.path("main/view.mp4?s=%d", list.Recordings[0].StartID)
	want := r.get(path).body
	samples := bytes.Index(want, []byte("mdat")) + 12 // they begin there
	for header, at := range map[string][2]int{"": {0, len(want)}, "bytes=700-": {700, len(want)}, "bytes=700-9000": {700, 9001}} {
		w := &fromFiles{ResponseRecorder: httptest.NewRecorder()}
		req := httptest.NewRequest("GET", "http://localhost"+path, nil)
		if header != "" {
			req.Header.Set("Range", header)
		}
		r.server.Config.Handler.ServeHTTP(w, req)
		if got := w.Body.Bytes(); !bytes.Equal(got, want[at[0]:at[1]]) {
			t.Errorf("%q: %d bytes, not those from %d to %d of the file", header, len(got), at[0], at[1])
		}
		if all := at[1] - max(samples, at[0]); w.copied != int64(all) {
			t.Errorf("%q: %d bytes came from files, want %d", header, w.copied, all)
		}
	}
}

// busy is a sample file that is read for as long as somebody may get in between.
type busy struct {
	mp4.Payload
	read    chan struct{} // closed when it began
	reading atomic.Bool
	faults  *atomic.Int64 // closed meanwhile
}

func (b *busy) ReadAt(p []byte, at int64) (int, error) {
	b.reading.Store(true)
	defer b.reading.Store(false)
	close(b.read)
	for range 10_000 { // turns for whoever closes; who waits, as it should, has none
		runtime.Gosched()
	}
	return b.Payload.ReadAt(p, at)
}

func (b *busy) Close() error {
	if b.reading.Load() {
		b.faults.Add(1)
	}
	return b.Payload.Close()
}

// A file is not closed while it is read, and not read after that.
func TestEndOfAnAnswerWaitsForWhoReads(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25)
	cam.run.End("test over")
	r.restart()
	first, _, _ := r.recorded("main")
	for range 20 {
		recs, err := r.stream("main").Segments(t.Context(), first, first)
		if err != nil {
			t.Fatal(err)
		}
		var faults atomic.Int64
		read := make(chan struct{})
		open := recs[0].Open
		recs[0].Open = func() (mp4.Payload, error) {
			p, err := open()
			return &busy{Payload: p, read: read, faults: &faults}, err
		}
		f, err := mp4.New([]mp4.Segment{{Recording: recs[0], To: recs[0].WallDuration}}, mp4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := &body{r: f.NewReader()}
		if _, err := b.Seek(f.Size()-50, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var n int
		done := make(chan error)
		go func() {
			var err error
			n, err = b.Read(make([]byte, 50))
			done <- err
		}()
		<-read
		if err := b.end(); err != nil {
			t.Errorf("end: %v", err)
		}
		if err := <-done; err != nil || n != 50 || faults.Load() > 0 {
			t.Errorf("read %d bytes, %v; the file was closed meanwhile: %v", n, err, faults.Load() > 0)
		}
		if _, err := b.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Read(make([]byte, 50)); n != 0 || !errors.Is(err, os.ErrClosed) {
			t.Errorf("after the end: %d bytes, %v", n, err)
		}
	}
}

// gone is a client that leaves in the middle of an answer.
type gone struct {
	*httptest.ResponseRecorder
	takes int
}

func (g *gone) Write(p []byte) (int, error) {
	if g.takes -= len(p); g.takes < 0 {
		return 0, syscall.ECONNRESET
	}
	return len(p), nil
}

// For several ranges the file is read in a goroutine of its own, which goes on
// when the client is gone.
func TestClientLeavesAnAnswerOfSeveralRanges(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.size = 2000
	cam.send(500)
	cam.run.End("test over")
	r.restart()
	first, last, _ := r.recorded("main")
	path := r.path("main/view.mp4?s=%d-%d", first, last)
	n := len(r.get(path).body)
	for i := range 50 {
		req := httptest.NewRequest("GET", "http://localhost"+path, nil)
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d,%d-", n/10, n/2, n/2+1))
		r.server.Config.Handler.ServeHTTP(&gone{httptest.NewRecorder(), (1 + i) * n / 60}, req)
	}
	if r.log.Len() > 0 {
		t.Errorf("logged: %s", r.log)
	}
}
