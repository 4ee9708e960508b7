// The live player and the page in a real browser, over an API made up here:
// what no healthy recorder does can be tried.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { launch, moving, watch } from "./browser.mjs";

const dist = path.join(path.dirname(fileURLToPath(import.meta.url)), "../dist");
const fps = 25;
const limit = 30_000; // ms for what takes an instant: a busy machine may stand still for seconds
const whole = { timeout: 4 * limit };

/** material makes a moving test picture: an initialization segment, and a
 * fragment for each frame with its time set to 0, as the recorder sends it. */
function material(size, encoder, mime) {
  const file = execFileSync("ffmpeg", [
    "-v", "error", "-f", "lavfi", "-i", `testsrc2=size=${size}:rate=${fps}`, "-t", "4",
    "-c:v", ...encoder, "-pix_fmt", "yuv420p",
    "-g", String(fps), "-video_track_timescale", "90000",
    "-movflags", "+frag_every_frame+empty_moov+default_base_moof", "-f", "mp4", "pipe:1",
  ], { maxBuffer: 64 << 20 });
  const boxes = [];
  for (let at = 0; at < file.length; at += file.readUInt32BE(at)) {
    boxes.push({ type: file.toString("latin1", at + 4, at + 8), at, end: at + file.readUInt32BE(at) });
  }
  const frames = [];
  for (let i = 0; i + 1 < boxes.length; i++) {
    if (boxes[i].type !== "moof" || boxes[i + 1].type !== "mdat") continue;
    const frame = Buffer.from(file.subarray(boxes[i].at, boxes[i + 1].end));
    const tfdt = frame.indexOf("tfdt", 0, "latin1");
    frame.fill(0, tfdt + 8, tfdt + 8 + (frame[tfdt + 4] === 1 ? 8 : 4));
    frames.push(frame);
  }
  const avcC = file.indexOf("avcC", 0, "latin1") + 5;
  const codec = mime ?? `avc1.${file.toString("hex", avcC, avcC + 3)}`;
  return { init: file.subarray(0, boxes.find((b) => b.type === "moof").at), frames, codec };
}

