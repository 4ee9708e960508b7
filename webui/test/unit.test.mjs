// The framework-free classes, without a browser.
import assert from "node:assert/strict";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const bundle = await build({
  absWorkingDir: root,
  stdin: {
    contents: `
      export * from "./src/api/client.ts";
      export * from "./src/api/feed.ts";
      export * from "./src/api/listing.ts";
      export * from "./src/media/frame.ts";
      export * from "./src/media/latency.ts";
      export * from "./src/media/live_timeline.ts";
      export { codecName } from "./src/media/live_player.ts";
      export * from "./src/ui/camera_config.ts";
      export * from "./src/ui/place.ts";
      export * from "./src/ui/time.ts";
      export * from "./src/ui/words.ts";`,
    resolveDir: root,
  },
  bundle: true,
  format: "esm",
  write: false,
});
const ui = await import(`data:text/javascript;base64,${Buffer.from(bundle.outputFiles[0].contents).toString("base64")}`);

function message(headers, body = [1, 2, 3]) {
  const lines = Object.entries(headers).map(([k, v]) => `${k}: ${v}\r\n`).join("");
  const head = new TextEncoder().encode(`${lines}\r\n`);
  const all = new Uint8Array(head.length + body.length);
  all.set(head);
  all.set(body, head.length);
  return all.buffer;
}

const headers = {
  "Content-Type": 'video/mp4; codecs="avc1.640028"',
  "X-Recording-Start": "160000000000000",
  "X-Recording-Id": "42.7",
  "X-Media-Time-Range": "3000-6000",
  "X-Prev-Media-Duration": "900000",
  "X-Runs": "3",
  "X-Video-Sample-Entry-Id": "5",
};

test("a live message is taken apart", () => {
  const f = ui.parseFrame(message(headers, [9, 13, 10, 13, 10]));
  assert.equal(f.contentType, 'video/mp4; codecs="avc1.640028"');
  assert.equal(f.openId, 42);
  assert.equal(f.recordingId, 7);
  assert.equal(f.recordingStart90k, 160000000000000);
  assert.deepEqual([f.from90k, f.to90k, f.prevMediaDuration90k], [3000, 6000, 900000]);
  assert.equal(f.sampleEntryId, "5");
  assert.deepEqual([...f.body], [9, 13, 10, 13, 10]);
});

test("a message that is not ours is refused by name of the fault", () => {
  const { "X-Recording-Id": _, ...rest } = headers;
  assert.throws(() => ui.parseFrame(message(rest)), /no x-recording-id/);
  assert.throws(() => ui.parseFrame(message({ ...headers, "X-Media-Time-Range": "soon" })), /x-media-time-range is soon/);
  assert.throws(() => ui.parseFrame(new Uint8Array(10).buffer), /no end of headers/);
});

const frame = (from, { duration = 3000, recording = 1, prev = 0, start = 1e9 } = {}) => ({
  openId: 1,
  recordingId: recording,
  recordingStart90k: start,
  from90k: from,
  to90k: from + duration,
  prevMediaDuration90k: prev,
});

test("live frames keep their distances and begin at 0", () => {
  const t = new ui.LiveTimeline();
  const at = [60000, 63000, 66100, 69000].map((from) => t.place(frame(from)) * 90000);
  assert.deepEqual(at.map(Math.round), [0, 3000, 6100, 9000]);
  assert.equal(t.wall90k(6100 / 90000), 1e9 + 66100);
});

test("the clock goes on across a new recording", () => {
  const t = new ui.LiveTimeline();
  t.place(frame(87000));
  assert.equal(Math.round(t.place(frame(0, { recording: 2, prev: 90000, start: 1e9 + 90000 })) * 90000), 3000);
  assert.equal(t.wall90k(3000 / 90000), 1e9 + 90000);
});

test("a hole in the live stream is closed, and the wall time knows of it", () => {
  const t = new ui.LiveTimeline();
  t.place(frame(0));
  t.place(frame(3000));
  const at = t.place(frame(903000)); // ten seconds were dropped
  assert.equal(Math.round(at * 90000), 6000);
  assert.equal(t.wall90k(at), 1e9 + 903000);
  assert.equal(t.wall90k(3000 / 90000), 1e9 + 3000);
  // After a reconnect the group of pictures comes a second time.
  assert.equal(Math.round(t.place(frame(0)) * 90000), 9000);
});

