package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	// imageSize is the smallest that gok makes: 100 MiB for boot, twice 500 for
	// root, 100 for /perm, which grows to its disk on first boot.
	imageSize = 1258299392

	// freshMarker, with zeros to markerSize, begins a /perm that was never used.
	// PID 1 formats where it finds this and nowhere else.
	freshMarker = "HOLDFAST FRESH PERM 1\n"
	markerSize  = 4096
)

// An area is a partition, in bytes.
type area struct{ start, size int64 }

// fits says why n bytes cannot stand in the area.
func (a area) fits(what string, n int64) error {
	if n > a.size {
		return fmt.Errorf("%s: %d bytes, %d more than its partition", what, n, n-a.size)
	}
	return nil
}

// layout is the partitions of an image.
type layout struct{ boot, rootA, rootB, perm area }

func readLayout(image *os.File) (layout, error) {
	table, err := gpt.Read(file.New(image, true), 512, 512)
	if err != nil {
		return layout{}, fmt.Errorf("read partitions: %w", err)
	}
	var areas []area
	for _, p := range table.Partitions {
		if p != nil {
			areas = append(areas, area{p.GetStart(), p.GetSize()})
		}
	}
	if len(areas) != 4 {
		return layout{}, fmt.Errorf("read partitions: %d, expected 4", len(areas))
	}
	return layout{areas[0], areas[1], areas[2], areas[3]}, nil
}

// finish makes gok's image one of ours, in place, and returns its root.
func finish(name string, o options, s stamp) (*node, error) {
	image, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	parts, err := readLayout(image)
	if err != nil {
		return nil, err
	}
	if err := finishBoot(image, parts.boot, s); err != nil {
		return nil, err
	}
	root, err := finishRoot(image, parts.rootA, o, s)
	if err != nil {
		return nil, err
	}
	marker := make([]byte, markerSize)
	copy(marker, freshMarker)
	if _, err := image.WriteAt(marker, parts.perm.start); err != nil {
		return nil, err
	}
	return root, image.Close()
}

func finishBoot(image *os.File, where area, s stamp) error {
	size, err := fatSize(image, where.start)
	if err != nil {
		return err
	}
	if err := where.fits("boot file system", size); err != nil {
		return err
	}
	// What lies behind the last file need not be in the file system's size.
	b := make([]byte, where.size)
	if _, err := image.ReadAt(b, where.start); err != nil {
		return fmt.Errorf("read boot file system: %w", err)
	}
	fat, err := openFAT(b[:size])
	if err != nil {
		return err
	}
	if err := fat.settle(s.time); err != nil {
		return err
	}
	_, err = image.WriteAt(b[:size], where.start)
	return err
}

func finishRoot(image *os.File, where area, o options, s stamp) (*node, error) {
	used, err := squashfsSize(image, where.start)
	if err != nil {
		return nil, err
	}
	if err := where.fits("root file system of gok", used); err != nil {
		return nil, err
	}
	root, err := readRoot(image, where.start, where.size)
	if err != nil {
		return nil, err
	}
	if err := settleRoot(root, o, s); err != nil {
		return nil, err
	}
	if faults := strangers(root, o); len(faults) > 0 {
		return nil, fmt.Errorf("root file system: %w", errors.Join(faults...))
	}
	anew, err := writeRoot(root, s.time)
	if err != nil {
		return nil, fmt.Errorf("write root file system: %w", err)
	}
	if err := where.fits("root file system", int64(len(anew))); err != nil {
		return nil, err
	}
	if rest := used + 4096 - int64(len(anew)); rest > 0 {
		anew = append(anew, make([]byte, rest)...) // nothing of gok's may stay behind ours
	}
	_, err = image.WriteAt(anew[:min(int64(len(anew)), where.size)], where.start)
	return root, err
}

// squashfsSize reads from the superblock how many bytes a squashfs uses.
func squashfsSize(image io.ReaderAt, start int64) (int64, error) {
	super := make([]byte, 96)
	if _, err := image.ReadAt(super, start); err != nil {
		return 0, fmt.Errorf("read root file system: %w", err)
	}
	if string(super[:4]) != "hsqs" {
		return 0, fmt.Errorf("read root file system: no squashfs at byte %d", start)
	}
	var size int64
	for i := range 8 {
		size |= int64(super[40+i]) << (8 * i)
	}
	return size, nil
}

