import { useCallback, useEffect, useState } from "preact/hooks";
import { ApiError, type ApiClient } from "../api/client.ts";
import { Feed, type Revisions } from "../api/feed.ts";
import { streamTypes, type Camera, type Ended, type Machine, type StreamType, type TopLevel } from "../api/types.ts";
import { AccountPage } from "./account.tsx";
import { CameraForm } from "./camera_form.tsx";
import { formatPlace, parsePlace, type Place } from "./place.ts";
import { RecordingsPanel } from "./recordings.tsx";
import { StoragePanel } from "./storage.tsx";
import { Tile } from "./tile.tsx";
import { Zone } from "./time.ts";
import { UsersPage } from "./users.tsx";

const pollMs = 3000; // while no events come
const tickMs = 1000;
const checkMs = 15_000; // a recorder that lost its power does not say so, and what grows with each picture is no event
const followMs = 60_000; // between tries to have events come
const answerMs = 10_000; // a recorder that takes longer is down

/** streamsOf lists the streams of a camera in their order. */
export function streamsOf(camera: Camera): StreamType[] {
  return streamTypes.filter((t) => camera.streams[t]);
}

export function App({ api }: { api: ApiClient }) {
  const [top, setTop] = useState<TopLevel>();
  const [revisions, setRevisions] = useState<Revisions>(); // while events come
  const [zone, setZone] = useState<Zone>();
  const [trouble, setTrouble] = useState<ApiError>();
  const [place, go] = usePlace();
  const [asked, setAsked] = useState(0);

  useEffect(() => {
    let ended = false;
    let abort: AbortController;
    let timer: ReturnType<typeof setTimeout>;
    let feed: Feed | undefined;
    let followedAt = -followMs;
    let askedAt = 0;
    const show = (t: TopLevel, r?: Revisions) => {
      setTop(t);
      setRevisions(() => r);
      setZone((z) => (z?.name === t.timeZoneName ? z : new Zone(t.timeZoneName)));
    };
    /** follow has events come instead of asking. One that ends asks again. */
    const follow = () => {
      followedAt = performance.now();
      const f = (feed = new Feed({
        url: api.eventsUrl(),
        onState: (t, r) => {
          if (feed === f) show(t, r);
        },
        onEnd: () => {
          if (feed === f) feed = undefined;
        },
      }));
    };
    const tick = setInterval(() => feed?.alive && feed.tick(), tickMs); // the time goes on
    const poll = async () => {
      if (feed?.alive && performance.now() - askedAt < checkMs) {
        timer = setTimeout(poll, pollMs);
        return;
      }
      askedAt = performance.now();
      const [f, count] = [feed, feed?.count ?? 0];
      const ask = (abort = new AbortController());
      const late = setTimeout(() => ask.abort(), answerMs);
      try {
        const t = await api.top(ask.signal);
        if (ended) return;
        if (f?.alive && f === feed) f.take(t, count);
        else show(t);
        setTrouble(undefined);
        if (!feed && performance.now() - followedAt >= followMs) follow();
      } catch (e) {
        if (ended) return;
        setTrouble(e instanceof ApiError ? e : new ApiError(0, String(e)));
      } finally {
        clearTimeout(late);
      }
      if (ended) return;
      timer = setTimeout(poll, pollMs);
    };
    void poll();
    return () => {
      ended = true;
      abort.abort();
      clearTimeout(timer);
      clearInterval(tick);
      feed?.stop();
    };
  }, [api, asked]);

  return (
    <>
      <header class="bar">
        <h1>Holdfast</h1>
        <p class="facts">
          {top && zone && (
            <>
              {top.cameras.length === 1 ? "1 camera" : `${top.cameras.length} cameras`} · {zone.time(top.now90k)} {zone.name}
              <span class="version"> · {top.serverVersion}</span>
            </>
          )}
        </p>
        {top && <Pages top={top} page={place.page} />}
      </header>
      {trouble && (
        <p class="trouble" role="alert">
          {trouble.status === 0
            ? "The recorder does not answer. This page goes on trying."
            : `The recorder refuses (${trouble.status}): ${trouble.message}`}
        </p>
      )}
      {!top && !trouble && <p class="note">Asking the recorder for its cameras…</p>}
      {top && zone && (
        <main>
          {place.page === "users" && top.permissions.adminUsers ? (
            <UsersPage api={api} top={top} zone={zone} signedOut={signIn} />
          ) : place.page === "account" && top.user ? (
            <AccountPage api={api} user={top.user} top={top} zone={zone} signedOut={signIn} />
          ) : (
            <Cameras
              api={api}
              top={top}
              revisions={revisions}
              stale={trouble !== undefined}
              zone={zone}
              place={place}
              go={go}
              changed={() => setAsked(asked + 1)}
            />
          )}
        </main>
      )}
      {top?.machine && <MachineFacts machine={top.machine} />}
    </>
  );
}