test("playback is held at its distance by speed, and by a jump when far off", () => {
  const steer = (lag, k = new ui.LatencyKeeper(0.25)) => {
    let s;
    for (let i = 0; i < 5; i++) s = k.steer([[0, 100]], 100 - lag, 1 / 30, i / 10);
    return s;
  };
  assert.deepEqual(steer(0.25), { rate: 1 });
  assert.deepEqual(steer(0.5), { rate: 1.05 });
  assert.deepEqual(steer(1.2), { rate: 1.1 });
  assert.deepEqual(steer(0.05), { rate: 0.95 });
  assert.deepEqual(steer(3), { rate: 1, seek: 99.75 });
});

test("speed returns to 1 only at the target, so that it does not flutter", () => {
  const k = new ui.LatencyKeeper(0.25);
  const settle = (lag) => {
    let s;
    for (let i = 0; i < 6; i++) s = k.steer([[0, 100]], 100 - lag, 1 / 30, 0);
    return s.rate;
  };
  assert.equal(settle(0.5), 1.05);
  assert.equal(settle(0.3), 1.05);
  assert.equal(settle(0.24), 1);
  assert.equal(settle(0.3), 1);
});

test("holes are jumped over", () => {
  const k = new ui.LatencyKeeper(0.25);
  assert.equal(k.steer([[0, 5], [5.5, 6]], 4.99, 1 / 30, 0).seek, 5.501);
  assert.equal(k.steer([[0, 5], [8, 20]], 6, 1 / 30, 0).seek, 19.75);
  assert.equal(k.steer([[8, 9]], 0, 1 / 30, 0).seek, 8.75);
  assert.deepEqual(k.steer([], 0, 1 / 30, 0), { rate: 1 });
});

test("stalls lengthen the distance up to a bound, quiet time shortens it", () => {
  const k = new ui.LatencyKeeper(0.25, 1);
  for (let i = 0; i < 10; i++) k.stalled(i);
  assert.equal(k.target, 1);
  for (let s = 10; s < 400; s++) k.steer([[0, 100]], 99, 1 / 30, s);
  assert.equal(k.target, 0.25);
});

test("a camera of few pictures a second gets a longer distance", () => {
  const k = new ui.LatencyKeeper(0.25);
  assert.equal(k.steer([[0, 100]], 90, 0.5, 0).seek, 99);
});

function answering(status, body, seen = []) {
  return async (url, init) => {
    seen.push([String(url), init]);
    return new Response(body, { status });
  };
}

test("addresses of the API", () => {
  const api = new ui.ApiClient("http://10.0.0.9:8080/#camera=x");
  const row = { startId: 3, endId: 5, openId: 42, startTime90k: 1000, endTime90k: 4000 };
  assert.equal(api.viewUrl("u", "main", row), "http://10.0.0.9:8080/api/cameras/u/main/view.mp4?s=3-5@42");
  assert.equal(api.viewUrl("u", "main", { ...row, endId: undefined }), "http://10.0.0.9:8080/api/cameras/u/main/view.mp4?s=3@42");
  assert.equal(api.viewUrl("u", "sub", { ...row, growing: true }), "http://10.0.0.9:8080/api/cameras/u/sub/view.mp4?s=3-5@42.0-3000");
  assert.equal(api.downloadUrl("u", "sub", { ...row, growing: true }), "http://10.0.0.9:8080/api/cameras/u/sub/view.mp4?s=3-5@42");
  assert.equal(api.liveUrl("u", "main"), "ws://10.0.0.9:8080/api/cameras/u/main/live.m4s");
  assert.equal(new ui.ApiClient("https://nvr/").liveUrl("u", "main"), "wss://nvr/api/cameras/u/main/live.m4s");
  assert.equal(api.initUrl("7"), "http://10.0.0.9:8080/api/init/7.mp4");
});

test("a refusal carries the status and the words of the server", async () => {
  const api = new ui.ApiClient("http://h/", answering(403, "cameras[0].streams.main.url: not rtsp\n"));
  await assert.rejects(api.top(), (e) => e.status === 403 && e.message === "cameras[0].streams.main.url: not rtsp");
  const gone = new ui.ApiClient("http://h/", async () => {
    throw new TypeError("network");
  });
  await assert.rejects(gone.top(), (e) => e.status === 0 && /does not answer/.test(e.message));
});

