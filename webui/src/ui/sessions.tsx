import type { ApiClient } from "../api/client.ts";
import type { Session } from "../api/types.ts";
import { Ask } from "./ask.tsx";
import { Refusal } from "./field.tsx";
import type { Zone } from "./time.ts";
import { useList } from "./use_list.ts";

/** Sessions lists what lets a user in, and ends one or all of them. */
export function Sessions(props: {
  api: ApiClient;
  user: number;
  name: string;
  zone: Zone;
  now90k: number;
  /** Counts up when there may be others. */
  changes?: number;
  /** The caller's own session has ended. */
  signedOut(): void;
}) {
  const { api, user, name, zone, now90k, changes = 0, signedOut } = props;
  const { list, error, again } = useList((signal) => api.sessions(user, signal), [api, user, changes]);

  const end = async (s: Session) => {
    await api.endSession(user, s.id);
    if (s.current) signedOut();
    else again();
  };
  const endAll = async () => {
    await api.endSession(user, "all");
    if (list?.some((s) => s.current)) signedOut();
    else again();
  };

  if (error) return <Refusal>The sessions cannot be listed: {error}</Refusal>;
  if (!list) return <p class="note-inline">Asking for the sessions…</p>;
  if (list.length === 0) return <p class="note-inline">Nobody is signed in as {name}, and there is no token.</p>;
  return (
    <>
      <ul class="cards">
        {list.map((s) => (
          <li key={s.id} class="card">
            <div>
              <strong>{s.kind === "token" ? `Token ${s.name ?? ""}` : s.current ? "This browser" : "Browser"}</strong>
              <p class="note-inline">
                {s.scope && <>may: {s.scope.join(", ")} · </>}
                since {zone.since(s.createdTime90k, now90k)} from {s.createdFrom.address}
                {s.lastUsedTime90k && (
                  <>
                    {" "}
                    · last used {zone.since(s.lastUsedTime90k, now90k)} from {s.lastUsedFrom.address}
                  </>
                )}
                {s.expiresTime90k && <> · ends {zone.since(s.expiresTime90k, now90k)}</>}
              </p>
              {s.lastUsedFrom.userAgent && <p class="agent">{s.lastUsedFrom.userAgent}</p>}
            </div>
            <Ask
              id={`end-${user}-${s.id}`}
              button={s.kind === "token" ? "Revoke…" : "Sign out…"}
              label={s.kind === "token" ? `Revoke the token ${s.name ?? ""}…` : `Sign out ${s.current ? "this browser" : `the browser at ${s.lastUsedFrom.address || s.createdFrom.address}`}…`}
              title={s.kind === "token" ? `Revoke the token ${s.name ?? ""}?` : `Sign out ${s.current ? "this browser" : "that browser"}?`}
              yes={s.kind === "token" ? "Revoke" : "Sign out"}
              doing="Ending…"
              refused="It was not ended"
              act={() => end(s)}
            >
              {s.kind === "token" && <p>The program that uses it is not let in any more.</p>}
            </Ask>
          </li>
        ))}
      </ul>
      <Ask
        id={`end-${user}-all`}
        button="Sign out everywhere…"
        title={`Sign out ${name} everywhere?`}
        yes="Sign out everywhere"
        doing="Ending…"
        refused="Not all were ended"
        act={endAll}
      >
        <p>All browsers are signed out, and all tokens are revoked.</p>
      </Ask>
    </>
  );
}
