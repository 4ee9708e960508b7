import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { Refusal, said } from "./field.tsx";

/** Ask is a button and the dialog that asks once more before it acts. */
export function Ask(props: {
  /** Of the dialog's title, unique in the page. */
  id: string;
  button: string;
  /** The button's name, where its text does not say what it is for. */
  label?: string;
  title: string;
  children?: ComponentChildren;
  yes: string;
  doing: string;
  /** Before what is said when it could not be done. */
  refused: string;
  act(): Promise<void>;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);

  const act = async () => {
    setBusy(true);
    setError("");
    try {
      await props.act();
      dialog.current?.close();
    } catch (e) {
      setError(said(e));
    } finally {
      setBusy(false);
    }
  };

  return (
    <>
      <button
        type="button"
        aria-label={props.label}
        onClick={() => {
          setError("");
          dialog.current?.showModal();
        }}
      >
        {props.button}
      </button>
      <dialog ref={dialog} aria-labelledby={props.id}>
        <div class="ask">
          <h2 id={props.id}>{props.title}</h2>
          {props.children}
          {error && (
            <Refusal>
              {props.refused}: {error}
            </Refusal>
          )}
          <div class="pair">
            {/* First, so that Enter alone does nothing. */}
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button type="button" class="danger" disabled={busy} onClick={() => void act()}>
              {busy ? props.doing : props.yes}
            </button>
          </div>
        </div>
      </dialog>
    </>
  );
}
