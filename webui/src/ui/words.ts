// What the page says about a stream. Never a bare spinner: each state says
// what is waited for, since when, and why.

import type { Directory, Forecast, Gap, Right, Stream, TriedWell, UserFields } from "../api/types.ts";
import type { LiveStatus } from "../media/live_player.ts";
import { bytes, duration, type Zone } from "./time.ts";

export type Mood = "good" | "wait" | "bad" | "off" | "unknown";

export interface Said {
  mood: Mood;
  text: string;
  /** The reason, "" when there is nothing to explain. */
  why: string;
}

/** unknown is said of a stream while the recorder does not tell. */
export const unknown: Said = { mood: "unknown", text: "state unknown", why: "" };

/** What the recorder says of a camera that it cannot reach. A camera that
 * refuses a login is there. */
const away = /no answer|no connection|connection refused|unreachable|time(d )?[ -]?out|^host \S+ not found/i;

/** problemOf is a reason without the address it begins with. */
function problemOf(reason: string): string {
  return reason.replace(/^rtsps?:\/\/\S+: /, "");
}

/** recorderState says what the recorder does about the stream. */
export function recorderState(s: Stream, zone: Zone, now90k: number): Said {
  const { phase, since90k, reason } = s.state;
  const since = since90k ? ` since ${zone.since(since90k, now90k)}` : "";
  const why = reason ?? "";
  if (s.dirError) return { mood: "bad", text: "cannot record to the disk", why: s.dirError };
  switch (phase) {
    case "recording":
      return { mood: "good", text: `recording${since}`, why: "" };
    case "connecting":
      return { mood: "wait", text: "connecting to the camera", why };
    case "waiting":
      return { mood: "bad", text: `${waiting(why)}${since}`, why };
    case "off":
      return { mood: "off", text: "not recorded", why };
    default:
      return { mood: "wait", text: `${phase as string}${since}`, why };
  }
}

/** waiting is what a stream that waits is called, by its reason. */
function waiting(reason: string): string {
  if (/sample directory/i.test(reason)) return "cannot record to the disk";
  return away.test(problemOf(reason)) ? "camera offline" : "not recording";
}

/** recorderStates says the states of a camera's streams. A reason that several
 * share is given once: most often they fail alike. */
export function recorderStates(streams: Stream[], zone: Zone, now90k: number): Said[] {
  const told = new Set<string>();
  return streams.map((s) => {
    const said = recorderState(s, zone, now90k);
    const problem = problemOf(said.why);
    if (told.has(problem)) return { ...said, why: "same reason" };
    if (problem) told.add(problem);
    return said;
  });
}

/** overPicture is what stands over the live picture, empty while it moves. */
export function overPicture(live: LiveStatus, recorder: Said): string {
  if (live.phase === "playing") return "";
  if (live.phase === "unsupported" || live.phase === "blocked") return live.message;
  if (recorder.mood !== "good" && recorder.mood !== "unknown" && live.phase === "waiting") return recorder.text;
  return live.message || "starting";
}

/** kept says what of the stream is on the disk. */
export function kept(s: Stream): string {
  return s.recordings === 0 ? "nothing recorded yet" : `${duration(s.totalDuration90k)} kept`;
}

/** Why a stream was not recorded, by the cause of the gap. */
const causes: Record<string, string> = {
  unreachable: "the camera did not answer",
  login_refused: "the camera refused user and password",
  no_frames: "the camera sent no pictures",
  bad_timestamps: "the times of the pictures were wrong",
  camera_ended: "the camera ended the session",
  disk_slow: "the disk was too slow",
  disk_full: "the disk was full",
  disk_error: "the disk took nothing",
  recorder_down: "the recorder did not run",
  clock: "the clock was set forward, this time never was",
  unknown: "the recorder stopped without warning",
};

/** gapIs says why nothing was recorded. */
export function gapIs({ cause, detail = "" }: Gap): string {
  const [known, more] = [causes[cause], problemOf(detail)];
  return `not recorded${known ? `: ${known}` : ""}${more && ` (${more})`}`;
}

/** directoryState says how a sample directory does. */
export function directoryState({ state, error = "", alarm }: Directory): Said {
  switch (state) {
    case "ok":
      return alarm ? { mood: "wait", text: "takes recordings, but deleted files do not go", why: alarm } : { mood: "good", text: "takes recordings", why: "" };
    case "failing":
      return { mood: "bad", text: "takes no recordings now", why: error };
    default:
      return { mood: "bad", text: "not used", why: error };
  }
}

/** roomOf says what room the disk of a directory has, "" when that is not known. */
export function roomOf({ totalBytes, freeBytes = 0, floorBytes = 0 }: Directory): string {
  if (totalBytes === undefined) return "";
  return `${bytes(freeBytes)} of ${bytes(totalBytes)} are free; the last ${bytes(floorBytes)} are never recorded to.`;
}

/** forecast says how much is recorded in a day, and for how many days that is kept. */
export function forecast({ bytesPerDay, forecastDays }: Forecast): string {
  if (bytesPerDay === undefined) return "How long recordings stay is known after ten minutes of recording.";
  if (bytesPerDay === 0) return "Nothing is recorded.";
  const rate = `${bytes(bytesPerDay)} a day are recorded`;
  return forecastDays === undefined ? `${rate}.` : `${rate}; at this rate about ${days(forecastDays)} are kept.`;
}

