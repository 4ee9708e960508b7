package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

func dumpCommand(args []string, stdout io.Writer) error {
	fs := newFlags("nvr dump")
	frames := fs.Bool("frames", false, "list every frame")
	words, err := parse(fs, args, stdout, "FILE.mp4")
	if err != nil {
		return err
	}
	name := words[0]
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	sf, err := mp4.ReadSampleFile(f, fi.Size())
	if err != nil {
		return fmt.Errorf("dump %s: %w", name, err)
	}
	dump(stdout, sf, fi.Size(), *frames)
	if sf.Damage != nil {
		return fmt.Errorf("dump %s: whole up to byte %d of %d: %w", name, sf.Good, fi.Size(), sf.Damage)
	}
	return nil
}

// dump writes what a sample file holds, for people.
func dump(out io.Writer, sf *mp4.SampleFile, size int64, frames bool) {
	a := &sf.About
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if sf.Damage != nil {
		fmt.Fprintf(w, "damage\tat byte %d of %d; what follows is of the part before\n", sf.Good, size)
	}
	fmt.Fprintf(w, "camera\t%s (%s)\n", a.CameraName, a.CameraUUID)
	fmt.Fprintf(w, "stream\t%s (%d)\n", a.Stream, a.StreamID)
	fmt.Fprintf(w, "recording\t%d, number %d of its run\n", a.RecordingNo, a.RunOffset+1)
	fmt.Fprintf(w, "open\t%d (%s)\n", a.OpenID, a.OpenUUID)
	fmt.Fprintf(w, "database\t%s\n", a.DatabaseUUID)
	start := media.Time(a.StartTime90k)
	if n := len(sf.Fragments); n > 0 {
		start = sf.Fragments[n-1].Start
	}
	fmt.Fprintf(w, "start\t%s\n", start)
	fmt.Fprintf(w, "video\t%s %dx%d\n", sf.Video.Codec, sf.Video.Width, sf.Video.Height)
	if e := sf.Audio; e != nil {
		fmt.Fprintf(w, "audio\t%s %d Hz, %d channels\n", e.Codec, e.SampleRate, e.Channels)
	}
	var duration media.Duration
	var pictures, sounds, keys int
	for i := range sf.Fragments {
		for _, s := range sf.Fragments[i].Video {
			duration += media.Duration(s.Duration)
			pictures++
			if s.Key {
				keys++
			}
		}
		sounds += len(sf.Fragments[i].Audio)
	}
	fmt.Fprintf(w, "duration\t%s, %d pictures (%d key), %d sounds\n", duration, pictures, keys, sounds)
	if n := len(sf.Fragments); n > 0 && sf.Fragments[n-1].End {
		fmt.Fprintf(w, "end\t%s\n", sf.Fragments[n-1].EndReason)
	}
	w.Flush()

	fmt.Fprintf(out, "\n%d fragments, every CRC right\n", len(sf.Fragments))
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fragment\tbyte\tsize\theader\tat\tpictures\tsounds\t")
	for i := range sf.Fragments {
		f := &sf.Fragments[i]
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%d\t%d\t\n", f.Seq, f.Pos, f.Size, f.HeaderSize, media.Duration(f.VideoTime), len(f.Video), len(f.Audio))
		if !frames {
			continue
		}
		at, pos := f.VideoTime, f.Pos+f.HeaderSize
		for _, s := range f.Video {
			kind := ""
			if s.Key {
				kind = "key"
			}
			fmt.Fprintf(w, "\t%d\t%d\t\t%s\t%s\t\t\n", pos, s.Size, media.Duration(at), kind)
			at += int64(s.Duration)
			pos += int64(s.Size)
		}
	}
	w.Flush()
}
