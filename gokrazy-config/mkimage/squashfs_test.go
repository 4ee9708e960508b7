package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A list of what a tree holds, to compare two.
func listing(t *testing.T, root *node) map[string]string {
	t.Helper()
	list := map[string]string{}
	if err := root.walk(func(name string, n *node) error {
		list[name] = fmt.Sprintf("%d %v %q %x", n.kind, n.exec, n.link, n.data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// hardTree has what a squashfs may get wrong: folders of more entries than one
// group and of inodes over several metadata blocks, blocks that do not compress,
// sizes around the block, nothing at all.
func hardTree() *node {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	root := &node{kind: isDir}
	for i := range 700 {
		root.put(fmt.Sprintf("many/file-with-a-longer-name-%04d", i), fmt.Append(nil, i))
		if i%3 == 0 {
			root.put(fmt.Sprintf("many/folder-%04d/one", i), nil)
		}
	}
	links := &node{name: "links", kind: isDir}
	for i := range 500 { // the smallest inodes: over 256 of them in one metadata block
		links.dir = append(links.dir, &node{name: fmt.Sprintf("%03d", i), kind: isLink, link: "x"})
	}
	root.dir = append(root.dir, links)
	root.put("empty", nil)
	root.put("noise", noise(3*squashBlock+17))
	root.put("block", bytes.Repeat([]byte("a"), squashBlock))
	root.put("block+1", bytes.Repeat([]byte("b"), squashBlock+1))
	root.put("deep/er/and/deeper", []byte("x"))
	root.put("bin/program", []byte("\x7fELF"))
	root.find("bin/program").exec = true
	root.dir = append(root.dir, &node{name: "nothing", kind: isDir}, &node{name: "link", kind: isLink, link: "/perm/var"})
	return root
}

func TestRootReadsBackAsWritten(t *testing.T) {
	root := hardTree()
	image, err := writeRoot(root, time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, append(make([]byte, 4096), image...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size, err := squashfsSize(f, 4096); err != nil || size > int64(len(image)) || size < int64(len(image))-4095 {
		t.Errorf("size in the superblock is %d, %v; image has %d", size, err, len(image))
	}
	again, err := readRoot(f, 4096, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(listing(t, root), listing(t, again)); d != "" {
		t.Errorf("written (-), read (+):\n%s", d)
	}
}

// The kernel is stricter than a library, and it is the one that must read it.
func TestKernelReadsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	root := hardTree()
	image, err := writeRoot(root, time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name, at := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := os.WriteFile(name, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro", name, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no squashfs, or has no loop devices: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	again := &node{kind: isDir}
	err = fs.WalkDir(os.DirFS(at), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.ModTime().Equal(time.Unix(1700000000, 0)) {
			t.Errorf("%s is of %v", name, info.ModTime())
		}
		n := &node{name: d.Name(), kind: isFile, exec: d.Type().IsRegular() && info.Mode()&0o111 != 0}
		switch d.Type() {
		case fs.ModeDir:
			n.kind = isDir
		case fs.ModeSymlink:
			n.kind = isLink
			if n.link, err = os.Readlink(filepath.Join(at, name)); err != nil {
				return err
			}
		default:
			if n.data, err = os.ReadFile(filepath.Join(at, name)); err != nil {
				return err
			}
		}
		parent := again
		if dir := filepath.Dir(name); dir != "." {
			parent = again.find(dir)
		}
		parent.dir = append(parent.dir, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(listing(t, root), listing(t, again)); d != "" {
		t.Errorf("written (-), read by the kernel (+):\n%s", d)
	}
}

func TestEqualRootsAreEqualBytes(t *testing.T) {
	when := time.Unix(1700000000, 0)
	a, err := writeRoot(hardTree(), when)
	if err != nil {
		t.Fatal(err)
	}
	shuffled := hardTree()
	rand.Shuffle(len(shuffled.dir), func(i, j int) { shuffled.dir[i], shuffled.dir[j] = shuffled.dir[j], shuffled.dir[i] })
	b, err := writeRoot(shuffled, when)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the order in which files were added shows in the image")
	}
	c, err := writeRoot(hardTree(), when.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, c) {
		t.Error("the time of the commit is nowhere in the image")
	}
}
