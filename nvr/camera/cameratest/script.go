package cameratest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind names a fault, in scripts and in events.
type Kind string

// The faults. What is not sent is lost: the camera's clock and its frame
// numbers go on, except where said otherwise.
const (
	// Drop cuts the connections of all who watch.
	Drop Kind = "drop"
	// Stall sends nothing for a while; connections stay, requests are answered.
	Stall Kind = "stall"
	// Late sends nothing for a while and then all of it at once, as a network does.
	Late Kind = "late"
	// Refuse takes the whole camera off the network for a while: its port
	// refuses, its connections are cut. Frames are counted on.
	Refuse Kind = "refuse"
	// Password cuts the connections and lets nobody in for a while, whatever
	// the credentials.
	Password Kind = "password"
	// ParameterSets changes to the twin of the fixture at the next key picture,
	// in band and in the SDP: for a built-in fixture the other resolution, for
	// a file another level in its SPS. Again changes back.
	ParameterSets Kind = "sps"
	// NoKey leaves key pictures out for a while; the others are sent in their
	// place, so there is no hole in time or numbers, but nothing decodes well.
	NoKey Kind = "nokey"
	// Jump moves the RTP timestamps of both tracks, for good.
	Jump Kind = "jump"
	// OneFrame sends each viewer, old or new, one more picture and then nothing
	// for a while.
	OneFrame Kind = "oneframe"
	// Duplicate gives the next pictures the timestamp of the one before.
	Duplicate Kind = "duplicate"
	// Backward lets the timestamps of the next pictures run backwards.
	Backward Kind = "backward"
	// Frozen stops the video for a while; the audio goes on.
	Frozen Kind = "frozen"
	// Empty sends before each of the next pictures an access unit without
	// picture data, with the same timestamp.
	Empty Kind = "empty"
	// Lose leaves one RTP packet out of each of the next pictures.
	Lose Kind = "lose"
)

// argument is what a fault takes: a duration, a count, a shift, or nothing.
type argument uint8

const (
	argNone argument = iota
	argFor
	argCount
	argShift
)

func (k Kind) argument() (arg argument, def string, ok bool) {
	switch k {
	case Drop, ParameterSets:
		return argNone, "", true
	case Stall:
		return argFor, "15s", true
	case Late:
		return argFor, "3s", true
	case Refuse:
		return argFor, "10s", true
	case Password:
		return argFor, "1m", true
	case NoKey:
		return argFor, "6m", true
	case OneFrame:
		return argFor, "1m", true
	case Frozen:
		return argFor, "20s", true
	case Jump:
		return argShift, "1h", true
	case Duplicate, Backward, Empty, Lose:
		return argCount, "1", true
	}
	return 0, "", false
}

// Fault is one thing going wrong. Of the fields beside Kind each fault uses at
// most one.
type Fault struct {
	Kind  Kind
	For   time.Duration // stall, late, refuse, password, nokey, oneframe, frozen
	Count int           // duplicate, backward, empty, lose: pictures
	Shift int64         // jump: units of 90 kHz, for the audio turned into its own
}

// Line is a fault and when it comes.
type Line struct {
	// The fault comes at an instant between From and To after the start of the
	// server, which the seed chooses; To not above From means at From.
	From, To time.Duration
	// Every repeats it: From to To after the time before.
	Every bool
	// Paths are the streams it hits, such as "2/main"; none means all.
	Paths []string
	Fault Fault
}

// Script is a plan of faults. As text it is one fault a line:
//
//	# when          [paths]        fault      [argument]
//	10s                            drop
//	30s             1/main         stall      15s
//	1m                             refuse     10s
//	every 20s..60s  2/main,2/sub   drop
//	5m                             jump       -1h
//	6m                             jump       2147483648u
//	7m                             duplicate  5
//
// Times and durations are Go's, counted from the start of the server. A range
// a..b is an instant that the seed chooses. "u" behind a jump means units of
// 90 kHz. Arguments left out are: stall 15s, late 3s, refuse 10s, password 1m,
// nokey 6m, oneframe 1m, frozen 20s, jump 1h, and one picture for duplicate,
// backward, empty and lose.
type Script struct {
	Lines []Line
}

// Help is a script for people who write one: every fault, with its argument
// when that is left out.
const Help = `# when, since the start  [streams]      fault     [argument]
30s                                      drop               # cut all connections
1m                       1/main          stall     15s      # send nothing
every 20s..60s           1/main,1/sub    late      3s       # send nothing, then all at once
2m                                       refuse    10s      # be off the network
2m                                       password  1m       # let nobody in
3m                                       sps                # change the picture's size
3m                                       nokey     6m       # leave key pictures out
4m                                       jump      1h       # move the timestamps; also -1h, 2147483648u
5m                                       oneframe  1m       # send one more picture, then nothing
5m                                       duplicate 1        # give pictures the timestamp of the one before
5m                                       backward  1        # let timestamps run backwards
6m                                       frozen    20s      # stop the video, not the sound
6m                                       empty     1        # send access units without a picture
6m                                       lose      1        # lose a packet of each picture
`

