import { useEffect, useState } from "preact/hooks";
import { said } from "./field.tsx";

/** useList asks for a list when the page opens, when what it depends on changes,
 * and again when it is told to. What was there stays meanwhile. */
export function useList<T>(ask: (signal: AbortSignal) => Promise<T>, on: readonly unknown[]) {
  const [list, setList] = useState<T>();
  const [error, setError] = useState("");
  const [asked, setAsked] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    ask(abort.signal).then(
      (got) => {
        setList(got);
        setError("");
      },
      (e) => abort.signal.aborted || setError(said(e)),
    );
    return () => abort.abort();
  }, [...on, asked]);
  return { list, error, again: () => setAsked((n) => n + 1) };
}
