package hil

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/test/hil/nbd"
)

// mediaDir is where the lab's image mounts a machine's second disk, and
// mediaSamples the sample directory on it. The appliance takes no disks of the
// user yet, so a hook in process 1 mounts this one, with the options of the data
// partition; the recorder's part (sampleFileDir) is the real one.
const (
	mediaDir     = "/perm/media"
	mediaSamples = mediaDir + "/nvr"
	mediaSize    = 1 << 30
)

// secondDisk is a disk for recordings beside the one that a machine starts from. It
// has its own cache, and may lose power, or be pulled out, alone.
type secondDisk struct {
	file   *os.File
	size   int64
	cfg    nbd.Config
	socket string

	journal int64 // where the journal begins; before it stand superblock, bitmaps and inodes
	rest    int64 // where it ends, and all else begins
	footage int64 // behind this there is hardly anything but what is in files

	drive  *nbd.Disk
	server *nbd.Server
}

// newSecondDisk makes a disk with an ext4 of its own, all of whose metadata but the
// directory stand before its data, so that faults can be told apart.
func newSecondDisk(t *testing.T, dir string, size int64) *secondDisk {
	t.Helper()
	m := &secondDisk{size: size, socket: filepath.Join(dir, "media.nbd")}
	path := filepath.Join(dir, "media")
	var err error
	if m.file, err = os.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.file.Close() })
	if err := m.file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mke2fs, err := lookPath("mke2fs")
	if err != nil {
		t.Fatalf("%v: make hil-setup installs it", err)
	}
	out, err := exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-i", "65536", "-e", "remount-ro",
		"-J", "size=8", "-E", "packed_meta_blocks=1,lazy_itable_init=0,lazy_journal_init=0,nodiscard", path).CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	first, last, err := journal(path)
	if err != nil {
		t.Fatal(err)
	}
	m.journal, m.rest = first*4096, (last+1)*4096
	// A file in many pieces has blocks that say where they are, and those are the
	// journal's matter. ext4 puts the first of them where the second group has
	// room, in front of the pieces.
	m.footage = (32768 + 256) * 4096
	return m
}

// footageFault is a fault of writes to what is in files. A file in very many pieces has
// a block that says where among them: it begins with the magic number of such blocks.
func (m *secondDisk) footageFault() nbd.Fault {
	return nbd.Fault{Ops: writes, From: m.footage, Spares: []byte{0x0a, 0xf3}, Err: syscall.EIO}
}

// journal returns the first and the last block of an ext4's journal, which lies
// in one piece.
func journal(path string) (first, last int64, err error) {
	debugfs, err := lookPath("debugfs")
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.Command(debugfs, "-R", "stat <8>", path).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("debugfs: %w: %s", err, out)
	}
	_, extents, _ := strings.Cut(string(out), "EXTENTS:\n")
	extents, _, _ = strings.Cut(extents, "\n")
	var from, to int64
	if _, err := fmt.Sscanf(extents, "(%d-%d):%d-%d", &from, &to, &first, &last); err != nil || from != 0 || strings.Contains(extents, ",") {
		return 0, 0, fmt.Errorf("the journal of %s lies at %q, not in one piece (%v)", path, extents, err)
	}
	return first, last, nil
}

// plug gives the disk power.
func (m *secondDisk) plug() (err error) {
	if m.drive, err = nbd.New(m.file, m.size, m.cfg); err != nil {
		return err
	}
	m.server, err = nbd.Listen(m.socket, m.drive)
	return err
}

// pull takes the disk's power away, unless that was done already, and ends its
// connection.
func (m *secondDisk) pull(c nbd.Cut) (nbd.Outcome, error) {
	o, err := m.drive.PowerOff(c)
	if m.server != nil {
		err = errors.Join(err, m.server.Close())
	}
	m.server = nil
	return o, err
}

func (m *secondDisk) arguments() []string {
	return []string{
		"-blockdev", "driver=nbd,node-name=media,discard=unmap,server.type=unix,server.path=" + m.socket,
		"-device", "virtio-blk-pci,drive=media,serial=media,write-cache=on,werror=report,rerror=report",
	}
}

// program builds the recorder for this host, once in a run, for its own check of a
// disk's files. It has the name that built looks for.
func program(t *testing.T) string {
	t.Helper()
	return built(t, "nvr", func(dir string) error {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "nvr.img"), "./nvr/cmd/nvr")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build nvr: %w\n%s", err, out)
		}
		return nil
	})
}

// check lets the recorder's own check judge the files of /perm. The database is
// told where they stand now.
func check(t *testing.T) func(perm string) error {
	t.Helper()
	nvr := program(t)
	return func(perm string) error { return runCheck(nvr, perm) }
}

func runCheck(nvr, perm string) error {
	pool, err := sql.Open("sqlite", filepath.Join(perm, "nvr", "db"))
	if err != nil {
		return err
	}
	_, err = pool.Exec("UPDATE sample_file_dir SET path = ? WHERE path = ?", filepath.Join(perm, strings.TrimPrefix(mediaSamples, "/perm")), mediaSamples)
	if err := errors.Join(err, pool.Close()); err != nil {
		return err
	}
	out, err := exec.Command(nvr, "check", "-data", filepath.Join(perm, "nvr")).CombinedOutput()
	if err != nil {
		return broken("nvr check: %w\n%s", err, out)
	}
	return nil
}
