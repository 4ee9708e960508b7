package db

import _ "embed"

//go:embed upgrade_6.sql
var upgrade6 string
