package web

import (
	"net/http"
	"regexp"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// gapJSON is time in which a stream should have recorded and did not.
type gapJSON struct {
	Start   media.Time  `json:"startTime90k"`
	End     media.Time  `json:"endTime90k"`
	Cause   store.Cause `json:"cause"`
	Detail  string      `json:"detail,omitempty"`
	Growing bool        `json:"growing,omitempty"`
}

func (s *server) gaps(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, []string{"startTime90k", "endTime90k"})
	if err != nil {
		return err
	}
	from, to, err := s.timeRange(q)
	if err != nil {
		return err
	}
	_, st, err := s.streamOf(r)
	if err != nil {
		return err
	}
	room := list{share: &s.lists, of: callerOf(r)}
	defer room.end()
	var rows []gapJSON
	err = st.Gaps(r.Context(), from, to, func(g *store.Gap) error {
		if err := room.grow(len(rows)); err != nil {
			return err
		}
		rows = append(rows, describeGap(g))
		return nil
	})
	if err != nil {
		return err
	}
	return writeList(w, r, "gaps", rows, nil)
}

func describeGap(g *store.Gap) gapJSON {
	return gapJSON{g.Start, g.End, g.Cause, withoutAddress(g.Detail), g.Growing}
}

// withoutAddress takes the address of a camera from what a recorder of before
// kept with it: it is not for everybody who may see the camera.
func withoutAddress(text string) string { return address.ReplaceAllString(text, "") }

var address = regexp.MustCompile(`rtsps?://\S*(?:: |$)|rtsps?://\S*`)
