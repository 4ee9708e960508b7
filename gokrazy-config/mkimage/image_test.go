package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"holdfast/board"
)

const repository = "../.."

func readConfig(t *testing.T, name string) (c config, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", name, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c, raw
}

func TestInstanceAgreesWithBoard(t *testing.T) {
	for _, b := range boards() {
		c, _ := readConfig(t, b.Name)
		if err := c.agrees(b); err != nil {
			t.Errorf("gokrazy-config/%s/config.json: %v", b.Name, err)
		}
		if to, err := os.Readlink(filepath.Join("..", b.Name, "builddir")); err != nil || to != "../.." {
			t.Errorf("gokrazy-config/%s/builddir leads to %q, %v: one go.mod pins all", b.Name, to, err)
		}
		if w := b.Watchdog; w.Timeout > w.LongestTimeout || w.Ping*4 > w.Timeout || w.Ping <= 0 || len(w.Drivers) == 0 {
			t.Errorf("board %s: watchdog %+v makes no sense", b.Name, w)
		}
	}
}

func TestInstanceThatDisagreesIsRefused(t *testing.T) {
	for name, change := range map[string]func(*board.Board){
		"kernel":      func(b *board.Board) { b.Kernel += "x" },
		"firmware":    func(b *board.Board) { b.Firmware += "x" },
		"EEPROM":      func(b *board.Board) { b.EEPROM += "x" },
		"console":     func(b *board.Board) { b.SerialConsole += "x" },
		"kernel args": func(b *board.Board) { b.KernelArgs = append(slices.Clone(b.KernelArgs), "quiet") },
		"GOARCH":      func(b *board.Board) { b.GOARCH = "riscv64" },
	} {
		for _, b := range boards() {
			c, _ := readConfig(t, b.Name)
			change(&b)
			if c.agrees(b) == nil {
				t.Errorf("%s, %s: no error", b.Name, name)
			}
		}
	}
}

func TestReleaseInstanceOpensNothing(t *testing.T) {
	for _, b := range boards() {
		c, raw := readConfig(t, b.Name)
		if !c.Update.NoPassword {
			t.Errorf("%s: without NoPassword gokrazy's page listens on the network, and a password is in the image", b.Name)
		}
		if want := []string{"holdfast/nvr/cmd/nvr"}; !slices.Equal(c.Packages, want) {
			t.Errorf("%s: packages %q, not %q", b.Name, c.Packages, want)
		}
		if want := []string{"github.com/gokrazy/gokrazy/cmd/dhcp", "github.com/gokrazy/gokrazy/cmd/randomd"}; !slices.Equal(c.GokrazyPackages, want) {
			t.Errorf("%s: packages of gokrazy %q, not %q", b.Name, c.GokrazyPackages, want)
		}
		if c.InternalCompatibilityFlags.InitPkg != "holdfast/appliance/init" {
			t.Errorf("%s: PID 1 is %q", b.Name, c.InternalCompatibilityFlags.InitPkg)
		}
		for _, word := range []string{"HTTPPassword", "KeyPEM", "breakglass", "busybox", "ExtraFilePaths"} {
			if bytes.Contains(raw, []byte(word)) {
				t.Errorf("%s: config.json says %s", b.Name, word)
			}
		}
	}
}