test("a camera is added as JSON and its id returned", async () => {
  const seen = [];
  const api = new ui.ApiClient("http://h/", answering(201, '{"uuid":"abc"}', seen));
  assert.equal(await api.addCamera({ shortName: "front", streams: {} }), "abc");
  assert.equal(seen[0][0], "http://h/api/cameras/");
  assert.equal(seen[0][1].headers["Content-Type"], "application/json");
});

test("times are shown in the zone of the recorder", () => {
  const zone = new ui.Zone("Europe/Berlin");
  const t = (iso) => Date.parse(iso) * 90;
  assert.equal(zone.day(t("2026-11-22T23:30:00Z")), "2026-11-23");
  assert.equal(zone.time(t("2026-11-22T23:30:05Z")), "00:30:05");
  assert.equal(zone.since(t("2026-11-23T07:02:00Z"), t("2026-11-23T09:00:00Z")), "08:02");
  assert.equal(zone.since(t("2026-11-22T07:02:00Z"), t("2026-11-23T09:00:00Z")), "2026-11-22 08:02");
  assert.ok(new ui.Zone("Nowhere/Nothing").day(0));
});

test("days of the calendar", () => {
  assert.equal(ui.addDays("2026-02-28", 1), "2026-03-01");
  assert.equal(ui.addDays("2026-01-01", -1), "2025-12-31");
  assert.ok(ui.isDay("2028-02-29"));
  assert.ok(!ui.isDay("2026-02-29") && !ui.isDay("2026-2-9") && !ui.isDay(""));
});

test("lengths and sizes", () => {
  assert.deepEqual([7, 200, 7500, 200000].map((s) => ui.duration(s * 90000)), ["7 s", "3 min 20 s", "2 h 5 min", "2 d 7 h"]);
  assert.deepEqual([999, 1000, 12_345_678, 120e9].map(ui.bytes), ["999 B", "1.0 kB", "12.3 MB", "120 GB"]);
});

test("the place survives the address, nonsense does not", () => {
  const place = { camera: "u-1", stream: "sub", day: "2026-11-23", play: 12 };
  assert.deepEqual(ui.parsePlace(ui.formatPlace(place)), place);
  assert.deepEqual(ui.parsePlace(ui.formatPlace({ page: "users" })), { page: "users" });
  assert.deepEqual(ui.parsePlace("#stream=evil&day=2026-99-99&play=-1&page=evil"), {});
});

const zone = new ui.Zone("UTC");
const at9 = Date.parse("2026-11-23T09:00:00Z") * 90;
const waitingFor = (reason) => ({ state: { phase: "waiting", since90k: Date.parse("2026-11-23T08:02:00Z") * 90, reason } });

test("a camera is deleted by its id, and a refusal is thrown", async () => {
  const seen = [];
  await new ui.ApiClient("http://h/", answering(200, "", seen)).deleteCamera("a/b");
  assert.deepEqual([seen[0][0], seen[0][1].method], ["http://h/api/cameras/a%2Fb/", "DELETE"]);
  const no = new ui.ApiClient("http://h/", answering(403, "start it with -allow-anonymous admin"));
  await assert.rejects(no.deleteCamera("a"), (e) => e.status === 403 && /admin/.test(e.message));
});

test("a camera that waits is called by its reason", () => {
  const called = (reason) => ui.recorderState(waitingFor(reason), zone, at9).text.replace(" since 08:02", "");
  for (const problem of [
    "connection refused", "host cam.lan not found", "no answer to DESCRIBE within 10s", "no connection: no route to host",
    "no connection: network is unreachable", "i/o timeout", "request timed out",
  ]) {
    assert.equal(called(`rtsp://10.0.0.7:554/main: ${problem}`), "camera offline", problem);
  }
  for (const problem of ["login refused (401): check user and password", "no such stream (404)", "timestamps do not rise"]) {
    assert.equal(called(`rtsp://timeout.lan/unreachable: ${problem}`), "not recording", problem);
  }
  assert.equal(called("sample directory /disk has no meta file"), "cannot record to the disk");
});

