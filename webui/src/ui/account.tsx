import { useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import { scopes, type TopLevel } from "../api/types.ts";
import { Field, Refusal, said } from "./field.tsx";
import { Sessions } from "./sessions.tsx";
import type { Zone } from "./time.ts";
import { wrongOfUser } from "./words.ts";

interface Props {
  api: ApiClient;
  user: { id: number; name: string };
}

/** AccountPage is where users change their own password, and end or make what
 * lets them in. */
export function AccountPage(props: Props & { top: TopLevel; zone: Zone; signedOut(): void }) {
  const { api, user, top, zone, signedOut } = props;
  const [changes, setChanges] = useState(0);
  const [error, setError] = useState("");
  const changed = () => setChanges(changes + 1);
  const signOut = async () => {
    try {
      await api.signOut();
      signedOut();
    } catch (e) {
      setError(said(e));
    }
  };
  return (
    <>
      <section class="panel" aria-labelledby="account-title">
        <div class="section-head">
          <h2 id="account-title">Account {user.name}</h2>
          <button type="button" onClick={() => void signOut()}>
            Sign out
          </button>
        </div>
        {error && <Refusal>You were not signed out: {error}</Refusal>}
        <OwnPassword api={api} user={user} changed={changed} />
      </section>
      <section class="panel" aria-labelledby="sessions-title">
        <h2 id="sessions-title">Sessions and tokens</h2>
        <Sessions api={api} user={user.id} name={user.name} zone={zone} now90k={top.now90k} changes={changes} signedOut={signedOut} />
      </section>
      <section class="panel" aria-labelledby="token-title">
        <h2 id="token-title">New token</h2>
        <p class="note-inline">A token lets a program in. It may do no more than you may.</p>
        <NewToken api={api} user={user} admin={top.permissions.adminUsers === true} made={changed} />
      </section>
    </>
  );
}

/** useForm is what the forms of this page share: one request at a time, and what
 * was said of the last. */
function useForm(send: (data: FormData) => Promise<void>) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (form: HTMLFormElement) => {
    setBusy(true);
    setError("");
    try {
      await send(new FormData(form));
      form.reset();
    } catch (e) {
      setError(said(e));
      const input = form.elements.namedItem(wrongOfUser(said(e))?.input ?? "");
      if (input instanceof HTMLElement) input.focus();
    } finally {
      setBusy(false);
    }
  };
  return {
    busy,
    wrong: wrongOfUser(error),
    error,
    onSubmit: (e: SubmitEvent) => {
      e.preventDefault();
      void submit(e.currentTarget as HTMLFormElement);
    },
  };
}

function OwnPassword({ api, user, changed }: Props & { changed(): void }) {
  const [done, setDone] = useState(false);
  const { busy, wrong, error, onSubmit } = useForm(async (data) => {
    setDone(false);
    await api.changeUser(user.id, { password: String(data.get("password")) }, String(data.get("old")));
    setDone(true);
    changed();
  });
  return (
    <form class="narrow" aria-label="Change password" onSubmit={onSubmit}>
      <input type="text" class="hidden" autocomplete="username" value={user.name} readOnly tabIndex={-1} aria-hidden="true" />
      <Field form="own" wrong={wrong} name="old" type="password" required autocomplete="current-password">
        Password until now
      </Field>
      <Field form="own" wrong={wrong} name="password" type="password" required autocomplete="new-password">
        New password, at least 8 characters
      </Field>
      {error && !wrong && <Refusal>The password was not changed: {error}</Refusal>}
      <p role="status" class="note-inline">
        {done ? "The password is changed; other browsers are signed out. Tokens go on." : ""}
      </p>
      <button type="submit" class="main" disabled={busy}>
        Change password
      </button>
    </form>
  );
}

function NewToken({ api, user, admin, made }: Props & { admin: boolean; made(): void }) {
  const [token, setToken] = useState("");
  const { busy, wrong, error, onSubmit } = useForm(async (data) => {
    setToken("");
    const days = Number(data.get("days"));
    setToken(
      await api.addToken(user.id, {
        name: String(data.get("name")),
        scope: scopes.filter((s) => data.has(s)),
        ...(days > 0 && { days }),
      }),
    );
    made();
  });
  return (
    <form class="narrow" aria-label="New token" onSubmit={onSubmit}>
      <Field form="token" wrong={wrong} name="name" required maxLength={64} autocomplete="off" placeholder="backup">
        Name of the token
      </Field>
      <fieldset aria-describedby={wrong?.input === "scope" ? "token-scope" : undefined}>
        <legend>May</legend>
        {scopes.map(
          (s) =>
            (s !== "administer" || admin) && (
              <label key={s} class="check">
                <input type="checkbox" name={s} defaultChecked={s === "recorded"} />
                {s}
              </label>
            ),
        )}
        {wrong?.input === "scope" && (
          <p id="token-scope" class="wrong" role="alert">
            {wrong.words}
          </p>
        )}
      </fieldset>
      <Field form="token" wrong={wrong} name="days" type="number" min="1" max="36500" placeholder="does not expire">
        Ends after so many days; empty: it does not end
      </Field>
      {error && !wrong && <Refusal>The token was not made: {error}</Refusal>}
      <button type="submit" class="main" disabled={busy}>
        Make token
      </button>
      {token && (
        <div class="once" role="status">
          <label>
            Copy it now: it is not shown again.
            <input readOnly value={token} onFocus={(e) => e.currentTarget.select()} />
          </label>
          <button type="button" onClick={() => setToken("")}>
            Done
          </button>
        </div>
      )}
    </form>
  );
}
