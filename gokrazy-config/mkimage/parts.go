package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"holdfast/board"
)

// Licences of parts that stand in a module of another licence, and whose text
// their module does not carry.
//
//go:embed licenses
var licenses embed.FS

// A part is something in an image that somebody made: for the list of parts and
// for the notice.
type part struct {
	name, version string
	kind          string   // of CycloneDX: application, library, firmware, operating-system, data
	module        string   // the Go module that it comes from, for its package URL
	license       string   // SPDX identifier or expression
	source        string   // where its source is
	texts         []string // files, absolute or of licenses: the licences in full
	note          string   // for people
	users         []string // programs of the image that contain it
}

// partsOf lists what an image is made of: what its programs say that they are
// built from, and the files that are no program of ours.
func partsOf(ctx context.Context, repository string, env []string, root *node, c *config) ([]part, error) {
	folders, err := moduleFolders(ctx, repository, env)
	if err != nil {
		return nil, err
	}
	modules := map[string]*part{}
	goVersion := ""
	err = root.walk(func(name string, n *node) error {
		if n.kind != isFile || !bytes.HasPrefix(n.data, []byte("\x7fELF")) || strings.HasSuffix(name, ".ko") {
			return nil
		}
		info, err := buildinfo.Read(bytes.NewReader(n.data))
		if err != nil {
			if strings.Contains(name, "busybox") {
				return nil
			}
			return fmt.Errorf("%s: %w", name, err)
		}
		goVersion = info.GoVersion
		for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
			if m.Path == "holdfast" || m.Path == "" {
				continue
			}
			version := m.Version
			if m.Path == info.Main.Path {
				version = folders[m.Path].version
			}
			p := modules[m.Path]
			if p == nil {
				p = &part{name: m.Path, version: version, kind: "library", module: m.Path}
				modules[m.Path] = p
			}
			p.users = append(p.users, "/"+name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, p := range modules {
		folder := folders[p.module].dir
		if p.texts, p.license, err = licenseOf(folder); err != nil {
			return nil, err
		}
		p.source = "https://pkg.go.dev/" + p.module + "@" + p.version
		parts = append(parts, *p)
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.name, b.name) })

	rest, err := otherParts(c, folders)
	if err != nil {
		return nil, err
	}
	goroot, err := goCommand(ctx, repository, env, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	parts = append(parts, rest...)
	return append(parts,
		part{name: "Go", version: strings.TrimPrefix(goVersion, "go"), kind: "library", license: "BSD-3-Clause",
			source: "https://go.dev/dl/" + goVersion + ".src.tar.gz", texts: []string{filepath.Join(strings.TrimSpace(goroot), "LICENSE")},
			note: "the standard library and runtime, in every program"},
		part{name: "Preact", version: npmVersion(repository, "preact"), kind: "library", license: "MIT",
			source: "https://github.com/preactjs/preact", texts: []string{filepath.Join(repository, "webui", "dist", "licenses.txt")},
			note: "in the page that nvr serves", users: []string{"/user/nvr"}},
	), nil
}

// otherParts lists what gok puts into an image beside programs.
func otherParts(c *config, folders map[string]moduleFolder) ([]part, error) {
	of := func(name string) (moduleFolder, error) {
		f := folders[name]
		if f.dir == "" {
			return f, fmt.Errorf("module %s: not in go.mod", name)
		}
		return f, nil
	}
	kernel, err := of(c.KernelPackage)
	if err != nil {
		return nil, err
	}
	upstream, err := os.ReadFile(filepath.Join(kernel.dir, "_build", "upstream-url.txt"))
	if err != nil {
		return nil, err
	}
	const internal, tools, roots = "github.com/gokrazy/internal", "github.com/gokrazy/tools", "golang.org/x/crypto/x509roots/fallback"
	mbr, err := of(internal)
	if err != nil {
		return nil, err
	}
	boot, err := of(tools)
	if err != nil {
		return nil, err
	}
	authorities, err := of(roots)
	if err != nil {
		return nil, err
	}
	parts := []part{
		{name: "Linux", version: kernelVersion(string(upstream)), kind: "operating-system",
			module: c.KernelPackage, license: "GPL-2.0-only",
			source: strings.TrimSpace(string(upstream)),
			texts:  []string{filepath.Join(kernel.dir, "LICENSE.linux")},
			note: "kernel, modules and device trees, unchanged from module " + c.KernelPackage + " " + kernel.version +
				".\nIts folder _build holds patches, configuration and build instructions: " + moduleZip(c.KernelPackage, kernel.version)},
		{name: "Minimal Linux Bootloader", version: "1.0", kind: "firmware", module: internal, license: "GPL-3.0-or-later",
			source: moduleZip(internal, mbr.version), texts: []string{"GPL-3.0.txt"},
			note: "the first sector of the image, from mbr/bootloader.asm there; only a PC with BIOS runs it"},
		{name: "systemd-boot", version: "250.5", kind: "firmware", module: tools, license: "LGPL-2.1-or-later",
			source: "https://github.com/systemd/systemd-stable/tree/v250.5", texts: []string{"LGPL-2.1.txt"},
			note: "EFI/BOOT/BOOT*.EFI of the boot partition, Debian's build 250.5-1, from module " + tools + " " + boot.version +
				";\nsources as Debian keeps them: https://snapshot.debian.org/package/systemd/250.5-1/"},
		{name: "Mozilla certificate authorities", version: authorities.version, kind: "data", module: roots, license: "MPL-2.0",
			source: moduleZip(roots, authorities.version), texts: []string{"MPL-2.0.txt"}, note: "/etc/ssl/ca-bundle.pem"},
	}
	if c.FirmwarePackage != "" {
		f, err := of(c.FirmwarePackage)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: "Raspberry Pi firmware", version: f.version, kind: "firmware", module: c.FirmwarePackage,
			license: "LicenseRef-Broadcom", source: "https://github.com/raspberrypi/firmware",
			texts: []string{filepath.Join(f.dir, "LICENSE.broadcom")}, note: "binaries only; for use with a Raspberry Pi and nothing else"})
	}
	if c.EEPROMPackage != "" {
		f, err := of(c.EEPROMPackage)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: "Raspberry Pi boot EEPROM", version: f.version, kind: "firmware", module: c.EEPROMPackage,
			license: "LicenseRef-RaspberryPi-EEPROM", source: "https://github.com/raspberrypi/rpi-eeprom",
			texts: []string{filepath.Join(f.dir, "LICENSE.eeprom")}, note: "binaries only; for use with a Raspberry Pi and nothing else"})
	}
	if slices.Contains(c.Packages, busybox) {
		f, err := of(busybox)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: "BusyBox", version: "1.34.1", kind: "application", module: busybox, license: "GPL-2.0-only",
			source: "https://busybox.net/downloads/busybox-1.34.1.tar.bz2", texts: []string{filepath.Join(kernel.dir, "LICENSE.linux")},
			note: "debug images only; configuration: busybox.config of " + moduleZip(busybox, f.version)})
	}
	return parts, nil
}

