package nvr_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// The house rules, held to the repository as it is. What each check does is in
// house_rules_test.go; that it can fail, in house_mutants_test.go.

const root = ".." // of the repository, from here

func repository(t *testing.T) []string {
	t.Helper()
	files, err := tracked(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func source(t *testing.T) []goFile {
	t.Helper()
	files, err := parseGo(os.DirFS(root), repository(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found %d Go files: looked in the wrong place?", len(files))
	}
	return files
}

func prose(t *testing.T) []text {
	t.Helper()
	list, err := texts(os.DirFS(root), repository(t))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func report(t *testing.T, breaches []string) {
	t.Helper()
	for _, b := range breaches {
		t.Error(b)
	}
}

func TestTopLevelIsTheHouse(t *testing.T) {
	report(t, topLevel(repository(t), []string{
		".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "appliance",
		"board", "go.mod", "go.sum", "gokrazy-config", "nvr", "test", "webui",
	}))
}

func TestImportsGoOneWay(t *testing.T) {
	const (
		cameratest    = "nvr/camera/cameratest"
		dbtest        = "nvr/db/dbtest"
		looptest      = "nvr/store/looptest"
		mp4test       = "nvr/mp4/mp4test"
		sampledirtest = "nvr/store/internal/sampledir/sampledirtest"
	)
	report(t, arrows(source(t), []place{
		{dir: "nvr", why: "it is only the map"},
		{dir: "nvr/design", why: "what binds the code knows nothing of it"},
		{dir: "nvr/media", why: "media is a leaf: the nouns that all others share cannot know any of them"},
		{dir: "nvr/mp4", may: []string{"nvr/media"}, tests: []string{cameratest},
			why: "mp4 knows bytes: no file, no database, no camera"},
		{dir: mp4test, why: "what reads the films that are served must not share the code that makes them"},
		{dir: "nvr/camera", may: []string{"nvr/media"}, tests: []string{cameratest},
			why: "a camera session does not know who takes its pictures, so that it never waits for a disk"},
		{dir: cameratest, may: []string{"nvr/media", "nvr/mp4"}, tests: []string{"nvr/camera"},
			why: "the emulated camera must not share the code it tests"},
		{dir: dbtest, why: "a fault below SQLite does not know whose database it hits"},
		{dir: "nvr/db", may: []string{"nvr/media"}, tests: []string{dbtest, "nvr/mp4"}, why: "db is the SQLite file and nothing above it; store decides"},
		{dir: "nvr/store/internal/sampledir", may: []string{"nvr/media"}, tests: []string{sampledirtest, looptest},
			why: "a sample directory knows names and bytes, so that a fake can stand in its place"},
		{dir: sampledirtest, may: []string{"nvr/store/internal/sampledir"},
			why: "the fake keeps the contract of the disk and knows no more than that"},
		{dir: looptest, why: "a disk does not know who writes to it"},
		{dir: "nvr/store", may: []string{"nvr/db", "nvr/mp4", "nvr/media", "nvr/store/internal/sampledir"}, tests: []string{cameratest, dbtest, looptest, mp4test, sampledirtest},
			why: "store owns the invariants of files and rows; who fills and who serves it comes to it"},
		{dir: "nvr/record/recordtest", may: []string{cameratest, "nvr/mp4", "nvr/media"},
			why: "what proves a recording reads the files alone"},
		{dir: "nvr/record", may: []string{"nvr/camera", "nvr/store", "nvr/media"}, tests: []string{cameratest, "nvr/record/recordtest", "nvr/mp4"},
			why: "record joins camera and store, the only package that knows both, and goes around neither"},
		{dir: "nvr/access", may: []string{"nvr/db", "nvr/media"}, why: "who may do what is decided without knowing how it is done"},
		{dir: "nvr/certificate", why: "what is shown over TLS knows names and files, and nothing of what is served"},
		{dir: "nvr/web", may: []string{"nvr/access", "nvr/design", "nvr/store", "nvr/mp4", "nvr/media", "webui"}, tests: []string{"nvr/record", "nvr/camera", cameratest, mp4test},
			why: "web translates and decides nothing: it asks store and access, and reaches around neither"},
		{dir: "nvr/cmd/nvr", may: []string{"nvr/...", "webui"}, why: "nvr and appliance meet on sockets only"},
		{dir: "webui", why: "webui is a leaf: it embeds files"},

		{dir: "board", why: "board is a leaf"},
		{dir: "board/rpi4", may: []string{"board"}, why: "it is one value of the board type"},
		{dir: "board/amd64", may: []string{"board"}, why: "it is one value of the board type"},

		{dir: "appliance", why: "it is only the map"},
		{dir: "appliance/slot", why: "slot is read before anything else works"},
		{dir: "appliance/watchdog", why: "what resets the machine depends on as little as can be"},
		{dir: "appliance/init", may: []string{"appliance/disk", "appliance/slot", "appliance/watchdog", "board/..."}, why: "PID 1 holds only what must not die, and mounts what it stands on"},
		{dir: "appliance/disk", may: []string{"board"}, why: "the parts of the appliance do not know each other"},
		{dir: "appliance/clock", may: []string{"board"}, why: "the parts of the appliance do not know each other"},
		{dir: "appliance/network", may: []string{"board"}, why: "the parts of the appliance do not know each other"},
		{dir: "appliance/health", may: []string{"board"}, why: "the parts of the appliance do not know each other"},
		{dir: "appliance/update", may: []string{"appliance/slot", "board"}, why: "an update knows the slots and nothing else of the appliance"},
		{dir: "appliance/cmd/appliance", may: []string{"appliance/...", "board/..."}, why: "nvr and appliance meet on sockets only"},

		{dir: "gokrazy-config", why: "it only keeps the packages of an image in go.mod"},
		{dir: "gokrazy-config/mkimage", may: []string{"board/..."}, why: "an image is made of programs, by their import path, and knows none from inside"},
		{dir: "test/hil", may: []string{"board/...", cameratest, "nvr/record/recordtest", "test/hil/nbd"}, why: "the lab looks from outside: over console, HTTP and RTSP"},
		{dir: "test/hil/nbd", why: "a disk does not know what is written to it"},
	}))
}

func TestEachLibraryHasOneOwner(t *testing.T) {
	rtsp := []string{"nvr/camera", "nvr/camera/cameratest"}
	report(t, owners(source(t), []owner{
		{library: "github.com/bluenviron", dirs: rtsp, why: "RTSP and its codecs end where an access unit begins"},
		{library: "github.com/pion", dirs: rtsp, why: "RTP ends where an access unit begins"},
		{library: "modernc.org", dirs: []string{"nvr/db", "nvr/db/dbtest", "test/hil"}, why: "db holds the only SQL of the recorder; its tests stand below SQLite, and the lab asks SQLite itself what a power cut left"},
		{library: "github.com/abema/go-mp4", dirs: []string{"nvr/mp4", "nvr/mp4/mp4test"}, why: "mp4 holds the only boxes"},
		{library: "github.com/coder/websocket", dirs: []string{"nvr/web"}, why: "a WebSocket is a matter of HTTP"},
		{library: "github.com/prometheus", dirs: []string{"nvr/web"}, why: "metrics are one more answer on HTTP; the store keeps its numbers without knowing who asks"},
		{library: "github.com/coreos/go-systemd", dirs: []string{"nvr/cmd/nvr"}, why: "the process speaks to its supervisor, its packages do not"},
		{library: "golang.org/x/sys", dirs: []string{"nvr/store/internal/sampledir", "nvr/store/looptest", "nvr/db", "appliance/disk", "appliance/init", "appliance/watchdog"},
			why: "system calls stand where files are synced and locked, and below the recorder"},
		{library: "github.com/diskfs/go-diskfs", dirs: []string{"appliance/disk", "gokrazy-config/mkimage"}, why: "partitions and file systems are made on first boot and read in images"},
		{library: "github.com/gokrazy", dirs: []string{"appliance/init", "gokrazy-config"}, why: "gokrazy is below PID 1 and nowhere above"},
		{library: "github.com/klauspost/compress", dirs: []string{"gokrazy-config/mkimage"}, why: "images are compressed; video is already"},
		{library: "golang.org/x/crypto/x509roots", dirs: []string{"gokrazy-config/mkimage"}, why: "the certificate authorities of an image are pinned with it"},
		{library: "golang.org/x/crypto/argon2", dirs: []string{"nvr/access"}, why: "access hashes the passwords of users, and nobody else has any"},
		{library: "github.com/santhosh-tekuri/jsonschema", dirs: []string{"nvr/web"}, onlyTests: true, why: "the API is held to its description where it is tested"},
		{library: "go.yaml.in/yaml/v3", dirs: []string{"nvr/web"}, onlyTests: true, why: "the description of the API is read where the API is tested"},
		{library: "github.com/google/go-cmp", tests: true, why: "it compares in tests"},
		{library: "github.com/rogpeppe/go-internal", tests: true, why: "it runs the scripts of tests"},
	}))
}

func TestEachPackageSaysWhatItIsFor(t *testing.T) { report(t, packageComments(source(t))) }

func TestPackageNamesSaySomething(t *testing.T) { report(t, packageNames(source(t))) }

func TestGofmtChangesNothing(t *testing.T) { report(t, formatted(source(t))) }

func TestNoInitNoSleepNoFailedTo(t *testing.T) { report(t, habits(source(t))) }

func TestGoVetFindsNothing(t *testing.T) {
	cmd := exec.Command("go", "vet", "./...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}

func TestGoModReplacesNothing(t *testing.T) {
	report(t, noReplace(read(t, filepath.Join(root, "go.mod"))))
}

func TestLibcIsPinnedAsSQLiteAsks(t *testing.T) {
	const sqlite = "modernc.org/sqlite"
	cmd := exec.Command("go", "list", "-m", "-f", "{{.GoMod}}", sqlite)
	cmd.Dir = root
	theirs, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", sqlite, err)
	}
	report(t, samePin(read(t, filepath.Join(root, "go.mod")), read(t, strings.TrimSpace(string(theirs))), sqlite, "modernc.org/libc"))
}

func TestNoPathOfOneMachine(t *testing.T) { report(t, machinePaths(prose(t))) }

func TestEachCitedRuleExists(t *testing.T) {
	pages := map[string]string{}
	list := prose(t)
	for _, page := range list {
		if path.Dir(page.path) == "nvr/design" {
			pages[path.Base(page.path)] = page.body
		}
	}
	// The mutants cite rules that do not exist: that is what they are for.
	report(t, citations(without(list, "nvr/house_mutants_test.go"), pages))
}

func TestEachDocLinkWorks(t *testing.T) {
	report(t, links(os.DirFS(root), without(prose(t), "nvr/house_mutants_test.go")))
}

func TestGlossaryDefinesTheSchema(t *testing.T) {
	report(t, glossary(read(t, "db/schema.sql"), read(t, "design/glossary.md")))
}

func without(list []text, name string) []text {
	var rest []text
	for _, t := range list {
		if t.path != name {
			rest = append(rest, t)
		}
	}
	return rest
}
