-- The schema of the recorder's database, version 6. What changes here is a step
-- in upgrade.go, too, and the new version's number stands in db.go.
--
-- The database is an index over the sample files; the files are the truth.
-- It holds what must be found fast: which recordings exist, when they began,
-- and where their samples lie. Words are those of design/glossary.md.
--
-- Rules that hold for all tables:
--   * Times are 90 kHz units since 1970-01-01 00:00 UTC without leap seconds,
--     durations are 90 kHz units (time.md rule 1). Names end in _90k.
--   * A UUID is text in its canonical form of 36 characters.
--   * Ids of opens, cameras and streams are never used twice (AUTOINCREMENT),
--     because files that outlive their rows carry them.
--   * Foreign keys are immediate, and enforced on every connection.

-- Facts about the database itself. One row.
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),

  -- Sample files and sample directories carry it, so that the files of one
  -- installation are never taken for those of another.
  uuid TEXT NOT NULL CHECK (octet_length(uuid) = 36)
) STRICT;

-- One row for the creation and one for each upgrade since. The number that
-- counts is PRAGMA user_version; this is the history.
CREATE TABLE version (
  id INTEGER PRIMARY KEY,  -- the schema version reached
  unix_time INTEGER NOT NULL,
  notes TEXT NOT NULL
) STRICT;

-- One read-write opening of the database. Every recording names the open
-- under which it was written, so (recording id, open id) is unique for ever
-- though an id that was never committed may be given again after a crash.
CREATE TABLE open (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  uuid TEXT NOT NULL UNIQUE CHECK (octet_length(uuid) = 36),

  -- What the kernel calls this boot (/proc/sys/kernel/random/boot_id); empty
  -- where there is none. Monotonic times of opens of one boot are comparable.
  boot_id TEXT NOT NULL,

  -- Wall clock at the opening and at the last flush, and the monotonic time
  -- between them. end - start differs from duration when the clock was set
  -- (time.md rule 9).
  start_time_90k INTEGER NOT NULL,
  end_time_90k INTEGER NOT NULL,
  duration_90k INTEGER NOT NULL CHECK (duration_90k >= 0)
) STRICT;

-- A directory of sample files, usually one per disk.
CREATE TABLE sample_file_dir (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  uuid TEXT NOT NULL UNIQUE CHECK (octet_length(uuid) = 36),
  path TEXT NOT NULL UNIQUE CHECK (path != ''),

  -- The last open whose beginning was completed in the directory and here.
  -- A directory that names neither this one nor a later one in progress is
  -- another disk, or an old copy, and is not written to. Null until the first.
  last_complete_open_id INTEGER REFERENCES open (id)
) STRICT;

CREATE TABLE camera (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  uuid TEXT NOT NULL UNIQUE CHECK (octet_length(uuid) = 36),
  name TEXT NOT NULL UNIQUE CHECK (name != ''),
  description TEXT NOT NULL,

  -- 1: it is deleted, and goes with the last row of its streams (storage.md,
  -- Deleted cameras). It has a name and a uuid then that no other can have.
  deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1))
) STRICT;

