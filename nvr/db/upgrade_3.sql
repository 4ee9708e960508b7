-- Version 2 to 3: users, what they may do with cameras, their sessions and
-- tokens. Part of history: it is never changed, whatever becomes of schema.sql.

CREATE TABLE user (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  name TEXT NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 64),
  password_hash TEXT NOT NULL CHECK (octet_length(password_hash) <= 256),
  admin INTEGER NOT NULL CHECK (admin IN (0, 1)),
  disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
  rights INTEGER NOT NULL CHECK (rights BETWEEN 0 AND 7),
  created_time_90k INTEGER NOT NULL,
  password_time_90k INTEGER NOT NULL
) STRICT;
CREATE TABLE user_camera (
  user_id INTEGER NOT NULL REFERENCES user (id),
  camera_id INTEGER NOT NULL REFERENCES camera (id),
  rights INTEGER NOT NULL CHECK (rights BETWEEN 1 AND 7),
  PRIMARY KEY (user_id, camera_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_camera_camera ON user_camera (camera_id);
CREATE TABLE user_session (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
  user_id INTEGER NOT NULL REFERENCES user (id),
  secret_hash BLOB NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
  token INTEGER NOT NULL CHECK (token IN (0, 1)),
  name TEXT NOT NULL CHECK (octet_length(name) <= 64),
  scope INTEGER NOT NULL CHECK (scope BETWEEN 0 AND 15),
  created_time_90k INTEGER NOT NULL,
  expires_time_90k INTEGER,
  created_address TEXT NOT NULL CHECK (octet_length(created_address) <= 64),
  created_agent TEXT NOT NULL CHECK (octet_length(created_agent) <= 256),
  used_time_90k INTEGER NOT NULL,
  used_address TEXT NOT NULL CHECK (octet_length(used_address) <= 64),
  used_agent TEXT NOT NULL CHECK (octet_length(used_agent) <= 256),
  uses INTEGER NOT NULL CHECK (uses >= 0)
) STRICT;
CREATE INDEX user_session_user ON user_session (user_id);
