// What the HTTP API says (nvr/design/api.md). Times and durations are in
// 90 kHz units; they stay exact in a number until the year 5000.

/** TopLevel is the answer of GET /api/. */
export interface TopLevel {
  serverVersion: string;
  timeZoneName: string;
  /** The server's clock when it answered. */
  now90k: number;
  permissions: Permissions;
  /** Who has signed in; absent when nobody has. */
  user?: { id: number; name: string };
  cameras: Camera[];
  /** The sample directories; absent for who may not administer. */
  directories?: Directory[];
  /** The appliance around the recorder; absent on any other machine. */
  machine?: Machine;
}

/** Directory is a sample directory as the recorder last saw it. */
export interface Directory {
  id: number;
  path: string;
  /** failing: it takes no writes now; unused: it is missing, or not ours. */
  state: "ok" | "failing" | "unused";
  /** Why it is not ok. */
  error?: string;
  /** Files that retention gave up do not go. */
  alarm?: string;
  /** Of its file system, of which the floor is kept free; absent while the disk does not answer. */
  totalBytes?: number;
  freeBytes?: number;
  floorBytes?: number;
}

/** Forecast is how much recording takes, and how long that stays when it goes on like that. */
export interface Forecast {
  usedBytes: number;
  /** Absent before ten minutes are recorded. */
  bytesPerDay?: number;
  /** Absent when it is not known, or more than a hundred years. */
  forecastDays?: number;
}

/** DirectoryReport is a sample directory with what is in it; its forecast is the least of its streams. */
export interface DirectoryReport extends Directory, Forecast {
  streams: (Forecast & { camera: string; shortName: string; stream: StreamType })[];
}

/** Machine is how the appliance fared, as it said when the recorder started. */
export interface Machine {
  board: string;
  version: string;
  /** The hardware that resets a machine that hangs, or "none: why". */
  watchdog: string;
  /** Ends of the machine that nobody ordered, newest first. */
  resets: Ended[] | null;
  /** Ends of the recorder since the machine's start, newest first. */
  restarts: Ended[] | null;
}

export interface Ended {
  /** RFC 3339; absent when the clock was not set. */
  time?: string;
  reason: string;
}

export interface Permissions {
  viewVideo?: boolean;
  readCameraConfigs?: boolean;
  adminCameras?: boolean;
  adminUsers?: boolean;
}

/** What a user may see of a camera; export is to take it away as a file. */
export const rights = ["live", "recorded", "export"] as const;
export type Right = (typeof rights)[number];

/** User is a user as GET /api/users/ lists it. */
export interface User {
  id: number;
  user: UserFields;
}

export interface UserFields {
  username: string;
  disabled: boolean;
  /** "(censored)", or null: nobody can sign in as this user. */
  password: string | null;
  permissions: UserPermissions;
  /** A JSON object that clients keep for themselves; this one has none. */
  preferences: Record<string, unknown>;
}

export interface UserPermissions {
  administrator: boolean;
  /** Of all cameras, also of those that come later. */
  allCameras: Right[];
  /** Beside that, by the uuid of the camera. */
  cameras: Record<string, Right[]>;
}

/** UserChange is what a form says of a user. What it leaves out stays. */
export interface UserChange extends Partial<Omit<UserFields, "password">> {
  password?: string;
}

/** What a token may at most: of what its user may. */
export const scopes = [...rights, "administer"] as const;
export type Scope = (typeof scopes)[number];

/** Session is what lets a user in: that of a browser, or a token of a program. */
export interface Session {
  id: number;
  kind: "session" | "token";
  /** The one that asked. */
  current?: boolean;
  name?: string;
  scope?: Scope[];
  createdTime90k: number;
  expiresTime90k?: number;
  createdFrom: Peer;
  lastUsedTime90k?: number;
  lastUsedFrom: Peer;
  uses: number;
}

export interface Peer {
  address: string;
  userAgent: string;
}

/** TokenConfig is a token that is to be made; without days it does not expire. */
export interface TokenConfig {
  name: string;
  scope: Scope[];
  days?: number;
}

