// Package nvr is the map of the recorder. It holds no code, only the tests that
// keep the house rules (house_test.go), the import arrows below among them.
//
// The way of the data, once through and no way back:
//
//	RTP packet ─► access unit ─► ring, index ─► fragment ─► sample file ─► flush ─► virtual MP4 ─► browser
//	 gortsplib     camera         store          mp4         sampledir      db       mp4            web
//
// Who may import whom:
//
//	cmd/nvr ─► web ─► mp4 ─► media            record ─► camera ─► media
//	             ├─► access ─► db                └────► store
//	             ├─► webui          store ─► db, mp4, media, internal/sampledir
//	             └─► store          cmd/nvr ─► certificate
//
// What stands where:
//
//	design/               the words, the rules of storage and time, the API: beside what they bind, and openapi.yaml for programs
//	cmd/nvr/              the process: flags and wiring
//	media/                the nouns: access unit, sample entry, time in 90 kHz, the sample index codec
//	mp4/                  bytes of MP4: init segment, fragment, virtual file, fragment reader
//	mp4/mp4test/          reads films as others do, for tests
//	camera/               one RTSP session, and each vendor's quirks
//	camera/cameratest/    the emulated camera
//	record/               keeps one stream recording: play, begin and end runs, back off
//	store/                streams, runs, recordings, retention, flush, recovery; owner of every invariant
//	store/internal/sampledir/  one sample directory: create, append, sync, unlink, list
//	store/looptest/       small real disks, for tests
//	db/                   the SQLite file, and the only SQL
//	db/dbtest/            faults of the disk under SQLite, for tests
//	access/               users, sessions, tokens, and who may do what
//	certificate/          what is shown over TLS: of an authority of its own, or the owner's
//	web/                  HTTP: translates, decides nothing
//
// A package stands here when one sentence without "and then" says what it is
// for. The machine around the recorder is not here but in appliance; the two
// never import each other.
package nvr