const x264 = (profile) => ["libx264", "-profile:v", profile, "-preset", "ultrafast", "-tune", "zerolatency"];
const small = material("320x180", x264("baseline"));
const large = material("640x360", x264("high"));
// Stands for the change from H.264 to H.265, which this browser cannot play.
const other = material("480x270", ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"], "vp09.00.21.08");
const entries = { 1: small, 2: large, 3: other };

/** recorder is an API with one camera, changed by the tests as they go. */
async function recorder(t) {
  const now90k = () => Date.now() * 90;
  const stream = (state) => ({
    id: 1, record: true, retainBytes: 1e9, totalDuration90k: 0, totalSampleFileBytes: 0, fsBytes: 0, recordings: 0, state,
  });
  const recording = { phase: "recording", since90k: now90k() - 600 * 90000 };
  const it = {
    refuse: undefined,
    rows: [],
    gaps: [],
    refuseChange: undefined,
    tickets: 0,
    changes: [], // bodies that were sent to change or to try something
    tried: undefined, // the answer to that
    lists: 0, // of recordings that were asked for
    directories: undefined,
    follow: false, // whether events come, or the page has to ask
    followers: new Set(),
    /** event tells those who follow. */
    event: (name, data) => it.followers.forEach((res) => res.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)),
    top: () => ({
      serverVersion: "test", timeZoneName: "UTC", now90k: now90k(), cameras: it.cameras, directories: it.directories,
      permissions: { viewVideo: true, adminCameras: true },
    }),
    cameras: [{ uuid: "u-1", shortName: "front <b>door</b>", description: "", rights: ["live", "recorded"], streams: { main: stream(recording), sub: stream({ ...recording }) } }],
  };
  const server = createServer(async (req, res) => {
    const { pathname } = new URL(req.url, "http://x");
    const json = (v) => res.setHeader("Content-Type", "application/json").end(JSON.stringify(v));
    const init = /^\/api\/init\/(\d+)\.mp4$/.exec(pathname);
    if (pathname.startsWith("/api/") && it.refuse) {
      res.writeHead(it.refuse.status).end(it.refuse.text);
    } else if (req.method === "POST" && pathname.endsWith("/live-ticket")) {
      json({ ticket: `ticket-${++it.tickets}`, seconds: 30 });
    } else if (req.method !== "GET" && it.refuseChange) {
      res.writeHead(it.refuseChange.status).end(it.refuseChange.text);
    } else if (["PATCH", "POST"].includes(req.method)) {
      let body = "";
      for await (const part of req) body += part;
      it.changes.push(JSON.parse(body));
      if (pathname === "/api/test-stream") json(it.tried);
      else res.writeHead(204).end();
    } else if (req.method === "GET" && pathname === "/api/cameras/u-1/") {
      json(it.cameras[0]);
    } else if (req.method === "DELETE") {
      it.cameras = it.cameras.filter((c) => pathname !== `/api/cameras/${c.uuid}/`);
      res.writeHead(204).end();
    } else if (pathname === "/api/") {
      json(it.top());
    } else if (pathname === "/api/events" && it.follow) {
      res.writeHead(200, { "Content-Type": "text/event-stream" }).write(`event: state\ndata: ${JSON.stringify(it.top())}\n\n`);
      it.followers.add(res);
      res.on("close", () => it.followers.delete(res));
    } else if (pathname === "/api/events") {
      res.writeHead(204).end(); // no events: the page asks
    } else if (pathname === "/api/dirs/") {
      json({
        dirs: it.directories.map((d) => ({
          ...d, usedBytes: 870e9, garbageFiles: 0, garbageBytes: 0, bytesPerDay: 43e9, forecastDays: 22.4,
          streams: [{ camera: "u-1", shortName: "front", stream: "main", usedBytes: 870e9, bytesPerDay: 43e9, forecastDays: 22.4 }],
        })),
      });
    } else if (pathname.endsWith("/gaps")) {
      json({ gaps: it.gaps });
    } else if (pathname.endsWith("/recordings")) {
      it.lists++;
      json({ recordings: it.rows, videoSampleEntries: {} });
    } else if (init && entries[init[1]]) {
      res.setHeader("Content-Type", "video/mp4").end(entries[init[1]].init);
    } else {
      const name = pathname === "/" ? "index.html" : pathname.slice(1);
      const type = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" }[path.extname(name)];
      const body = await readFile(path.join(dist, name)).catch(() => undefined);
      res.writeHead(body ? 200 : 404, { "Content-Type": type ?? "text/plain" }).end(body);
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close().closeAllConnections());
  it.host = `127.0.0.1:${server.address().port}`;
  return it;
}

/** camera sends frames in real time over one socket. */
class Camera {
  constructor(socket) {
    this.socket = socket;
    this.n = 0; // frames since the recording began
    this.id = 1;
    this.prev = 0;
    this.video = small;
    this.codec = undefined;
  }
  send() {
    const d = 90000 / fps;
    const head = [
      `Content-Type: video/mp4; codecs="${this.codec ?? this.video.codec}"`,
      `X-Recording-Start: ${160000000000000 + this.prev}`,
      `X-Recording-Id: 1.${this.id}`,
      `X-Media-Time-Range: ${this.n * d}-${(this.n + 1) * d}`,
      `X-Prev-Media-Duration: ${this.prev}`,
      `X-Runs: 0`,
      `X-Video-Sample-Entry-Id: ${Object.keys(entries).find((id) => entries[id] === this.video)}`,
    ].map((line) => `${line}\r\n`).join("");
    this.socket.send(Buffer.concat([Buffer.from(`${head}\r\n`), this.video.frames[this.n % this.video.frames.length]]));
    this.n++;
  }
  rotate(video) {
    this.prev += (this.n * 90000) / fps;
    this.n = 0;
    this.id++;
    this.video = video;
  }
  play(every = 1000 / fps) {
    this.timer = setInterval(() => this.send(), every);
  }
  stop() {
    clearInterval(this.timer);
  }
}

/** open shows the page; join is called with each socket of a live stream. */
async function open(t, join, change = {}) {
  const it = Object.assign(await recorder(t), change);
  const context = await launch(t);
  const page = context.pages()[0] ?? (await context.newPage());
  const cameras = [];
  t.after(() => cameras.forEach((c) => c.stop()));
  await page.routeWebSocket(/live\.m4s/, (socket) => {
    const camera = new Camera(socket);
    cameras.push(camera);
    socket.onClose(() => camera.stop());
    join(camera, /(main|sub)\/live/.exec(socket.url())[1], cameras.length);
  });
  page.setDefaultTimeout(limit);
  await page.addInitScript(() => {
    globalThis.overByTest = new Set();
    new MutationObserver(() => document.querySelectorAll(".over p").forEach((p) => overByTest.add(p.textContent)))
      .observe(document, { childList: true, characterData: true, subtree: true });
  });
  const wrong = watch(page, it.host);
  await page.goto(`http://${it.host}/`);
  return { it, page, wrong, cameras };
}

const video = ".tile video";
const over = (page) => page.locator(".over p");
/** said waits until a text stands over the picture, or did: some stand for less than a second. */
const said = (page, text) => page.waitForFunction((text) => [...overByTest].some((o) => o.includes(text)), text);

test("live video begins with the group of pictures it is given and stays near the newest", whole, async (t) => {
  const { page, wrong } = await open(t, (c) => {
    for (let i = 0; i < 20; i++) c.send(); // what the recorder has in memory
    c.play();
  });
  await moving(page, `${video}[data-live=playing]`);
  const measure = () => page.evaluate(async (selector) => {
    const v = document.querySelector(selector);
    const lags = [];
    for (let i = 0; i < 20; i++) {
      lags.push(v.buffered.end(v.buffered.length - 1) - v.currentTime);
      await new Promise((r) => setTimeout(r, 400));
    }
    return { lags: lags.sort((a, b) => a - b), text: document.querySelector(".over p")?.textContent };
  }, video);
  // A stall of the machine is made up for. One that falls back again and again is
  // behind for most of each measurement.
  const end = Date.now() + limit;
  let { lags, text } = await measure();
  while ((lags[10] >= 0.8 || text !== undefined) && Date.now() < end) ({ lags, text } = await measure());
  t.diagnostic(`behind the newest picture: median ${lags[10].toFixed(3)} s, most ${lags[19].toFixed(3)} s`);
  assert.ok(lags[10] < 0.8, `median ${lags[10]} s behind`);
  assert.equal(text, undefined);
  assert.equal(await page.locator(".tile h3").innerText(), "front <b>door</b>");
  assert.deepEqual(wrong, []);
});

test("a codec change goes through without a new connection", whole, async (t) => {
  const { page, wrong, cameras } = await open(t, (c) => c.play());
  await moving(page, `${video}[data-live=playing]`);
  cameras[0].rotate(large);
  await page.waitForFunction((s) => document.querySelector(s).videoWidth === 640, video);
  cameras[0].rotate(other);
  await page.waitForFunction((s) => document.querySelector(s).videoWidth === 480, video);
  cameras[0].rotate(small);
  await page.waitForFunction((s) => document.querySelector(s).videoWidth === 320, video);
  await moving(page, `${video}[data-live=playing]`);
  assert.equal(cameras.length, 1);
  assert.deepEqual(wrong, []);
});

test("pictures the recorder left out are passed over", whole, async (t) => {
  const { page, wrong, cameras } = await open(t, (c) => c.play());
  await moving(page, `${video}[data-live=playing]`);
  const [c] = cameras;
  for (let i = 0; i < 3; i++) {
    const next = Math.ceil((c.n + 2 * fps) / fps) * fps; // a key frame, over two seconds on
    c.socket.send(JSON.stringify({ type: "dropped", frames: next - c.n }));
    c.n = next;
    await page.waitForTimeout(500);
  }
  await page.evaluate((s) => delete document.querySelector(s).seenByTest, video);
  await moving(page, `${video}[data-live=playing]`);
  assert.equal(await page.evaluate((s) => document.querySelector(s).buffered.length, video), 1, "holes were left");
  assert.equal(cameras.length, 1);
  assert.deepEqual(wrong, []);
});

test("a browser that keeps its cookie from a socket gets in by ticket", whole, async (t) => {
  const unknown = (c) => {
    c.socket.send(JSON.stringify({ type: "error", status: 401, message: "nobody has signed in" }));
    c.socket.close();
  };
  const urls = [];
  let signedOut = false;
  const { page, wrong, cameras } = await open(t, (c) => {
    urls.push(new URL(c.socket.url()).search);
    if (urls.at(-1) && !signedOut) c.play();
    else unknown(c);
  });
  await moving(page, `${video}[data-live=playing]`);
  assert.deepEqual(urls, ["", "?ticket=ticket-1"]);
  cameras[1].stop();
  cameras[1].socket.close(); // each connection takes a ticket of its own
  await said(page, "the connection to the recorder broke");
  await page.evaluate((s) => delete document.querySelector(s).seenByTest, video);
  await moving(page, `${video}[data-live=playing]`);
  assert.deepEqual(urls, ["", "?ticket=ticket-1", "?ticket=ticket-2"]);
  cameras[2].stop();
  signedOut = true;
  unknown(cameras[2]);
  await said(page, "nobody has signed in");
  while (urls.length < 4) await page.waitForTimeout(50);
  assert.equal(urls[3], "", "a refused ticket was followed by another one");
  assert.deepEqual(wrong, []);
});

test("a broken connection is said and made again", whole, async (t) => {
  const { page, wrong, cameras } = await open(t, (c, _, n) => {
    if (n === 2) {
      c.socket.send(JSON.stringify({ type: "error", message: "the disk is on fire" }));
      c.socket.close();
    } else {
      c.play();
    }
  });
  await moving(page, `${video}[data-live=playing]`);
  cameras[0].stop();
  cameras[0].socket.close();
  await said(page, "the connection to the recorder broke");
  await said(page, "the disk is on fire");
  await page.evaluate((s) => delete document.querySelector(s).seenByTest, video);
  await moving(page, `${video}[data-live=playing]`);
  assert.equal(cameras.length, 3);
  assert.deepEqual(wrong, []);
});

test("a stream this browser cannot play is named, and the other one shown", whole, async (t) => {
  const { page, wrong } = await open(t, (c, type) => {
    if (type === "sub") c.codec = "hvc1.1.6.L93.B0";
    c.play();
  });
  await moving(page, `${video}[data-live=playing]`);
  assert.match(await page.locator(".states").innerText(), /sub: .*H\.265, which this browser cannot play: showing main/);
  assert.deepEqual(wrong, []);
});

test("an offline camera is said with since when and why", whole, async (t) => {
  const { page, it, wrong } = await open(t, () => undefined);
  await said(page, "waiting for the first picture");
  for (const s of Object.values(it.cameras[0].streams)) {
    s.state = { phase: "waiting", since90k: Date.UTC(2026, 0, 2, 8, 2) * 90, reason: "connection refused" };
  }
  await over(page).filter({ hasText: /^camera offline since 2026-01-02 08:02$/ }).waitFor();
  assert.equal((await page.locator(".tile").innerText()).split("connection refused").length, 2, "the reason is to be said once");
  assert.deepEqual(wrong, []);
});

test("nothing is called good while the recorder is away", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  it.rows = [{ startId: 1, runStartId: 1, openId: 1, growing: true, startTime90k: 90000, endTime90k: 180000, videoSampleEntryId: 1, videoSamples: 1, sampleFileBytes: 1 }];
  await page.locator(".mark").filter({ hasText: "recording now" }).waitFor();
  assert.equal(await page.locator(".dot.good").count(), 2);
  await page.route(/\/api\//, (route) => route.abort());
  await page.getByText("The recorder does not answer.").waitFor();
  assert.equal(await page.locator(".dot.unknown").count(), 2);
  assert.equal(await page.locator(".dot.good, .mark").count(), 0);
  await page.unroute(/\/api\//);
  await page.locator(".dot.good").first().waitFor();
  await page.locator(".mark").waitFor();
});

test("a download is offered to who may export", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  it.rows = [{ startId: 1, runStartId: 1, openId: 1, startTime90k: 90000, endTime90k: 180000, videoSampleEntryId: 1, videoSamples: 1, sampleFileBytes: 1 }];
  await page.getByRole("button", { name: "Play", exact: true }).waitFor();
  assert.equal(await page.locator("a[download]").count(), 0);
  it.cameras[0].rights.push("export");
  await page.reload();
  await page.locator("a[download]").waitFor();
});

test("events bring lists up to date, and take away what is deleted", whole, async (t) => {
  const { page, it, wrong } = await open(t, (c) => c.play(), { follow: true });
  await page.getByText("Nothing has been recorded yet.").waitFor();
  while (it.followers.size === 0) await page.waitForTimeout(50);
  const end = Date.now() + limit;
  let asked;
  do { // until it has what the state had it ask for
    asked = it.lists;
    await page.waitForTimeout(3000);
  } while (it.lists !== asked && Date.now() < end);
  await page.waitForTimeout(6000); // longer than a page without events waits
  assert.equal(it.lists, asked, "a list was asked for though nothing had changed");

  const now = Date.now() * 90;
  const row = (startId, from, to) => ({
    startId, runStartId: 1, openId: 1, startTime90k: now - from * 90000, endTime90k: now - to * 90000, videoSampleEntryId: 1, videoSamples: 1,
    sampleFileBytes: 1,
  });
  const stream = { camera: "u-1", stream: "main" };
  it.rows = [{ ...row(1, 60, 60), growing: true }];
  it.event("recordings", { ...stream, recordings: it.rows, videoSampleEntries: {} });
  await page.locator(".mark").filter({ hasText: "recording now" }).waitFor();
  const length = page.locator(".recordings tbody td.number").first();
  const first = await length.innerText();
  await page.waitForFunction((first) => document.querySelector(".recordings tbody td.number").textContent !== first, first); // it grows

  // A gap stands between what was recorded before and after.
  it.rows = [row(1, 60, 50), row(2, 40, 30)];
  it.gaps = [{ startTime90k: now - 50 * 90000, endTime90k: now - 40 * 90000, cause: "unreachable", detail: "rtsp://10.0.0.7/main: no answer" }];
  it.event("gaps", { ...stream, gaps: it.gaps });
  await page.locator(".recordings tbody tr:nth-child(2)").getByText("not recorded: the camera did not answer (no answer)").waitFor();
  it.gaps = [];

  // What retention deletes no event tells, but where the first recording begins now.
  it.rows = [row(1, 60, 30), row(2, 30, 20)];
  it.event("recordings", { ...stream, recordings: it.rows, videoSampleEntries: {} });
  await page.locator(".gap").waitFor({ state: "detached" });
  assert.equal(await page.locator(".recordings tbody tr").count(), 2);
  it.rows = it.rows.slice(1);
  it.event("stream", { ...it.cameras[0].streams.main, ...stream, recordings: 1, minStartTime90k: now - 30 * 90000, maxEndTime90k: now - 20 * 90000 });
  await page.locator(".recordings tbody tr").nth(1).waitFor({ state: "detached" });

  // A stream goes with what it showed, also when it was chosen; its recordings are none of the other's.
  for (const type of ["main", "sub"]) await page.getByRole("group", { name: "Stream of" }).getByText(type).click();
  await page.getByRole("group", { name: "Stream", exact: true }).getByText("sub").click();
  await page.locator(".recordings").getByRole("button", { name: "Play" }).click();
  await page.locator(".playback").waitFor();
  const { main } = it.cameras[0].streams;
  it.cameras = [{ ...it.cameras[0], streams: { main } }];
  it.event("streamDeleted", { camera: "u-1", stream: "sub", id: 1 });
  await page.getByRole("group", { name: "Stream of" }).waitFor({ state: "detached" });
  await page.locator(".playback").waitFor({ state: "detached" });
  assert.equal(await page.locator(".states li").count(), 1);
  it.cameras = [];
  it.event("cameraDeleted", { uuid: "u-1", id: 1 });
  await page.getByText("No cameras yet.").waitFor();
  assert.deepEqual(wrong.filter((w) => !/view\.mp4/.test(w)), []); // which is not there
});

test("sample directories are said to do well or not, and for how long they keep", whole, async (t) => {
  const dir = (id) => ({ id, path: `/disk/${id}`, state: "ok", totalBytes: 1e12, freeBytes: 120e9, floorBytes: 20e9 });
  const { page, it, wrong } = await open(t, (c) => c.play(), { follow: true, directories: [dir(1), dir(2)] });
  const card = (id) => page.locator(".card", { has: page.getByRole("heading", { name: `/disk/${id}` }) });
  await card(1).getByText("takes recordings").waitFor();
  await card(1).getByText("120 GB of 1.0 TB are free").waitFor();
  await card(1).getByText(/front main: 870 GB used.*about 22 days kept/).waitFor();
  while (it.followers.size === 0) await page.waitForTimeout(50);
  it.directories = [{ ...dir(1), state: "failing", error: "no space left on device" }, dir(2)];
  it.event("directory", it.directories[0]);
  await card(1).getByText("takes no recordings now (no space left on device)").waitFor();
  it.directories = [it.directories[0]];
  it.event("directoryDeleted", { id: 2, path: "/disk/2" });
  await card(2).waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
});

test("a camera is deleted by a second click, and a refusal is said", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  const dialog = page.getByRole("dialog");
  it.refuseChange = { status: 500, text: "its log says why" };
  await page.getByRole("button", { name: "Delete front <b>door</b>…" }).click();
  assert.match(await dialog.innerText(), /front <b>door<\/b>\?[^]*All its footage/);
  assert.equal(it.cameras.length, 1);
  await page.keyboard.press("Enter"); // on Cancel
  await dialog.waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Delete front <b>door</b>…" }).click();
  await dialog.getByRole("button", { name: "Delete camera and footage" }).click();
  await dialog.getByRole("alert").filter({ hasText: "its log says why" }).waitFor();
  it.refuseChange = undefined;
  await dialog.getByRole("button", { name: "Delete camera and footage" }).click();
  await page.getByText("No cameras yet.").waitFor();
  assert.equal(it.cameras.length, 0);
});

test("a wrong value is said beside its input", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  it.refuseChange = { status: 400, text: 'streams.sub.url: begins with "http"' };
  await page.getByRole("button", { name: "Add camera" }).click();
  await page.getByLabel("Name", { exact: true }).fill("yard");
  await page.getByLabel("Address of the main stream").fill("rtsp://10.0.0.7/main");
  await page.getByLabel("Address of the sub stream").fill("http://10.0.0.7/sub");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.locator(".field", { has: page.locator('input[name="sub.url"][aria-invalid=true]') }).getByText('begins with "http"').waitFor();
  assert.equal(await page.locator("dialog [aria-invalid=true]").count(), 1);
});

