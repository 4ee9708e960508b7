package mp4

import (
	"fmt"
	"slices"

	"holdfast/nvr/media"
)

// piece is a stretch of samples that is contiguous in the sample file.
type piece struct {
	at   int64 // within what the segment has in mdat
	file int64 // in the sample file
	n    int64
}

// chunk is a run of samples of one track that is contiguous in the file
// (ISO 14496-12 section 8.7).
type chunk struct {
	samples int
	at      int64 // within what the segment has in mdat
}

// placement is where the samples of one segment are.
type placement struct {
	pieces       []piece
	video, audio []chunk
}

// make appends the part of a table that belongs to segment i to r.block.
func (r *Reader) make(t table, i int) error {
	switch t {
	case videoTimes, videoOffsets, videoKeys, videoSizes:
		return r.makeVideo(t, i)
	case audioSizes:
		return r.makeAudioSizes(i)
	case audioTimes:
		return r.sounds(i, func(duration, _ int32) {
			r.block = be.AppendUint32(r.block, 1)
			r.block = be.AppendUint32(r.block, uint32(duration))
		})
	case videoRuns:
		return r.makeVideoRuns(i)
	case audioRuns:
		return r.makeAudioRuns(i)
	case textTimes, textChunks, textPlaces, cues:
		r.makeText(t, i)
		return nil
	}
	if err := r.locate(i); err != nil {
		return err
	}
	s := &r.f.segs[i]
	chunks, first, entry := r.pieces.video, s.videoChunkAt+1, s.videoEntry
	if t == audioChunks || t == audioPlaces {
		chunks, first, entry = r.pieces.audio, s.audioChunkAt+1, s.audioEntry
	}
	for n, c := range chunks {
		if t == videoPlaces || t == audioPlaces {
			r.block = be.AppendUint64(r.block, uint64(r.f.dataStart+s.dataAt+c.at))
			continue
		}
		r.block = be.AppendUint32(r.block, uint32(first)+uint32(n))
		r.block = be.AppendUint32(r.block, uint32(c.samples))
		r.block = be.AppendUint32(r.block, uint32(entry))
	}
	return nil
}

func (r *Reader) makeText(t table, i int) {
	s := &r.f.segs[i]
	switch t {
	case textTimes:
		s.eachCue(func(d int64, _ media.Time, _ string) {
			r.block = be.AppendUint32(r.block, 1)
			r.block = be.AppendUint32(r.block, uint32(d))
		})
	case textChunks:
		r.block = be.AppendUint32(r.block, uint32(s.before+1))
		r.block = be.AppendUint32(r.block, uint32(s.cues))
		r.block = be.AppendUint32(r.block, 1)
	case textPlaces:
		r.block = be.AppendUint64(r.block, uint64(r.f.dataStart+s.dataAt))
	case cues:
		s.eachCue(func(_ int64, t media.Time, layout string) {
			r.block = appendCue(r.block, t, layout, r.f.zone)
		})
	}
}

// pictures walks the pictures of segment i that are in the file, with the
// durations they have there.
func (r *Reader) pictures(i int, f func(n int, s media.Sample)) error {
	s := &r.f.segs[i]
	p, err := r.playback(i)
	if err != nil {
		return err
	}
	ix := media.NewIndexReader(p.Video, p.Offsets)
	done := 0
	for done < s.pictures() && ix.Next() {
		if ix.N < s.v0 {
			continue
		}
		sample := ix.Sample
		if ix.N == s.v1-1 {
			if sample.Duration, err = s.lastDuration(ix.Start, sample.Duration); err != nil {
				return err
			}
		}
		f(ix.N, sample)
		done++
	}
	if ix.Err() != nil {
		return ix.Err()
	}
	if done != s.pictures() {
		return fmt.Errorf("%w: %d pictures, the row says %d", media.ErrIndex, done, s.pictures())
	}
	return nil
}

// lastDuration is how long the last picture stands that begins at start and
// lasts d in its recording.
func (s *segment) lastDuration(start int64, d int32) (int32, error) {
	out := int32(s.to + s.tail + s.gap - start)
	if end := start + int64(d); out <= 0 || s.whole && end != int64(s.Duration) {
		return 0, fmt.Errorf("%w: video lasts %d, the row says %d", media.ErrIndex, end, s.Duration)
	}
	return out, nil
}

