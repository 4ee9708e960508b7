package sampledir_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// both runs a test of the contract of sampledir.Dir on a disk and on the fake.
func both(t *testing.T, f func(t *testing.T, d sampledir.Dir)) {
	t.Run("disk", func(t *testing.T) {
		d, err := sampledir.OpenDisk(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		f(t, d)
	})
	t.Run("fake", func(t *testing.T) { f(t, sampledirtest.New(sampledirtest.State{})) })
}

// must is for steps that are not what a test is about.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, d sampledir.Dir, id int64) string {
	t.Helper()
	f, err := d.Open(id)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	must(t, err)
	return string(b)
}

func TestFileGrowsByWhatIsAppended(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		f, err := d.Create(7)
		must(t, err)
		var many [][]byte // more than one system call takes
		for range 3000 {
			many = append(many, []byte("x"), nil)
		}
		n, err := f.Append(0, []byte("ab"), nil, []byte("c"))
		if n != 3 || err != nil {
			t.Errorf("append: %d, %v", n, err)
		}
		if n, err = f.Append(3, many...); n != 3000 || err != nil {
			t.Errorf("append of many: %d, %v", n, err)
		}
		if n, err = f.Append(3003); n != 0 || err != nil {
			t.Errorf("append of nothing: %d, %v", n, err)
		}
		if got, want := content(t, d, 7), "abc"+string(bytes.Repeat([]byte("x"), 3000)); got != want {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
		must(t, f.Truncate(2))
		n, err = f.Append(2, []byte("z"))
		if got := content(t, d, 7); got != "abz" || n != 1 || err != nil {
			t.Errorf("after cut and append: %q, %d, %v", got, n, err)
		}
		must(t, errors.Join(f.Sync(), d.Sync(), f.Close()))
		b := make([]byte, 5)
		r, err := d.Open(7)
		must(t, err)
		defer r.Close()
		if n, err := r.ReadAt(b, 1); n != 2 || err != io.EOF {
			t.Errorf("read over the end: %d, %v", n, err)
		}
		if _, err := r.Append(3, []byte("no")); err == nil {
			t.Error("a file that was opened to be read takes writes")
		}
	})
}

func TestCreateTouchesNoFileThatIsThere(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		f, err := d.Create(1)
		must(t, err)
		defer f.Close()
		_, err = f.Append(0, []byte("old"))
		must(t, err)
		if _, err := d.Create(1); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create again: %v", err)
		}
		if got := content(t, d, 1); got != "old" {
			t.Errorf("then it holds %q", got)
		}
	})
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		_, err := d.Open(1)
		_, rerr := d.Recover(1)
		_, merr := d.ReadMeta()
		for i, err := range []error{err, rerr, d.Unlink(1), merr} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}

func TestUnlinkedFileIsReadToItsEnd(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		f, err := d.Create(1)
		must(t, err)
		_, err = f.Append(0, []byte("abc"))
		must(t, err)
		must(t, d.Unlink(1))
		b := make([]byte, 3)
		if n, err := f.ReadAt(b, 0); n != 3 || string(b) != "abc" {
			t.Errorf("read: %d, %v", n, err)
		}
		must(t, f.Close())
		if _, err := d.Open(1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open: %v", err)
		}
		must(t, d.Sync())
		f, err = d.Create(1)
		must(t, err)
		f.Close()
	})
}

func TestRecoveredFileIsCut(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		f, err := d.Create(1)
		must(t, err)
		_, err = f.Append(0, []byte("abcdef"))
		must(t, errors.Join(err, f.Close()))
		f, err = d.Recover(1)
		must(t, err)
		must(t, errors.Join(f.Truncate(3), f.Sync(), f.Close()))
		if got := content(t, d, 1); got != "abc" {
			t.Errorf("it holds %q", got)
		}
	})
}

const (
	uuidA = "00000000-0000-4000-8000-00000000000a"
	uuidB = "00000000-0000-4000-8000-00000000000b"
)

func TestMetaIsWhatWasWrittenLast(t *testing.T) {
	both(t, func(t *testing.T, d sampledir.Dir) {
		for i := range int32(5) {
			want := sampledir.Meta{DatabaseUUID: uuidA, DirUUID: uuidB, CompleteOpen: i, InProgressOpen: i + 1}
			must(t, d.WriteMeta(want))
			if got, err := d.ReadMeta(); got != want || err != nil {
				t.Errorf("meta is %+v, %v, want %+v", got, err, want)
			}
		}
		if names, err := d.Foreign(); len(names) != 0 || err != nil {
			t.Errorf("foreign: %q, %v", names, err)
		}
		f, err := d.Create(1)
		must(t, err)
		must(t, f.Close())
		if names, err := d.Foreign(); len(names) != 1 || names[0] != sampledir.Name(1) || err != nil {
			t.Errorf("foreign: %q, %v", names, err)
		}
		if s, err := d.Space(); s.BlockSize <= 0 || s.Free <= 0 || s.Total < s.Free || err != nil {
			t.Errorf("space: %+v, %v", s, err)
		}
	})
}

// P6 of the meta file on the disk, with a sector torn at every seventh byte: what was
// said before the write still counts.
func TestTornMetaLeavesTheOneBefore(t *testing.T) {
	path := t.TempDir()
	d, err := sampledir.OpenDisk(path)
	must(t, err)
	defer d.Close()
	name := filepath.Join(path, "meta")
	for open := range int32(4) {
		before := sampledir.Meta{DatabaseUUID: uuidA, DirUUID: uuidB, CompleteOpen: open}
		must(t, d.WriteMeta(before))
		old, err := os.ReadFile(name)
		must(t, err)
		after := before
		after.CompleteOpen += 100
		must(t, d.WriteMeta(after))
		written, err := os.ReadFile(name)
		must(t, err)
		if len(written) != len(old) {
			t.Fatalf("meta grew from %d to %d bytes", len(old), len(written))
		}
		for tear := 0; tear < len(old); tear += 7 {
			torn := append(append([]byte(nil), written[:tear]...), old[tear:]...)
			must(t, os.WriteFile(name, torn, 0o600))
			if got, err := d.ReadMeta(); err != nil || got != before && got != after {
				t.Fatalf("torn at byte %d: %+v, %v", tear, got, err)
			}
		}
		must(t, os.WriteFile(name, written, 0o600))
	}
}

func TestDirectoryKnowsThatItsPathLeadsElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	var disk *sampledir.Disk
	for _, step := range []struct {
		do    func() error
		moved bool
	}{
		{func() error { return os.Mkdir(path, 0o700) }, false},
		{func() error { return os.Rename(path, path+"2") }, true},
		{func() error { return os.Mkdir(path, 0o700) }, true},
		{func() error { return os.Remove(path) }, true},
		{func() error { return os.Rename(path+"2", path) }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if disk == nil {
			var err error
			if disk, err = sampledir.OpenDisk(path); err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
		}
		if got := disk.Moved(); got != step.moved {
			t.Errorf("moved is %v, want %v", got, step.moved)
		}
	}
}