// settleRoot takes from a root what comes from the building machine and adds
// what is ours.
func settleRoot(root *node, o options, s stamp) error {
	root.remove("etc/localtime")      // of the machine; without it, it is UTC
	root.remove("etc/http-port.txt")  // gokrazy's page has no port
	root.remove("etc/https-port.txt") // (NoPassword), and no need to name one
	root.put("etc/ssl/ca-bundle.pem", certificates())

	sbom := root.find("etc/gokrazy/sbom.json")
	if sbom == nil {
		return fmt.Errorf("root file system: has no etc/gokrazy/sbom.json")
	}
	settled, err := settleSBOM(sbom.data, o.board.Name)
	if err != nil {
		return fmt.Errorf("etc/gokrazy/sbom.json: %w", err)
	}
	sbom.data = settled

	root.put("etc/holdfast/version", []byte(s.version+"\n"))
	root.put("etc/holdfast/board", []byte(o.board.Name+"\n"))
	if o.lab {
		root.put("etc/holdfast/nvr.args", []byte("-allow-anonymous\nadmin\n"))
	}
	return nil
}

// certificates returns Mozilla's list of authorities as go.mod pins it, instead
// of that of the building machine.
func certificates() []byte {
	var b bytes.Buffer
	for c := range bundle.Roots() {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate}))
	}
	return b.Bytes()
}

// settleSBOM makes the paths in gok's own list of parts, which the device shows,
// those of the repository and of modules, and its hash that of the new text.
func settleSBOM(raw []byte, name string) ([]byte, error) {
	type hash struct {
		Path string `json:"path"`
		Hash string `json:"hash"`
	}
	type parts struct {
		ConfigHash hash   `json:"config_hash"`
		Extra      []hash `json:"extra_file_hashes"`
		Packages   []struct {
			Path      string `json:"path"`
			BuildID   string
			BuildInfo string
		} `json:"go_packages"`
	}
	var all struct {
		Hash string `json:"sbom_hash"`
		SBOM parts  `json:"sbom"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	all.SBOM.ConfigHash.Path = path.Join("gokrazy-config", name, "config.json")
	for i, e := range all.SBOM.Extra {
		// In the module cache, wherever that is: github.com/owner/name@version/file.
		const host = "github.com/"
		_, inModule, ok := strings.Cut(e.Path, "/"+host)
		if !ok {
			return nil, fmt.Errorf("%s is not of a module", e.Path)
		}
		all.SBOM.Extra[i].Path = host + inModule
	}
	slices.SortFunc(all.SBOM.Extra, func(a, b hash) int { return strings.Compare(a.Path, b.Path) })
	text, err := json.MarshalIndent(all.SBOM, "", "    ")
	if err != nil {
		return nil, err
	}
	all.Hash = fmt.Sprintf("%x", sha256.Sum256(append(text, '\n')))
	text, err = json.MarshalIndent(all, "", "    ")
	return append(text, '\n'), err
}

// strangers returns what a root holds that its kind of image must not: no
// shell, password, key, SSH or port is on these lists, and nothing else gets in
// unnoticed.
func strangers(root *node, o options) (faults []error) {
	programs := []string{"gokrazy/dhcp", "gokrazy/init", "gokrazy/randomd", "user/nvr"}
	files := []string{
		"etc/gokrazy/mountdevices.json", "etc/gokrazy/sbom.json", "etc/holdfast/board", "etc/holdfast/version",
		"etc/hostname", "etc/hosts", "etc/ssl/ca-bundle.pem",
	}
	links := map[string]string{"etc/resolv.conf": "/tmp/resolv.conf", "var": "/perm/var"}
	if o.lab {
		files = append(files, "etc/holdfast/nvr.args")
	}
	seen := map[string]bool{}
	root.walk(func(name string, n *node) error {
		seen[name] = true
		module := strings.HasPrefix(name, "lib/modules/") &&
			(strings.HasSuffix(name, ".ko") || strings.HasPrefix(n.name, "modules."))
		switch {
		case n.kind == isDir:
		case n.kind == isLink && links[name] == n.link:
		case n.kind == isFile && slices.Contains(programs, name):
			if !n.exec || !bytes.HasPrefix(n.data, []byte("\x7fELF")) {
				faults = append(faults, fmt.Errorf("%s: is no program", name))
			}
		case n.kind == isFile && !n.exec && (slices.Contains(files, name) || module):
		case o.debug && strings.Contains(name, "busybox"):
		default:
			faults = append(faults, fmt.Errorf("%s: has no place in this image; if it must be there, list it in image.go", name))
		}
		return nil
	})
	for _, name := range slices.Concat(programs, files) {
		if !seen[name] {
			faults = append(faults, fmt.Errorf("%s: is missing", name))
		}
	}
	return faults
}
