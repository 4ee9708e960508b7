// Live video in a <video> element, by WebSocket and Media Source Extensions.
// Needs no secure context and no framework.

import { parseFrame, type LiveFrame } from "./frame.ts";
import { LatencyKeeper, type Span } from "./latency.ts";
import { LiveTimeline } from "./live_timeline.ts";

export type LivePhase =
  | "stopped" // by stop()
  | "paused" // the page is hidden; goes on by itself
  | "connecting"
  | "waiting" // connected, no picture comes
  | "playing"
  | "blocked" // the browser wants a click first: call resume()
  | "retrying" // the connection broke; goes on by itself
  | "unsupported"; // this browser cannot play the codec; final until restarted

export interface LiveStatus {
  phase: LivePhase;
  /** For people, a short phrase; empty while playing. */
  message: string;
}

export interface LiveOptions {
  /** Address of live.m4s (ws: or wss:). */
  url: string;
  /** Gets a ticket: some browsers send no cookie with a WebSocket. It is asked
   * for when the recorder did not know who connected. */
  ticket?(): Promise<string>;
  /** Fetches the initialization segment of a video sample entry. */
  init(sampleEntryId: string): Promise<ArrayBuffer>;
  onStatus(status: LiveStatus): void;
  /** Seconds to stay behind the newest picture; 0.25 when not given. */
  targetSeconds?: number;
}

const firstRetry = 0.5; // seconds, doubled each time
const lastRetry = 10;
const quietAfter = 3; // seconds without a frame until we say so
const deadAfter = 60; // seconds without a frame until we connect anew
const keepSeconds = 10; // of played video in the buffer

type AnyMediaSource = typeof MediaSource;

/** mediaSource is the browser's MediaSource; on an iPhone there is only the
 * managed kind. */
export function mediaSource(): AnyMediaSource | undefined {
  const g = globalThis as { ManagedMediaSource?: AnyMediaSource; MediaSource?: AnyMediaSource };
  return g.ManagedMediaSource ?? g.MediaSource;
}

/** codecName says a MIME type as people do. */
export function codecName(contentType: string): string {
  const codec = /codecs="?([^",]+)/.exec(contentType)?.[1] ?? contentType;
  if (/^(hvc1|hev1)/.test(codec)) return "H.265";
  if (/^avc[13]/.test(codec)) return "H.264";
  return codec;
}

export class LivePlayer {
  readonly #video: HTMLVideoElement;
  readonly #options: LiveOptions;
  readonly #cleanup = new AbortController();
  #status: LiveStatus = { phase: "stopped", message: "" };
  #running = false;

  #socket?: WebSocket;
  #serverError = "";
  #unknown = false; // the recorder did not know who connected
  #ticketed = false; // it is to be told by a ticket
  #asking?: object; // a ticket is on its way
  #retryIn = firstRetry;
  #retryTimer?: ReturnType<typeof setTimeout>;
  #ticker?: ReturnType<typeof setInterval>;
  #lastFrame = 0; // ms clock
  #dropped = 0;

  #picture?: Picture;

  constructor(video: HTMLVideoElement, options: LiveOptions) {
    this.#video = video;
    this.#options = options;
  }

  get status(): LiveStatus {
    return this.#status;
  }

  /** Frames that the server left out because we were too slow. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Seconds between the picture shown and the newest one here. */
  get latency(): number | undefined {
    return this.#picture?.lag();
  }

  /** Wall time of the picture shown, 90 kHz units. */
  get wall90k(): number | undefined {
    return this.#picture?.timeline.wall90k(this.#video.currentTime);
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    const signal = this.#cleanup.signal;
    document.addEventListener("visibilitychange", () => this.#visible(), { signal });
    this.#video.addEventListener("waiting", () => this.#picture?.stalled(), { signal });
    this.#video.addEventListener("error", () => {
      if (this.#video.error) this.#broken(`the browser cannot decode it: ${this.#video.error.message || this.#video.error.code}`);
    }, { signal });
    this.#video.muted = true; // else autoplay is refused
    this.#video.playsInline = true;
    this.#ticker = setInterval(() => this.#tick(), 100);
    this.#visible();
  }

