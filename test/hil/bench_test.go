package hil

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"holdfast/test/hil/nbd"
)

var (
	labFlag   = flag.String("hil", "", "boot machines: `part` (what belongs to every test run), all, or disk (faults of disks); empty boots none")
	cutsFlag  = flag.Int("cuts", 20, "how many power cuts")
	seedFlag  = flag.Uint64("seed", 0, "what chooses everything random; 0 takes one by chance")
	imageFlag = flag.String("image", "", "images that are there already, BOARD=`FILE`, by commas; others are built")
	loadFlag  = flag.Duration("load", 10*time.Minute, "how long eight cameras are recorded")
	keepFlag  = flag.String("keep", "", "`directory` in which disks and consoles of failed tests are kept")
)

// A bench is a device with what the lab needs to hold it by: power, console,
// network, disk. In QEMU all of it is software; a relay, a serial adapter and a
// card reader would do the same for a machine of metal.
type bench interface {
	// PowerOn gives the device power. The time it did counts from then on.
	PowerOn() error
	// PowerCut takes the power away, at once. c says what becomes of what the
	// disk had not been told to flush, where the bench can choose.
	PowerCut(c nbd.Cut) (nbd.Outcome, error)
	// Busy is how long of the time d, up to now or to the cut, the host of the
	// device did not let it run; 0 for one of metal.
	Busy(d time.Duration) time.Duration
	// Console is what the device says on its serial port, over all its starts.
	Console() *console
	// Since is how long ago the power came.
	Since() time.Duration
	// Address is host:port at which a port of the device is reached from here.
	Address(port int) string
	// Here is the host at which the device reaches this process.
	Here() string
	// Perm copies the files of the data partition as the next start would find
	// them, after the journal was replayed, to a new directory. Power is off.
	Perm(dir string) error
}

// A lane is a kind of device that an image is tried on.
type lane struct {
	name     string
	board    string
	firmware string // UEFI code, and its variables; empty: BIOS, or the kernel is loaded by the bench
	vars     string
	arm      bool
}

var lanes = []lane{
	{name: "amd64 BIOS", board: "amd64"},
	{name: "amd64 UEFI", board: "amd64", firmware: "/usr/share/OVMF/OVMF_CODE_4M.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{name: "rpi4 on virt", board: "rpi4", arm: true},
}

// needs skips a test that boots machines unless that was asked for. all says
// that it is not part of every test run.
func needs(t *testing.T, all bool) {
	t.Helper()
	switch {
	case *labFlag == "":
		t.Skip("boots machines: make hil, or go test ./test/hil -hil part|all|disk")
	case *labFlag == "disk":
		t.Skip("no fault of disks: make hil")
	case *labFlag == "part" && all:
		t.Skip("not part of every test run: make hil")
	}
}

// needsDisk skips a test that breaks a disk, or two of them, unless it is asked for.
func needsDisk(t *testing.T) {
	t.Helper()
	if *labFlag != "disk" {
		t.Skip("breaks disks: make hil-disk")
	}
}

// seed is what a test with chance takes it from; it is printed.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return s
}

// The figures of a run, printed when it ends.
var figures struct {
	sync.Mutex
	rows []figure
}

type figure struct{ lane, scenario, what, value string }

// note adds a figure to the table that the lab prints.
func note(t *testing.T, lane, scenario, what, format string, args ...any) {
	t.Helper()
	f := figure{lane, scenario, what, fmt.Sprintf(format, args...)}
	t.Logf("%s: %s: %s", f.scenario, f.what, f.value)
	figures.Lock()
	defer figures.Unlock()
	figures.rows = append(figures.rows, f)
}

func writeFigures(w io.Writer) {
	figures.Lock()
	defer figures.Unlock()
	if len(figures.rows) == 0 {
		return
	}
	slices.SortStableFunc(figures.rows, func(a, b figure) int { return strings.Compare(a.lane, b.lane) })
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "\nlane\tscenario\t\t")
	for _, f := range figures.rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.lane, f.scenario, f.what, f.value)
	}
	tw.Flush()
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	writeFigures(os.Stdout)
	if builds.dir != "" {
		os.RemoveAll(builds.dir)
	}
	os.Exit(code)
}

// keep saves a file of a failed test for people.
func keep(t *testing.T, name string, write func(path string) error) {
	if *keepFlag == "" || !t.Failed() {
		return
	}
	dir := filepath.Join(*keepFlag, strings.ReplaceAll(t.Name(), "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Log(err)
		return
	}
	if err := write(filepath.Join(dir, name)); err != nil {
		t.Log(err)
	}
	t.Logf("kept %s", filepath.Join(dir, name))
}
