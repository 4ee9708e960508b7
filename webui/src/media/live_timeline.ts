import type { LiveFrame } from "./frame.ts";

/** A place on the player's clock and the wall time that belongs to it. */
interface Anchor {
  at90k: number;
  wall90k: number;
  key: string;
}

/** LiveTimeline gives each live frame its place on the player's clock. That
 * clock begins at 0 and has no holes: where frames are missing (the server
 * dropped some, the camera stalled, the connection broke) the next frame
 * follows at once, because a live picture has nothing to wait for. It
 * remembers which wall time each place stands for. */
export class LiveTimeline {
  #at90k = 0; // of the newest frame
  #pos90k = 0; // the same in media time of the stream
  #duration90k = 0; // of the newest frame, as announced
  #anchors: Anchor[] = [];

  /** place returns the seconds at which the frame begins. */
  place(f: LiveFrame): number {
    const pos = f.prevMediaDuration90k + f.from90k;
    const duration = Math.max(f.to90k - f.from90k, 1);
    let broken = false;
    if (this.#anchors.length > 0) {
      const delta = pos - this.#pos90k;
      broken = delta <= 0 || delta > 2 * Math.max(this.#duration90k, duration);
      this.#at90k += broken ? this.#duration90k : delta;
    }
    this.#pos90k = pos;
    this.#duration90k = duration;
    const key = `${f.openId}.${f.recordingId}@${f.recordingStart90k}`;
    if (broken || this.#anchors.at(-1)?.key !== key) {
      this.#anchors.push({ at90k: this.#at90k, wall90k: f.recordingStart90k + f.from90k, key });
      if (this.#anchors.length > 64) this.#anchors.shift();
    }
    return this.#at90k / 90000;
  }

  /** wall90k is the wall time of the picture shown at a place, undefined
   * before the first frame. */
  wall90k(seconds: number): number | undefined {
    const at = seconds * 90000;
    const a = this.#anchors.findLast((x) => x.at90k <= at + 1) ?? this.#anchors[0];
    return a && a.wall90k + Math.round(at - a.at90k);
  }

  /** seconds a frame lasts. */
  get frameSeconds(): number {
    return this.#duration90k / 90000;
  }
}
