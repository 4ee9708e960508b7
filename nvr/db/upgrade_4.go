package db

import _ "embed"

//go:embed upgrade_4.sql
var upgrade4 string

// dropPasswords ends the step to version 4, behind sealPasswords.
const dropPasswords = `ALTER TABLE stream DROP COLUMN password;`
