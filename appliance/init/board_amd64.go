package main

import (
	"holdfast/board"
	"holdfast/board/amd64"
)

// thisBoard is what this program was built for.
func thisBoard() board.Board { return amd64.Board }