-- One stream of a camera. One that is deleted alone is of a camera that is
-- deleted, and was made for that.
CREATE TABLE stream (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  camera_id INTEGER NOT NULL REFERENCES camera (id),
  type TEXT NOT NULL CHECK (type IN ('main', 'sub', 'ext')),

  -- Where new recordings go. Recordings keep the directory they were
  -- written to.
  dir_id INTEGER NOT NULL REFERENCES sample_file_dir (id),

  url TEXT NOT NULL,  -- without credentials
  username TEXT NOT NULL,
  transport TEXT NOT NULL CHECK (transport IN ('tcp', 'udp')),
  record INTEGER NOT NULL CHECK (record IN (0, 1)),

  -- The oldest recordings beyond retain_bytes (whole file system blocks) are
  -- deleted; 0 is no limit of its own, the stream shares what the disk has.
  -- A recording is flushed at most flush_if_sec after its start.
  retain_bytes INTEGER NOT NULL CHECK (retain_bytes >= 0),
  flush_if_sec INTEGER NOT NULL CHECK (flush_if_sec >= 0),

  -- Counters that only grow: the number of the next recording, and what all
  -- recordings ever committed add up to. They place a recording on a
  -- continuous media timeline (recording.prev_*).
  cum_recordings INTEGER NOT NULL CHECK (cum_recordings BETWEEN 0 AND 2147483647),
  cum_media_duration_90k INTEGER NOT NULL CHECK (cum_media_duration_90k >= 0),
  cum_runs INTEGER NOT NULL CHECK (cum_runs >= 0),

  -- Sums over the rows of recording, kept by the transaction that changes
  -- them, so that nobody ever has to add them up.
  total_recordings INTEGER NOT NULL CHECK (total_recordings >= 0),
  total_file_bytes INTEGER NOT NULL CHECK (total_file_bytes >= 0),
  total_fs_bytes INTEGER NOT NULL CHECK (total_fs_bytes >= 0),
  total_wall_duration_90k INTEGER NOT NULL CHECK (total_wall_duration_90k >= 0),

  -- New columns stand here, where ALTER TABLE puts them.

  -- Recordings that ended more days ago than this are deleted (time.md rule
  -- 18). Null: no such limit.
  retain_days INTEGER CHECK (retain_days BETWEEN 1 AND 36500),

  -- When record was last set. Time from before that is no gap.
  owed_from_90k INTEGER NOT NULL DEFAULT 0 CHECK (owed_from_90k >= 0),

  -- The password, encrypted with the key in db.key (password.go). Null: none.
  sealed_password BLOB CHECK (length(sealed_password) >= 29),

  UNIQUE (camera_id, type),
  CHECK (record = 0 OR url != '')
) STRICT;

-- How to decode the video samples that refer to it (ISO 14496-12 8.5.2).
-- Rows are never deleted or changed: caches of clients name their ids.
CREATE TABLE video_sample_entry (
  id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 2147483647),
  format TEXT NOT NULL CHECK (format != ''),  -- box type: avc1, hvc1
  codec TEXT NOT NULL CHECK (codec != ''),    -- RFC 6381: avc1.640028
  timescale INTEGER NOT NULL CHECK (timescale BETWEEN 1 AND 4294967295),
  config BLOB NOT NULL CHECK (length(config) > 0),  -- body of avcC or hvcC
  width INTEGER NOT NULL CHECK (width BETWEEN 1 AND 65535),
  height INTEGER NOT NULL CHECK (height BETWEEN 1 AND 65535),
  pasp_h INTEGER NOT NULL CHECK (pasp_h BETWEEN 1 AND 65535),
  pasp_v INTEGER NOT NULL CHECK (pasp_v BETWEEN 1 AND 65535)
) STRICT;

-- The same for audio samples.
CREATE TABLE audio_sample_entry (
  id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 2147483647),
  format TEXT NOT NULL CHECK (format != ''),  -- box type: mp4a
  codec TEXT NOT NULL CHECK (codec != ''),    -- RFC 6381: mp4a.40.2
  timescale INTEGER NOT NULL CHECK (timescale BETWEEN 1 AND 4294967295),
  config BLOB NOT NULL CHECK (length(config) > 0),  -- AudioSpecificConfig
  channels INTEGER NOT NULL CHECK (channels BETWEEN 1 AND 65535),
  sample_rate INTEGER NOT NULL CHECK (sample_rate BETWEEN 1 AND 4294967295)
) STRICT;

