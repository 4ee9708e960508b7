package main

import (
	"holdfast/board"
	"holdfast/board/rpi4"
)

// thisBoard is what this program was built for.
func thisBoard() board.Board { return rpi4.Board }
