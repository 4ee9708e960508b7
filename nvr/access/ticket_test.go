package access

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
)

func (h *house) ticket(s Subject) string {
	h.Helper()
	t, err := h.Ticket(s, "a")
	h.must(err)
	return t
}

// A ticket is its session, once, for its path, for a while.
func TestTicketIsGoodOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		_, secret := h.viewer("v", Live, nil)
		s := h.session(secret)
		ticket := h.ticket(s)
		got, ok := h.Redeem(ticket, "a", Peer{"192.0.2.9", "x"})
		if !ok || got.UserID != s.UserID || got.SessionID != s.SessionID || !got.May(ViewLive, 1) || got.Done() != s.Done() {
			t.Errorf("%+v, %t", got, ok)
		}
		if list, err := h.Sessions(s, s.UserID); err != nil || list[0].UsedFrom != (Peer{"192.0.2.9", "x"}) {
			t.Errorf("the use is not taken down: %+v, %v", list, err)
		}
		for _, tried := range []string{ticket, "", secret} {
			if _, ok := h.Redeem(tried, "a", home); ok {
				t.Errorf("%q lets in", tried)
			}
		}
		ticket = h.ticket(s)
		for _, path := range []string{"b", "a"} { // a wrong path uses it up
			if _, ok := h.Redeem(ticket, path, home); ok {
				t.Errorf("for another path, then %s", path)
			}
		}
		for after, want := range map[time.Duration]bool{TicketTime - 1: true, TicketTime: false} {
			ticket = h.ticket(s)
			time.Sleep(after)
			if _, ok := h.Redeem(ticket, "a", home); ok != want {
				t.Errorf("after %v: %t", after, ok)
			}
		}
	})
}

// Fails when a ticket outlives its session or the rights that it was made with.
func TestTicketEndsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(h *house, s Subject, id int32) error{
		"signed out": func(h *house, s Subject, _ int32) error { return h.Logout(h.Context(), s) },
		"revoked":    func(h *house, s Subject, id int32) error { return h.Revoke(h.Context(), h.root, id, s.SessionID) },
		"other rights": func(h *house, _ Subject, id int32) error {
			_, err := h.ChangeUser(h.Context(), h.root, id, UserChange{Cameras: map[int32]Rights{2: Live}}, home)
			return err
		},
		"deleted": func(h *house, _ Subject, id int32) error { return h.DeleteUser(h.Context(), h.root, id) },
		"expired": func(h *house, _ Subject, _ int32) error { h.wall = h.wall.Add(idleTime); return nil },
	} {
		h := newHouse(t)
		id, secret := h.viewer("v", Live, nil)
		s := h.session(secret)
		ticket := h.ticket(s)
		h.must(end(h, s, id))
		if _, ok := h.Redeem(ticket, "a", home); ok {
			t.Errorf("%s: it lets in", name)
		}
		if _, err := h.Ticket(s, "a"); name != "expired" && !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: another one: %v", name, err)
		}
	}
}

func TestOnlySessionsHaveTickets(t *testing.T) {
	h := newHouse(t)
	_, secret, err := h.AddToken(t.Context(), h.root, "script", Live, 0, home)
	h.must(err)
	script, _ := h.Token(secret, home)
	for name, s := range map[string]Subject{"nobody": h.Nobody(), "everybody": Nobody(Watching), "token": script} {
		if _, err := h.Ticket(s, "a"); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Fails when tickets that nobody uses fill memory.
func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first := h.ticket(h.root)
		time.Sleep(time.Second)
		second := h.ticket(h.root)
		for range mostTicketsOf - 1 {
			time.Sleep(time.Millisecond)
			h.ticket(h.root)
		}
		if n := len(h.tickets.open); n != mostTicketsOf {
			t.Errorf("%d of one session", n)
		}
		if _, ok := h.Redeem(first, "a", home); ok {
			t.Error("the oldest made no room")
		}
		if _, ok := h.Redeem(second, "a", home); !ok {
			t.Error("a newer one made room")
		}
		for i := 0; len(h.tickets.open) < mostTickets; i++ {
			h.ticket(Subject{session: h.keep(db.Session{SecretHash: [32]byte{1, byte(i), byte(i >> 8)}})})
		}
		other := Subject{session: h.keep(db.Session{SecretHash: [32]byte{2}})}
		if _, err := h.Ticket(other, "a"); !errors.Is(err, ErrBusy) {
			t.Errorf("of all: %v", err)
		}
		time.Sleep(TicketTime)
		if h.ticket(other); len(h.tickets.open) != 1 {
			t.Errorf("%d after their time", len(h.tickets.open))
		}
	})
}
