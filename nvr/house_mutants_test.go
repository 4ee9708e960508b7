package nvr_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Each house rule meets a small house that breaks it, and one that only looks
// as if.

func house(t *testing.T, files map[string]string) (fstest.MapFS, []string) {
	t.Helper()
	fsys := fstest.MapFS{".gitignore": {Data: []byte("/bin/\nnode_modules/\n*.test\n")}}
	for name, body := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(body)}
	}
	list, err := tracked(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return fsys, list
}

func parsed(t *testing.T, files map[string]string) []goFile {
	t.Helper()
	fsys, list := house(t, files)
	parsed, err := parseGo(fsys, list)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// expect checks that there is one breach for each of want, in their order, and
// that it says that.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.EqualFunc(got, want, strings.Contains) {
		t.Errorf("breaches\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestIgnoredFilesAreNotTracked(t *testing.T) {
	_, got := house(t, map[string]string{
		".git/config": "", "bin/nvr": "", "nvr/bin/x.go": "", "webui/node_modules/p/p.go": "", "a.test": "", "b.go": "",
	})
	if want := []string{".gitignore", "b.go", "nvr/bin/x.go"}; !slices.Equal(got, want) {
		t.Errorf("tracked %q, want %q", got, want)
	}
}

func TestTopLevelMutants(t *testing.T) {
	want := []string{"go.mod", "nvr"}
	expect(t, topLevel([]string{"go.mod", "nvr/doc.go", "nvr/x/y.go"}, want))
	expect(t, topLevel([]string{"go.mod", "nvr/doc.go", "scripts/x.sh"}, want), "scripts: the top level is fixed")
	expect(t, topLevel([]string{"nvr/doc.go"}, want), "go.mod: missing")
}

func TestArrowMutants(t *testing.T) {
	table := []place{
		{dir: "leaf", why: "leaves know nobody"},
		{dir: "mid", may: []string{"leaf"}, why: "mid sees only leaf"},
		{dir: "top", may: []string{"mid"}, tests: []string{"fake"}, why: "top sees only mid"},
		{dir: "fake", why: "fakes stand alone"},
		{dir: "all", may: []string{"m/..."}, why: "all sees m"},
	}
	imports := func(file string, paths ...string) []goFile {
		body := "package x\n"
		for _, p := range paths {
			body += "import _ \"holdfast/" + p + "\"\n"
		}
		return parsed(t, map[string]string{file: body})
	}
	expect(t, arrows(imports("mid/a.go", "leaf"), table))
	expect(t, arrows(imports("leaf/a.go", "mid"), table), "leaf/a.go: imports mid, but leaves know nobody")
	expect(t, arrows(imports("leaf/a_test.go", "mid"), table), "leaves know nobody")
	expect(t, arrows(imports("top/a.go", "mid", "leaf"), table), "imports leaf, but top sees only mid")
	expect(t, arrows(imports("top/a_test.go", "mid", "leaf", "fake", "top"), table))
	expect(t, arrows(imports("top/a.go", "fake"), table), "imports fake")
	expect(t, arrows(imports("all/a.go", "m", "m/n", "mm"), table), "imports mm")
	expect(t, arrows(imports("new/a.go"), table), "new/a.go: its folder has no place")
	// A build tag hides an import from this machine, not from this check.
	expect(t, arrows(parsed(t, map[string]string{"leaf/a.go": "//go:build plan9\n\npackage x\n\nimport _ \"holdfast/mid\"\n"}), table), "leaves know nobody")
}

func TestOwnerMutants(t *testing.T) {
	table := []owner{
		{library: "a.org/sql", dirs: []string{"db"}, why: "db holds the only SQL"},
		{library: "a.org/cmp", tests: true, why: "it compares in tests"},
		{library: "a.org/page", dirs: []string{"web"}, onlyTests: true, why: "it reads in tests"},
	}
	file := func(name, lib string) []goFile {
		return parsed(t, map[string]string{name: "package x\nimport _ \"" + lib + "\"\n"})
	}
	expect(t, owners(file("db/a.go", "a.org/sql/driver"), table))
	expect(t, owners(file("db/a.go", "database/sql"), table))
	expect(t, owners(file("web/a.go", "a.org/sql/driver"), table), "web/a.go: imports a.org/sql/driver, but db holds the only SQL; it belongs to db")
	expect(t, owners(file("db/a.go", "a.org/sqlite"), table), "has no owner")
	expect(t, owners(file("web/a_test.go", "a.org/cmp/opts"), table))
	expect(t, owners(file("web/a.go", "a.org/cmp/opts"), table), "it belongs to tests")
	expect(t, owners(file("db/a.go", "C"), table), "pure Go")
	expect(t, owners(file("web/a_test.go", "a.org/page"), table))
	expect(t, owners(file("web/a.go", "a.org/page"), table), "it belongs to web, tests")
	expect(t, owners(file("db/a_test.go", "a.org/page"), table), "it belongs to web, tests")
}

func TestPackageCommentMutants(t *testing.T) {
	const good = "// Package x keeps the promise that each thing has one sentence which says what it is for. Nothing else belongs here, as one may guess.\npackage x\n"
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": good, "x/b.go": "package x\n", "x/b_test.go": "// Package x is tested.\npackage x\n"})))
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": "package x\n"})), "x: has no package comment")
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": "// Copyright.\n\npackage x\n"})), "x: has no package comment")
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": good, "x/b.go": good})), "x: has 2 package comments (x/a.go, x/b.go)")
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": "// Package x contains x.\npackage x\n"})), "says too little")
	expect(t, packageComments(parsed(t, map[string]string{"x/a.go": strings.Replace(good, "Package x", "Package y", 1)})), `begins otherwise than "Package x "`)
	expect(t, packageComments(parsed(t, map[string]string{"cmd/y/a.go": strings.Replace(good, "package x\n", "package main\n", 1)})), `begins otherwise than "Command y "`)
}

func TestPackageNameMutants(t *testing.T) {
	expect(t, packageNames(parsed(t, map[string]string{"nvr/media/a.go": "package media\n", "nvr/media/a_test.go": "package media_test\n"})))
	for _, name := range []string{"util", "utils", "common", "helpers", "misc", "types", "models", "core", "base"} {
		expect(t, packageNames(parsed(t, map[string]string{"nvr/" + name + "/a.go": "package fine\n"})), name+" says nothing")
		expect(t, packageNames(parsed(t, map[string]string{"nvr/fine/a.go": "package " + name + "\n"})), name+" says nothing")
	}
}

func TestFormatMutants(t *testing.T) {
	expect(t, formatted(parsed(t, map[string]string{"x/a.go": "package x\n\nvar a, b = 1, 2\n"})))
	expect(t, formatted(parsed(t, map[string]string{"x/a.go": "package x\n\nvar a,b = 1, 2\n"})), "gofmt would change it")
}

func TestHabitMutants(t *testing.T) {
	expect(t, habits(parsed(t, map[string]string{"x/a.go": "package x\nimport \"time\"\nfunc (t) init() { time.Sleep(1) }\ntype t int\n"})))
	expect(t, habits(parsed(t, map[string]string{"x/a.go": "package x\nfunc init() {}\n"})), "init function")
	expect(t, habits(parsed(t, map[string]string{"x/a_test.go": "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"})), "sleeps in real time")
	expect(t, habits(parsed(t, map[string]string{"x/a_test.go": "package x\nimport (\n\"time\"\n_ \"testing/synctest\"\n)\nfunc f() { time.Sleep(1) }\n"})))
	expect(t, habits(parsed(t, map[string]string{"x/a.go": "package x\nconst e = \"Failed" + " to open\"\n"})), "an error says")
}

func TestGoModMutants(t *testing.T) {
	const good = "module m\n\nrequire (\n\ta.org/libc v1.2.3 // indirect\n\ta.org/b/v2 v2.0.0\n)\n"
	expect(t, noReplace(good+"// replace nothing\n"))
	expect(t, noReplace(good+"replace a.org/libc => ../libc\n"), "no replace")
	expect(t, noReplace(good+"replace (\n\ta.org/libc => ../libc\n)\n"), "no replace", "no replace")

	expect(t, samePin(good, "require a.org/libc v1.2.3\n", "sqlite", "a.org/libc"))
	expect(t, samePin(good, "require a.org/libc v1.2.4\n", "sqlite", "a.org/libc"), "may corrupt")
	expect(t, samePin("module m\n", "require a.org/libc v1.2.3\n", "sqlite", "a.org/libc"), "may corrupt")
	expect(t, samePin(good, "module x\n", "sqlite", "a.org/libc"), "out of date")
}

func TestMachinePathMutants(t *testing.T) {
	expect(t, machinePaths([]text{{"a.md", "see framework/work/x and ./root/ and https://x.org/work/y and the root / of it"}}))
	for _, p := range []string{"/wo" + "rk/main/x", "/ro" + "ot/go", "/ho" + "me/anna/x"} {
		expect(t, machinePaths([]text{{"a.md", "one\nin `" + p + "` there"}}), "names "+p)
		expect(t, machinePaths([]text{{"a.md", p + "/z"}}), "names "+p)
	}
}

func TestCitationMutants(t *testing.T) {
	pages := map[string]string{
		"plain.md":  "# Plain\n\n1. It must.\n2. It should.\n10) It may.\n",
		"bold.md":   "**Rule 1.** It must.\n\n**Rule 2.** So must\n\n1. a step\n2. another\n\n### Rule 3: too\n",
		"double.md": "1. a\n\nand\n\n1. b\n",
	}
	at := func(body string) []string { return citations([]text{{"a.go", body}}, pages) }
	expect(t, at("// plain.md rule 1, plain.md rules 1, 2 and 10; bold.md rule 3; bold.md says"))
	expect(t, at("// plain.md rule 3"), "cites plain.md rule 3, which does not exist")
	expect(t, at("// as plain.md\n\t// rule 11 says"), "plain.md rule 11, which")
	expect(t, at("-- plain.md rules 2 and 4"), "plain.md rule 4, which")
	expect(t, at("// bold.md rule 4"), "bold.md rule 4, which")
	expect(t, at("// lost.md rule 1"), "no such design page")
	expect(t, at("// double.md rule 1"), "of which there are 2")
}

func TestLinkMutants(t *testing.T) {
	at := func(body string) []string {
		fsys, list := house(t, map[string]string{
			"docs/a.md": body, "docs/b.md": "# One `b` & two\n\n```\n# no heading\n```\n## One\n## One\n", "nvr/design/c.md": "",
		})
		all, err := texts(fsys, list)
		if err != nil {
			t.Fatal(err)
		}
		return links(fsys, all)
	}
	expect(t, at("# Top\n[x](b.md) [x](../docs) [x](#top) [x](b.md#one-b--two) [x](b.md#one-1) [x](https://x.org) nvr/design/c.md `[x](none.md)`"))
	expect(t, at("[x](c.md)"), "links to c.md, which does not exist")
	expect(t, at("[x](../../b.md)"), "which does not exist")
	expect(t, at("[x](b.md#three)"), "no such heading")
	expect(t, at("[x](b.md#no-heading)"), "no such heading")
	expect(t, at("[x](#top)"), "no such heading")
	expect(t, at("nvr/design/d.md"), "names nvr/design/d.md, which does not exist")
}

func TestGlossaryMutants(t *testing.T) {
	const page = "# Glossary\n\n**recording**: up to a minute.\n\n| sample entry | its table is `video_sample_entry` |\n\n## Camera / stream\n\n- **garbage** what goes\n"
	expect(t, glossary("CREATE TABLE recording (\nCREATE TABLE video_sample_entry (\nCREATE TABLE stream (x); -- garbage of recordings, openness\n", page))
	expect(t, glossary("CREATE TABLE playback (\n", page), "table playback is not in the glossary")
	expect(t, glossary("CREATE TABLE recording (open_id INTEGER -- the key frames\n", page), `"key frame"`, `"open"`)
}

// What setup does with a machine that lacks something, with the machine's
// programs replaced.
func TestSetupInstallsOrSaysTheOneCommand(t *testing.T) {
	mk, err := exec.LookPath("make")
	if err != nil {
		t.Skip("make is not installed")
	}
	run := func(uid, sudo string) (string, error) {
		bin := t.TempDir()
		for name, body := range map[string]string{
			"id":      "echo " + uid,
			"sudo":    sudo,
			"apt-get": `echo "apt-get $*"`,
			"env":     `shift; exec "$@"`,
			"true":    "",
			"strace":  "",
			"curl":    "",
			"mke2fs":  "",
			"ip":      "",
		} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(mk, "--no-print-directory", "-C", root, "SHELL=/bin/sh", "setup")
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const install = "apt-get install -q -y --no-install-recommends ffmpeg chromium\n"
	for _, c := range []struct{ name, uid, sudo string }{
		{"root", "0", "exit 1"},
		{"sudo", "1000", `shift; exec "$@"`},
	} {
		if out, err := run(c.uid, c.sudo); err != nil || !strings.Contains(out, "apt-get update") || !strings.Contains(out, install) || !strings.Contains(out, "installing: ffmpeg chromium\n") {
			t.Errorf("as %s: %v, said\n%s", c.name, err, out)
		}
	}
	out, err := run("1000", "exit 1")
	if want := "sudo apt-get update && sudo apt-get install -y --no-install-recommends ffmpeg chromium\n"; err == nil || !strings.Contains(out, want) || strings.Contains(out, install) {
		t.Errorf("without rights: %v, said\n%s", err, out)
	}
}