// kernelVersion reads the version from the address of a kernel's source.
func kernelVersion(url string) string {
	name, _ := strings.CutSuffix(path.Base(strings.TrimSpace(url)), ".gz")
	name, _ = strings.CutSuffix(strings.TrimSuffix(name, ".xz"), ".tar")
	return strings.TrimPrefix(name, "linux-")
}

// moduleZip is where the Go module proxy keeps the files of a module.
func moduleZip(module, version string) string {
	return "https://proxy.golang.org/" + module + "/@v/" + version + ".zip"
}

type moduleFolder struct{ version, dir string }

func goCommand(ctx context.Context, repository string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = repository, env
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

func moduleFolders(ctx context.Context, repository string, env []string) (map[string]moduleFolder, error) {
	out, err := goCommand(ctx, repository, env, "list", "-m", "-f", "{{.Path}} {{.Version}} {{.Dir}}", "all")
	if err != nil {
		return nil, err
	}
	folders := map[string]moduleFolder{}
	for line := range strings.Lines(out) {
		if f := strings.SplitN(strings.TrimSpace(line), " ", 3); len(f) == 3 {
			folders[f[0]] = moduleFolder{f[1], f[2]}
		}
	}
	return folders, nil
}

// licenseOf finds the files of a module that say under which licence it is.
func licenseOf(folder string) (files []string, license string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, "", fmt.Errorf("licence: %w", err)
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(strings.ToUpper(e.Name()), ".")
		name, _, _ = strings.Cut(name, "-")
		if e.Type().IsRegular() && slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, name) {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, "", fmt.Errorf("licence: none in %s", folder)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, "", err
		}
		if id := spdx(string(text)); id != "" {
			return files, id, nil
		}
	}
	return nil, "", fmt.Errorf("licence: %s is none that mkimage knows; may it be in an image?", files[0])
}

