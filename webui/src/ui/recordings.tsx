import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, type ApiClient } from "../api/client.ts";
import type { Camera, RecordingRow, StreamType } from "../api/types.ts";
import { streamsOf } from "./app.tsx";
import type { Place } from "./place.ts";
import { addDays, bytes, duration, isDay, type Zone } from "./time.ts";

const refreshMs = 5000;
const firstMs = 1000; // while there is nothing to show
const rowLength90k = 3600 * 90000; // one row of the list covers at most an hour

/** RecordingsPanel lists what one stream kept of one day, newest first, and
 * plays it. */
export function RecordingsPanel(props: {
  api: ApiClient;
  cameras: Camera[];
  camera: Camera;
  stream: StreamType;
  /** The recorder does not answer. */
  stale: boolean;
  zone: Zone;
  today: string;
  place: Place;
  go(p: Place): void;
}) {
  const { api, cameras, camera, stream, stale, zone, today, place, go } = props;
  const day = place.day ?? today;
  const [rows, error] = useRows(api, camera.uuid, stream, day, day === today);
  const here = { camera: camera.uuid, stream, day: place.day };

  // What plays is kept as it was when it was chosen: the list goes on
  // growing under it.
  const [playing, setPlaying] = useState<{ key: string; row: RecordingRow }>();
  const wanted = place.play === undefined ? undefined : `${camera.uuid} ${stream} ${place.play}`;
  useEffect(() => {
    if (!wanted) setPlaying(undefined);
    else if (playing?.key !== wanted) {
      const row = rows?.find((r) => r.startId <= place.play! && place.play! <= (r.endId ?? r.startId));
      setPlaying(row && { key: wanted, row });
    }
  }, [wanted, rows, playing]);

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
          close={() => go(here)}
        />
      )}
      {error && (
        <p class="trouble" role="alert">
          The list could not be read: {error}
        </p>
      )}
      {!rows && !error && <p class="note">Reading the list…</p>}
      {rows && rows.length === 0 && <p class="note">{emptyDay(camera, stream, day, zone)}</p>}
      {rows && rows.length > 0 && (
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
            {rows.map((r) => (
              <tr key={`${r.openId}.${r.startId}`} class={playing && r.startId === playing.row.startId ? "current" : ""}>
                <td>{zone.time(r.startTime90k)}</td>
                <td>
                  {zone.time(r.endTime90k)}
                  {!r.growing ? (
                    r.endReason && <span class="why"> {r.endReason}</span>
                  ) : stale || error ? (
                    <span class="why"> end unknown</span>
                  ) : (
                    <span class="mark"> recording now</span>
                  )}
                </td>
                <td class="number">{duration(r.endTime90k - r.startTime90k)}</td>
                <td class="number">{bytes(r.sampleFileBytes)}</td>
                <td class="actions">
                  <button type="button" onClick={() => go({ ...here, play: r.startId })}>
                    Play
                  </button>
                  <a class="button" href={api.viewUrl(camera.uuid, stream, r)} download>
                    Download
                  </a>
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

function Playback({ title, url, close }: { title: string; url: string; close(): void }) {
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
          This recording does not play here ({trouble}). Downloaded, it plays in most players.
        </p>
      )}
    </div>
  );
}

/** useRows reads the list of a day, newest first; today's again and again. */
function useRows(
  api: ApiClient,
  camera: string,
  stream: StreamType,
  day: string,
  growing: boolean,
): [RecordingRow[] | undefined, string] {
  const [rows, setRows] = useState<RecordingRow[]>();
  const [error, setError] = useState("");
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    setRows(undefined);
    setError("");
    const read = async () => {
      let wait = refreshMs;
      try {
        const range = { start: day, end: addDays(day, 1), split90k: rowLength90k };
        const answer = await api.recordings(camera, stream, range, abort.signal);
        setRows(answer.recordings.sort((a, b) => b.startTime90k - a.startTime90k || b.startId - a.startId));
        setError("");
        if (answer.recordings.length === 0) wait = firstMs;
      } catch (e) {
        if (abort.signal.aborted) return;
        setError(e instanceof ApiError ? e.message : String(e));
      }
      if (growing) timer = setTimeout(read, wait);
    };
    void read();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [api, camera, stream, day, growing]);
  return [rows, error];
}