  /** stop ends it for good and leaves the element empty. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#cleanup.abort();
    clearInterval(this.#ticker);
    this.#disconnect();
    this.#dropPicture();
    this.#say("stopped", "");
  }

  /** resume is for a click of the user while "blocked". */
  resume(): void {
    this.#play();
  }

  #visible(): void {
    if (!this.#running || this.#status.phase === "unsupported") return;
    if (document.visibilityState === "hidden") {
      this.#disconnect();
      this.#say("paused", "paused while this page is hidden");
    } else if (!this.#socket && !this.#asking) {
      this.#retryIn = firstRetry;
      this.#connect();
    }
  }

  #connect(): void {
    clearTimeout(this.#retryTimer);
    if (!mediaSource()) {
      this.#unsupported("this browser cannot play live video (no Media Source Extensions)");
      return;
    }
    this.#say("connecting", "connecting to the recorder");
    this.#serverError = "";
    this.#unknown = false;
    const { url, ticket } = this.#options;
    if (!this.#ticketed || !ticket) {
      this.#open(url);
      return;
    }
    const asking = {};
    this.#asking = asking;
    ticket().then(
      (t) => {
        if (this.#asking !== asking) return;
        this.#asking = undefined;
        this.#open(`${url}?ticket=${encodeURIComponent(t)}`);
      },
      (e: unknown) => {
        if (this.#asking !== asking) return;
        this.#ticketed = false;
        this.#retry(e instanceof Error ? e.message : String(e));
      },
    );
  }

  #open(url: string): void {
    this.#lastFrame = performance.now();
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      if (this.#socket === socket) this.#say("waiting", "waiting for the first picture");
    };
    socket.onmessage = (e: MessageEvent<ArrayBuffer | string>) => {
      if (this.#socket !== socket) return;
      if (typeof e.data === "string") this.#text(e.data);
      else this.#frame(e.data);
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      // It may be that the browser kept the cookie: once more, with a ticket.
      const ticket = this.#unknown && !this.#ticketed && this.#options.ticket !== undefined;
      if (this.#unknown) this.#ticketed = ticket;
      if (ticket) {
        this.#disconnect();
        this.#connect();
        return;
      }
      this.#retry(this.#serverError || "the connection to the recorder broke");
    };
  }

  #disconnect(): void {
    clearTimeout(this.#retryTimer);
    const socket = this.#socket;
    this.#asking = undefined;
    this.#socket = undefined;
    socket?.close();
    this.#picture?.forget();
  }

  #retry(why: string): void {
    this.#disconnect();
    if (!this.#running) return;
    // A little randomness keeps many pages from knocking in step.
    const wait = this.#retryIn * (0.8 + 0.4 * Math.random());
    this.#retryIn = Math.min(lastRetry, this.#retryIn * 2);
    this.#say("retrying", `${why}; trying again`);
    this.#retryTimer = setTimeout(() => this.#visible(), wait * 1000);
  }

  #text(data: string): void {
    let m: { type?: string; status?: number; message?: string; frames?: number };
    try {
      m = JSON.parse(data);
    } catch {
      return;
    }
    if (m.type === "error") {
      this.#serverError = String(m.message);
      this.#unknown = m.status === 401;
    }
    if (m.type === "dropped") this.#dropped += Number(m.frames) || 0;
  }

  #frame(data: ArrayBuffer): void {
    let frame: LiveFrame;
    try {
      frame = parseFrame(data);
    } catch (e) {
      this.#retry(e instanceof Error ? e.message : String(e));
      return;
    }
    this.#lastFrame = performance.now();
    if (!mediaSource()!.isTypeSupported(frame.contentType)) {
      this.#unsupported(`this camera sends ${codecName(frame.contentType)}, which this browser cannot play`);
      return;
    }
    if (!this.#picture) {
      const picture: Picture = new Picture(this.#video, this.#options, {
        ready: () => {
          if (this.#picture === picture) this.#play();
        },
        broken: (why) => {
          if (this.#picture === picture) this.#broken(why);
        },
      });
      this.#picture = picture;
    } else if (this.#status.phase === "waiting" && this.#picture.started) {
      this.#play();
    }
    this.#picture.push(frame);
  }

  #play(): void {
    this.#video.play().then(
      () => {
        if (!this.#socket) return;
        this.#retryIn = firstRetry;
        this.#say("playing", "");
      },
      (e: unknown) => {
        if (e instanceof DOMException && e.name === "NotAllowedError") {
          this.#say("blocked", "the browser waits for a click before it plays");
        }
      },
    );
  }

  #tick(): void {
    this.#picture?.steer();
    if (!this.#socket || this.#status.phase === "unsupported") return;
    const quiet = (performance.now() - this.#lastFrame) / 1000;
    if (quiet > deadAfter) {
      this.#retry("no video for a minute");
    } else if (quiet > quietAfter && this.#status.phase !== "connecting") {
      this.#say("waiting", `no video for ${Math.floor(quiet)} s`);
    }
  }

  /** broken begins again with a new MediaSource. */
  #broken(why: string): void {
    this.#dropPicture();
    if (this.#running) this.#retry(why);
  }

  #unsupported(message: string): void {
    this.#disconnect();
    this.#dropPicture();
    this.#say("unsupported", message);
  }

  #dropPicture(): void {
    this.#picture?.close();
    this.#picture = undefined;
  }