-- One recording: at most about a minute of a run, in one sample file. A row
-- exists only for a file that is complete and durable, and it says all that
-- lists and the layout of a virtual MP4 need. What only playing needs is in
-- recording_playback.
--
-- The checks below stand a second time in check.go, so that a recording that
-- cannot be inserted is found before the transaction and never blocks the
-- others; a test holds both together.
CREATE TABLE recording (
  -- stream id << 32 | number of the recording within the stream, from 0.
  -- Also the name of the sample file, as 16 hexadecimal digits.
  composite_id INTEGER PRIMARY KEY
    CHECK (composite_id >> 32 = stream_id)
    CHECK (composite_id & 0xffffffff < 0x7fffffff),

  stream_id INTEGER NOT NULL REFERENCES stream (id),
  open_id INTEGER NOT NULL REFERENCES open (id),
  dir_id INTEGER NOT NULL REFERENCES sample_file_dir (id),

  -- Recordings of the same run before this one: the run began with number
  -- (composite_id & 0xffffffff) - run_offset.
  run_offset INTEGER NOT NULL
    CHECK (run_offset >= 0 AND run_offset <= composite_id & 0xffffffff),

  -- 1: the last sample has duration 0, nothing may follow it in one track.
  -- 2: composition offsets are present.  4: adopted at a start after a crash.
  flags INTEGER NOT NULL CHECK (flags BETWEEN 0 AND 4294967295),

  -- Size of the sample file, and the same in whole file system blocks.
  file_bytes INTEGER NOT NULL CHECK (file_bytes > 0),
  fs_bytes INTEGER NOT NULL CHECK (fs_bytes >= file_bytes),

  start_time_90k INTEGER NOT NULL CHECK (start_time_90k > 0),

  -- What all earlier recordings of the stream add up to, deleted ones too.
  prev_media_duration_90k INTEGER NOT NULL CHECK (prev_media_duration_90k >= 0),
  prev_runs INTEGER NOT NULL CHECK (prev_runs >= 0),

  -- Both durations are less than five minutes (media.MaxRecording). The
  -- start of a list query relies on it. Media duration = wall duration + delta
  -- (time.md rule 6).
  wall_duration_90k INTEGER NOT NULL
    CHECK (wall_duration_90k >= 0 AND wall_duration_90k < 27000000),
  media_duration_delta_90k INTEGER NOT NULL
    CHECK (media_duration_delta_90k >= -wall_duration_90k)
    CHECK (media_duration_delta_90k < 27000000 - wall_duration_90k),

  video_samples INTEGER NOT NULL CHECK (video_samples > 0),
  key_samples INTEGER NOT NULL
    CHECK (key_samples > 0 AND key_samples <= video_samples),
  video_bytes INTEGER NOT NULL
    CHECK (video_bytes > 0 AND video_bytes <= file_bytes),
  audio_samples INTEGER NOT NULL CHECK (audio_samples >= 0),
  audio_bytes INTEGER NOT NULL
    CHECK (audio_bytes >= 0 AND audio_bytes <= file_bytes - video_bytes)
    CHECK ((audio_bytes = 0) = (audio_samples = 0)),
  fragments INTEGER NOT NULL CHECK (fragments > 0),

  video_sample_entry_id INTEGER NOT NULL REFERENCES video_sample_entry (id),
  -- Null when the file has no audio track.
  audio_sample_entry_id INTEGER REFERENCES audio_sample_entry (id)
    CHECK (audio_sample_entry_id IS NOT NULL OR audio_samples = 0),

  -- Why the run ended, on its last recording; null on all others.
  end_reason TEXT CHECK (octet_length(end_reason) BETWEEN 1 AND 1024)
) STRICT;

-- Serves every list, and the length of every virtual MP4, without touching
-- the table: all columns of recording are in it.
CREATE INDEX recording_cover ON recording (
  stream_id,
  start_time_90k,
  open_id,
  dir_id,
  run_offset,
  flags,
  file_bytes,
  fs_bytes,
  prev_media_duration_90k,
  prev_runs,
  wall_duration_90k,
  media_duration_delta_90k,
  video_samples,
  key_samples,
  video_bytes,
  audio_samples,
  audio_bytes,
  fragments,
  video_sample_entry_id,
  audio_sample_entry_id,
  end_reason
);

