-- Version 3 to 4: passwords of cameras are encrypted (password.go, between
-- these statements). Part of history: it is never changed, whatever becomes of
-- schema.sql.

ALTER TABLE stream ADD COLUMN sealed_password BLOB CHECK (length(sealed_password) >= 29);
