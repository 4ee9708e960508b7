package dbtest

import (
	"fmt"
	"strings"
	"testing"
)

// judged is a test that takes down what is held against it.
type judged struct {
	testing.TB
	errors []string
}

func (j *judged) Helper()             {}
func (j *judged) Logf(string, ...any) {}
func (j *judged) Errorf(format string, args ...any) {
	j.errors = append(j.errors, fmt.Sprintf(format, args...))
}

func TestTallyWantsNineOfTenReached(t *testing.T) {
	var a Tally
	for i := range 10 {
		a.Count("write", i != 3)
		a.Count("read", i > 1)
	}
	j := &judged{TB: t}
	if a.Judge(j); len(j.errors) != 1 || !strings.HasPrefix(j.errors[0], "read: only 8 of 10 ") {
		t.Errorf("got %q", j.errors)
	}
}
