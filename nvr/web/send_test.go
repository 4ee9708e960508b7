package web

import (
	"bytes"
	"io"
	"net/http/httptest"
	"os"
	"testing"
	"time"
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
		n, err := send(newPatient(d))
		if err != nil || n != int64(len(data)) || !bytes.Equal(d.Body.Bytes(), data) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if d.given < pieces {
			t.Errorf("%s: %d deadlines for %d pieces", name, d.given, pieces)
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
