package mp4

import (
	"bufio"
	"fmt"
	"io"
)

func (t table) String() string {
	return [...]string{"bytes", "video stts", "video ctts", "video stss", "video stsz", "video stsc", "video co64",
		"audio stts", "audio stsz", "audio stsc", "audio co64", "text stts", "text stsc", "text co64",
		"video trun", "audio trun", "samples", "cues"}[t]
}

// Describe writes what the file consists of, as text for people who look for a
// fault. It needs no index.
func (f *File) Describe(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s\n%d bytes, %v, format %d, tag %s\n", f.mimeType, f.size, f.Duration().Std(), FormatVersion, f.etag)
	if f.leading > 0 {
		fmt.Fprintf(b, "begins %d early\n", f.leading)
	}
	for i, e := range f.videoEntries {
		fmt.Fprintf(b, "video entry %d: %s %dx%d\n", i+1, e.Codec, e.Width, e.Height)
	}
	for i, e := range f.audioEntries {
		fmt.Fprintf(b, "audio entry %d: %s %d Hz\n", i+1, e.Codec, e.SampleRate)
	}
	fmt.Fprintf(b, "\nsections, bytes\n")
	for i := range f.sections {
		s := &f.sections[i]
		fmt.Fprintf(b, "%14d %14d  %v\n", s.start, s.end, s.table)
	}
	fmt.Fprintf(b, "\nsegments, times in 90 kHz\n")
	for i := range f.segs[:len(f.segs)-1] {
		s := &f.segs[i]
		fmt.Fprintf(b, "%d: %s of open %d, wall %d-%d of %d from %s, media %d-%d\n",
			i, name(s.ID), s.OpenID, s.From, s.To, s.WallDuration, s.Start, s.from, s.to)
		fmt.Fprintf(b, "   shown from %d for %d, lead %d, last picture %d longer, gap %d\n", s.showAt, s.shown(), s.lead, s.tail, s.gap)
		fmt.Fprintf(b, "   pictures %d-%d of %d, keys %d, %d bytes, %d chunks, entry %d\n",
			s.v0, s.v1, s.VideoSamples, s.keys, s.videoBytes, s.videoChunks, s.videoEntry)
		if s.sounds() > 0 {
			fmt.Fprintf(b, "   sounds %d-%d of %d, %d bytes, %d chunks, entry %d\n",
				s.a0, s.a1, s.AudioSamples, s.audioBytes, s.audioChunks, s.audioEntry)
		}
		if s.cues > 0 {
			fmt.Fprintf(b, "   cues %d\n", s.cues)
		}
		fmt.Fprintf(b, "   in mdat from byte %d\n", f.dataStart+s.dataAt)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("describe mp4: %w", err)
	}
	return nil
}