/** signIn leads to where who is signed out can sign in. */
function signIn() {
  location.assign("/");
}

/** Pages leads to the pages that the caller may see, where there are several. */
function Pages({ top, page }: { top: TopLevel; page: Place["page"] }) {
  const link = (to: Place["page"], text: string) => (
    <a href={formatPlace({ page: to })} aria-current={page === to ? "page" : undefined}>
      {text}
    </a>
  );
  if (!top.user && !top.permissions.adminUsers) return null;
  return (
    <nav aria-label="Pages">
      {link(undefined, "Cameras")}
      {top.permissions.adminUsers && link("users", "Users")}
      {top.user && link("account", `Account ${top.user.name}`)}
    </nav>
  );
}

/** MachineFacts tells how the appliance fared: what reset it, or the recorder, last. */
function MachineFacts({ machine }: { machine: Machine }) {
  const said = (e: Ended) => (e.time ? `${e.time}: ${e.reason}` : e.reason);
  const reset = machine.resets?.[0];
  const restart = machine.restarts?.[0];
  return (
    <footer>
      <p class="note machine">
        {machine.board} · image {machine.version} · watchdog: {machine.watchdog}
        {reset && <> · last reset: {said(reset)}</>}
        {restart && <> · recorder started again: {said(restart)}</>}
      </p>
    </footer>
  );
}

function Cameras(props: {
  api: ApiClient;
  top: TopLevel;
  /** Absent while no events come. */
  revisions: Revisions | undefined;
  /** The recorder has not answered since: what top says may be over. */
  stale: boolean;
  zone: Zone;
  place: Place;
  go(p: Place): void;
  changed(): void;
}) {
  const { api, top, revisions, stale, zone, place, go, changed } = props;
  const admin = top.permissions.adminCameras === true;
  const chosen = top.cameras.find((c) => c.uuid === place.camera) ?? top.cameras[0];
  const stream = chosen && ((place.stream && chosen.streams[place.stream] && place.stream) || streamsOf(chosen)[0]);
  // What the address names may be deleted: its recording is none of another stream.
  const gone = (place.camera && place.camera !== chosen?.uuid) || (place.stream && place.stream !== stream);
  return (
    <>
      <section aria-labelledby="live-title">
        <div class="section-head">
          <h2 id="live-title">Live</h2>
          {admin && <CameraForm api={api} done={changed} />}
        </div>
        {top.cameras.length === 0 && (
          <p class="note">
            No cameras yet.{" "}
            {admin ? "Add the first one with the button above." : "Somebody who may change cameras has to add one."}
          </p>
        )}
        <div class="tiles">
          {top.cameras.map((c) => (
            <Tile
              key={c.uuid}
              api={api}
              camera={c}
              stale={stale}
              zone={zone}
              now90k={top.now90k}
              showRecordings={(s) => go({ camera: c.uuid, stream: s })}
              changed={admin ? changed : undefined}
            />
          ))}
        </div>
      </section>
      {chosen && stream && (
        <RecordingsPanel
          api={api}
          cameras={top.cameras}
          camera={chosen}
          stream={stream}
          revision={revisions?.(chosen.uuid, stream)}
          stale={stale}
          zone={zone}
          now90k={top.now90k}
          place={gone ? { day: place.day } : place}
          go={go}
        />
      )}
      {top.directories && <StoragePanel api={api} top={top} dirs={top.directories} stale={stale} />}
    </>
  );
}

function usePlace(): [Place, (p: Place) => void] {
  const [place, setPlace] = useState(() => parsePlace(location.hash));
  useEffect(() => {
    const changed = () => setPlace(parsePlace(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const go = useCallback((p: Place) => {
    location.hash = formatPlace(p);
  }, []);
  return [place, go];
}
