import { useEffect, useRef, useState } from "preact/hooks";
import { Listing, type ListingOptions, type Revision } from "../api/listing.ts";
import { said } from "./field.tsx";

/** useListing is a list that is kept up to date as it says in Listing, why it could
 * not be, and what asks for it anew. It begins anew when what it depends on changes. */
export function useListing<T>(
  options: Pick<ListingOptions<T>, "ask" | "pollMs">,
  on: readonly unknown[],
  revision: Revision | undefined,
): [T | undefined, string, () => void] {
  const [list, setList] = useState<T>();
  const [error, setError] = useState("");
  const listing = useRef<Listing<T>>();
  useEffect(() => {
    setList(undefined);
    setError("");
    const l = (listing.current = new Listing<T>({
      ...options,
      onList: (got) => {
        setList(() => got);
        setError("");
      },
      onError: (e) => setError(said(e)),
    }));
    return () => l.stop();
  }, on);
  useEffect(() => listing.current!.follow(revision), [...on, revision]);
  return [list, error, () => listing.current!.changed()];
}
