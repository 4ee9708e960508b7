/** What to do about the distance to the newest picture. */
export interface Steer {
  rate: number;
  seek?: number;
}

export type Span = readonly [start: number, end: number];

/** LatencyKeeper holds playback a fixed distance behind the newest picture:
 * by speed when the error is small, by a jump when it is large. Each stall
 * makes the distance longer, quiet time makes it shorter again. */
export class LatencyKeeper {
  static readonly jumpSeconds = 1.25; // beyond the target: jump

  readonly #least: number;
  readonly #most: number;
  #target: number;
  #margins: number[] = [];
  #rate = 1;
  #quietSince = 0;
  #stalledAt = -Infinity;

  constructor(least = 0.25, most = 1) {
    this.#least = least;
    this.#most = most;
    this.#target = least;
  }

  get target(): number {
    return this.#target;
  }

  /** stalled is to be called when playback ran dry, with a clock in seconds. */
  stalled(now: number): void {
    if (now - this.#stalledAt < 1) return; // said twice
    this.#stalledAt = now;
    this.#target = Math.min(this.#most, this.#target * 1.5);
    this.#quietSince = now;
  }

  /** steer is called about ten times a second. spans are the buffered ranges
   * in order; frame is how long one picture lasts. */
  steer(spans: readonly Span[], at: number, frame: number, now: number): Steer {
    if (now - this.#quietSince > 10 && this.#target > this.#least) {
      this.#target = Math.max(this.#least, this.#target * 0.8);
      this.#quietSince = now;
    }
    const last = spans.at(-1);
    if (!last) return { rate: 1 };
    const target = Math.max(this.#target, 2 * frame);
    const edge = Math.max(last[0], last[1] - target);
    const here = spans.find(([start, end]) => start - 0.02 <= at && at < end + 0.02);
    const next = spans.find(([start]) => start > at);

    if (!here && (next || at < last[0])) return this.#jump(edge);
    if (here && here !== last && next && here[1] - at < Math.max(0.05, frame)) {
      return this.#jump(next[0] + 0.001); // at the brink of a hole
    }
    const lag = last[1] - at;
    if (lag > target + LatencyKeeper.jumpSeconds) return this.#jump(edge);

    // The smallest distance of the last half second is what protects from a
    // stall; single frames make the distance itself a saw.
    this.#margins.push(lag);
    if (this.#margins.length > 5) this.#margins.shift();
    const margin = Math.min(...this.#margins);
    if (margin > target + 0.5) this.#rate = 1.1;
    else if (margin > target + 0.1) this.#rate = 1.05;
    else if (margin < target * 0.4) this.#rate = 0.95;
    else if ((this.#rate > 1 && margin <= target) || (this.#rate < 1 && margin >= target * 0.8)) this.#rate = 1;
    return { rate: this.#rate };
  }

  #jump(to: number): Steer {
    this.#margins = [];
    this.#rate = 1;
    return { rate: 1, seek: to };
  }
}
