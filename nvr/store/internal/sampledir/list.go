package sampledir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// ParseName is the reverse of Name.
func ParseName(name string) (id int64, ok bool) {
	hex, ok := strings.CutSuffix(name, ".mp4")
	if !ok {
		return 0, false
	}
	u, err := strconv.ParseUint(hex, 16, 64)
	return int64(u), err == nil && int64(u) >= 0 && Name(int64(u)) == name
}

// List reads the whole directory: the sample files by their id, ascending, and
// the names of what is not the recorder's. It is not for normal running: half
// a million files take a hard disk 19 s. progress is called now and then with
// the number of names so far.
func (d *Disk) List(progress func(n int)) (ids []int64, foreign []string, err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, nil, fmt.Errorf("list sample directory %s: %w", d.path, bare(err))
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(4096)
		for _, name := range names {
			if id, ok := ParseName(name); ok {
				ids = append(ids, id)
			} else if !ours(name) {
				foreign = append(foreign, name)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("list sample directory %s: %w", d.path, bare(err))
		}
		progress(len(ids) + len(foreign))
	}
	slices.Sort(ids)
	slices.Sort(foreign)
	return ids, foreign, nil
}

// ours reports whether a name that is no sample file's has its place here.
func ours(name string) bool {
	return name == metaName || name == "lost+found" || slices.Contains(backupNames, name) || name == BackupTemp
}

// ReplaceMeta writes a meta file in the place of one that is missing or of
// which no slot is valid any more. Only who knows from elsewhere whose
// directory it is may call it.
func (d *Disk) ReplaceMeta(m Meta) error {
	if _, err := d.ReadMeta(); err != nil {
		if err := d.root.Remove(metaName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s/%s: %w", d.path, metaName, bare(err))
		}
	}
	return d.WriteMeta(m)
}