// ParseScript reads the text of a script. Errors name the line.
func ParseScript(text string) (*Script, error) {
	s := &Script{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		l, err := parseLine(words)
		if err != nil {
			return nil, fmt.Errorf("script line %d: %w", n, err)
		}
		s.Lines = append(s.Lines, l)
	}
	return s, nil
}

func parseLine(words []string) (l Line, err error) {
	if words[0] == "every" {
		l.Every = true
		words = words[1:]
		if len(words) == 0 {
			return l, fmt.Errorf("every how long?")
		}
	}
	from, to, ranged := strings.Cut(words[0], "..")
	if l.From, err = parseTime(from); err != nil {
		return l, err
	}
	l.To = l.From
	if ranged {
		if l.To, err = parseTime(to); err != nil {
			return l, err
		}
		if l.To < l.From {
			return l, fmt.Errorf("%s: ends before it begins", words[0])
		}
	}
	if l.Every && l.From == 0 {
		return l, fmt.Errorf("every %s: must be more than nothing", words[0])
	}
	words = words[1:]
	if len(words) > 1 {
		if _, _, known := Kind(words[0]).argument(); !known {
			for p := range strings.SplitSeq(words[0], ",") {
				if l.Paths = append(l.Paths, cleanPath(p)); cleanPath(p) == "" {
					return l, fmt.Errorf("%q: a path is empty", words[0])
				}
			}
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return l, fmt.Errorf("no fault")
	}
	l.Fault, err = ParseFault(strings.Join(words, " "))
	if err == nil && l.Fault.Kind == Refuse && len(l.Paths) > 0 {
		err = fmt.Errorf("refuse concerns the whole camera, it takes no path")
	}
	return l, err
}

func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q: not a time such as 90s or 1h30m", s)
	}
	return d, nil
}

// ParseFault reads a fault as it stands in a script: "stall 15s".
func ParseFault(text string) (f Fault, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return f, fmt.Errorf("no fault")
	}
	f.Kind = Kind(words[0])
	arg, def, ok := f.Kind.argument()
	if !ok {
		return f, fmt.Errorf("%q: no such fault", words[0])
	}
	if len(words) > 2 || len(words) == 2 && arg == argNone {
		return f, fmt.Errorf("%s: %q is too much", f.Kind, words[len(words)-1])
	}
	if len(words) == 2 {
		def = words[1]
	}
	switch arg {
	case argFor:
		if f.For, err = parseTime(def); err != nil {
			return f, fmt.Errorf("%s %w", f.Kind, err)
		}
	case argCount:
		if f.Count, err = strconv.Atoi(def); err != nil || f.Count < 1 {
			return f, fmt.Errorf("%s %q: not a number of pictures", f.Kind, def)
		}
	case argShift:
		if units, found := strings.CutSuffix(def, "u"); found {
			f.Shift, err = strconv.ParseInt(units, 10, 64)
		} else {
			var d time.Duration
			d, err = time.ParseDuration(def)
			f.Shift = int64(d/time.Millisecond) * 90
		}
		if err != nil {
			return f, fmt.Errorf("%s %q: neither a duration such as -1h nor units such as 2147483648u", f.Kind, def)
		}
	}
	return f, nil
}

// String is the fault as it stands in a script.
func (f Fault) String() string {
	switch arg, _, _ := f.Kind.argument(); arg {
	case argFor:
		return fmt.Sprintf("%s %s", f.Kind, f.For)
	case argCount:
		return fmt.Sprintf("%s %d", f.Kind, f.Count)
	case argShift:
		return fmt.Sprintf("%s %du", f.Kind, f.Shift)
	}
	return string(f.Kind)
}

func cleanPath(p string) string { return strings.Trim(p, "/") }

// plan is what of a script is still to come for one stream, or for the server.
type plan struct {
	rng   *rand.Rand
	lines []planned // by time, the nearest first
}

type planned struct {
	at time.Duration
	Line
}

// newPlan takes the lines of s that want wants.
func newPlan(s *Script, rng *rand.Rand, want func(*Line) bool) *plan {
	p := &plan{rng: rng}
	if s != nil {
		for _, l := range s.Lines {
			if want(&l) {
				p.add(planned{at: p.pick(&l), Line: l})
			}
		}
	}
	return p
}

func (p *plan) pick(l *Line) time.Duration {
	if l.To <= l.From {
		return l.From
	}
	return l.From + time.Duration(p.rng.Int64N(int64(l.To-l.From)+1))
}

// add keeps the order; of two at the same time the one added first is first.
func (p *plan) add(n planned) {
	i := 0
	for i < len(p.lines) && p.lines[i].at <= n.at {
		i++
	}
	p.lines = slices.Insert(p.lines, i, n)
}

// next returns when the next fault comes.
func (p *plan) next() (at time.Duration, ok bool) {
	if len(p.lines) == 0 {
		return 0, false
	}
	return p.lines[0].at, true
}

// take removes the next fault, and plans it anew when it repeats.
func (p *plan) take() Fault {
	n := p.lines[0]
	p.lines = slices.Delete(p.lines, 0, 1)
	f := n.Fault
	if n.Every {
		n.at += p.pick(&n.Line)
		p.add(n)
	}
	return f
}
