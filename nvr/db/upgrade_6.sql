-- Version 5 to 6: cameras that are deleted go by and by; preferences of users.
-- Part of history: it is never changed, whatever becomes of schema.sql.

ALTER TABLE camera ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1));
ALTER TABLE user ADD COLUMN preferences TEXT NOT NULL DEFAULT '{}'
  CHECK (octet_length(preferences) <= 16384 AND json_valid(preferences) AND json_type(preferences) = 'object');
