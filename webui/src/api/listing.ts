// A list that is kept up to date, as a class: asked for when something tells that
// it has changed, or again and again while nothing tells. It knows nothing of pages.

const leastMs = 1000; // from an answer to the next question: a burst of events is one

export type Revision = number | string;

export interface ListingOptions<T> {
  ask(signal: AbortSignal): Promise<T>;
  onList(list: T): void;
  onError(e: unknown): void;
  /** Milliseconds until to ask again while nothing tells of changes, or after an error;
   * Infinity: never. list is the last one. */
  pollMs(list: T | undefined): number;
}

/** Listing asks when follow is called first, and from then on when the list may be another. */
export class Listing<T> {
  readonly #options: ListingOptions<T>;
  readonly #abort = new AbortController();
  #revision?: Revision;
  #list?: T;
  #ready = true; // to ask
  #changed = false; // since it was asked for
  #timer?: ReturnType<typeof setTimeout>;

  constructor(options: ListingOptions<T>) {
    this.#options = options;
  }

  /** follow takes what is another value whenever the list is known to have changed;
   * undefined while nothing tells of it. */
  follow(revision: Revision | undefined): void {
    const known = revision !== undefined && revision === this.#revision;
    this.#revision = revision;
    if (!known) this.changed();
  }

  /** changed has the list asked for anew, as soon as that may be. */
  changed(): void {
    if (this.#ready) void this.#ask();
    else this.#changed = true;
  }

  stop(): void {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    clearTimeout(this.#timer);
    this.#ready = false;
    this.#changed = false;
    const { signal } = this.#abort;
    let failed = false;
    try {
      const list = await this.#options.ask(signal);
      if (signal.aborted) return;
      this.#options.onList((this.#list = list));
    } catch (e) {
      if (signal.aborted) return;
      failed = true;
      this.#options.onError(e);
    }
    this.#timer = setTimeout(() => this.#rested(failed), leastMs);
  }

  #rested(failed: boolean): void {
    this.#ready = true;
    if (this.#changed) return void this.#ask();
    if (!failed && this.#revision !== undefined) return;
    const wait = this.#options.pollMs(this.#list) - leastMs;
    if (wait < Infinity) this.#timer = setTimeout(() => void this.#ask(), wait);
  }
}
