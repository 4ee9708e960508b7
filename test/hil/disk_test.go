package hil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// region is a piece of a disk, in bytes.
type region struct{ start, size int64 }

// partition returns a partition of a disk with a GUID partition table (UEFI
// specification, 5.3), counted from 1.
func partition(disk io.ReaderAt, number int) (region, error) {
	header := make([]byte, 92)
	if _, err := disk.ReadAt(header, 512); err != nil {
		return region{}, fmt.Errorf("partition table: %w", err)
	}
	if string(header[:8]) != "EFI PART" {
		return region{}, errors.New("partition table: no GPT")
	}
	at := int64(binary.LittleEndian.Uint64(header[72:])) * 512
	size := int64(binary.LittleEndian.Uint32(header[84:]))
	entry := make([]byte, 48)
	if _, err := disk.ReadAt(entry, at+int64(number-1)*size); err != nil {
		return region{}, fmt.Errorf("partition %d: %w", number, err)
	}
	first, last := int64(binary.LittleEndian.Uint64(entry[32:])), int64(binary.LittleEndian.Uint64(entry[40:]))
	if first == 0 || last < first {
		return region{}, fmt.Errorf("partition %d: there is none", number)
	}
	return region{first * 512, (last - first + 1) * 512}, nil
}

// extract copies all files of an ext4 file system that was not unmounted to a
// new directory, behind repair.
func extract(image, dir string) error {
	if err := repair(image); err != nil {
		return err
	}
	debugfs, err := lookPath("debugfs")
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	out, err := exec.Command(debugfs, "-R", "rdump / "+dir, image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy files: %w\n%s", err, out)
	}
	for l := range strings.Lines(string(out)) {
		if strings.Contains(l, "rdump:") && !strings.Contains(l, "changing ownership") {
			return fmt.Errorf("copy files: %s", l)
		}
	}
	return nil
}

// repair does to an ext4 file system what a mount would: it replays the journal.
// Behind that nothing may be left to repair.
func repair(image string) error {
	fsck, err := lookPath("e2fsck")
	if err != nil {
		return err
	}
	// 0: clean. 1: what the kernel does too, journal and orphans, was done. 4
	// and more: damage.
	out, err := exec.Command(fsck, "-f", "-p", image).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil
	}
	if errors.As(err, &exit) {
		return broken("the file system is damaged: %w\n%s", err, out)
	}
	return err
}
