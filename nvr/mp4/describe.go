package mp4

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	gomp4 "github.com/abema/go-mp4"

	"holdfast/nvr/media"
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
	describeEntries(b, f.videoEntries)
	describeEntries(b, f.audioEntries)
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

func describeEntries(w io.Writer, entries []*media.SampleEntry) {
	for i, e := range entries {
		if e.Kind == media.Video {
			fmt.Fprintf(w, "video entry %d: %s %dx%d\n", i+1, e.Codec, e.Width, e.Height)
		} else {
			fmt.Fprintf(w, "audio entry %d: %s %d Hz\n", i+1, e.Codec, e.SampleRate)
		}
	}
}

// DescribeInit is what an initialisation segment consists of, as text: the
// entries it was made of, and its boxes with their bytes.
func DescribeInit(init []byte, entries ...*media.SampleEntry) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d bytes\n", ContentType(entries...), len(init))
	for _, e := range entries {
		describeEntries(&b, []*media.SampleEntry{e})
	}
	fmt.Fprintf(&b, "\nboxes, bytes\n")
	_, err := gomp4.ReadBoxStructure(bytes.NewReader(init), func(h *gomp4.ReadHandle) (any, error) {
		fmt.Fprintf(&b, "%*s%s %d\n", 3*(len(h.Path)-1), "", h.BoxInfo.Type, h.BoxInfo.Size)
		if !h.BoxInfo.IsSupportedType() {
			return nil, nil
		}
		return h.Expand()
	})
	if err != nil {
		return "", fmt.Errorf("describe init segment: %w", err)
	}
	return b.String(), nil
}