  #say(phase: LivePhase, message: string): void {
    if (this.#status.phase === phase && this.#status.message === message) return;
    this.#status = { phase, message };
    this.#options.onStatus(this.#status);
  }
}

/** Picture is one MediaSource in the element. It outlives connections, so the
 * last picture stays while the next connection is made. */
class Picture {
  readonly timeline = new LiveTimeline();
  started = false;
  #jumped = 0; // ms clock

  readonly #video: HTMLVideoElement;
  readonly #options: LiveOptions;
  readonly #on: { ready(): void; broken(why: string): void };
  readonly #keeper: LatencyKeeper;
  readonly #source: MediaSource;
  readonly #opened: Promise<void>;
  #buffer?: SourceBuffer;
  #contentType = "";
  #entry = "";
  #inits = new Map<string, Promise<ArrayBuffer>>();
  #queue: LiveFrame[] = [];
  #draining = false;
  #closed = false;

  constructor(video: HTMLVideoElement, options: LiveOptions, on: { ready(): void; broken(why: string): void }) {
    this.#video = video;
    this.#options = options;
    this.#on = on;
    this.#keeper = new LatencyKeeper(options.targetSeconds);
    const Source = mediaSource()!;
    this.#source = new Source();
    this.#opened = new Promise((resolve) => {
      this.#source.addEventListener("sourceopen", () => resolve(), { once: true });
    });
    if (Source !== globalThis.MediaSource) {
      // The managed kind opens only so.
      video.disableRemotePlayback = true;
      video.srcObject = this.#source as unknown as MediaProvider;
    } else {
      const url = URL.createObjectURL(this.#source);
      video.src = url;
      void this.#opened.then(() => URL.revokeObjectURL(url));
    }
  }

  push(frame: LiveFrame): void {
    this.#queue.push(frame);
    void this.#drain();
  }

  /** forget drops what waits: the connection it came by is gone. */
  forget(): void {
    this.#queue = [];
  }

  close(): void {
    this.#closed = true;
    this.#queue = [];
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    this.#video.load();
  }

  lag(): number | undefined {
    const spans = this.#spans();
    const last = spans.at(-1);
    return last && last[1] - this.#video.currentTime;
  }

  /** stalled is for the element's "waiting". After a jump it is always said. */
  stalled(): void {
    const now = performance.now();
    if (!this.started || this.#video.seeking || now - this.#jumped < 1500) return;
    this.#keeper.stalled(now / 1000);
  }

  #jump(to: number): void {
    this.#jumped = performance.now();
    this.#video.currentTime = to;
  }

  steer(): void {
    if (!this.started || this.#closed || this.#video.seeking) return;
    const { rate, seek } = this.#keeper.steer(
      this.#spans(),
      this.#video.currentTime,
      this.timeline.frameSeconds,
      performance.now() / 1000,
    );
    if (seek !== undefined) this.#jump(seek);
    if (this.#video.playbackRate !== rate) this.#video.playbackRate = rate;
  }

  async #drain(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    try {
      await this.#opened;
      for (let f = this.#queue.shift(); f && !this.#closed; f = this.#queue.shift()) {
        await this.#append(f);
      }
      if (this.#closed) return;
      if (!this.started && this.#buffer) this.#begin();
      await this.#trim();
    } catch (e) {
      if (!this.#closed) this.#on.broken(e instanceof Error ? e.message : String(e));
    } finally {
      this.#draining = false;
    }
    if (this.#queue.length > 0 && !this.#closed) void this.#drain();
  }

  /** begin goes to the newest picture of what came first: the group of
   * pictures that the server had in memory. */
  #begin(): void {
    const last = this.#spans().at(-1);
    if (!last) return;
    this.started = true;
    this.#jump(Math.max(last[0], last[1] - this.#keeper.target));
    this.#on.ready();
  }

  async #append(f: LiveFrame): Promise<void> {
    if (f.sampleEntryId !== this.#entry) {
      let init = this.#inits.get(f.sampleEntryId);
      if (!init) {
        init = this.#options.init(f.sampleEntryId);
        this.#inits.set(f.sampleEntryId, init);
      }
      const bytes = await init.catch((e: unknown) => {
        this.#inits.delete(f.sampleEntryId);
        throw e;
      });
      if (this.#closed) return;
      if (!this.#buffer) {
        this.#buffer = this.#source.addSourceBuffer(f.contentType);
        this.#buffer.mode = "segments";
      } else if (f.contentType !== this.#contentType) {
        this.#buffer.changeType(f.contentType);
      }
      this.#contentType = f.contentType;
      await this.#put(bytes);
      this.#entry = f.sampleEntryId;
    }
    if (this.#closed) return;
    // Every fragment counts its time from 0.
    this.#buffer!.timestampOffset = this.timeline.place(f);
    await this.#put(f.body);
  }

  async #put(data: BufferSource): Promise<void> {
    try {
      await this.#update((b) => b.appendBuffer(data));
    } catch (e) {
      if (!(e instanceof DOMException) || e.name !== "QuotaExceededError") throw e;
      const at = this.#video.currentTime;
      await this.#update((b) => b.remove(0, Math.max(at - 1, 0.01)));
      await this.#update((b) => b.appendBuffer(data));
    }
  }

  async #trim(): Promise<void> {
    const first = this.#spans()[0];
    const keep = this.#video.currentTime - keepSeconds;
    if (first && this.#buffer && first[0] < keep - keepSeconds / 2) {
      await this.#update((b) => b.remove(0, keep));
    }
  }

  #update(begin: (b: SourceBuffer) => void): Promise<void> {
    const b = this.#buffer!;
    return new Promise((resolve, reject) => {
      const done = () => {
        b.removeEventListener("updateend", done);
        b.removeEventListener("error", failed);
        resolve();
      };
      const failed = () => {
        b.removeEventListener("updateend", done);
        b.removeEventListener("error", failed);
        reject(new Error("the browser refused a piece of the video"));
      };
      b.addEventListener("updateend", done);
      b.addEventListener("error", failed);
      try {
        begin(b);
      } catch (e) {
        b.removeEventListener("updateend", done);
        b.removeEventListener("error", failed);
        reject(e as Error);
      }
    });
  }

  #spans(): Span[] {
    const spans: Span[] = [];
    if (!this.#buffer || this.#source.readyState !== "open") return spans;
    const b = this.#buffer.buffered;
    for (let i = 0; i < b.length; i++) spans.push([b.start(i), b.end(i)]);
    return spans;
  }
}
