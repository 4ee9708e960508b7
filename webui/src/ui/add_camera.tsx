import { useRef, useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import type { CameraConfig } from "../api/types.ts";
import { Field, Refusal, said } from "./field.tsx";
import { wrongField } from "./words.ts";

/** AddCamera is a button and the dialog that it opens. */
export function AddCamera({ api, added }: { api: ApiClient; added(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const wrong = wrongField(error);

  const save = async (form: HTMLFormElement) => {
    const data = new FormData(form);
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const keep = Number(text("keep")); // 0 when it is empty: no limit
    const stream = (url: string, gigabytes: number) => ({
      url,
      ...(text("username") && { username: text("username"), password: String(data.get("password") ?? "") }),
      record: true,
      ...(gigabytes > 0 && { retainBytes: Math.round(gigabytes * 1e9) }),
    });
    const config: CameraConfig = { shortName: text("name"), streams: { main: stream(text("main"), keep) } };
    if (text("sub")) config.streams.sub = stream(text("sub"), keep / 10);
    setBusy(true);
    try {
      await api.addCamera(config);
      form.reset();
      setError("");
      dialog.current?.close();
      added();
    } catch (e) {
      const message = said(e);
      setError(message);
      const input = form.elements.namedItem(wrongField(message)?.input ?? "");
      if (input instanceof HTMLElement) input.focus();
    } finally {
      setBusy(false);
    }
  };

  return (
    <>
      <button type="button" onClick={() => dialog.current?.showModal()}>
        Add camera
      </button>
      <dialog ref={dialog} aria-labelledby="add-title">
        <form
          onSubmit={(e) => {
            e.preventDefault();
            void save(e.currentTarget);
          }}
        >
          <h2 id="add-title">Add a camera</h2>
          <Field wrong={wrong} name="name" required maxLength={64} autocomplete="off" placeholder="front door">
            Name
          </Field>
          <Field wrong={wrong} name="main" required type="url" autocomplete="off" placeholder="rtsp://10.0.0.7/main">
            Address of the main stream
          </Field>
          <Field wrong={wrong} name="sub" type="url" autocomplete="off" placeholder="rtsp://10.0.0.7/sub">
            Address of the sub stream (small, for the tiles), if it has one
          </Field>
          <div class="pair">
            <Field wrong={wrong} name="username" autocomplete="off">
              User name
            </Field>
            <Field wrong={wrong} name="password" type="password" autocomplete="new-password">
              Password
            </Field>
          </div>
          <Field wrong={wrong} name="keep" type="number" min="0.1" step="any" placeholder="what the disk has room for">
            Keep at most, in GB (the sub stream gets a tenth of it); empty: all cameras keep the same number of days
          </Field>
          {error && !wrong && <Refusal>{error}</Refusal>}
          <div class="pair">
            <button type="submit" class="main" disabled={busy}>
              Add
            </button>
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
