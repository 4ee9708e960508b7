import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ApiClient, TimeRange } from "../api/client.ts";
import type { Camera, Gap, RecordingRow, StreamType } from "../api/types.ts";
import { streamsOf } from "./app.tsx";
import type { Place } from "./place.ts";
import { addDays, bytes, duration, isDay, type Zone } from "./time.ts";
import { useListing } from "./use_listing.ts";
import { gapIs } from "./words.ts";

const refreshMs = 5000; // while no events come
const firstMs = 1000; // and there is nothing to show
const rowLength90k = 3600 * 90000; // one row of the list covers at most an hour

/** RecordingsPanel lists what one stream kept of one day and where it has gaps, newest
 * first, and plays it. */
export function RecordingsPanel(props: {
  api: ApiClient;
  cameras: Camera[];
  camera: Camera;
  stream: StreamType;
  /** How often the list is known to have changed; absent while no events come. */
  revision: number | undefined;
  /** The recorder does not answer. */
  stale: boolean;
  zone: Zone;
  now90k: number;
  place: Place;
  go(p: Place): void;
}) {
  const { api, cameras, camera, stream, revision, stale, zone, now90k, place, go } = props;
  const today = zone.day(now90k);
  const day = place.day ?? today;
  const { minStartTime90k } = camera.streams[stream]!;
  const [{ rows, gaps }, error] = useDay(api, camera.uuid, stream, day, { growing: day === today, revision, minStartTime90k });
  const here = { camera: camera.uuid, stream, day: place.day };
  const mayExport = camera.rights.includes("export");

  // What plays is kept as it was when it was chosen: the list goes on
  // growing under it.
  const [playing, setPlaying] = useState<{ key: string; row: RecordingRow }>();
  const wanted = place.play === undefined ? undefined : `${camera.uuid} ${stream} ${place.play}`;
  useEffect(() => {
    if (!wanted) return setPlaying(undefined);
    if (playing?.key === wanted) return;
    const among = (list?: RecordingRow[]) => list?.find((r) => r.startId <= place.play! && place.play! <= (r.endId ?? r.startId));
    const show = (row?: RecordingRow) => setPlaying(row && { key: wanted, row });
    const row = among(rows);
    if (!row?.growing) return show(row);
    const abort = new AbortController(); // it has grown since it was listed: how long is it now?
    readDay(api, camera.uuid, stream, day, abort.signal).then(
      (list) => show(among(list) ?? row),
      () => abort.signal.aborted || show(row),
    );
    return () => abort.abort();
  }, [wanted, rows, playing]);

  /** While events come, what grows is listed when it begins, and ends now. */
  const endOf = (r: RecordingRow | Gap) =>
    r.growing && revision !== undefined && !stale && !error ? Math.max(r.endTime90k, now90k) : r.endTime90k;

  /** mark is what is said of what goes on now, when that is known. */
  const mark = (now: ComponentChildren) => (stale || error ? <span class="why"> end unknown</span> : now);
  const entries = useMemo(() => rows && gaps && [...rows, ...gaps].sort((a, b) => b.startTime90k - a.startTime90k || idOf(b) - idOf(a)), [rows, gaps]);

  const stepDay = (n: number) => go({ ...here, day: addDays(day, n) });
  return (
    <section aria-labelledby="rec-title" class="recordings">
      <div class="section-head">
        <h2 id="rec-title">Recordings</h2>
        <div class="controls">
          <label>
            <span class="hidden">Camera</span>
            <select value={camera.uuid} onChange={(e) => go({ camera: e.currentTarget.value, day: place.day })}>
              {cameras.map((c) => (
                <option key={c.uuid} value={c.uuid}>
                  {c.shortName}
                </option>
              ))}
            </select>
          </label>
          <fieldset class="choice">
            <legend class="hidden">Stream</legend>
            {streamsOf(camera).map((t) => (
              <label key={t}>
                <input type="radio" name="rec-stream" checked={t === stream} onChange={() => go({ ...here, stream: t })} />
                <span>{t}</span>
              </label>
            ))}
          </fieldset>
          <div class="day">
            <button type="button" aria-label="Day before" onClick={() => stepDay(-1)}>
              ‹
            </button>
            <input
              type="date"
              aria-label="Day"
              value={day}
              max={today}
              onChange={(e) => isDay(e.currentTarget.value) && go({ ...here, day: e.currentTarget.value })}
            />
            <button type="button" aria-label="Day after" disabled={day >= today} onClick={() => stepDay(1)}>
              ›
            </button>
          </div>
        </div>
      </div>
      {playing && (
        <Playback
          key={playing.key}
          title={`${camera.shortName} · ${stream} · ${zone.day(playing.row.startTime90k)} ${zone.time(playing.row.startTime90k)}`}
          url={api.viewUrl(camera.uuid, stream, playing.row)}
          mayExport={mayExport}
          close={() => go(here)}
        />
      )}
      {error && (
        <p class="trouble" role="alert">
          The list could not be read: {error}
        </p>
      )}
      {!rows && !error && <p class="note">Reading the list…</p>}
      {entries?.length === 0 && <p class="note">{emptyDay(camera, stream, day, zone)}</p>}
      {entries && entries.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">From</th>
              <th scope="col">To</th>
              <th scope="col" class="number">Length</th>
              <th scope="col" class="number">Size</th>
              <th scope="col"><span class="hidden">Actions</span></th>
            </tr>
          </thead>
          <tbody>
            {entries.map((r) => "cause" in r ? (
              <tr key={`gap ${r.startTime90k}`} class="gap">
                <td>{zone.time(r.startTime90k)}</td>
                <td>
                  {zone.time(endOf(r))} {gapIs(r)}
                  {r.growing && mark(" until now")}
                </td>
                <td class="number">{duration(endOf(r) - r.startTime90k)}</td>
                <td class="number" />
                <td class="actions" />
              </tr>
            ) : (
              <tr key={`${r.openId}.${r.startId}`} class={playing && r.startId === playing.row.startId ? "current" : ""}>
                <td>{zone.time(r.startTime90k)}</td>
                <td>
                  {zone.time(endOf(r))}
                  {!r.growing && r.endReason && <span class="why"> {r.endReason}</span>}
                  {r.growing && mark(<span class="mark"> recording now</span>)}
                </td>
                <td class="number">{duration(endOf(r) - r.startTime90k)}</td>
                <td class="number">
                  {endOf(r) > r.endTime90k && "over "}
                  {bytes(r.sampleFileBytes)}
                </td>
                <td class="actions">
                  <button type="button" onClick={() => go({ ...here, play: r.startId })}>
                    Play
                  </button>
                  {mayExport && (
                    <a class="button" href={api.downloadUrl(camera.uuid, stream, r)} download>
                      Download
                    </a>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function emptyDay(camera: Camera, stream: StreamType, day: string, zone: Zone): string {
  const s = camera.streams[stream]!;
  if (!s.record && s.recordings === 0) return "This stream is not recorded.";
  if (s.minStartTime90k === undefined || s.maxEndTime90k === undefined) return "Nothing has been recorded yet.";
  return `No video of ${day}. There is video from ${zone.day(s.minStartTime90k)} to ${zone.day(s.maxEndTime90k)}.`;
}

function Playback({ title, url, mayExport, close }: { title: string; url: string; mayExport: boolean; close(): void }) {
  const [trouble, setTrouble] = useState("");
  const box = useRef<HTMLDivElement>(null);
  const video = useRef<HTMLVideoElement>(null);
  const show = () => box.current?.scrollIntoView({ block: "nearest" });
  useEffect(() => {
    show();
    const v = video.current!;
    v.focus({ preventScroll: true });
    v.play().catch((e: unknown) => {
      // Sound may not begin without a click of the user on this page.
      if (e instanceof DOMException && e.name === "NotAllowedError") {
        v.muted = true;
        void v.play().catch(() => undefined);
      }
    });
    return () => {
      v.removeAttribute("src"); // or the browser goes on reading
      v.load();
    };
  }, []);
  useEffect(() => {
    const escape = (e: KeyboardEvent) => {
      // Esc has a nearer meaning in a dialog and in full screen.
      if (e.key === "Escape" && !document.fullscreenElement && !document.querySelector("dialog[open]")) close();
    };
    addEventListener("keydown", escape);
    return () => removeEventListener("keydown", escape);
  }, [close]);
  return (
    <div class="playback" ref={box}>
      <div class="playback-head">
        <h3>{title}</h3>
        <button type="button" onClick={close}>
          Close
        </button>
      </div>
      <video
        ref={video}
        src={url}
        controls
        playsInline
        aria-label={`Recording ${title}`}
        data-recording
        onLoadedMetadata={show} // its height is known only now
        onError={(e) => setTrouble(e.currentTarget.error?.message || "the browser cannot play this file")}
        onPlaying={() => setTrouble("")}
      />
      {trouble && (
        <p class="trouble" role="alert">
          This recording does not play here ({trouble}).{mayExport && " Downloaded, it plays in most players."}
        </p>
      )}
    </div>
  );
}

/** idOf puts recordings of one time in order; a gap has no id. */
function idOf(r: RecordingRow | Gap): number {
  return "startId" in r ? r.startId : -1;
}

/** readDay reads the recordings of a day. */
async function readDay(api: ApiClient, camera: string, stream: StreamType, day: string, signal: AbortSignal): Promise<RecordingRow[]> {
  return (await api.recordings(camera, stream, { ...rangeOf(day), split90k: rowLength90k }, signal)).recordings;
}

function rangeOf(day: string): TimeRange {
  return { start: day, end: addDays(day, 1) };
}

/** useDay is what a stream has of a day, and has not, kept up to date. */
function useDay(
  api: ApiClient,
  camera: string,
  stream: StreamType,
  day: string,
  { growing, revision, minStartTime90k = -Infinity }: {
    /** It is today. */
    growing: boolean;
    revision: number | undefined;
    /** Where the stream's first recording begins: what ended before is deleted, and no event tells. */
    minStartTime90k: number | undefined;
  },
): [{ rows?: RecordingRow[]; gaps?: Gap[] }, string] {
  const [list, error, again] = useListing(
    {
      ask: async (signal) => {
        const [rows, gaps] = await Promise.all([readDay(api, camera, stream, day, signal), api.gaps(camera, stream, rangeOf(day), signal)]);
        return { rows, gaps };
      },
      pollMs: (list) => (!growing ? Infinity : list?.rows.length === 0 ? firstMs : refreshMs),
    },
    [api, camera, stream, day, growing],
    revision,
  );
  useEffect(() => {
    if (list?.rows.some((r) => r.startTime90k < minStartTime90k)) again();
  }, [minStartTime90k]);
  return [list ?? {}, error];
}
