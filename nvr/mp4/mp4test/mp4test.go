// Package mp4test reads the films that the recorder serves, for tests of those
// who serve them. It goes by go-mp4 and shares nothing with the code that made
// the bytes, so what it reads other programs can read.
package mp4test

import (
	"bytes"
	"fmt"
	"slices"

	gomp4 "github.com/abema/go-mp4"
)

// Sample is one sample of a track with its bytes. At and Duration are in units
// of the track.
type Sample struct {
	At       int64
	Duration uint32
	Data     []byte
}

// Track is one track of a film. Shown is what its edit list lets through,
// units of the movie (90 kHz); all of it when there is none.
type Track struct {
	ID        uint32
	Timescale uint32
	Shown     uint64
	Samples   []Sample
}

// Read resolves the tables of a whole film. Its samples have to fill mdat, each
// byte once, and there has to be nothing behind that.
func Read(b []byte) ([]Track, error) {
	info, err := gomp4.Probe(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read film: %w", err)
	}
	if !info.FastStart {
		return nil, fmt.Errorf("read film: moov does not stand first")
	}
	// Probe passes over a size that all samples of a track have.
	sizes, err := gomp4.ExtractBoxWithPayload(bytes.NewReader(b), nil, gomp4.BoxPath{gomp4.BoxTypeMoov(), gomp4.BoxTypeTrak(),
		gomp4.BoxTypeMdia(), gomp4.BoxTypeMinf(), gomp4.BoxTypeStbl(), gomp4.BoxTypeStsz()})
	if err != nil || len(sizes) != len(info.Tracks) {
		return nil, fmt.Errorf("read film: %d stsz for %d tracks: %v", len(sizes), len(info.Tracks), err)
	}
	var tracks []Track
	type stretch struct{ at, end uint64 }
	var used []stretch
	for i, tr := range info.Tracks {
		same := sizes[i].Payload.(*gomp4.Stsz).SampleSize
		t := Track{ID: tr.TrackID, Timescale: tr.Timescale, Shown: tr.Duration}
		if len(tr.EditList) > 0 {
			t.Shown = 0
		}
		for _, e := range tr.EditList {
			if e.MediaTime >= 0 {
				t.Shown += e.SegmentDuration
			}
		}
		var at int64
		rest := tr.Samples
		for _, c := range tr.Chunks {
			pos := c.DataOffset
			if int(c.SamplesPerChunk) > len(rest) {
				return nil, fmt.Errorf("read film: track %d: chunks have more samples than stsz", t.ID)
			}
			for _, s := range rest[:c.SamplesPerChunk] {
				end := pos + uint64(max(s.Size, same))
				if end > uint64(len(b)) {
					return nil, fmt.Errorf("read film: track %d: sample %d ends at byte %d of %d", t.ID, len(t.Samples), end, len(b))
				}
				t.Samples = append(t.Samples, Sample{at, s.TimeDelta, b[pos:end]})
				at += int64(s.TimeDelta)
				pos = end
			}
			used = append(used, stretch{c.DataOffset, pos})
			rest = rest[c.SamplesPerChunk:]
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("read film: track %d: %d samples in no chunk", t.ID, len(rest))
		}
		tracks = append(tracks, t)
	}
	mdat, err := gomp4.ExtractBox(bytes.NewReader(b), nil, gomp4.BoxPath{gomp4.BoxTypeMdat()})
	if err != nil || len(mdat) != 1 || mdat[0].Offset+mdat[0].Size != uint64(len(b)) {
		return nil, fmt.Errorf("read film: mdat is not the last box: %v", err)
	}
	slices.SortFunc(used, func(a, b stretch) int { return int(int64(a.at) - int64(b.at)) })
	pos := mdat[0].Offset + mdat[0].HeaderSize
	for _, s := range used {
		if s.at != pos {
			return nil, fmt.Errorf("read film: a chunk at byte %d, want %d", s.at, pos)
		}
		pos = s.end
	}
	if pos != uint64(len(b)) {
		return nil, fmt.Errorf("read film: samples end at byte %d of %d", pos, len(b))
	}
	return tracks, nil
}

// ReadSegment resolves a media segment: its tracks in the order in which they
// stand there. It does not know their Timescale and what is Shown: the init
// segment says the one, nothing is hidden of the other.
func ReadSegment(b []byte) ([]Track, error) {
	boxes, err := gomp4.ExtractBoxesWithPayload(bytes.NewReader(b), nil, []gomp4.BoxPath{
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTfhd()},
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTfdt()},
		{gomp4.BoxTypeMoof(), gomp4.BoxTypeTraf(), gomp4.BoxTypeTrun()},
	})
	if err != nil {
		return nil, fmt.Errorf("read media segment: %w", err)
	}
	var out []Track
	var at int64
	for _, box := range boxes {
		switch p := box.Payload.(type) {
		case *gomp4.Tfhd:
			out = append(out, Track{ID: p.TrackID})
		case *gomp4.Tfdt:
			at = int64(p.BaseMediaDecodeTimeV1)
		case *gomp4.Trun:
			t := &out[len(out)-1]
			pos := int64(p.DataOffset)
			for _, e := range p.Entries {
				end := pos + int64(e.SampleSize)
				if pos < 0 || end > int64(len(b)) {
					return nil, fmt.Errorf("read media segment: track %d: sample %d ends at byte %d of %d", t.ID, len(t.Samples), end, len(b))
				}
				t.Samples = append(t.Samples, Sample{at, e.SampleDuration, b[pos:end]})
				at, pos = at+int64(e.SampleDuration), end
			}
		}
	}
	return out, nil
}
