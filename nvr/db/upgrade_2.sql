-- Version 1 to 2: gaps, spans, retention by days. Part of history: it is never
-- changed, whatever becomes of schema.sql. The rows of span follow (upgrade_2.go).

ALTER TABLE stream ADD COLUMN retain_days INTEGER CHECK (retain_days BETWEEN 1 AND 36500);

ALTER TABLE stream ADD COLUMN owed_from_90k INTEGER NOT NULL DEFAULT 0 CHECK (owed_from_90k >= 0);

CREATE TABLE span (
  stream_id INTEGER NOT NULL REFERENCES stream (id),
  first_no INTEGER NOT NULL CHECK (first_no BETWEEN 0 AND 2147483646),
  last_no INTEGER NOT NULL CHECK (last_no BETWEEN first_no AND 2147483646),
  run_no INTEGER NOT NULL CHECK (run_no BETWEEN 0 AND first_no),
  open_id INTEGER NOT NULL REFERENCES open (id),
  start_time_90k INTEGER NOT NULL CHECK (start_time_90k > 0),
  end_time_90k INTEGER NOT NULL
    CHECK (end_time_90k >= start_time_90k AND end_time_90k - start_time_90k < 1971000000),
  video_sample_entry_id INTEGER NOT NULL REFERENCES video_sample_entry (id),
  video_samples INTEGER NOT NULL CHECK (video_samples > 0),
  file_bytes INTEGER NOT NULL CHECK (file_bytes > 0),
  trailing_zero INTEGER NOT NULL CHECK (trailing_zero IN (0, 1)),
  end_reason TEXT CHECK (octet_length(end_reason) BETWEEN 1 AND 1024),
  PRIMARY KEY (stream_id, start_time_90k, first_no)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX span_no ON span (stream_id, first_no);
CREATE TABLE gap (
  stream_id INTEGER NOT NULL REFERENCES stream (id),
  start_time_90k INTEGER NOT NULL CHECK (start_time_90k > 0),
  end_time_90k INTEGER NOT NULL CHECK (end_time_90k > start_time_90k),
  cause TEXT NOT NULL CHECK (cause IN (
    'unreachable', 'login_refused', 'no_frames', 'bad_timestamps', 'camera_ended',
    'disk_slow', 'disk_full', 'disk_error', 'recorder_down', 'clock', 'other', 'unknown'
  )),
  detail TEXT NOT NULL CHECK (octet_length(detail) <= 300),
  PRIMARY KEY (stream_id, start_time_90k)
) STRICT, WITHOUT ROWID;
