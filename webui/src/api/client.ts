// The HTTP API as a class. It knows addresses and answers and nothing of
// pages; nothing here needs a framework.

import type {
  Camera, CameraChange, CameraConfig, DirectoryReport, Gap, RecordingRow, Recordings, Session, StreamToTry, StreamType, TokenConfig, TopLevel, Tried,
  User, UserChange,
} from "./types.ts";

/** ApiError is an answer that is not a success. message is for people. */
export class ApiError extends Error {
  /** The HTTP status; 0 when no answer came. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Range of a listing. A bound is 90 kHz units or text such as
 * "2026-11-23", which the server reads in its own time zone. */
export interface TimeRange {
  start?: number | string;
  end?: number | string;
}

export interface ListRange extends TimeRange {
  /** Rows are cut so that none is longer than this. */
  split90k?: number;
}

export class ApiClient {
  readonly #base: URL;
  readonly #fetch: typeof fetch;

  /** base is the address of the recorder, e.g. location.href. */
  constructor(base: string | URL, fetcher: typeof fetch = (...args) => fetch(...args)) {
    this.#base = new URL("/", base);
    this.#fetch = fetcher;
  }

  top(signal?: AbortSignal): Promise<TopLevel> {
    return this.#json<TopLevel>("api/", { signal });
  }

  recordings(camera: string, stream: StreamType, range: ListRange = {}, signal?: AbortSignal): Promise<Recordings> {
    const q = rangeQuery(range);
    if (range.split90k !== undefined) q.set("split90k", String(range.split90k));
    return this.#json<Recordings>(`${this.#stream(camera, stream)}recordings?${q}`, { signal });
  }

  async gaps(camera: string, stream: StreamType, range: TimeRange = {}, signal?: AbortSignal): Promise<Gap[]> {
    return (await this.#json<{ gaps: Gap[] }>(`${this.#stream(camera, stream)}gaps?${rangeQuery(range)}`, { signal })).gaps;
  }

  async addCamera(config: CameraConfig): Promise<string> {
    return (await this.#json<{ uuid: string }>("api/cameras/", sending("POST", config))).uuid;
  }

  /** A camera with its configuration, but for passwords. */
  camera(camera: string, signal?: AbortSignal): Promise<Camera> {
    return this.#json<Camera>(`api/cameras/${encodeURIComponent(camera)}/?cameraConfigs=true`, { signal });
  }

  /** precondition is what is believed to be there now; 412 when it is not. */
  async changeCamera(camera: string, update: CameraChange, precondition: CameraChange): Promise<void> {
    await this.#request(`api/cameras/${encodeURIComponent(camera)}/`, sending("PATCH", { update, precondition }));
  }

  /** Looks at a stream for some seconds. */
  tryStream(stream: StreamToTry, signal?: AbortSignal): Promise<Tried> {
    return this.#json<Tried>("api/test-stream", { ...sending("POST", stream), signal });
  }

  async deleteCamera(camera: string): Promise<void> {
    await this.#request(`api/cameras/${encodeURIComponent(camera)}/`, { method: "DELETE" });
  }

  async directories(signal?: AbortSignal): Promise<DirectoryReport[]> {
    return (await this.#json<{ dirs: DirectoryReport[] }>("api/dirs/", { signal })).dirs;
  }

  async users(signal?: AbortSignal): Promise<User[]> {
    return (await this.#json<{ users: User[] }>("api/users/", { signal })).users;
  }

  async addUser(user: UserChange): Promise<number> {
    return (await this.#json<{ id: number }>("api/users/", sending("POST", { user }))).id;
  }

  /** password is the caller's own until now, to change it. */
  async changeUser(id: number, update: UserChange, password?: string): Promise<void> {
    await this.#request(`api/users/${id}`, sending("PATCH", { update, ...(password !== undefined && { precondition: { password } }) }));
  }

  async deleteUser(id: number): Promise<void> {
    await this.#request(`api/users/${id}`, { method: "DELETE" });
  }

  async sessions(user: number, signal?: AbortSignal): Promise<Session[]> {
    return (await this.#json<{ sessions: Session[] }>(`api/users/${user}/sessions`, { signal })).sessions;
  }

  /** Ends one session or token of a user, or all. */
  async endSession(user: number, session: number | "all"): Promise<void> {
    await this.#request(`api/users/${user}/sessions${session === "all" ? "" : `/${session}`}`, { method: "DELETE" });
  }

  /** The token, which no other answer has. */
  async addToken(user: number, config: TokenConfig): Promise<string> {
    return (await this.#json<{ token: string }>(`api/users/${user}/tokens`, sending("POST", config))).token;
  }

  async signOut(): Promise<void> {
    await this.#request("api/logout", sending("POST", {}));
  }

  /** The file of one listed row. A row that still grows is pinned to what it
   * was when it was listed, so that the address always means the same bytes. */
  viewUrl(camera: string, stream: StreamType, row: RecordingRow): string {
    return this.#at(`${this.#stream(camera, stream)}view.mp4?s=${segment(row)}`).href;
  }

  /** The same to be taken away; what still grows is as long as it is when it is asked for. */
  downloadUrl(camera: string, stream: StreamType, row: RecordingRow): string {
    return this.viewUrl(camera, stream, { ...row, growing: false });
  }

  initUrl(videoSampleEntryId: string): string {
    return this.#at(`api/init/${encodeURIComponent(videoSampleEntryId)}.mp4`).href;
  }

  eventsUrl(): string {
    return this.#at("api/events").href;
  }

  liveUrl(camera: string, stream: StreamType): string {
    const url = this.#at(`${this.#stream(camera, stream)}live.m4s`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url.href;
  }

  /** A word that live.m4s takes once in place of the cookie. */
  async liveTicket(camera: string, stream: StreamType): Promise<string> {
    const made = await this.#json<{ ticket: string }>(`${this.#stream(camera, stream)}live-ticket`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    });
    return made.ticket;
  }

  async bytes(url: string, signal?: AbortSignal): Promise<ArrayBuffer> {
    return (await this.#request(url, { signal, cache: "default" })).arrayBuffer();
  }

  #stream(camera: string, stream: StreamType): string {
    return `api/cameras/${encodeURIComponent(camera)}/${encodeURIComponent(stream)}/`;
  }

  #at(path: string): URL {
    return new URL(path, this.#base);
  }

  async #json<T>(path: string, init: RequestInit): Promise<T> {
    return (await (await this.#request(path, init)).json()) as T;
  }

  async #request(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await this.#fetch(this.#at(path), { ...init, cache: init.cache ?? "no-cache" });
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new ApiError(0, "the recorder does not answer");
    }
    if (!response.ok) {
      const text = (await response.text()).trim();
      throw new ApiError(response.status, text || `${response.status} ${response.statusText}`);
    }
    return response;
  }
}

function rangeQuery({ start, end }: TimeRange): URLSearchParams {
  const q = new URLSearchParams();
  if (start !== undefined) q.set("startTime90k", String(start));
  if (end !== undefined) q.set("endTime90k", String(end));
  return q;
}

/** sending is a request with a body of JSON. */
function sending(method: string, body: unknown): RequestInit {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/** segment writes a row as the `s` parameter of view.mp4. */
export function segment(row: RecordingRow): string {
  let s = String(row.startId);
  if (row.endId !== undefined && row.endId !== row.startId) s += `-${row.endId}`;
  s += `@${row.openId}`;
  if (row.growing) s += `.0-${row.endTime90k - row.startTime90k}`;
  return s;
}