test("a reason that all streams share is said once", () => {
  const both = [waitingFor("rtsp://10.0.0.7/main: login refused (401)"), waitingFor("rtsp://10.0.0.7/sub: login refused (401)")];
  const why = (streams) => ui.recorderStates(streams, zone, at9).map((s) => s.why);
  assert.deepEqual(why(both), ["rtsp://10.0.0.7/main: login refused (401)", "same reason"]);
  const other = waitingFor("rtsp://10.0.0.7/sub: no such stream (404)");
  assert.deepEqual(why([both[0], other]), [both[0].state.reason, other.state.reason]);
  assert.deepEqual(why([{ state: { phase: "recording" } }, { state: { phase: "recording" } }]), ["", ""]);
});

test("what the recorder does not tell is unknown, and the picture says what the player knows", () => {
  assert.equal(ui.unknown.mood, "unknown");
  assert.equal(ui.overPicture({ phase: "waiting", message: "no video for 9 s" }, ui.unknown), "no video for 9 s");
});

test("a refusal that names a field is put beside its input", () => {
  assert.deepEqual(ui.wrongField("streams.main.url: names no host: expected rtsp://host/path"), {
    input: "main.url", words: "names no host: expected rtsp://host/path",
  });
  assert.deepEqual(ui.wrongField('shortName: there is a camera named "a" already').input, "name");
  assert.equal(ui.wrongField("streams.sub.retainBytes: is 7").input, "sub.keep");
  assert.equal(ui.wrongField("streams.sub.retainBytes: is 5000000: a recorded stream needs at least 16777216 bytes, or 0 for no limit of its own").words,
    "in GB it is 0.005: a recorded stream needs at least 0.016777216 GB, or 0 for no limit of its own");
  assert.equal(ui.wrongField("streams.ext.retainDays: is -1").input, "ext.days");
  assert.equal(ui.wrongField("streams.sub.password: is to be given again").input, "password");
  assert.equal(ui.wrongField("streams.sub.password: is to be given again", true).input, "sub.password");
  for (const other of ["", "the recorder does not answer", "streams.main.flushIfSec: is -1", "camera: unexpected EOF"]) {
    assert.equal(ui.wrongField(other), undefined, other);
  }
});

test("a camera is changed by what differs, and by what was there", () => {
  const stream = (url, more) => ({ id: 1, record: true, retainBytes: 5e9, config: { url, username: "u" }, ...more });
  const was = ui.configOf({ uuid: "u-1", shortName: "a", streams: { main: stream("rtsp://h/1", { retainDays: 7 }), sub: stream("rtsp://h/2") } });
  assert.deepEqual(was.streams.sub, { url: "rtsp://h/2", username: "u", record: true, retainBytes: 5e9, retainDays: 0 });
  const is = (main, more = {}) => ({ shortName: "a", streams: { main: { ...was.streams.main, ...main }, sub: was.streams.sub, ...more } });
  assert.deepEqual(ui.differenceOf(was, is({})), { update: {}, precondition: {} });
  assert.deepEqual(ui.differenceOf(was, { ...is({ record: false, retainDays: 0, password: "p" }), shortName: "b" }), {
    update: { shortName: "b", streams: { main: { record: false, retainDays: 0, password: "p" } } },
    precondition: { shortName: "a", streams: { main: { record: true, retainDays: 7 } } },
  });
  const ext = { url: "rtsp://h/3", username: "", record: false, retainBytes: 0, retainDays: 0 };
  assert.deepEqual(ui.differenceOf(was, is({}, { ext })), { update: { streams: { ext } }, precondition: {} });
});

test("what was measured of a stream is said in sentences", () => {
  const video = { format: "H.264", codec: "avc1.640028", profile: "High", level: "4.0", width: 1920, height: 1080, frameRate: 25, bitRate: 4012345, gopFrames: 50, gopSec: 2 };
  assert.deepEqual(ui.tried({ ok: true, video, audio: { codec: "mp4a.40.2", channels: 1, sampleRate: 16000 }, skipped: ["application: x is not recorded"], measuredSec: 4 }), [
    "It works: H.264 (High 4.0), 1920 × 1080, 25 pictures a second.",
    "4.0 Mbit/s: about 43.3 GB a day.",
    "A key frame every 2 s (50 pictures).",
    "Sound: AAC, 16 kHz, mono.",
    "Offered, too: application: x is not recorded.",
  ]);
  assert.deepEqual(ui.tried({ ok: true, video: { format: "H.265", codec: "hvc1", width: 640, height: 360, bitRate: 512_300 }, measuredSec: 10 }), [
    "It works: H.265, 640 × 360.",
    "512 kbit/s: about 5.5 GB a day.",
    "No two key frames were seen in 10 s.",
    "Live video begins with a key frame: it starts sooner when the camera sends one more often.",
    "Not every browser plays H.265.",
    "No sound would be recorded.",
  ]);
});