-- How the times of a recording came about. Nothing in normal running reads
-- it; a repair of times after a clock step does.
CREATE TABLE recording_integrity (
  composite_id INTEGER PRIMARY KEY REFERENCES recording (composite_id),

  -- Local start - start, before the correction: what the clocks of camera and
  -- recorder disagreed by. Null for the first of a run, whose start it is.
  local_time_delta_90k INTEGER,

  -- Monotonic time from the open's beginning to the arrival of the first
  -- picture.
  monotonic_since_open_90k INTEGER NOT NULL,

  -- Wall clock at the end - (start + wall duration). Null when nobody looked:
  -- the recording was adopted.
  wall_end_delta_90k INTEGER
) STRICT;

-- What is needed only for recordings that are played: the sample index of each
-- track (package media) and the index of fragments (package mp4).
CREATE TABLE recording_playback (
  composite_id INTEGER PRIMARY KEY REFERENCES recording (composite_id),
  video BLOB NOT NULL CHECK (length(video) > 0),
  offsets BLOB CHECK (length(offsets) > 0),  -- composition offsets; null: all 0
  audio BLOB CHECK (length(audio) > 0),      -- null: no audio samples
  fragments BLOB NOT NULL CHECK (length(fragments) > 0)
) STRICT;

-- Sample files to unlink. The file may or may not still exist; the row goes
-- only when its absence is durable. The stream may be gone already, so only
-- the directory is referenced.
CREATE TABLE garbage (
  dir_id INTEGER NOT NULL REFERENCES sample_file_dir (id),
  composite_id INTEGER NOT NULL,
  PRIMARY KEY (dir_id, composite_id)
) STRICT, WITHOUT ROWID;

-- Recordings of one run that follow each other, in numbers and on the wall
-- clock, under one open and with one sample entry: what a list over a long time
-- is made of, and the lanes of a timeline. The flush keeps it, and it can be
-- made again from recording alone (span.go). So that a list seldom has to look
-- into one, all recordings of a span begin in the same six hours of UTC.
CREATE TABLE span (
  stream_id INTEGER NOT NULL REFERENCES stream (id),

  -- Numbers of its first and its last recording, and of the first of the run.
  first_no INTEGER NOT NULL CHECK (first_no BETWEEN 0 AND 2147483646),
  last_no INTEGER NOT NULL CHECK (last_no BETWEEN first_no AND 2147483646),
  run_no INTEGER NOT NULL CHECK (run_no BETWEEN 0 AND first_no),

  open_id INTEGER NOT NULL REFERENCES open (id),
  start_time_90k INTEGER NOT NULL CHECK (start_time_90k > 0),

  -- Six hours, and the longest recording. The start of a query relies on it.
  end_time_90k INTEGER NOT NULL
    CHECK (end_time_90k >= start_time_90k AND end_time_90k - start_time_90k < 1971000000),

  video_sample_entry_id INTEGER NOT NULL REFERENCES video_sample_entry (id),

  -- Sums over its recordings.
  video_samples INTEGER NOT NULL CHECK (video_samples > 0),
  file_bytes INTEGER NOT NULL CHECK (file_bytes > 0),

  -- Of the last recording.
  trailing_zero INTEGER NOT NULL CHECK (trailing_zero IN (0, 1)),
  end_reason TEXT CHECK (octet_length(end_reason) BETWEEN 1 AND 1024),

  PRIMARY KEY (stream_id, start_time_90k, first_no)
) STRICT, WITHOUT ROWID;

-- Finds the span of a recording.
CREATE UNIQUE INDEX span_no ON span (stream_id, first_no);

