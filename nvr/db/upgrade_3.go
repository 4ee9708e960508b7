package db

import _ "embed"

//go:embed upgrade_3.sql
var upgrade3 string