test("why nothing was recorded is said in words", () => {
  const gap = (cause, detail) => ui.gapIs({ startTime90k: 1, endTime90k: 2, cause, detail });
  assert.equal(gap("unreachable", "rtsp://10.0.0.7/main: no answer"), "not recorded: the camera did not answer (no answer)");
  assert.equal(gap("recorder_down"), "not recorded: the recorder did not run");
  assert.equal(gap("other", "connecting"), "not recorded (connecting)");
  assert.equal(gap("of a later version"), "not recorded");
});

test("how a sample directory does, and how long recordings stay, is said in words", () => {
  const dir = { id: 1, path: "/data", state: "ok", totalBytes: 1e12, freeBytes: 120e9, floorBytes: 20e9 };
  assert.deepEqual(ui.directoryState(dir), { mood: "good", text: "takes recordings", why: "" });
  assert.deepEqual(ui.directoryState({ ...dir, alarm: "7 files" }), { mood: "wait", text: "takes recordings, but deleted files do not go", why: "7 files" });
  assert.deepEqual(ui.directoryState({ ...dir, state: "failing", error: "no space left on device" }), {
    mood: "bad", text: "takes no recordings now", why: "no space left on device",
  });
  assert.equal(ui.directoryState({ ...dir, state: "unused", error: "missing" }).mood, "bad");
  assert.equal(ui.roomOf(dir), "120 GB of 1.0 TB are free; the last 20.0 GB are never recorded to.");
  assert.equal(ui.roomOf({ id: 1, path: "/data", state: "failing" }), "");
  for (const [bytesPerDay, forecastDays, said] of [
    [43e9, 22.5, "43.0 GB a day are recorded; at this rate about 23 days are kept."],
    [43e9, 2.52, "43.0 GB a day are recorded; at this rate about 2.5 days are kept."],
    [43e9, 0.6, "43.0 GB a day are recorded; at this rate about 14 hours are kept."],
    [43e9, undefined, "43.0 GB a day are recorded."],
    [0, undefined, "Nothing is recorded."],
    [undefined, undefined, "How long recordings stay is known after ten minutes of recording."],
  ]) {
    assert.equal(ui.forecast({ usedBytes: 1, bytesPerDay, forecastDays }), said);
  }
  assert.equal(ui.takes({ usedBytes: 870e9, bytesPerDay: 43e9, forecastDays: 22.4 }), "870 GB used, 43.0 GB a day, about 22 days kept");
  assert.equal(ui.takes({ usedBytes: 1000 }), "1.0 kB used");
  assert.equal(ui.takes({ usedBytes: 1000, bytesPerDay: 0 }), "1.0 kB used, nothing is recorded");
});

test("an offline camera is said in words, with since when and why", () => {
  const said = ui.recorderState(waitingFor("connection refused"), zone, at9);
  assert.deepEqual(said, { mood: "bad", text: "camera offline since 08:02", why: "connection refused" });
  assert.equal(ui.overPicture({ phase: "waiting", message: "no video for 9 s" }, said), said.text);
  assert.equal(ui.overPicture({ phase: "playing", message: "" }, said), "");
  const h265 = "this camera sends H.265, which this browser cannot play";
  assert.equal(ui.overPicture({ phase: "unsupported", message: h265 }, said), h265);
});

test("a disk that takes nothing is no good state, whatever the camera does", () => {
  const stream = { dirError: "no space left on device", state: { phase: "recording", since90k: 1 } };
  const said = ui.recorderState(stream, new ui.Zone("UTC"), 2);
  assert.equal(said.mood, "bad");
  assert.equal(said.text, "cannot record to the disk");
  assert.match(said.why, /no space left on device/);
});

