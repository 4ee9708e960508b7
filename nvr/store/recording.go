package store

import (
	"strings"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// recording is a recording that is not in the database yet: growing, or
// sealed and on its way through its directory to the next flush. The stream's
// lock guards it. Bytes and samples that were handed out never change.
type recording struct {
	st         *Stream
	run        *Run // nil when adopted
	no         int32
	runOffset  int32
	follows    bool       // it began where the one before it ended
	start      media.Time // best estimate; exact when it follows
	prevMedia  media.Duration
	prevRuns   int32
	open       *db.OpenRow // under which it was written
	videoEntry *media.SampleEntry
	audioEntry *media.SampleEntry // nil: no audio track
	videoID    int32              // of the entries
	audioID    int32              // 0: none
	dts0       int64              // decode time of the first picture on the session's clock
	received   time.Time          // when the first picture came in
	arrival    media.Time         // the same on the clock of the run
	sinceOpen  media.Duration     // from the open's beginning to that, monotonic
	rotateAt   media.Time
	movedBy    media.Duration // since its file was begun, which goes on with the times it has
	unfit      bool           // the schema refuses it, and that was told; only a flush looks

	// localStart is the least of (arrival - media time) over all pictures: the
	// one that was delayed least says best when the recording began (time.md).
	localStart media.Time

	// The newest unit of each track waits for the next one, which says how
	// long it lasts.
	held         *media.AccessUnit
	heldAudio    *media.AccessUnit
	heldAudioPos int64 // where it stands on the audio track, audio units

	video, audio media.IndexWriter // all units whose duration is known

	pending      []unit // units not yet taken into a fragment
	pendingAudio []unit
	pendingBytes int64

	init     []byte      // ftyp and moov; fixed
	taken    []*fragment // fragments; their place in the file is fixed
	durable  int         // how many of them are synced; they hold no bytes any more
	inWork   int         // how many of them the directory is at work on, or has finished
	kept     int         // the first of them that holds its bytes, see keepGroup
	keptCost int64       // of those, see unitCost

	// Of one that holds again what the file of another did not take, see rewrite.
	rewrites *mp4.Rewrites
	promised int          // how many of its fragments were durable in that file
	heirOf   []*recording // what is not settled before those are durable here

	sealed       bool   // nothing is added any more
	endReason    string // set on the last recording of a run
	created      bool   // its file may exist
	broken       bool   // its file failed: it ends at the last durable fragment
	starved      bool   // memory was full: nothing is added up to the next key frame
	recovered    bool   // adopted at start
	moved        bool   // all of it is in another recording; nothing is left here
	trailingZero bool   // the last picture has duration 0
	settled      bool   // sealed, and all that is to be kept of it is durable
	before       []note // why nothing was recorded before it
	lost         note   // why its end, or all of it, is not kept; without a cause: it is

	size     int64 // of the file with all fragments taken
	cutBytes int64 // torn bytes behind it, when it was adopted
}

// unitCost is what a unit of n bytes takes in memory, about.
func unitCost(n int) int64 { return int64(n) + 128 }

// unit is one access unit with its line in the sample table.
type unit struct {
	data   []byte
	sample media.Sample
	at     int64 // decode time since the recording's start, track units
}

// fragment is a fragment with its fixed place in the file.
type fragment struct {
	mp4.Fragment
	pos        int64
	headerSize int64
	size       int64    // with header
	cost       int64    // of the units in memory, see unitCost
	payload    [][]byte // until durable
	videoEnd   int64    // media time at its end
}

func (rec *recording) id() int64 { return db.CompositeID(rec.st.id, rec.no) }

// header makes the beginning of the sample file.
func (rec *recording) header() ([]byte, error) {
	st := rec.st
	var before []mp4.OpenStart
	for _, o := range st.store.clock.before {
		before = append(before, mp4.OpenStart{OpenID: o.ID, Start90k: int64(o.Start)})
	}
	return mp4.AppendInit(nil, rec.videoEntry, rec.audioEntry, &mp4.About{
		Format: 1, DatabaseUUID: st.store.db.UUID(),
		CameraUUID: st.uuid, CameraName: st.name.String(), Stream: st.typ, StreamID: st.id,
		RecordingNo: rec.no, OpenID: rec.open.ID, OpenUUID: rec.open.UUID, RunOffset: rec.runOffset,
		StartTime90k: int64(rec.start), StartTime: rec.start.String(),
		PrevMediaDuration90k: int64(rec.prevMedia + rec.run.ahead), PrevRuns: rec.prevRuns, SinceOpen90k: int64(rec.sinceOpen),
		OpenStart90k: int64(rec.open.Start), OpensBefore: before,
		Rewrites: rec.rewrites,
	})
}

// hold keeps the newest picture until its duration is known.
func (rec *recording) hold(au media.AccessUnit, local media.Time) {
	rec.held = &au
	// A machine without a clock begins at 1970, and times are positive.
	s := max(1, local.Add(-media.Duration(au.DTS-rec.dts0)))
	if au.DTS == rec.dts0 || s < rec.localStart {
		rec.localStart = s
		if !rec.follows {
			rec.start = s
		}
	}
}

// push adds the held picture, now that its duration is known.
func (rec *recording) push(d int32) {
	au := rec.held
	rec.held = nil
	u := unit{
		data: au.Data,
		at:   rec.video.Duration,
		sample: media.Sample{
			Duration: d, Size: int32(len(au.Data)), Offset: int32(au.PTS - au.DTS), Key: au.Key,
		},
	}
	rec.video.Append(u.sample)
	rec.pending = append(rec.pending, u)
	rec.pendingBytes += int64(len(u.data))
	rec.st.frames++
	rec.st.payload += int64(len(u.data))
	rec.st.unsynced(unitCost(len(u.data)))
	if rec.video.Samples == 1 {
		rec.st.tellBegun(rec)
	}
}

// audioUnits converts a media time of the recording to units of its audio.
func (rec *recording) audioUnits(d int64) int64 {
	return rescale(d, rec.audioEntry.Timescale)
}

// audioPos is where a sound belongs on the recording's audio track. One from
// before the first picture stands at the start.
func (rec *recording) audioPos(au media.AccessUnit) int64 {
	return max(0, au.DTS-rec.audioUnits(rec.dts0))
}

// rescale converts 90 kHz units to another scale without overflow.
func rescale(v int64, scale uint32) int64 {
	const second = int64(media.Second)
	return v/second*int64(scale) + v%second*int64(scale)/second
}

// nominalAudio is the duration of a sound whose next is not known.
func (rec *recording) nominalAudio() int32 {
	if n := rec.audio.Samples; n > 0 {
		return int32(max(1, rec.audio.Duration/int64(n)))
	}
	return 1024 // samples in an AAC frame (ISO 14496-3 section 4.5.1.1)
}

func (rec *recording) holdAudio(au media.AccessUnit) {
	if rec.audio.Samples == 0 {
		rec.heldAudioPos = rec.audioPos(au)
	}
	rec.heldAudio = &au
}

func (rec *recording) pushAudio(d int32) {
	au := rec.heldAudio
	rec.heldAudio = nil
	u := unit{
		data:   au.Data,
		at:     rec.heldAudioPos,
		sample: media.Sample{Duration: d, Size: int32(len(au.Data)), Key: true},
	}
	rec.heldAudioPos += int64(d)
	rec.audio.Append(u.sample)
	rec.pendingAudio = append(rec.pendingAudio, u)
	rec.pendingBytes += int64(len(u.data))
	rec.st.payload += int64(len(u.data))
	rec.st.unsynced(unitCost(len(u.data)))
}

// finishAudio settles the held sound at the end of the recording: it returns
// it when it belongs behind the end, and keeps it otherwise.
func (rec *recording) finishAudio() *media.AccessUnit {
	au := rec.heldAudio
	if au == nil {
		return nil
	}
	if rec.heldAudioPos >= rec.audioUnits(rec.video.Duration) {
		rec.heldAudio = nil
		return au
	}
	rec.pushAudio(rec.nominalAudio())
	return nil
}

// end marks the recording as the last of its run.
func (rec *recording) end(reason string) {
	const longest = 200 // bytes: it goes into the file and into a row
	if len(reason) > longest {
		reason = reason[:longest]
	}
	rec.endReason = strings.ToValidUTF8(reason, "")
}

// mediaDuration is that of the pictures in the recording.
func (rec *recording) mediaDuration() media.Duration { return media.Duration(rec.video.Duration) }

// wallDuration is the media duration, moved towards the recorder's clock by
// 500 ppm at most (R94, time.md). The first recording of a run has its start
// from the clock and needs no correction.
func (rec *recording) wallDuration() media.Duration {
	d := rec.mediaDuration()
	if rec.follows {
		limit := d / 2000
		d += min(max(rec.localStart.Sub(rec.start), -limit), limit)
	}
	return min(d, media.MaxRecording-1)
}

// takeFragments gives all pending units a place in the file. The directory's
// goroutine calls it, and then writes what has no bytes in the file yet.
func (rec *recording) takeFragments() {
	for len(rec.pending) > 0 || rec.sealed && len(rec.pendingAudio) > 0 {
		n := fragmentLength(rec.pending)
		video := rec.pending[:n:n]
		rec.pending = rec.pending[n:]
		f := &fragment{pos: rec.size}
		f.ID, f.OpenID, f.Seq, f.Start = rec.id(), rec.open.ID, uint32(len(rec.taken)+1), max(1, rec.start.Add(-rec.movedBy))
		f.videoEnd = rec.video.Duration
		if n > 0 {
			last := video[n-1]
			f.VideoTime, f.videoEnd = video[0].at, last.at+int64(last.sample.Duration)
		}
		lastOne := rec.sealed && len(rec.pending) == 0
		m := len(rec.pendingAudio)
		if !lastOne {
			m = 0
			for until := rec.audioLimit(f.videoEnd); m < len(rec.pendingAudio) && rec.pendingAudio[m].at < until; {
				m++
			}
		}
		audio := rec.pendingAudio[:m:m]
		rec.pendingAudio = rec.pendingAudio[m:]
		if m > 0 {
			f.AudioTime = audio[0].at
		}
		f.Video, f.payload = split(video, f.payload)
		f.Audio, f.payload = split(audio, f.payload)
		if lastOne && rec.endReason != "" {
			f.End, f.EndReason = true, rec.endReason
		}
		f.headerSize = int64(f.HeaderSize())
		f.size = f.headerSize
		for _, b := range f.payload {
			f.size += int64(len(b))
			f.cost += unitCost(len(b))
			rec.pendingBytes -= int64(len(b))
		}
		rec.size += f.size
		rec.taken = append(rec.taken, f)
	}
}

// audioLimit is the audio position before which a sound goes with the
// pictures up to videoEnd.
func (rec *recording) audioLimit(videoEnd int64) int64 {
	if rec.audioEntry == nil {
		return 0
	}
	return rec.audioUnits(videoEnd)
}

// largestFragment bounds the samples of one fragment, bytes. A camera that
// sends more in a second gets shorter fragments.
const largestFragment = 32 << 20

// fragmentLength is how many units the next fragment takes: up to the next
// key frame, and no more than a second.
func fragmentLength(units []unit) int {
	bytes := 0
	for i, u := range units {
		bytes += len(u.data)
		if i > 0 && (u.sample.Key || u.at-units[0].at >= int64(media.Second) || bytes > largestFragment) {
			return i
		}
	}
	return len(units)
}

func split(units []unit, payload [][]byte) ([]media.Sample, [][]byte) {
	if len(units) == 0 {
		return nil, payload
	}
	samples := make([]media.Sample, len(units))
	for i, u := range units {
		samples[i] = u.sample
		payload = append(payload, u.data)
	}
	return samples, payload
}

// lighten lets go of what the row of a settled recording does not need: of the
// samples of a fragment only their number is asked for, the rest is in the index.
func (rec *recording) lighten() {
	for _, f := range rec.taken {
		if len(f.Video) <= len(counted) && len(f.Audio) <= len(counted) {
			f.Video, f.Audio = counted[:len(f.Video)], counted[:len(f.Audio)]
		}
	}
}

// counted stands for samples that are only counted.
var counted [1024]media.Sample

// cut takes back everything behind the first n fragments: the bytes are given
// up, and the indexes end there.
func (rec *recording) cut(n int) {
	n = min(n, len(rec.taken))
	rec.inWork = min(rec.inWork, n)
	var freed int64
	for _, u := range rec.pending {
		freed += unitCost(len(u.data))
	}
	for _, u := range rec.pendingAudio {
		freed += unitCost(len(u.data))
	}
	for _, f := range rec.taken[max(n, min(rec.durable, len(rec.taken))):] {
		freed += f.cost
	}
	rec.st.unsynced(-freed)
	rec.pending, rec.pendingAudio, rec.pendingBytes = nil, nil, 0
	if n < len(rec.taken) {
		rec.size = rec.taken[n].pos
		rec.taken = rec.taken[:n:n]
	}
	rec.durable = min(rec.durable, n)
	rec.letGo(rec.durable)
	var video, audio int
	for _, f := range rec.taken {
		video += len(f.Video)
		audio += len(f.Audio)
	}
	if video < rec.video.Samples {
		rec.trailingZero = false
	}
	rec.video = prefix(&rec.video, video)
	rec.audio = prefix(&rec.audio, audio)
	rec.heldAudioPos = 0
}

// prefix is the index of the first n samples.
func prefix(w *media.IndexWriter, n int) media.IndexWriter {
	var out media.IndexWriter
	r := media.NewIndexReader(w.Index(), w.Offsets())
	for out.Samples < n && r.Next() {
		out.Append(r.Sample)
	}
	return out
}

// fragmentIndex is the index of the fragments taken.
func (rec *recording) fragmentIndex() *mp4.FragmentIndexWriter {
	var w mp4.FragmentIndexWriter
	w.Init(int64(len(rec.init)))
	sounds := 0
	for _, f := range rec.taken {
		if sounds == 0 && len(f.Audio) > 0 {
			w.AudioStart(f.AudioTime)
		}
		sounds += len(f.Audio)
		w.Append(f.headerSize, len(f.Video), len(f.Audio))
	}
	return &w
}

// playback is what the database will hold of the recording, as far as it has
// been taken into fragments.
func (rec *recording) playback() mp4.Playback {
	return mp4.Playback{
		Video: rec.video.Index(), Offsets: rec.video.Offsets(), Audio: rec.audio.Index(),
		Fragments: rec.fragmentIndex().Index(),
	}
}
