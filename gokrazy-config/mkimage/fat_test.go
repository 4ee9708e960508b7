package main

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
)

const fatTestSize = 16 << 20

// madeFAT returns a FAT16 with files and folders, one of them longer than a
// cluster, that dates from now.
func madeFAT(t *testing.T, signature string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fat")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(fatTestSize); err != nil {
		t.Fatal(err)
	}
	made, err := fat16.Create(file.New(f, false), fatTestSize, 0, 512, "BOOT", false)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		t.Helper()
		w, err := made.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("/cmdline.txt", "root=")
	write("/pieeprom.sig", signature)
	for _, dir := range []string{"/overlays", "/loader", "/loader/entries"} {
		if err := made.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		write(fmt.Sprintf("/overlays/an-overlay-%03d.dtbo", i), fmt.Sprint(i))
	}
	write("/loader/entries/gokrazy.conf", "title")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contentFAT reads a FAT16 and returns the content of each file and the time of
// each file and folder.
func contentFAT(t *testing.T, b []byte) (content map[string]string, times map[string]time.Time) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fat")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	made, err := fat16.Read(file.New(f, true), int64(len(b)), 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	content, times = map[string]string{}, map[string]time.Time{}
	if err := fs.WalkDir(made, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		times[name] = info.ModTime()
		if !d.IsDir() {
			c, err := fs.ReadFile(made, name)
			content[name] = string(c)
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return content, times
}

func TestBootFilesDateFromTheCommit(t *testing.T) {
	when := time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
	b := madeFAT(t, strings.Repeat("ab", 32)+"\nts: 1234567890\n")
	before, _ := contentFAT(t, b)
	f, err := openFAT(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.settle(when); err != nil {
		t.Fatal(err)
	}
	after, times := contentFAT(t, b)
	if len(after) != 103 || len(times) != 106 {
		t.Fatalf("%d files, %d with folders: the test looks at the wrong thing", len(after), len(times))
	}
	for name, at := range times {
		if !at.Equal(when) {
			t.Errorf("%s is of %v, not %v", name, at, when)
		}
	}
	for name, c := range before {
		want := c
		if name == "pieeprom.sig" {
			want = strings.Repeat("ab", 32) + fmt.Sprintf("\nts: %d\n", when.Unix())
		}
		if after[name] != want {
			t.Errorf("%s reads %q, not %q", name, after[name], want)
		}
	}
}

func TestUnknownSignatureIsAnError(t *testing.T) {
	for _, sig := range []string{"ab\n", "ab\nts: 12\n"} {
		f, err := openFAT(madeFAT(t, sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.settle(time.Unix(1700000000, 0)); err == nil {
			t.Errorf("signature %q: no error", sig)
		}
	}
}

func FuzzBootFilesDateFromTheCommit(f *testing.F) {
	f.Add([]byte{})
	sector := make([]byte, 4096)
	copy(sector[11:], []byte{0, 2, 4, 1, 0, 1, 16, 0, 0, 0, 0, 1, 0})
	copy(sector[1024:], "FOLDER     \x10")
	sector[1024+26] = 2
	f.Add(sector)
	f.Fuzz(func(t *testing.T, b []byte) {
		if fat, err := openFAT(b); err == nil {
			fat.settle(time.Unix(1700000000, 0)) // must not panic or run for ever
		}
	})
}

// files returns the content of each file of a folder, by path. The library that
// the other tests read with expects two tables, and gok writes one.
func (f *bootFAT) files(t *testing.T, b []byte, at string, list map[string]string) {
	t.Helper()
	var long []uint16
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		if b[11] == 0x0F { // a piece of a long name; the last piece stands first
			var piece []uint16
			for _, i := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				piece = append(piece, binary.LittleEndian.Uint16(b[i:]))
			}
			long = append(piece, long...)
			continue
		}
		name := path.Join(at, strings.TrimRight(string(utf16.Decode(long)), "\x00\uffff"))
		long = nil
		cluster, size := int(binary.LittleEndian.Uint16(b[26:])), int(binary.LittleEndian.Uint32(b[28:]))
		switch {
		case b[11]&0x08 != 0, b[0] == '.':
		case b[11]&0x10 != 0:
			folder, err := f.at(cluster, f.cluster)
			if err != nil {
				t.Fatal(err)
			}
			// gok's files and folders lie in one piece.
			for n := cluster; int(binary.LittleEndian.Uint16(f.b[f.table+2*n:])) == n+1; n++ {
				folder = folder[:len(folder)+f.cluster]
			}
			f.files(t, folder, name, list)
		case size > 0:
			content, err := f.at(cluster, size)
			if err != nil {
				t.Fatal(err)
			}
			list[name] = string(content)
		}
	}
}