test("codecs by the names people know", () => {
  assert.equal(ui.codecName('video/mp4; codecs="hvc1.1.6.L93.B0"'), "H.265");
  assert.equal(ui.codecName('video/mp4; codecs="avc1.640028"'), "H.264");
});

test("what is wrong of a user is put beside its input", () => {
  for (const [message, input] of [
    ["the password is shorter than 8 characters", "password"],
    ["precondition.password is not the password until now", "old"],
    ["username is not a text of 1 to 64 bytes", "name"],
    ["there is a user of this name already", "name"],
    ["there is a token of this name already", "name"],
    ["the scope is empty: the token could do nothing", "scope"],
    ["days is 36501, not 0 to 36500", "days"],
    ["this is the last administrator: nobody could undo it", undefined],
    ["the recorder does not answer", undefined],
  ]) {
    assert.equal(ui.wrongOfUser(message)?.input, input, message);
  }
});

test("what a user may is said in a line", () => {
  const user = (permissions) => ({ username: "ben", disabled: false, password: null, permissions });
  const said = (p) => ui.userIs(user({ administrator: false, allCameras: [], cameras: {}, ...p }), (uuid) => uuid.toUpperCase());
  assert.equal(said({ administrator: true }), "Administrator: may everything");
  assert.equal(said({}), "Viewer. Sees no camera yet");
  assert.equal(said({ allCameras: ["live"], cameras: { a: ["recorded", "export"] } }), "Viewer. All cameras: live video; A: recordings, export");
});

test("a user is changed with what is given, and the password until now beside it", async () => {
  const seen = [];
  const api = new ui.ApiClient("http://h/", answering(200, '{"token":"hft_x"}', seen));
  await api.changeUser(2, { password: "b" }, "a");
  await api.changeUser(2, { disabled: true });
  await api.endSession(2, "all");
  await api.endSession(2, 7);
  assert.equal(await api.addToken(2, { name: "n", scope: ["live"] }), "hft_x");
  assert.deepEqual(seen.map(([url, init]) => `${init.method} ${url.slice("http://h".length)} ${init.body ?? ""}`.trim()), [
    '/api/users/2 {"update":{"password":"b"},"precondition":{"password":"a"}}',
    '/api/users/2 {"update":{"disabled":true}}',
  ].map((l) => `PATCH ${l}`).concat("DELETE /api/users/2/sessions", "DELETE /api/users/2/sessions/7", 'POST /api/users/2/tokens {"name":"n","scope":["live"]}'));
});

/** followed is a feed, what it said, and how an event comes to it. */
function followed() {
  const source = new EventTarget();
  source.readyState = 1;
  source.close = () => (source.readyState = 2);
  const it = { source, said: [], ends: 0, revisions: undefined };
  it.feed = new ui.Feed({
    url: "http://h/api/events",
    open: () => source,
    onState: (s, revisions) => {
      it.said.push(s);
      it.revisions = revisions;
    },
    onEnd: () => it.ends++,
  });
  it.event = (type, data) => source.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data) }));
  return it;
}

test("events keep the state", () => {
  const it = followed();
  const { source, said, feed, event } = it;
  assert.equal(feed.alive, false);
  event("stream", { camera: "u-1", stream: "main", recordings: 1 }); // before the state: nothing to change
  assert.equal(said.length, 0);
  const camera = (uuid, shortName) => ({ uuid, shortName, description: "", streams: { main: { recordings: 0, state: { phase: "off" } } } });
  event("state", { now90k: 1000, timeZoneName: "UTC", cameras: [camera("u-1", "back")] });
  assert.equal(feed.alive, true);
  event("stream", { camera: "u-1", stream: "main", recordings: 7, state: { phase: "recording" } });
  assert.deepEqual(said.at(-1).cameras[0].streams, { main: { recordings: 7, state: { phase: "recording" } } });
  event("camera", camera("u-2", "alley"));
  event("camera", camera("u-3", "cellar"));
  assert.deepEqual(said.at(-1).cameras.map((c) => c.shortName), ["alley", "back", "cellar"]);
  event("camera", camera("u-2", "zoo"));
  event("cameraDeleted", { uuid: "u-1", id: 1 });
  assert.deepEqual(said.at(-1).cameras.map((c) => c.shortName), ["cellar", "zoo"]);
  event("clock", { set: true, now90k: 5_000_000 });
  assert.ok(said.at(-1).now90k >= 5_000_000);
  const count = feed.count;
  feed.take({ now90k: 1, cameras: [] }, count - 1); // an event has come since it was asked for
  assert.equal(said.at(-1).cameras.length, 2);
  feed.take({ now90k: 1, cameras: [] }, count);
  assert.equal(said.at(-1).cameras.length, 0);
  event("resync", {});
  assert.deepEqual([it.ends, source.readyState], [1, 2]);
});