/** takes says the same of a stream in short, and what it has taken; what is not known is left out. */
export function takes({ usedBytes, bytesPerDay, forecastDays }: Forecast): string {
  return [
    `${bytes(usedBytes)} used`,
    bytesPerDay !== undefined && (bytesPerDay > 0 ? `${bytes(bytesPerDay)} a day` : "nothing is recorded"),
    forecastDays !== undefined && `about ${days(forecastDays)} kept`,
  ]
    .filter(Boolean)
    .join(", ");
}

/** "14 hours", "2.5 days", "22 days" */
function days(n: number): string {
  if (n < 2) return `${Math.round(n * 24)} hours`;
  return `${n < 10 ? Number(n.toFixed(1)) : Math.round(n)} days`;
}

/** WrongField is a refusal that names a field: which input, and what is said of it. */
export interface WrongField {
  input: string;
  words: string;
}

const farApart = 4; // seconds from key frame to key frame for which one has to wait
const dayBits = 86400 / 8; // bytes a day of a bit a second

/** tried says in sentences what a stream that was tried is like. */
export function tried({ video, audio, skipped = [], measuredSec }: TriedWell): string[] {
  const { format, profile, level, width, height, frameRate, bitRate, gopSec, gopFrames } = video;
  const profiled = [profile, level].filter(Boolean).join(" ");
  const kbit = (bitRate ?? 0) / 1000;
  const lines = [
    ["It works: " + format + (profiled && ` (${profiled})`), `${width} × ${height}`, frameRate && `${frameRate} pictures a second`]
      .filter(Boolean)
      .join(", ") + ".",
  ];
  if (bitRate) lines.push(`${kbit < 1000 ? `${Math.round(kbit)} kbit/s` : `${(kbit / 1000).toFixed(1)} Mbit/s`}: about ${bytes(bitRate * dayBits)} a day.`);
  lines.push(
    gopSec === undefined
      ? `No two key frames were seen${measuredSec ? ` in ${measuredSec} s` : ""}.`
      : `A key frame every ${gopSec} s${gopFrames ? ` (${gopFrames} pictures)` : ""}.`,
  );
  if (gopSec === undefined || gopSec > farApart) lines.push("Live video begins with a key frame: it starts sooner when the camera sends one more often.");
  if (format === "H.265") lines.push("Not every browser plays H.265.");
  const sound = audio && [audio.codec.startsWith("mp4a.40") ? "AAC" : audio.codec, audio.sampleRate && `${audio.sampleRate / 1000} kHz`, channels(audio.channels)];
  lines.push(sound ? `Sound: ${sound.filter(Boolean).join(", ")}.` : "No sound would be recorded.");
  if (skipped.length > 0) lines.push(`Offered, too: ${skipped.join("; ")}.`);
  return lines;
}

function channels(n = 0): string {
  return ["", "mono", "stereo"][n] ?? `${n} channels`;
}

/** wrongField takes a refusal such as "streams.main.url: is missing" apart. It
 * is undefined when no input of the form stands for the field. own: each stream
 * has a user of its own there. */
export function wrongField(message: string, own = false): WrongField | undefined {
  const [, field = "", words = ""] = /^([\w.]+): (.+)$/s.exec(message) ?? [];
  const [, type, key] = /^streams\.(main|sub|ext)\.(\w+)$/.exec(field) ?? [];
  if (field === "shortName") return { input: "name", words };
  if (key === "url") return { input: `${type}.url`, words };
  if (key === "username" || key === "password") return { input: own ? `${type}.${key}` : key, words };
  if (key === "retainBytes") return { input: `${type}.keep`, words: `in GB it ${words.replace(/(\d+)( bytes)?/g, (_, n, unit) => `${n / 1e9}${unit ? " GB" : ""}`)}` };
  if (key === "retainDays") return { input: `${type}.days`, words };
  return undefined;
}

/** wrongOfUser is the same for what is said of users and tokens, whose refusals
 * are sentences. It is undefined for what is about the form as a whole. */
export function wrongOfUser(message: string): WrongField | undefined {
  if (/precondition\.password/.test(message)) {
    return { input: "old", words: /is not/.test(message) ? "this is not the password until now" : "the password until now is missing" };
  }
  if (/^the password /.test(message)) return { input: "password", words: message };
  if (/^(user)?name |(user|token) of this name/.test(message)) return { input: "name", words: message };
  if (/^the scope |^there is no right /.test(message)) return { input: "scope", words: message };
  if (/^days |would have expired/.test(message)) return { input: "days", words: message };
  return undefined;
}

/** rightsIn says rights in words, "" when there is none. */
export function rightsIn(list: readonly Right[]): string {
  const words: Record<Right, string> = { live: "live video", recorded: "recordings", export: "export" };
  return list.map((r) => words[r]).join(", ");
}

/** userIs says what a user may, in a line; cameras are told by nameOf. */
export function userIs(u: UserFields, nameOf: (uuid: string) => string): string {
  if (u.permissions.administrator) return "Administrator: may everything";
  const all = rightsIn(u.permissions.allCameras);
  const some = Object.entries(u.permissions.cameras).map(([uuid, list]) => `${nameOf(uuid)}: ${rightsIn(list)}`);
  return `Viewer. ${[all && `All cameras: ${all}`, ...some].filter(Boolean).join("; ") || "Sees no camera yet"}`;
}
