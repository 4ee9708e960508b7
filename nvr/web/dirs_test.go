package web

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/store"
)

func TestDirectoriesOverTheAPI(t *testing.T) {
	r := newRecorder(t, "admin")
	cam := r.camera("main")
	cam.send(25 * 20 * 60)
	r.ahead.Store(int64(20 * time.Minute))
	defer cam.run.End("test over")
	r.stream("main").SetState(store.Recording, "", nil)
	list := func() []dirReportJSON {
		t.Helper()
		var out struct{ Dirs []dirReportJSON }
		r.json("/api/dirs/", &out)
		return out.Dirs
	}
	for deadline := time.Now().Add(2 * time.Minute); r.stream("main").Info().Unsynced > 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing becomes durable")
		}
		r.get("/healthz")
	}
	dirs := list()
	if len(dirs) != 1 {
		t.Fatalf("%+v", dirs)
	}
	d := dirs[0]
	if d.Path != filepath.Join(r.dir, "sample") || d.State != "ok" || d.Error != "" || d.Total == nil || d.Free == nil || d.Floor == nil ||
		d.Used < 30000*100 || d.WatermarkAge == nil || len(d.Streams) != 2 {
		t.Errorf("%+v", d)
	}
	main := d.Streams[0]
	if main.Camera != r.uuid || main.ShortName != "Küche 1" || main.Stream != "main" || main.Used != d.Used || main.BytesPerDay == nil || *main.BytesPerDay < 72*30000*100 {
		t.Errorf("main: %+v", main)
	}
	if d.BytesPerDay != nil || d.ForecastDays != nil { // the other stream has recorded nothing yet
		t.Errorf("%+v", d)
	}

	path := filepath.Join(t.TempDir(), "second")
	post := func(body string, status int, says string) *answer {
		t.Helper()
		a := r.ask("POST", "/api/dirs/", body, "Content-Type", "application/json")
		if a.status != status || !strings.Contains(string(a.body), says) {
			t.Fatalf("%s: %d %s, want %d with %q", body, a.status, a.body, status, says)
		}
		return a
	}
	a := post(`{"path":"`+path+`"}`, 201, "id")
	var made struct{ ID int32 }
	a.decode(t, &made)
	if a.header.Get("Location") != "/api/dirs/2" || made.ID != 2 {
		t.Errorf("made %d at %s", made.ID, a.header.Get("Location"))
	}
	post(`{"path":"`+path+`"}`, 400, "path: "+path+" is a sample directory already")
	post(`{"path":"sample"}`, 400, "absolute")
	post(`{"directory":"x"}`, 400, "directory")
	if dirs = list(); len(dirs) != 2 || dirs[1].ID != made.ID || dirs[1].Path != path || dirs[1].State != "ok" || dirs[1].Streams == nil || dirs[1].WatermarkAge != nil {
		t.Fatalf("%+v", dirs)
	}

	// The other stream, which holds nothing, moves there.
	a = r.ask("PATCH", r.path(""), `{"update":{"streams":{"sub":{"sampleFileDir":"`+path+`"}}}}`, "Content-Type", "application/json")
	if a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if d := list()[0]; d.BytesPerDay == nil || *d.BytesPerDay != *d.Streams[0].BytesPerDay {
		t.Errorf("%+v", d)
	}
	if a := r.ask("DELETE", "/api/dirs/2", ""); a.status != 409 || !strings.Contains(string(a.body), "Küche 1 sub") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.ask("DELETE", r.path("sub/"), ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.ask("DELETE", "/api/dirs/2", ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/api/dirs/2", "/api/dirs/x", "/api/dirs/99999999999"} {
		if a := r.ask("DELETE", path, ""); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if dirs = list(); len(dirs) != 1 {
		t.Fatalf("%d directories", len(dirs))
	}
	if d := dirs[0]; d.ForecastDays == nil || *d.ForecastDays <= 0 || *d.ForecastDays > float64(1<<30)/(72*30000*100) {
		t.Errorf("%+v", d)
	}
}