// spdx tells which licence a text is, of those that parts of an image have.
func spdx(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("Apache License") && has("Version 2.0"):
		return "Apache-2.0"
	case has("Mozilla Public License Version 2.0"), has("Mozilla Public License, version 2.0"):
		return "MPL-2.0"
	case has("Redistribution and use in source and binary forms") && (has("Neither the name") || has("names of its contributors may not be used") || has("may not be used to endorse")):
		return "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	case has("Permission is hereby granted, free of charge"):
		return "MIT"
	case has("Permission to use, copy, modify, and/or distribute this software"), has("Permission to use, copy, modify, and distribute this software"):
		return "ISC"
	case has("This is free and unencumbered software released into the public domain"):
		return "Unlicense"
	}
	return ""
}

// npmVersion reads a version from the lock file of the web interface.
func npmVersion(repository, name string) string {
	raw, err := os.ReadFile(filepath.Join(repository, "webui", "package-lock.json"))
	if err != nil {
		return ""
	}
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	if json.Unmarshal(raw, &lock) != nil {
		return ""
	}
	return lock.Packages["node_modules/"+name].Version
}

// cycloneDX returns the list of parts as CycloneDX 1.6.
func cycloneDX(parts []part, b board.Board, s stamp) ([]byte, error) {
	type license struct {
		License *struct {
			ID   string `json:"id,omitempty"`
			Name string `json:"name,omitempty"`
		} `json:"license"`
	}
	type property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	type reference struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	}
	type component struct {
		Type       string      `json:"type"`
		Ref        string      `json:"bom-ref"`
		Name       string      `json:"name"`
		Version    string      `json:"version,omitempty"`
		Licenses   []license   `json:"licenses,omitempty"`
		PURL       string      `json:"purl,omitempty"`
		References []reference `json:"externalReferences,omitempty"`
		Properties []property  `json:"properties,omitempty"`
	}
	bom := struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   any         `json:"metadata"`
		Components []component `json:"components"`
	}{"CycloneDX", "1.6", 1, struct {
		Time      string    `json:"timestamp"`
		Component component `json:"component"`
	}{s.time.Format(time.RFC3339), component{Type: "firmware", Ref: "holdfast", Name: "holdfast-" + b.Name, Version: s.version}}, nil}
	for _, p := range parts {
		c := component{Type: p.kind, Ref: p.name + "@" + p.version, Name: p.name, Version: p.version}
		var l license
		l.License = &struct {
			ID   string `json:"id,omitempty"`
			Name string `json:"name,omitempty"`
		}{ID: p.license}
		if strings.HasPrefix(p.license, "LicenseRef-") {
			l.License.ID, l.License.Name = "", p.license
		}
		c.Licenses = []license{l}
		if p.module != "" && p.module == p.name {
			c.PURL = "pkg:golang/" + p.name + "@" + p.version
		}
		c.References = []reference{{"source-distribution", p.source}}
		for _, u := range p.users {
			c.Properties = append(c.Properties, property{"holdfast:in", u})
		}
		bom.Components = append(bom.Components, c)
	}
	text, err := json.MarshalIndent(bom, "", "  ")
	return append(text, '\n'), err
}

// noticeOf returns the notice that goes with an image: who made what, where the
// source is, and every licence in full, each text once.
func noticeOf(parts []part, repository string, b board.Board, s stamp) ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, `Holdfast %s for the %s

Holdfast is under the Apache License 2.0; its source is the repository that this
image was built from, at the version above. The image also holds what others
made, listed here with its licence and the place of its source. The licences
stand in full below the list.

`, s.version, b.Title)
	type text struct {
		body  string
		names []string
	}
	own, err := os.ReadFile(filepath.Join(repository, "LICENSE"))
	if err != nil {
		return nil, err
	}
	texts := []*text{{string(own), []string{"Holdfast"}}}
	for _, p := range parts {
		fmt.Fprintf(&out, "%s %s\n    licence: %s\n    source:  %s\n", p.name, p.version, p.license, p.source)
		if p.note != "" {
			fmt.Fprintf(&out, "    %s\n", strings.ReplaceAll(p.note, "\n", "\n    "))
		}
		for _, file := range p.texts {
			var body []byte
			var err error
			if filepath.IsAbs(file) {
				body, err = os.ReadFile(file)
			} else {
				body, err = licenses.ReadFile("licenses/" + file)
			}
			if err != nil {
				return nil, fmt.Errorf("licence of %s: %w", p.name, err)
			}
			i := slices.IndexFunc(texts, func(t *text) bool { return t.body == string(body) })
			if i < 0 {
				i, texts = len(texts), append(texts, &text{body: string(body)})
			}
			texts[i].names = append(texts[i].names, p.name)
		}
	}
	for _, t := range texts {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(t.names, ", "), strings.TrimSpace(t.body))
	}
	return out.Bytes(), nil
}
