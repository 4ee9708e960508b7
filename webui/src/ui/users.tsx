import { useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import type { TopLevel } from "../api/types.ts";
import { Ask } from "./ask.tsx";
import { Refusal } from "./field.tsx";
import { Sessions } from "./sessions.tsx";
import type { Zone } from "./time.ts";
import { useList } from "./use_list.ts";
import { UserForm } from "./user_form.tsx";
import { userIs } from "./words.ts";

/** UsersPage is where administrators say who may do what. */
export function UsersPage({ api, top, zone, signedOut }: { api: ApiClient; top: TopLevel; zone: Zone; signedOut(): void }) {
  const { list, error, again } = useList((signal) => api.users(signal), [api]);
  const [shown, setShown] = useState<number>(); // whose sessions
  const nameOf = (uuid: string) => top.cameras.find((c) => c.uuid === uuid)?.shortName ?? uuid;
  return (
    <section class="panel" aria-labelledby="users-title">
      <div class="section-head">
        <h2 id="users-title">Users</h2>
        <UserForm api={api} cameras={top.cameras} done={again} />
      </div>
      {error && <Refusal>The users cannot be listed: {error}</Refusal>}
      {!list && !error && <p class="note-inline">Asking for the users…</p>}
      <ul class="cards">
        {list?.map((u) => (
          <li key={u.id} class="card">
            <div>
              <h3>
                {u.user.username}
                {u.id === top.user?.id && " (you)"}
              </h3>
              <p class="note-inline">{userIs(u.user, nameOf)}</p>
              {u.user.disabled && <p class="skipped">Disabled: may not sign in</p>}
              {u.user.password === null && <p class="skipped">Has no password: nobody can sign in as this user</p>}
            </div>
            <div class="controls">
              <UserForm api={api} cameras={top.cameras} user={u} own={u.id === top.user?.id} done={again} />
              <button
                type="button"
                aria-label={`Sessions of ${u.user.username}`}
                aria-expanded={shown === u.id}
                onClick={() => setShown(shown === u.id ? undefined : u.id)}
              >
                Sessions
              </button>
              <Ask
                id={`delete-user-${u.id}`}
                button="Delete…"
                label={`Delete ${u.user.username}…`}
                title={`Delete the user ${u.user.username}?`}
                yes="Delete user"
                doing="Deleting…"
                refused="The user was not deleted"
                act={async () => {
                  await api.deleteUser(u.id);
                  if (u.id === top.user?.id) signedOut();
                  else again();
                }}
              >
                <p>All sessions and tokens end with it. Recordings stay.</p>
              </Ask>
            </div>
            {shown === u.id && (
              <div class="within">
                <Sessions api={api} user={u.id} name={u.user.username} zone={zone} now90k={top.now90k} signedOut={signedOut} />
              </div>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
