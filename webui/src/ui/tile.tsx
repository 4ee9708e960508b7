import { useEffect, useRef, useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import type { Camera, StreamType } from "../api/types.ts";
import { LivePlayer, type LiveStatus } from "../media/live_player.ts";
import { streamsOf } from "./app.tsx";
import { CameraForm } from "./camera_form.tsx";
import { DeleteCamera } from "./delete_camera.tsx";
import type { Zone } from "./time.ts";
import { kept, overPicture, recorderState, recorderStates, unknown } from "./words.ts";

const starting: LiveStatus = { phase: "connecting", message: "connecting to the recorder" };

/** Tile is one camera: its live picture, and its state in words. */
export function Tile(props: {
  api: ApiClient;
  camera: Camera;
  /** The recorder does not answer. */
  stale: boolean;
  zone: Zone;
  now90k: number;
  showRecordings(s: StreamType): void;
  /** Absent for who may not change cameras. */
  changed?(): void;
}) {
  const { api, camera, stale, zone, now90k } = props;
  const types = streamsOf(camera);
  // A tile is small: the sub stream is enough for it.
  const [wanted, setWanted] = useState<StreamType>();
  const [cannot, setCannot] = useState<Partial<Record<StreamType, string>>>({});
  const preferred = [wanted, "sub" as const].find((t) => t && types.includes(t)) ?? types[0];
  const shown = preferred && cannot[preferred] ? (types.find((t) => !cannot[t]) ?? preferred) : preferred;

  const video = useRef<HTMLVideoElement>(null);
  const player = useRef<LivePlayer>();
  const [live, setLive] = useState(starting);
  useEffect(() => {
    if (!shown || !video.current) return;
    const p = new LivePlayer(video.current, {
      url: api.liveUrl(camera.uuid, shown),
      ticket: () => api.liveTicket(camera.uuid, shown),
      init: (id) => api.bytes(api.initUrl(id)),
      onStatus: (s) => {
        setLive(s);
        if (s.phase === "unsupported") setCannot((c) => ({ ...c, [shown]: s.message }));
      },
    });
    player.current = p;
    p.start();
    return () => {
      player.current = undefined;
      p.stop();
    };
  }, [api, camera.uuid, shown]);

  const { changed } = props;
  const admin = changed && (
    <>
      <CameraForm api={api} camera={camera} done={changed} />
      <DeleteCamera api={api} camera={camera} deleted={changed} />
    </>
  );
  const stream = shown && camera.streams[shown];
  if (!stream) {
    return (
      <article class="tile">
        <h3>{camera.shortName}</h3>
        <p class="note">This camera has no stream.</p>
        {admin && <div class="tile-foot">{admin}</div>}
      </article>
    );
  }
  const over = overPicture(live, stale ? unknown : recorderState(stream, zone, now90k));
  const states = recorderStates(types.map((t) => camera.streams[t]!), zone, now90k);
  return (
    <article class="tile" aria-label={camera.shortName}>
      <div class="picture">
        <video ref={video} aria-label={`Live video of ${camera.shortName}`} data-camera={camera.shortName} data-live={live.phase} />
        {over && (
          <div class="over">
            <p>{over}</p>
            {live.phase === "blocked" && (
              <button type="button" onClick={() => player.current?.resume()}>
                Play
              </button>
            )}
          </div>
        )}
      </div>
      <div class="tile-head">
        <h3>{camera.shortName}</h3>
        {types.length > 1 && (
          <fieldset class="choice">
            <legend class="hidden">Stream of {camera.shortName}</legend>
            {types.map((t) => (
              <label key={t}>
                <input type="radio" name={`live-${camera.uuid}`} checked={t === shown} onChange={() => {
                  setCannot((c) => ({ ...c, [t]: undefined }));
                  setWanted(t);
                }} />
                <span>{t}</span>
              </label>
            ))}
          </fieldset>
        )}
      </div>
      {camera.description && <p class="description">{camera.description}</p>}
      <ul class="states" aria-live="polite">
        {types.map((t, i) => {
          const s = camera.streams[t]!;
          const said = stale ? unknown : states[i]!;
          return (
            <li key={t}>
              <span class={`dot ${said.mood}`} aria-hidden="true" />
              <span>
                <b>{t}</b>: {said.text}
                {said.why && ` (${said.why})`}
                {!stale && s.state.skipped?.map((x) => <span class="skipped" key={x}> · {x}</span>)}
                {cannot[t] && t !== shown && <span class="skipped"> · {cannot[t]}: showing {shown}</span>}
                {s.record && <span class="kept">{kept(s)}</span>}
              </span>
            </li>
          );
        })}
      </ul>
      <div class="tile-foot">
        <button type="button" onClick={() => props.showRecordings(shown)}>
          Recordings
        </button>
        {admin}
      </div>
    </article>
  );
}
