package main

import (
	"errors"
	"flag"
	"fmt"
	"testing"

	"holdfast/nvr/store"
)

// A supervisor decides by the exit code what to do before it starts the recorder
// again.
func TestExitCodes(t *testing.T) {
	poisoned := fmt.Errorf("sync directory: %w", store.ErrPoisoned)
	for _, tt := range []struct {
		err  error
		code int
		told bool
	}{
		{nil, 0, true},
		{flag.ErrHelp, 0, true},
		{errors.New("listen"), 1, false},
		{fmt.Errorf("check: %w", errFindings), 1, true},
		{fmt.Errorf("%w: no command", errUsage), 64, false},
		{poisoned, 3, false},
		{errors.Join(errors.New("stop"), poisoned), 3, false},
		{errors.Join(errUsage, errFindings, poisoned), 3, false}, // whatever else went wrong
	} {
		if code, told := exitCode(tt.err); code != tt.code || told != tt.told {
			t.Errorf("%v: exit code %d, told %v; want %d, %v", tt.err, code, told, tt.code, tt.told)
		}
	}
}