// makeVideo takes one column of the index, since that is several times as fast
// as going over the pictures.
func (r *Reader) makeVideo(t table, i int) error {
	s := &r.f.segs[i]
	p, err := r.playback(i)
	if err != nil {
		return err
	}
	if t == videoKeys {
		r.column, err = media.AppendKeys(r.column[:0], p.Video, s.v1)
		for _, n := range r.column {
			if int(n) >= s.v0 {
				r.block = be.AppendUint32(r.block, uint32(s.videoAt)+uint32(int(n)-s.v0)+1)
			}
		}
		return err
	}
	switch t {
	case videoTimes:
		if r.column, err = media.AppendDurations(r.column[:0], p.Video, s.v1); err != nil {
			return err
		}
		last := &r.column[s.v1-1]
		var start int64
		for _, d := range r.column[:s.v1-1] {
			start += int64(d)
		}
		*last, err = s.lastDuration(start, *last)
	case videoOffsets:
		r.column, err = media.AppendOffsets(r.column[:0], p.Offsets, s.v1)
	case videoSizes:
		if r.column, err = media.AppendSizes(r.column[:0], p.Video, s.v1); err != nil {
			return err
		}
		part := r.column[s.v0:]
		var sum int64
		b := slices.Grow(r.block, len(part)*sizesRow)[:len(part)*sizesRow]
		for k, v := range part {
			sum += int64(v)
			be.PutUint32(b[k*sizesRow:], uint32(v))
		}
		if r.block = b; sum != s.videoBytes {
			err = fmt.Errorf("%w: pictures of %d bytes, the row says %d", media.ErrIndex, sum, s.videoBytes)
		}
		return err
	}
	if err != nil {
		return err
	}
	part := r.column[s.v0:]
	b := slices.Grow(r.block, len(part)*timesRow)[:len(part)*timesRow]
	for k, v := range part {
		be.PutUint64(b[k*timesRow:], 1<<32|uint64(uint32(v)))
	}
	r.block = b
	return nil
}

func (r *Reader) makeAudioSizes(i int) error {
	return r.sounds(i, func(_, size int32) { r.block = be.AppendUint32(r.block, uint32(size)) })
}

// sounds walks the sounds of segment i that are in the file, with the
// durations they have there: each lasts until the next one, the last until the
// first one of the next segment that has any, or to the end. So the sound
// stays with the picture however many runs there are, and goes on without a
// seam from one recording of a run to the next.
func (r *Reader) sounds(i int, f func(duration, size int32)) error {
	s := &r.f.segs[i]
	p, err := r.playback(i)
	if err != nil {
		return err
	}
	at, err := r.f.soundStart(i, p)
	if err != nil {
		return err
	}
	end := r.f.soundPos(r.f.total().showAt)
	if next := s.nextSound; next > 0 {
		var np Playback
		if r.f.segs[next].whole {
			if np, err = r.playback(next); err != nil {
				return fmt.Errorf("%s: %w", name(r.f.segs[next].ID), err)
			}
		}
		if end, err = r.f.soundStart(next, np); err != nil {
			return err
		}
	}
	start := NewFragmentIndexReader(p.Fragments).AudioStart
	from := rescale(s.from, timescale, s.Audio.Timescale)
	base := r.f.soundPos(s.showAt)

	ix := media.NewIndexReader(p.Audio, nil)
	var held media.Sample
	done := 0
	for done < s.sounds() && ix.Next() {
		if ix.N < s.a0 {
			continue
		}
		if done > 0 {
			pos := start + ix.Start - from
			if t := s.Audio.Timescale; t != r.f.audioScale {
				pos = pos * int64(r.f.audioScale) / int64(t)
			}
			// Leave each of the rest a unit at least, if there is room.
			pos = max(at, min(base+pos, end-int64(s.sounds()-done)))
			f(int32(pos-at), held.Size)
			at = pos
		}
		held = ix.Sample
		done++
	}
	if ix.Err() != nil {
		return ix.Err()
	}
	if done != s.sounds() {
		return fmt.Errorf("%w: %d sounds, the row says %d", media.ErrIndex, done, s.sounds())
	}
	f(int32(end-at), held.Size)
	return nil
}

