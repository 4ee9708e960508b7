import type { ApiClient } from "../api/client.ts";
import type { Camera } from "../api/types.ts";
import { Ask } from "./ask.tsx";

/** DeleteCamera is a button and the dialog that asks once more. */
export function DeleteCamera({ api, camera, deleted }: { api: ApiClient; camera: Camera; deleted(): void }) {
  return (
    <Ask
      id={`delete-${camera.uuid}`}
      button="Delete…"
      label={`Delete ${camera.shortName}…`}
      title={`Delete the camera ${camera.shortName}?`}
      yes="Delete camera and footage"
      doing="Deleting…"
      refused="The camera was not deleted"
      act={async () => {
        await api.deleteCamera(camera.uuid);
        deleted();
      }}
    >
      <p>All its footage is deleted with it. This cannot be undone.</p>
    </Ask>
  );
}
