package store

import (
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// The only sound of a recording may end up behind it: it runs ahead of the
// pictures and goes with the next recording, or the disk loses it. Then the
// index must not say where it stood: the file does not.
func TestAudioStartGoesWithTheFirstSound(t *testing.T) {
	for name, lose := range map[string]bool{"carried to the next recording": false, "lost by the disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *scripted
				b := newBench(t, script(&d))
				st := b.camera("front", plenty, 60)
				f := newFeed(st.Begin(testAudio))
				f.play(t, 20500*time.Millisecond)
				sound := func(ahead media.Duration) {
					at := (f.dts + int64(ahead)) * 48000 / int64(media.Second)
					err := f.run.Append(media.AccessUnit{
						Kind: media.Audio, DTS: at, PTS: at, Key: true, Data: picture(0, 50), Entry: testAudio, Received: time.Now(),
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if lose {
					sound(0)
					sound(media.Second / 10)
					d.mu.Lock()
					d.fail["sync"] = []error{errDisk}
					d.mu.Unlock()
					f.play(t, 5*time.Second)
				} else {
					f.play(t, 7*time.Second) // the recording ends at 30 s
					sound(6 * media.Second)
					f.play(t, 10*time.Second)
				}
				recs := list(t, st)
				if len(recs) != 2 || recs[0].AudioSamples != 0 {
					t.Fatalf("%d recordings, %d sounds in the first: the test proves nothing", len(recs), recs[0].AudioSamples)
				}
				f.run.End("test")
				b.stop()
				(&footage{T: t, dir: b.dir}).clean()
			})
		})
	}
}
