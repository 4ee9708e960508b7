// The events of the recorder (nvr/design/api.md, "Events") as a class: it keeps
// the answer of GET /api/ up to date and knows nothing of pages.

import type { Camera, Directory, Stream, StreamType, TopLevel } from "./types.ts";

/** Revisions tells of each stream how often the lists of its recordings and gaps
 * are known to have changed. The number only grows. */
export type Revisions = (camera: string, stream: StreamType) => number;

/** OfStream is what every event of a stream begins with: the uuid of the camera, and the type. */
interface OfStream {
  camera: string;
  stream: StreamType;
}

export interface FeedOptions {
  /** The address of the events. */
  url: string;
  /** The state, whenever it has changed. */
  onState(top: TopLevel, revisions: Revisions): void;
  /** Events do not come any more, or never did: the recorder is to be asked. */
  onEnd(): void;
  open?(url: string): EventSource;
}

/** Feed follows events. It comes back by itself when the connection is lost, and ends
 * when the recorder refuses. */
export class Feed {
  readonly #options: FeedOptions;
  readonly #source: EventSource;
  #top?: TopLevel;
  #count = 0; // of events
  #told = 0; // when now90k was told, on the page's clock
  readonly #listed = new Map<string, number>(); // changes of lists, by stream
  #listedAll = 0; // those of all streams

  constructor(options: FeedOptions) {
    this.#options = options;
    this.#source = (options.open ?? ((url) => new EventSource(url)))(options.url);
    const on = <T>(name: string, does: (data: T) => void) =>
      this.#source.addEventListener(name, (e) => {
        this.#count++;
        does(JSON.parse((e as MessageEvent<string>).data) as T);
      });
    on<TopLevel>("state", (top) => {
      this.#listedAll++; // nobody knows what was missed
      this.#set(top, top.now90k);
    });
    on<Camera>("camera", (camera) => this.#change((top) => ({ ...top, cameras: put(top.cameras, camera) })));
    on<{ uuid: string }>("cameraDeleted", ({ uuid }) =>
      this.#change((top) => ({ ...top, cameras: top.cameras.filter((c) => c.uuid !== uuid) })),
    );
    on<Stream & OfStream>("stream", ({ camera, stream, ...said }) =>
      this.#changeStreams(camera, (streams) => ({ ...streams, [stream]: said })),
    );
    on<OfStream & { id: number }>("streamDeleted", ({ camera, stream, id }) =>
      this.#changeStreams(camera, (streams) => {
        const { [stream]: gone, ...others } = streams;
        return gone?.id === id ? others : streams;
      }),
    );
    for (const name of ["recordings", "gaps", "lists"]) {
      on<OfStream>(name, ({ camera, stream }) => {
        const key = keyOf(camera, stream);
        this.#listed.set(key, (this.#listed.get(key) ?? 0) + 1);
        this.tick();
      });
    }
    on<Directory>("directory", (dir) =>
      this.#change((top) => ({ ...top, directories: [...without(top.directories, dir.id), dir].sort((a, b) => a.id - b.id) })),
    );
    on<{ id: number }>("directoryDeleted", ({ id }) =>
      this.#change((top) => ({ ...top, directories: without(top.directories, id) })),
    );
    on<{ now90k: number }>("clock", ({ now90k }) => {
      this.#listedAll++; // what was recorded may have moved
      if (this.#top) this.#set(this.#top, now90k);
    });
    for (const name of ["resync", "session"]) on(name, () => this.#end());
    this.#source.onerror = () => {
      if (this.#source.readyState === 2) this.#end(); // CLOSED: it does not come back
    };
  }

  /** alive says whether events come at this moment. */
  get alive(): boolean {
    return this.#source.readyState === 1 && this.#top !== undefined;
  }

  /** count is how many events have come. */
  get count(): number {
    return this.#count;
  }

  /** take takes an answer of GET /api/, asked for when so many events had come. One
   * that has come since says more. */
  take(top: TopLevel, count: number): void {
    if (count === this.#count) this.#set(top, top.now90k);
  }

  /** tick moves the time on. */
  tick(): void {
    this.#change((top) => top);
  }

  stop(): void {
    this.#source.close();
  }

  #end(): void {
    this.stop();
    this.#options.onEnd();
  }

  #set(top: TopLevel, now90k: number): void {
    this.#told = performance.now();
    this.#top = { ...top, now90k };
    const [all, listed] = [this.#listedAll, new Map(this.#listed)];
    this.#options.onState(this.#top, (camera, stream) => all + (listed.get(keyOf(camera, stream)) ?? 0));
  }

  #changeStreams(camera: string, change: (streams: Camera["streams"]) => Camera["streams"]): void {
    this.#change((top) => ({
      ...top,
      cameras: top.cameras.map((c) => (c.uuid === camera ? { ...c, streams: change(c.streams) } : c)),
    }));
  }

  #change(change: (top: TopLevel) => TopLevel): void {
    if (!this.#top) return;
    const passed = Math.round((performance.now() - this.#told) * 90);
    this.#set(change(this.#top), this.#top.now90k + passed);
  }
}

function keyOf(camera: string, stream: StreamType): string {
  return `${camera}/${stream}`;
}

function without(dirs: Directory[] = [], id: number): Directory[] {
  return dirs.filter((d) => d.id !== id);
}

/** put replaces a camera, or adds it, by name as the recorder lists them. */
function put(cameras: Camera[], camera: Camera): Camera[] {
  const others = cameras.filter((c) => c.uuid !== camera.uuid);
  const at = others.findIndex((c) => c.shortName > camera.shortName);
  return at < 0 ? [...others, camera] : [...others.slice(0, at), camera, ...others.slice(at)];
}