test("a camera is tried and changed, and only what differs is sent", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  for (const [type, s] of Object.entries(it.cameras[0].streams)) Object.assign(s, { config: { url: `rtsp://10.0.0.7/${type}`, username: "u" } });
  const dialog = page.getByRole("dialog");
  const change = page.getByRole("button", { name: "Change front <b>door</b>…" });
  await change.click();
  assert.equal(await dialog.getByLabel("Address of the main stream").inputValue(), "rtsp://10.0.0.7/main");
  assert.equal(await dialog.getByLabel("User name").inputValue(), "u");
  const sub = dialog.getByRole("group", { name: /^Sub stream/ });
  await dialog.getByLabel("Name", { exact: true }).fill("gate");
  await sub.getByLabel("Address").fill("rtsp://10.0.0.8/sub");
  await sub.getByLabel("Record").uncheck();
  await sub.getByLabel("in days").fill("14");

  it.tried = { ok: true, video: { format: "H.264", codec: "avc1.4d4016", width: 640, height: 360, frameRate: 20, bitRate: 500_000, gopFrames: 40, gopSec: 2 } };
  await sub.getByRole("button", { name: "Test the sub stream" }).click();
  await sub.getByRole("status").filter({ hasText: /H\.264, 640 × 360, 20 pictures a second.*500 kbit\/s.*key frame every 2 s/ }).waitFor();
  assert.deepEqual(it.changes, [{ url: "rtsp://10.0.0.8/sub", username: "u", camera: "u-1", stream: "sub" }]);
  it.tried = { ok: false, cause: "login_refused", error: "login refused (401): check user and password" };
  await sub.getByRole("button", { name: "Test the sub stream" }).click();
  await sub.getByRole("alert").filter({ hasText: "check user and password" }).waitFor();
  it.refuseChange = { status: 400, text: "password: is to be given again" };
  await sub.getByRole("button", { name: "Test the sub stream" }).click();
  await dialog.locator(".field", { has: page.locator("input[name=password][aria-invalid=true]") }).getByText("is to be given again").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.name), "password");

  await dialog.getByLabel("password").fill("p");
  it.refuseChange = { status: 412, text: "precondition failed" };
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByRole("alert").filter({ hasText: "Somebody else has changed" }).waitFor();
  it.refuseChange = undefined;
  it.changes = [];
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "hidden" });
  assert.deepEqual(it.changes, [{
    update: { shortName: "gate", streams: { main: { password: "p" }, sub: { url: "rtsp://10.0.0.8/sub", password: "p", record: false, retainDays: 14 } } },
    precondition: { shortName: "front <b>door</b>", streams: { main: {}, sub: { url: "rtsp://10.0.0.7/sub", record: true, retainDays: 0 } } },
  }]);

  // Streams of several users have a pair of fields each.
  it.cameras[0].streams.sub.config.username = "v";
  await change.click();
  assert.equal(await sub.getByLabel("User name").inputValue(), "v");
  assert.equal(await dialog.getByLabel("User name").count(), 2);
});

test("a refusal of the recorder is shown in its own words", whole, async (t) => {
  const { page, it } = await open(t, (c) => c.play());
  it.refuse = { status: 401, text: "start it with -allow-anonymous view" };
  await page.getByRole("alert").filter({ hasText: "start it with -allow-anonymous view" }).first().waitFor();
});
