import type { ApiClient } from "../api/client.ts";
import type { Directory, DirectoryReport, TopLevel } from "../api/types.ts";
import { Refusal } from "./field.tsx";
import { useListing } from "./use_listing.ts";
import { directoryState, forecast, roomOf, takes, unknown } from "./words.ts";

const forecast90k = 300 * 90000; // a forecast is made of hours; after an error it is asked for again as late

/** StoragePanel says of each sample directory how it does, what is in it, and how long that stays. */
export function StoragePanel({ api, top, dirs, stale }: {
  api: ApiClient;
  top: TopLevel;
  dirs: Directory[];
  /** The recorder does not answer. */
  stale: boolean;
}) {
  // What changes a forecast: time, another directory or state, and other limits.
  const revision = JSON.stringify([
    Math.floor(top.now90k / forecast90k),
    dirs.map((d) => [d.id, d.state]),
    top.cameras.map((c) => [c.shortName, Object.values(c.streams).map((s) => [s.id, s.record, s.retainBytes, s.retainDays])]),
  ]);
  const ask = (signal: AbortSignal) => api.directories(signal);
  const [reports, error] = useListing({ ask, pollMs: () => forecast90k / 90 }, [api], revision);
  return (
    <section class="panel" aria-labelledby="storage-title">
      <div class="section-head">
        <h2 id="storage-title">Storage</h2>
      </div>
      {error && <Refusal>How long recordings stay is not known: {error}</Refusal>}
      <ul class="cards">
        {dirs.map((d) => (
          <Card key={d.id} dir={d} report={reports?.find((r) => r.id === d.id)} stale={stale} />
        ))}
      </ul>
    </section>
  );
}

function Card({ dir, report, stale }: { dir: Directory; report: DirectoryReport | undefined; stale: boolean }) {
  const state = stale ? unknown : directoryState(dir);
  const room = roomOf(dir);
  return (
    <li class="card">
      <div>
        <h3>{dir.path}</h3>
        <ul class="states" aria-live="polite">
          <li>
            <span class={`dot ${state.mood}`} aria-hidden="true" />
            <span>
              {state.text}
              {state.why && ` (${state.why})`}
            </span>
          </li>
        </ul>
        {room && <p class="note-inline">{room}</p>}
        {report && (
          <>
            <p>{forecast(report)}</p>
            <ul class="streams">
              {report.streams.map((s) => (
                <li key={`${s.camera} ${s.stream}`}>
                  <b>
                    {s.shortName} {s.stream}
                  </b>
                  : {takes(s)}
                </li>
              ))}
            </ul>
          </>
        )}
      </div>
    </li>
  );
}