// gok fetches whatever go.mod does not pin, in any version.
func TestEveryPackageOfAnImageIsPinned(t *testing.T) {
	deps, err := os.ReadFile("../deps.go")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^tool github\.com/gokrazy/tools/cmd/gok$`).Match(mod) {
		t.Error("go.mod: gok is no tool of it")
	}
	for _, b := range boards() {
		c, _ := readConfig(t, b.Name)
		for _, p := range append(c.packages(), busybox) {
			if !strings.HasPrefix(p, "holdfast/") && !bytes.Contains(deps, []byte(`_ "`+p+`"`)) {
				t.Errorf("%s: %s is not in deps.go, so the next go mod tidy forgets it", b.Name, p)
			}
		}
		cmd := exec.Command("go", append([]string{"list", "-mod=readonly", "-deps", "-tags=gokrazy,netgo,osusergo",
			"-f", "{{with .Error}}{{.}}{{end}}{{with .Module}}{{.Path}} {{.Version}}{{end}}"}, c.packages()...)...)
		cmd.Dir = repository
		cmd.Env = append(os.Environ(), "GOARCH="+b.GOARCH, "CGO_ENABLED=0")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: go list: %v\n%s", b.Name, err, stderr.String())
		}
		for line := range strings.Lines(string(out)) {
			module, version, _ := strings.Cut(strings.TrimSpace(line), " ")
			if module != "" && module != "holdfast" && !bytes.Contains(mod, []byte("\t"+module+" "+version)) {
				t.Errorf("%s: go.mod does not say %s %s", b.Name, module, version)
			}
		}
	}
}

// validRoot is the root of a release image, in short.
func validRoot() *node {
	root := &node{kind: isDir}
	for _, p := range []string{"gokrazy/init", "gokrazy/dhcp", "gokrazy/randomd", "user/nvr"} {
		root.put(p, []byte("\x7fELF"))
		root.find(p).exec = true
	}
	for _, f := range []string{
		"etc/hostname", "etc/hosts", "etc/ssl/ca-bundle.pem", "etc/gokrazy/sbom.json", "etc/gokrazy/mountdevices.json",
		"etc/holdfast/version", "etc/holdfast/board", "lib/modules/7.1.3/modules.dep", "lib/modules/7.1.3/kernel/a.ko",
	} {
		root.put(f, nil)
	}
	root.find("etc").dir = append(root.find("etc").dir, &node{name: "resolv.conf", kind: isLink, link: "/tmp/resolv.conf"})
	root.dir = append(root.dir, &node{name: "var", kind: isLink, link: "/perm/var"}, &node{name: "perm", kind: isDir})
	return root
}

func TestReleaseHoldsNothingElse(t *testing.T) {
	if faults := strangers(validRoot(), options{}); len(faults) > 0 {
		t.Fatalf("the valid root: %v", faults)
	}
	for name, change := range map[string]func(*node){
		"shell":             func(r *node) { r.put("user/sh", []byte("\x7fELF")) },
		"busybox":           func(r *node) { r.put("usr/local/bin/busybox", []byte("\x7fELF")) },
		"SSH":               func(r *node) { r.put("user/breakglass", []byte("\x7fELF")) },
		"password":          func(r *node) { r.put("etc/gokr-pw.txt", []byte("secret")) },
		"port":              func(r *node) { r.put("etc/http-port.txt", []byte("80")) },
		"TLS key":           func(r *node) { r.put("etc/ssl/gokrazy-web.key.pem", nil) },
		"machine id":        func(r *node) { r.put("etc/machine-id", nil) },
		"data":              func(r *node) { r.put("perm/sh", nil) },
		"open to all":       func(r *node) { r.put("etc/holdfast/nvr.args", []byte("-allow-anonymous\nadmin\n")) },
		"program in lib":    func(r *node) { r.put("lib/modules/sh.ko", nil); r.find("lib/modules/sh.ko").exec = true },
		"file in lib":       func(r *node) { r.put("lib/modules/7.1.3/sh", nil) },
		"link elsewhere":    func(r *node) { r.find("var").link = "/tmp" },
		"no recorder":       func(r *node) { r.remove("user/nvr") },
		"recorder no ELF":   func(r *node) { r.put("user/nvr", []byte("#!/bin/sh")) },
		"zone of the build": func(r *node) { r.put("etc/localtime", nil) },
	} {
		root := validRoot()
		change(root)
		if len(strangers(root, options{})) == 0 {
			t.Errorf("%s: goes unnoticed", name)
		}
	}
}

func TestOnlyTheLabOpensTheDevice(t *testing.T) {
	sbom := []byte(`{"sbom":{"config_hash":{"path":"/srv/x/config.json"}}}`)
	for _, lab := range []bool{false, true} {
		root := validRoot()
		root.put("etc/gokrazy/sbom.json", sbom)
		root.put("etc/localtime", nil)
		root.put("etc/http-port.txt", nil)
		if err := settleRoot(root, options{board: boards()[0], lab: lab}, stamp{version: "v1"}); err != nil {
			t.Fatal(err)
		}
		if args := root.find("etc/holdfast/nvr.args"); (args != nil) != lab {
			t.Errorf("lab %v: arguments of the recorder: %v", lab, args)
		}
		if faults := strangers(root, options{lab: lab}); len(faults) > 0 {
			t.Errorf("lab %v: %v", lab, faults)
		}
		if bytes.Contains(root.find("etc/gokrazy/sbom.json").data, []byte("/srv/x")) {
			t.Errorf("lab %v: a path of the building machine is in the image", lab)
		}
	}
}

// emptyImage is an image with partitions, a boot file system and a root that
// claim these sizes.
func emptyImage(t *testing.T, boot, root int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(imageSize); err != nil {
		t.Fatal(err)
	}
	const mib = 2048 // sectors
	var partitions []*gpt.Partition
	next := uint64(4 * mib)
	for i, size := range []uint64{100 * mib, 500 * mib, 500 * mib, 90 * mib} {
		partitions = append(partitions, &gpt.Partition{Index: i + 1, Start: next, End: next + size - 1, Type: gpt.LinuxFilesystem})
		next += size
	}
	table := gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, Partitions: partitions, ProtectiveMBR: true}
	if err := table.Write(f, imageSize); err != nil {
		t.Fatal(err)
	}
	sector := make([]byte, 512)
	copy(sector[11:], []byte{0, 2, 4, 1, 0, 1, 16, 0})
	copy(sector[54:], "FAT16")
	binary.LittleEndian.PutUint16(sector[22:], 1)
	binary.LittleEndian.PutUint32(sector[32:], uint32(boot/512))
	copy(sector[510:], "\x55\xAA")
	super := make([]byte, 96)
	copy(super, "hsqs")
	binary.LittleEndian.PutUint64(super[40:], uint64(root))
	for at, b := range map[int64][]byte{4 << 20: sector, 104 << 20: super} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestTooBigForItsPartitionIsRefused(t *testing.T) {
	for _, c := range []struct {
		name       string
		boot, root int64
		want       string
	}{
		{"boot by a sector", 100<<20 + 512, 1 << 20, "boot file system: 104858112 bytes, 512 more"},
		{"root by a byte", 16 << 20, 500<<20 + 1, "root file system of gok: 524288001 bytes, 1 more"},
	} {
		_, err := finish(emptyImage(t, c.boot, c.root), options{board: boards()[0]}, stamp{time: time.Unix(1700000000, 0)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// And at the limit it goes on to the next step: reading this empty thing.
	_, err := finish(emptyImage(t, 100<<20, 500<<20), options{board: boards()[0]}, stamp{time: time.Unix(1700000000, 0)})
	if err == nil || strings.Contains(err.Error(), "more than its partition") {
		t.Errorf("exactly full: %v", err)
	}
}

func TestLicencesAreTold(t *testing.T) {
	for file, want := range map[string]string{"../../LICENSE": "Apache-2.0", "licenses/MPL-2.0.txt": "MPL-2.0", "licenses/GPL-3.0.txt": ""} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := spdx(string(b)); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestKernelVersionIsReadFromItsAddress(t *testing.T) {
	for url, want := range map[string]string{
		"https://cdn.kernel.org/pub/linux/kernel/v7.x/linux-7.1.3.tar.xz\n":             "7.1.3",
		"https://github.com/raspberrypi/linux/archive/refs/tags/stable_20250916.tar.gz": "stable_20250916",
	} {
		if got := kernelVersion(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}

// built makes the files of an image as `make image` does, from a copy of the
// working tree at another place if elsewhere.
func built(t *testing.T, b board.Board, elsewhere bool) (files []string, out string) {
	t.Helper()
	source := repository
	if elsewhere {
		source = filepath.Join(t.TempDir(), "elsewhere")
		if err := os.MkdirAll(source, 0o700); err != nil {
			t.Fatal(err)
		}
		// .git too: the commit is part of the programs.
		copied := exec.Command("sh", "-c", `tar -c --exclude=./out --exclude=./bin --exclude=./data --exclude=node_modules . | tar -x -C "$0"`, source)
		copied.Dir = repository
		if msg, err := copied.CombinedOutput(); err != nil {
			t.Fatalf("copy the repository: %v: %s", err, msg)
		}
	}
	out = t.TempDir()
	start := time.Now()
	files, err := build(context.Background(), options{board: b, source: source, out: out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: built in %v", b.Name, time.Since(start).Round(time.Millisecond))
	return files, out
}

func TestImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds images")
	}
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			files, out := built(t, b, false)
			packed, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(packed) >= 80e6 {
				t.Errorf("%d bytes to flash, 80 MB is the limit", len(packed))
			}
			if sum, err := os.ReadFile(files[1]); err != nil || string(sum) != fmt.Sprintf("%x  %s\n", sha256.Sum256(packed), filepath.Base(files[0])) {
				t.Errorf("checksum file: %q, %v", sum, err)
			}
			image := unpack(t, packed, filepath.Join(out, "disk.img"))
			parts, err := readLayout(image)
			if err != nil {
				t.Fatal(err)
			}
			root, err := readRoot(image, parts.rootA.start, parts.rootA.size)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range strangers(root, options{}) {
				t.Error(fault)
			}
			checkRecorder(t, root)
			checkTraces(t, root)
			boot := checkBoot(t, image, parts.boot, b)
			rootSize, _ := squashfsSize(image, parts.rootA.start)
			t.Logf("%s: %.1f MB to flash; boot %.1f of 100 MiB, root %.1f of 500 MiB", b.Name,
				float64(len(packed))/1e6, float64(boot)/(1<<20), float64(rootSize)/(1<<20))
			marker := make([]byte, markerSize)
			if _, err := image.ReadAt(marker, parts.perm.start); err != nil {
				t.Fatal(err)
			}
			if want := append([]byte(freshMarker), make([]byte, markerSize-len(freshMarker))...); !bytes.Equal(marker, want) {
				t.Errorf("/perm begins with %q", bytes.TrimRight(marker, "\x00"))
			}
			checkPapers(t, files[2], files[3], b)
			t.Run("SameCommitSameBytes", func(t *testing.T) { sameBytes(t, b, files) })
		})
	}
}

func unpack(t *testing.T, packed []byte, name string) *os.File {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if n, err := io.Copy(f, z); err != nil || n != imageSize {
		t.Fatalf("unpacked %d bytes of %d: %v", n, imageSize, err)
	}
	return f
}

// checkRecorder looks for the web interface in the recorder.
func checkRecorder(t *testing.T, root *node) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repository, "webui", "dist", "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	if nvr := root.find("user/nvr"); nvr == nil || !bytes.Contains(nvr.data, page) {
		t.Error("the recorder does not hold the page of webui/dist")
	}
}

// checkTraces looks for what the building machine leaves in a root.
func checkTraces(t *testing.T, root *node) {
	t.Helper()
	if bundle := root.find("etc/ssl/ca-bundle.pem"); !bytes.Equal(bundle.data, certificates()) {
		t.Error("the certificate authorities are not those of go.mod")
	}
	here, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "env", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := append(strings.Fields(string(out)), here+"/", os.TempDir()+"/.mkimage-")
	if err := root.walk(func(name string, n *node) error {
		for _, p := range paths {
			if bytes.Contains(n.data, []byte(p)) {
				t.Errorf("%s: names %s, a path of the machine it was built on", name, p)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// checkBoot looks at the boot file system and returns its size.
func checkBoot(t *testing.T, image *os.File, where area, b board.Board) int64 {
	t.Helper()
	size, err := fatSize(image, where.start)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, size)
	if _, err := image.ReadAt(raw, where.start); err != nil {
		t.Fatal(err)
	}
	fat, err := openFAT(raw)
	if err != nil {
		t.Fatal(err)
	}
	boot := map[string]string{}
	fat.files(t, raw[fat.rootDir:fat.data], "", boot)
	cmdline := boot["cmdline.txt"]
	for _, want := range append([]string{"console=" + b.SerialConsole, "init=/gokrazy/init", "root=PARTUUID=", "panic=10"}, b.KernelArgs...) {
		if !slices.ContainsFunc(strings.Fields(cmdline), func(arg string) bool { return strings.HasPrefix(arg, want) }) {
			t.Errorf("kernel command line has no %s: %s", want, cmdline)
		}
	}
	want := []string{"vmlinuz", "EFI/BOOT/BOOTX64.EFI", "loader/entries/gokrazy.conf"}
	if b.Firmware != "" {
		want = append(want, "start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "config.txt")
	}
	if b.EEPROM != "" {
		want = append(want, "pieeprom.upd", "pieeprom.sig", "recovery.bin")
	}
	for _, name := range want {
		if boot[name] == "" {
			t.Errorf("boot file system: no %s", name)
		}
	}
	// gok takes the time of a file on the host, which two builds here share.
	s, err := stampOf(t.Context(), repository, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, sig := range boot {
		if want := fmt.Sprintf("\nts: %d\n", s.time.Unix()); strings.HasSuffix(name, ".sig") && !strings.HasSuffix(sig, want) {
			t.Errorf("boot file system: %s reads %q, not the time of the commit, %q", name, sig, want)
		}
	}
	return size
}

// checkPapers looks at the list of parts and the notice.
func checkPapers(t *testing.T, bomFile, noticeFile string, b board.Board) {
	t.Helper()
	raw, err := os.ReadFile(bomFile)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Components             []struct {
			Name, Version string
			Licenses      []any
		}
	}
	if err := json.Unmarshal(raw, &bom); err != nil {
		t.Fatal(err)
	}
	notice, err := os.ReadFile(noticeFile)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range bom.Components {
		names[c.Name] = true
		if c.Version == "" || len(c.Licenses) == 0 {
			t.Errorf("list of parts: %s has version %q and %d licences", c.Name, c.Version, len(c.Licenses))
		}
		if !bytes.Contains(notice, []byte("\n"+c.Name+" "+c.Version+"\n")) {
			t.Errorf("notice: %s is missing", c.Name)
		}
	}
	want := []string{"Linux", "Minimal Linux Bootloader", "systemd-boot", "Go", "Preact", "modernc.org/sqlite", "github.com/gokrazy/gokrazy"}
	if b.Firmware != "" {
		want = append(want, "Raspberry Pi firmware", "Raspberry Pi boot EEPROM")
	}
	for _, name := range want {
		if !names[name] {
			t.Errorf("list of parts: %s is missing", name)
		}
	}
	for _, text := range []string{"GNU GENERAL PUBLIC LICENSE", "Version 3, 29 June 2007", "GNU LESSER GENERAL PUBLIC LICENSE", "cdn.kernel.org", "bootloader.asm"} {
		if b.Firmware != "" && text == "cdn.kernel.org" {
			text = "raspberrypi/linux"
		}
		if !bytes.Contains(notice, []byte(text)) {
			t.Errorf("notice: says nothing of %q", text)
		}
	}
}

// sameBytes builds the image again: in another folder, with another home, in
// another time zone, later.
func sameBytes(t *testing.T, b board.Board, first []string) {
	t.Setenv("TZ", "Pacific/Chatham")
	for _, name := range []string{"GOPATH", "GOCACHE", "GOENV", "GOMODCACHE"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, strings.TrimSpace(string(value)))
	}
	t.Setenv("HOME", t.TempDir())
	second, _ := built(t, b, true)
	for i := range first {
		x, err := os.ReadFile(first[i])
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(second[i])
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(first[i]) != filepath.Base(second[i]) || !bytes.Equal(x, y) {
			t.Errorf("%s and %s differ: %s", filepath.Base(first[i]), filepath.Base(second[i]),
				cmp.Diff(sha256.Sum256(x), sha256.Sum256(y)))
		}
	}
}

func TestUnknownBoardIsNamed(t *testing.T) {
	err := command([]string{"-board", "rpi3"}, io.Discard, io.Discard)
	if want := `board "rpi3": it is amd64 or rpi4`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
