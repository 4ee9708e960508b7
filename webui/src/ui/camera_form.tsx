import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, type ApiClient } from "../api/client.ts";
import { streamTypes, type Camera, type CameraConfig, type StreamType, type Tried } from "../api/types.ts";
import { configOf, differenceOf } from "./camera_config.ts";
import { Field, FormEnd, Refusal, said } from "./field.tsx";
import { tried, wrongField } from "./words.ts";

/** CameraForm is a button and the dialog in which a camera is added, or changed. */
export function CameraForm({ api, camera, done }: {
  api: ApiClient;
  /** Absent: one is added. */
  camera?: Camera;
  done(): void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const [open, setOpen] = useState(false); // a form of its own each time
  const [was, setWas] = useState<CameraConfig>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const id = `camera-${camera?.uuid ?? "new"}`;
  const types = streamTypes.filter((t) => t !== "ext" || was?.streams.ext);
  /** Most cameras have one user for all their streams. */
  const own = new Set(Object.values(was?.streams ?? {}).map((s) => s.username)).size > 1;
  const wrong = wrongField(error, own);

  useLayoutEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  const show = async () => {
    setError("");
    try {
      setWas(camera && configOf(await api.camera(camera.uuid)));
    } catch (e) {
      setWas(undefined);
      setError(said(e));
    }
    setOpen(true);
  };

  /** refuse says what is wrong, and leads to where it is. */
  const refuse = (message: string) => {
    setError(message);
    const input = form.current?.elements.namedItem(wrongField(message, own)?.input ?? "");
    if (input instanceof HTMLElement) input.focus();
  };

  /** filled is the camera as the form has it. A password that is not given is absent. */
  const filled = (): CameraConfig => {
    const data = new FormData(form.current!);
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const is: CameraConfig = { shortName: text("name"), streams: {} };
    for (const t of types) {
      if (!text(`${t}.url`)) continue;
      const login = own ? `${t}.` : "";
      const password = String(data.get(`${login}password`) ?? "");
      is.streams[t] = {
        url: text(`${t}.url`),
        username: text(`${login}username`),
        ...(password !== "" && { password }),
        record: data.has(`${t}.record`),
        retainBytes: Math.round(Number(text(`${t}.keep`)) * 1e9), // 0 when it is empty: no limit
        retainDays: Number(text(`${t}.days`)),
      };
    }
    return is;
  };

  const save = async () => {
    const is = filled();
    const added = was && types.find((t) => is.streams[t]?.username && !is.streams[t].password && !was.streams[t]);
    if (added) return refuse(`streams.${added}.password: is to be given again for the stream that is added`);
    setBusy(true);
    try {
      if (camera && was) {
        const { update, precondition } = differenceOf(was, is);
        await api.changeCamera(camera.uuid, update, precondition);
      } else {
        await api.addCamera(is);
      }
      dialog.current?.close();
      done();
    } catch (e) {
      const late = e instanceof ApiError && e.status === 412;
      refuse(late ? "Somebody else has changed this camera meanwhile, and nothing was saved. Open this form again to see it as it is now." : said(e));
    } finally {
      setBusy(false);
    }
  };

  /** tryStream tries a stream as the form has it. It is undefined when a field is wrong, which is said there. */
  const tryStream = async (type: StreamType, signal: AbortSignal): Promise<Tried | undefined> => {
    setError("");
    const { url = "", username, password } = filled().streams[type] ?? {};
    try {
      return await api.tryStream({ url, username, password, ...(camera && was?.streams[type] && { camera: camera.uuid, stream: type }) }, signal);
    } catch (e) {
      const message = `streams.${type}.${said(e)}`;
      if (!wrongField(message, own)) throw e;
      refuse(message);
      return undefined;
    }
  };

  const login = (prefix: string, username?: string) => (
    <div class="pair">
      <Field form={id} wrong={wrong} name={`${prefix}username`} autocomplete="off" defaultValue={username}>
        User name
      </Field>
      <Field form={id} wrong={wrong} name={`${prefix}password`} type="password" autocomplete="new-password" placeholder={was && "unchanged"}>
        {was ? "New password" : "Password"}
      </Field>
    </div>
  );

  return (
    <>
      <button type="button" aria-label={camera && `Change ${camera.shortName}…`} onClick={() => void show()}>
        {camera ? "Change…" : "Add camera"}
      </button>
      <dialog ref={dialog} aria-labelledby={id} onClose={() => setOpen(false)}>
        {open && (
          <form
            ref={form}
            onSubmit={(e) => {
              e.preventDefault();
              void save();
            }}
          >
            <h2 id={id}>{camera ? `Change the camera ${camera.shortName}` : "Add a camera"}</h2>
            {(was || !camera) && (
              <>
                <Field form={id} wrong={wrong} name="name" required maxLength={64} autocomplete="off" placeholder="front door" defaultValue={was?.shortName}>
                  Name
                </Field>
                {!own && login("", Object.values(was?.streams ?? {})[0]?.username)}
                {types.map((t) => {
                  const s = was?.streams[t];
                  return (
                    <fieldset key={t} class="stream">
                      <legend>
                        {t === "sub" ? "Sub stream: small, for the tiles" : t === "ext" ? "Ext stream" : "Main stream"}
                        {!s && (was || t !== "main") && ", if it has one"}
                      </legend>
                      <Field
                        form={id}
                        wrong={wrong}
                        name={`${t}.url`}
                        required={was ? !!s : t === "main"}
                        type="url"
                        autocomplete="off"
                        placeholder={`rtsp://10.0.0.7/${t}`}
                        defaultValue={s?.url}
                      >
                        Address of the {t} stream
                      </Field>
                      {own && login(`${t}.`, s?.username)}
                      <label class="check">
                        <input type="checkbox" name={`${t}.record`} defaultChecked={s?.record ?? true} />
                        Record the {t} stream
                      </label>
                      <div class="pair">
                        <Field form={id} wrong={wrong} name={`${t}.keep`} type="number" min="0" step="any" placeholder="no limit" defaultValue={s?.retainBytes ? s.retainBytes / 1e9 : ""}>
                          Keep at most, in GB
                        </Field>
                        <Field form={id} wrong={wrong} name={`${t}.days`} type="number" min="0" step="1" placeholder="no limit" defaultValue={s?.retainDays || ""}>
                          Keep at most, in days
                        </Field>
                      </div>
                      <TryStream type={t} tryStream={(signal) => tryStream(t, signal)} />
                    </fieldset>
                  );
                })}
                <p class="note-inline">Without a limit, all streams share what the disk has room for, and the oldest recording goes first.</p>
              </>
            )}
            <FormEnd error={wrong ? "" : error} yes={camera ? "Save" : "Add"} disabled={busy || (camera && !was)} cancel={() => dialog.current?.close()} />
          </form>
        )}
      </dialog>
    </>
  );
}

/** TryStream is a button that tries a stream, and what came of it. */
function TryStream({ type, tryStream }: { type: StreamType; tryStream(signal: AbortSignal): Promise<Tried | undefined> }) {
  const [result, setResult] = useState<Tried>();
  const [busy, setBusy] = useState(false);
  const abort = useRef<AbortController>();
  useEffect(() => () => abort.current?.abort(), []); // or the recorder goes on trying

  const act = async () => {
    const { signal } = (abort.current = new AbortController());
    setBusy(true);
    setResult(undefined);
    try {
      setResult(await tryStream(signal));
    } catch (e) {
      if (!signal.aborted) setResult({ ok: false, error: said(e) });
    } finally {
      setBusy(false);
    }
  };

  return (
    <div class="try">
      <button type="button" aria-label={`Test the ${type} stream`} disabled={busy} onClick={() => void act()}>
        Test
      </button>
      <div role="status" class="note-inline">
        {busy && "Looking at the stream for some seconds…"}
        {result?.ok && tried(result).map((line) => <p key={line}>{line}</p>)}
      </div>
      {result?.ok === false && <Refusal>{result.error}</Refusal>}
    </div>
  );
}
