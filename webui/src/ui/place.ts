// Where the user is, as the hash of the address, so that Back, reload and
// sharing work.

import { streamTypes, type StreamType } from "../api/types.ts";
import { isDay } from "./time.ts";

export const pages = ["users", "account"] as const;

export interface Place {
  /** The cameras when absent. */
  page?: (typeof pages)[number];
  camera?: string;
  stream?: StreamType;
  /** Today when absent. */
  day?: string;
  /** The first recording of the row that plays. */
  play?: number;
}

export function parsePlace(hash: string): Place {
  const q = new URLSearchParams(hash.replace(/^#/, ""));
  const place: Place = {};
  const page = pages.find((p) => p === q.get("page"));
  if (page) place.page = page;
  const camera = q.get("camera");
  if (camera) place.camera = camera;
  const stream = streamTypes.find((t) => t === q.get("stream"));
  if (stream) place.stream = stream;
  const day = q.get("day");
  if (day && isDay(day)) place.day = day;
  const play = q.get("play");
  if (play && /^\d{1,10}$/.test(play)) place.play = Number(play);
  return place;
}

export function formatPlace(place: Place): string {
  const q = new URLSearchParams();
  for (const key of ["page", "camera", "stream", "day", "play"] as const) {
    const value = place[key];
    if (value !== undefined) q.set(key, String(value));
  }
  return `#${q}`;
}
