import { useRef, useState } from "preact/hooks";
import type { ApiClient } from "../api/client.ts";
import type { Camera } from "../api/types.ts";

/** DeleteCamera is a button and the dialog that asks once more. */
export function DeleteCamera({ api, camera, deleted }: { api: ApiClient; camera: Camera; deleted(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const title = `delete-${camera.uuid}`;

  const remove = async () => {
    setBusy(true);
    setError("");
    try {
      await api.deleteCamera(camera.uuid);
      dialog.current?.close();
      deleted();
    } catch (e) {
      setError(e instanceof Error ? e.message : String(e));
    } finally {
      setBusy(false);
    }
  };

  return (
    <>
      <button
        type="button"
        aria-label={`Delete ${camera.shortName}…`}
        onClick={() => {
          setError("");
          dialog.current?.showModal();
        }}
      >
        Delete…
      </button>
      <dialog ref={dialog} aria-labelledby={title}>
        <div class="ask">
          <h2 id={title}>Delete the camera {camera.shortName}?</h2>
          <p>All its footage is deleted with it. This cannot be undone.</p>
          {error && (
            <p class="trouble" role="alert">
              The camera was not deleted: {error}
            </p>
          )}
          <div class="pair">
            {/* First, so that Enter alone deletes nothing. */}
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button type="button" class="danger" disabled={busy} onClick={() => void remove()}>
              {busy ? "Deleting…" : "Delete camera and footage"}
            </button>
          </div>
        </div>
      </dialog>
    </>
  );
}