test("a stream or a directory that is deleted goes, another in its place stays", () => {
  const { said, event } = followed();
  const [main, sub] = [{ id: 1, state: { phase: "off" } }, { id: 2, state: { phase: "off" } }];
  const dir = (id, state) => ({ id, path: `/disk/${id}`, state });
  event("state", { now90k: 1, cameras: [{ uuid: "u-1", shortName: "a", streams: { main, sub } }], directories: [dir(1, "ok"), dir(3, "ok")] });
  event("streamDeleted", { camera: "u-1", stream: "main", id: 9 }); // the one before
  assert.deepEqual(Object.keys(said.at(-1).cameras[0].streams), ["main", "sub"]);
  event("streamDeleted", { camera: "u-1", stream: "sub", id: 2 });
  assert.deepEqual(said.at(-1).cameras[0].streams, { main });
  event("directory", dir(2, "ok"));
  event("directory", dir(3, "failing"));
  event("directoryDeleted", { id: 1, path: "/disk/1" });
  assert.deepEqual(said.at(-1).directories, [dir(2, "ok"), dir(3, "failing")]);
});

test("events tell which lists have changed", () => {
  const it = followed();
  const told = (name, data, ...changed) => {
    const now = () => ["u-1/main", "u-1/sub", "u-2/main"].map((s) => it.revisions(...s.split("/")));
    const before = it.revisions ? now() : [0, 0, 0];
    it.event(name, data);
    const after = now();
    assert.deepEqual(after.map((n, i) => n > before[i]), changed, name);
    assert.ok(after.every((n, i) => n >= before[i]), "it only grows");
  };
  told("state", { now90k: 1, cameras: [] }, true, true, true);
  for (const name of ["recordings", "gaps", "lists"]) told(name, { camera: "u-1", stream: "sub" }, false, true, false);
  told("stream", { camera: "u-1", stream: "main", state: { phase: "off" } }, false, false, false);
  told("clock", { set: true, now90k: 2 }, true, true, true);
  told("state", { now90k: 3, cameras: [] }, true, true, true);
});

test("a list is asked for when it has changed, and again and again only while nothing tells", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const settle = () => new Promise(setImmediate);
  const pass = async (ms) => {
    for (let i = 0; i < ms; i += 500) {
      t.mock.timers.tick(500);
      await settle();
    }
  };
  let [asked, fail] = [0, false];
  const [shown, errors] = [[], []];
  const listing = new ui.Listing({
    ask: async () => {
      asked++;
      if (fail) throw new Error("no");
      return asked;
    },
    onList: (n) => shown.push(n),
    onError: (e) => errors.push(e.message),
    pollMs: () => 5000,
  });
  const asks = async (n, does) => {
    const before = asked;
    await does();
    await settle();
    assert.equal(asked - before, n);
  };
  await asks(1, () => listing.follow(undefined));
  await asks(1, () => pass(9500)); // nothing tells
  await asks(1, () => listing.follow(1)); // what came meanwhile, nobody knows
  await asks(0, () => pass(60_000));
  await asks(0, () => listing.follow(1));
  await asks(1, () => listing.follow(2));
  await asks(0, () => [3, 4, 5].forEach((n) => listing.follow(n))); // a burst is one more question, a little later
  await asks(1, () => pass(10_000));
  fail = true;
  await asks(1, () => listing.changed());
  await asks(1, () => pass(5000)); // after an error it is tried again
  assert.deepEqual(errors, ["no", "no"]);
  fail = false;
  await asks(1, () => pass(5000));
  await asks(0, () => pass(60_000));
  await asks(1, () => listing.follow(undefined));
  await asks(1, () => pass(5000));
  listing.stop();
  await asks(0, () => pass(60_000));
  assert.equal(shown.at(-1), asked);
});