// locate finds the pieces and chunks of segment i.
//
// There are min(fragments, samples) chunks of a track, because that follows
// from the row alone. A fragment is a chunk of each track. If some fragments
// have no samples of the track, other chunks are split to make up for them.
func (r *Reader) locate(i int) error {
	if r.piecesSeg == i {
		return nil
	}
	r.piecesSeg = -1
	s := &r.f.segs[i]
	p, err := r.playback(i)
	if err != nil {
		return err
	}
	splitVideo, splitAudio := s.videoChunks, s.audioChunks
	v, a := 0, 0
	fr := NewFragmentIndexReader(p.Fragments)
	for n := 0; n < s.Fragments && fr.Next(); n++ {
		if overlap(v, v+fr.Video, s.v0, s.v1) > 0 {
			splitVideo--
		}
		if overlap(a, a+fr.Audio, s.a0, s.a1) > 0 {
			splitAudio--
		}
		v, a = v+fr.Video, a+fr.Audio
	}

	out := placement{r.pieces.pieces[:0], r.pieces.video[:0], r.pieces.audio[:0]}
	video := media.NewIndexReader(p.Video, nil)
	audio := media.NewIndexReader(p.Audio, nil)
	at := s.cueBytes()
	fr = NewFragmentIndexReader(p.Fragments)
	file := fr.Init
	for n := 0; n < s.Fragments && fr.Next(); n++ {
		file += fr.HeaderSize
		out.video, err = out.track(out.video, video, fr.Video, s.v0, s.v1, &splitVideo, &at, &file)
		if err != nil {
			return err
		}
		out.audio, err = out.track(out.audio, audio, fr.Audio, s.a0, s.a1, &splitAudio, &at, &file)
		if err != nil {
			return err
		}
	}
	if fr.Err() != nil {
		return fr.Err()
	}
	if at -= s.cueBytes(); at != s.videoBytes+s.audioBytes {
		return fmt.Errorf("%w: samples of %d bytes, the row says %d", media.ErrIndex, at, s.videoBytes+s.audioBytes)
	}
	r.pieces, r.piecesSeg = out, i
	return nil
}

// track goes over the n samples of one track in a fragment and takes those in
// [first, last). split is how many chunks more than fragments are wanted.
func (pl *placement) track(chunks []chunk, ix *media.IndexReader, n, first, last int, split *int, at, file *int64) ([]chunk, error) {
	splitHere := 0
	begun := false
	for ; n > 0; n-- {
		if !ix.Next() {
			if ix.Err() != nil {
				return chunks, ix.Err()
			}
			return chunks, fmt.Errorf("%w: ends at sample %d", media.ErrIndex, ix.N)
		}
		size := int64(ix.Sample.Size)
		if ix.N < first || ix.N >= last {
			*file += size
			continue
		}
		if begun && splitHere < *split || !begun {
			if begun {
				splitHere++
			}
			chunks = append(chunks, chunk{at: *at})
			begun = true
		}
		chunks[len(chunks)-1].samples++
		if l := len(pl.pieces); l > 0 && pl.pieces[l-1].file+pl.pieces[l-1].n == *file {
			pl.pieces[l-1].n += size
		} else {
			pl.pieces = append(pl.pieces, piece{*at, *file, size})
		}
		*at += size
		*file += size
	}
	*split -= splitHere
	return chunks, nil
}

func (r *Reader) makeVideoRuns(i int) error {
	if err := r.locate(i); err != nil {
		return err
	}
	w := r.runs(media.Video, i)
	err := r.pictures(i, func(_ int, s media.Sample) { w.append(s) })
	r.block = w.b
	return err
}

func (r *Reader) makeAudioRuns(i int) error {
	if err := r.locate(i); err != nil {
		return err
	}
	w := r.runs(media.Audio, i)
	err := r.sounds(i, func(d, size int32) { w.append(media.Sample{Duration: d, Size: size, Key: true}) })
	r.block = w.b
	return err
}

// runWriter writes one trun for each chunk.
type runWriter struct {
	b      []byte
	chunks []chunk
	base   int64 // the distance from the start of moof to the segment's samples
	shape  trunShape
	batch  []media.Sample
}

func (r *Reader) runs(k media.Kind, i int) *runWriter {
	w := &runWriter{b: r.block, base: r.f.dataStart + r.f.segs[i].dataAt, shape: r.f.runShape(k)}
	w.chunks = r.pieces.video
	if k == media.Audio {
		w.chunks = r.pieces.audio
	}
	return w
}

func (w *runWriter) append(s media.Sample) {
	if len(w.chunks) == 0 {
		return // the length of the table tells
	}
	w.batch = append(w.batch, s)
	if c := w.chunks[0]; len(w.batch) == c.samples {
		w.b = appendTrun(w.b, w.batch, w.shape, int(w.base+c.at))
		w.batch, w.chunks = w.batch[:0], w.chunks[1:]
	}
}
