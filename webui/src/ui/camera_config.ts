// What a camera is set to, and how that differs from what it was set to.

import type { Camera, CameraChange, CameraConfig, StreamConfig, StreamType } from "../api/types.ts";

/** configOf is what a camera that was asked for with its configuration is set to. */
export function configOf({ shortName, streams }: Camera): CameraConfig {
  const config: CameraConfig = { shortName, streams: {} };
  for (const [type, s] of Object.entries(streams)) {
    const { record, retainBytes, retainDays = 0 } = s;
    config.streams[type as StreamType] = { url: s.config?.url ?? "", username: s.config?.username ?? "", record, retainBytes, retainDays };
  }
  return config;
}

/** differenceOf is what makes is of was, and what was is there now, so that
 * somebody else's change of the same is not undone. Streams are not taken away. */
export function differenceOf(was: CameraConfig, is: CameraConfig): { update: CameraChange; precondition: CameraChange } {
  const update: CameraChange = {};
  const precondition: CameraChange = {};
  if (is.shortName !== was.shortName) [update.shortName, precondition.shortName] = [is.shortName, was.shortName];
  for (const [type, s] of Object.entries(is.streams) as [StreamType, StreamConfig][]) {
    const old = was.streams[type];
    const changed = (Object.keys(s) as (keyof StreamConfig)[]).filter((key) => s[key] !== old?.[key]);
    const pick = (from: StreamConfig, keys: string[]) => Object.fromEntries(Object.entries(from).filter(([key]) => keys.includes(key)));
    if (changed.length === 0) continue;
    (update.streams ??= {})[type] = pick(s, changed);
    if (old) (precondition.streams ??= {})[type] = pick(old, changed); // a password is not known
  }
  return { update, precondition };
}