export interface Camera {
  uuid: string;
  shortName: string;
  description: string;
  /** What the caller may see of it. */
  rights: Right[];
  streams: Partial<Record<StreamType, Stream>>;
}

export const streamTypes = ["main", "sub", "ext"] as const;
export type StreamType = (typeof streamTypes)[number];

export interface Stream {
  id: number;
  record: boolean;
  /** 0: no limit of its own, it shares what the disk has. */
  retainBytes: number;
  /** Absent: age is no reason to delete. */
  retainDays?: number;
  /** Absent while the stream has no recording. */
  minStartTime90k?: number;
  maxEndTime90k?: number;
  totalDuration90k: number;
  totalSampleFileBytes: number;
  fsBytes: number;
  recordings: number;
  /** Up to here the current recording survives a power cut. */
  watermark90k?: number;
  state: StreamState;
  /** Why its directory takes no writes at the moment. */
  dirError?: string;
  /** Files of before the start that are not looked into yet, about. */
  filesToAdopt?: number;
  /** Where it comes from, when that was asked for. */
  config?: { url: string; username?: string };
}

/** StreamState is what the recorder does about a stream at this moment. */
export interface StreamState {
  phase: "recording" | "connecting" | "waiting" | "off";
  since90k?: number;
  /** Why, when it is not recording. */
  reason?: string;
  /** What of the stream is not recorded, e.g. "audio: PCMA is not recorded". */
  skipped?: string[];
}

/** RecordingRow is one line of a listing: adjoining recordings of one run. */
export interface RecordingRow {
  startId: number;
  endId?: number;
  runStartId: number;
  openId: number;
  firstUncommitted?: number;
  growing?: boolean;
  startTime90k: number;
  endTime90k: number;
  videoSampleEntryId: number;
  videoSamples: number;
  sampleFileBytes: number;
  hasTrailingZero?: boolean;
  endReason?: string;
}

export interface VideoSampleEntry {
  width: number;
  height: number;
  paspHSpacing: number;
  paspVSpacing: number;
  aspectWidth: number;
  aspectHeight: number;
}

export interface Recordings {
  recordings: RecordingRow[];
  videoSampleEntries: Record<string, VideoSampleEntry>;
}

/** Gap is a time in which a stream should have recorded and did not. */
export interface Gap {
  startTime90k: number;
  /** Now, when it was asked for, while it grows. */
  endTime90k: number;
  growing?: boolean;
  /** One that is not known here is as "other". */
  cause: string;
  /** For people. */
  detail?: string;
}

/** CameraConfig is a camera as the configuration file writes it. */
export interface CameraConfig {
  shortName: string;
  description?: string;
  streams: Partial<Record<StreamType, StreamConfig>>;
}

export interface StreamConfig {
  url: string;
  username?: string;
  password?: string;
  record: boolean;
  rtspTransport?: "tcp" | "udp";
  /** 0: no limit, as with days. */
  retainBytes?: number;
  retainDays?: number;
  flushIfSec?: number;
}

/** CameraChange is what is to be another value of a camera. What it leaves out stays. */
export interface CameraChange {
  shortName?: string;
  streams?: Partial<Record<StreamType, Partial<StreamConfig>>>;
}

/** StreamToTry is a stream that need not be there. With a camera it is that stream of
 * it, with what else is given in the place of what it is set to. */
export interface StreamToTry {
  camera?: string;
  stream?: StreamType;
  url?: string;
  username?: string;
  password?: string;
}

/** Tried is what came of trying a stream. */
export type Tried = TriedWell | { ok: false; error: string };

export interface TriedWell {
  ok: true;
  video: {
    format: string;
    profile?: string;
    level?: string;
    width: number;
    height: number;
    frameRate?: number;
    /** Bits a second. */
    bitRate?: number;
    /** Absent when no group of pictures was seen whole. */
    gopFrames?: number;
    gopSec?: number;
  };
  audio?: { codec: string; channels?: number; sampleRate?: number };
  skipped?: string[];
  measuredSec?: number;
}
