import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import { rights, type Camera, type Right, type User, type UserChange } from "../api/types.ts";
import { Field, FormEnd, said } from "./field.tsx";
import { wrongOfUser } from "./words.ts";

/** The row of rights that count for all cameras. */
const all = "all";

/** UserForm is a button and the dialog in which a user is added, or changed. */
export function UserForm(props: {
  api: ApiClient;
  cameras: Camera[];
  /** Absent: one is added. */
  user?: User;
  /** It is the caller, whose own password is changed on the account's page. */
  own?: boolean;
  done(): void;
}) {
  const { api, cameras, user, own = false, done } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [open, setOpen] = useState(false); // a form of its own each time
  const [admin, setAdmin] = useState(false);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const wrong = wrongOfUser(error);
  const was = user?.user;
  const id = `user-${user?.id ?? "new"}`;

  useLayoutEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  const show = () => {
    setAdmin(was?.permissions.administrator ?? false);
    setError("");
    setOpen(true);
  };

  const save = async (form: HTMLFormElement) => {
    const data = new FormData(form);
    const password = String(data.get("password") ?? "");
    const of = (row: string) => rights.filter((r) => data.has(`${row} ${r}`));
    const given: Record<string, Right[]> = {};
    for (const c of cameras) if (of(c.uuid).length > 0) given[c.uuid] = of(c.uuid);
    const change: UserChange = {
      username: String(data.get("name") ?? ""),
      ...(password !== "" && { password }),
      ...(user && { disabled: data.has("disabled") }),
      permissions: admin
        ? { administrator: true, allCameras: was?.permissions.allCameras ?? [], cameras: was?.permissions.cameras ?? {} }
        : { administrator: false, allCameras: of(all), cameras: given },
    };
    setBusy(true);
    try {
      await (user ? api.changeUser(user.id, change) : api.addUser(change));
      setError("");
      dialog.current?.close();
      done();
    } catch (e) {
      setError(said(e));
      const input = form.elements.namedItem(wrongOfUser(said(e))?.input ?? "");
      if (input instanceof HTMLElement) input.focus();
    } finally {
      setBusy(false);
    }
  };

  const row = (uuid: string, name: string, has: readonly Right[]) => (
    <tr key={uuid}>
      <th scope="row">{name}</th>
      {rights.map((r) => (
        <td key={r}>
          <input type="checkbox" name={`${uuid} ${r}`} aria-label={`${name}: ${r}`} defaultChecked={has.includes(r)} />
        </td>
      ))}
    </tr>
  );

  return (
    <>
      <button type="button" aria-label={was && `Change ${was.username}…`} onClick={show}>
        {user ? "Change…" : "Add user"}
      </button>
      <dialog ref={dialog} aria-labelledby={id} onClose={() => setOpen(false)}>
        {open && (
          <form
            onSubmit={(e) => {
              e.preventDefault();
              void save(e.currentTarget);
            }}
          >
            <h2 id={id}>{was ? `Change the user ${was.username}` : "Add a user"}</h2>
            <Field form={id} wrong={wrong} name="name" required maxLength={64} autocomplete="off" defaultValue={was?.username}>
              Name
            </Field>
            {own ? (
              <p class="note-inline">Your own password is changed under Account.</p>
            ) : (
              <Field form={id} wrong={wrong} name="password" type="password" required={!user} autocomplete="new-password">
                {user ? "New password; empty: it stays" : "Password, at least 8 characters"}
              </Field>
            )}
            <fieldset>
              <legend>May</legend>
              <label class="check">
                <input type="radio" name="role" checked={!admin} onChange={() => setAdmin(false)} />
                see cameras (viewer)
              </label>
              <label class="check">
                <input type="radio" name="role" checked={admin} onChange={() => setAdmin(true)} />
                do everything (administrator)
              </label>
            </fieldset>
            {!admin && (
              <div class="wide">
                <table class="rights">
                  <caption class="hidden">What the user may see of which camera</caption>
                  <thead>
                    <tr>
                      <th scope="col">Camera</th>
                      {rights.map((r) => (
                        <th key={r} scope="col">
                          {r}
                        </th>
                      ))}
                    </tr>
                  </thead>
                  <tbody>
                    {row(all, "All, also later ones", was?.permissions.allCameras ?? [])}
                    {cameras.map((c) => row(c.uuid, c.shortName, was?.permissions.cameras[c.uuid] ?? []))}
                  </tbody>
                </table>
              </div>
            )}
            {user && (
              <label class="check">
                <input type="checkbox" name="disabled" defaultChecked={was?.disabled} />
                Disabled: may not sign in
              </label>
            )}
            {user && <p class="note-inline">A change of password or rights signs the user out everywhere.</p>}
            <FormEnd error={wrong ? "" : error} yes={user ? "Save" : "Add"} disabled={busy} cancel={() => dialog.current?.close()} />
          </form>
        )}
      </dialog>
    </>
  );
}