-- Time in which a stream should have recorded and did not (storage.md, Gaps).
-- Those of a stream do not overlap each other, nor a recording of it; adjoining
-- ones differ in cause.
CREATE TABLE gap (
  stream_id INTEGER NOT NULL REFERENCES stream (id),
  start_time_90k INTEGER NOT NULL CHECK (start_time_90k > 0),
  end_time_90k INTEGER NOT NULL CHECK (end_time_90k > start_time_90k),
  cause TEXT NOT NULL CHECK (cause IN (
    'unreachable', 'login_refused', 'no_frames', 'bad_timestamps', 'camera_ended',
    'disk_slow', 'disk_full', 'disk_error', 'recorder_down', 'clock', 'other', 'unknown'
  )),
  detail TEXT NOT NULL CHECK (octet_length(detail) <= 300),  -- for people; may be empty
  PRIMARY KEY (stream_id, start_time_90k)
) STRICT, WITHOUT ROWID;

-- Who may sign in (access.md).
CREATE TABLE user (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  name TEXT NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 64),

  -- Argon2id in the PHC string format. Empty: nobody can sign in with a
  -- password as this user.
  password_hash TEXT NOT NULL CHECK (octet_length(password_hash) <= 256),

  -- An administrator may do everything; one who is disabled, nothing.
  admin INTEGER NOT NULL CHECK (admin IN (0, 1)),
  disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),

  -- What the user may see of every camera, also of those that come later:
  -- 1 live video, 2 what was recorded, 4 take it away as a file.
  rights INTEGER NOT NULL CHECK (rights BETWEEN 0 AND 7),

  created_time_90k INTEGER NOT NULL,
  password_time_90k INTEGER NOT NULL,  -- when the password was last set

  -- A JSON object that the user's clients keep for themselves.
  preferences TEXT NOT NULL DEFAULT '{}'
    CHECK (octet_length(preferences) <= 16384 AND json_valid(preferences) AND json_type(preferences) = 'object')
) STRICT;

-- What a user may see of one camera beside that, by the same numbers.
CREATE TABLE user_camera (
  user_id INTEGER NOT NULL REFERENCES user (id),
  camera_id INTEGER NOT NULL REFERENCES camera (id),
  rights INTEGER NOT NULL CHECK (rights BETWEEN 1 AND 7),
  PRIMARY KEY (user_id, camera_id)
) STRICT, WITHOUT ROWID;

-- Finds the rows that go with a camera.
CREATE INDEX user_camera_camera ON user_camera (camera_id);

-- What lets a user in without the password: the session of a browser, or a
-- token of a program. A row that is gone lets nobody in.
CREATE TABLE user_session (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  user_id INTEGER NOT NULL REFERENCES user (id),

  -- SHA-256 of the secret, which is nowhere else.
  secret_hash BLOB NOT NULL UNIQUE CHECK (length(secret_hash) = 32),

  token INTEGER NOT NULL CHECK (token IN (0, 1)),
  name TEXT NOT NULL CHECK (octet_length(name) <= 64),  -- of a token

  -- The most that it may do of what its user may: rights, and 8 administer.
  scope INTEGER NOT NULL CHECK (scope BETWEEN 0 AND 15),

  created_time_90k INTEGER NOT NULL,
  expires_time_90k INTEGER,  -- null: never
  created_address TEXT NOT NULL CHECK (octet_length(created_address) <= 64),
  created_agent TEXT NOT NULL CHECK (octet_length(created_agent) <= 256),

  -- Its last use, as of some flush: a use is no reason for a transaction.
  used_time_90k INTEGER NOT NULL,
  used_address TEXT NOT NULL CHECK (octet_length(used_address) <= 64),
  used_agent TEXT NOT NULL CHECK (octet_length(used_agent) <= 256),
  uses INTEGER NOT NULL CHECK (uses >= 0)
) STRICT;

-- Finds the sessions of a user.
CREATE INDEX user_session_user ON user_session (user_id);
