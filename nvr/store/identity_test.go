package store

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/store/internal/sampledir"
)

// changeMeta changes who a sample directory is.
func changeMeta(t *testing.T, path string, change func(*sampledir.Meta)) {
	t.Helper()
	disk, err := sampledir.OpenDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := disk.ReadMeta()
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	if err := errors.Join(disk.WriteMeta(m), disk.Close()); err != nil {
		t.Fatal(err)
	}
}

// contents are the files below a directory, and what they hold.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// At a start two disks are in each other's place, or an old copy of one is in
// its place: what is not as it was is refused with a sentence, and not touched. The
// other streams record, and with the right disks all is there.
func TestSwappedAndOldDirectoriesAreNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.camera("front", plenty, 60)
		root := t.TempDir()
		at := map[string]string{"one": filepath.Join(root, "one"), "two": filepath.Join(root, "two")}
		for name, dir := range at {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := b.s.AddDir(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if _, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: name, Streams: map[string]StreamConfig{
				"main": {URL: "rtsp://10.0.0.1/", Record: true, RetainBytes: plenty, SampleFileDir: dir}}}); err != nil {
				t.Fatal(err)
			}
		}
		pictures := make(map[string]int)
		record := func(names ...string) {
			for _, name := range names {
				f := newFeed(b.again(name).Begin(nil))
				f.n = pictures[name]
				f.play(t, 5*time.Second)
				f.run.End("test")
				pictures[name] = f.n
			}
			b.stop()
		}
		rename := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		record("front", "one", "two")
		old, aside := filepath.Join(root, "old"), filepath.Join(root, "aside")
		if err := os.CopyFS(old, os.DirFS(at["one"])); err != nil {
			t.Fatal(err)
		}
		b.start()
		record("front", "one", "two")

		// refused starts, and says which of the directories cannot be used and why.
		refused := func(says map[string]string, well ...string) {
			t.Helper()
			was := make(map[string]map[string]string)
			for name := range says {
				was[name] = contents(t, at[name])
			}
			b.start()
			for name, why := range says {
				err := b.again(name).Unavailable()
				if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), at[name]) {
					t.Errorf("%s: %v, want %q", name, err, why)
				}
			}
			record(well...)
			for name := range says {
				if !maps.Equal(was[name], contents(t, at[name])) {
					t.Errorf("%s: its directory was written to", name)
				}
			}
		}
		swap := func() {
			rename(at["one"], aside)
			rename(at["two"], at["one"])
			rename(aside, at["two"])
		}
		swap()
		refused(map[string]string{"one": "is another one of this installation", "two": "is another one of this installation"}, "front")
		swap()

		rename(at["one"], aside)
		rename(old, at["one"])
		refused(map[string]string{"one": "is an old copy"}, "front", "two")
		rename(at["one"], old)
		rename(aside, at["one"])

		b.start()
		for name, n := range pictures {
			if got := everyPicture(t, b.again(name), 0); got != n {
				t.Errorf("%s: %d pictures of %d", name, got, n)
			}
		}
	})
}
