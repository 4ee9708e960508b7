// A message of the live stream: header lines, an empty line, then the moof
// and mdat of one frame (nvr/design/api.md, "live.m4s").

export interface LiveFrame {
  /** MIME type with codecs, as MediaSource wants it. */
  contentType: string;
  sampleEntryId: string;
  openId: number;
  recordingId: number;
  recordingStart90k: number;
  /** Media time of the frame since the start of its recording. */
  from90k: number;
  to90k: number;
  /** Media time of the stream before that recording. */
  prevMediaDuration90k: number;
  body: Uint8Array<ArrayBuffer>;
}

/** parseFrame throws when the message is not one of ours. */
export function parseFrame(message: ArrayBuffer): LiveFrame {
  const bytes = new Uint8Array(message);
  const end = headerEnd(bytes);
  const headers = new Map<string, string>();
  for (const line of new TextDecoder().decode(bytes.subarray(0, end)).split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  const text = (name: string): string => {
    const value = headers.get(name);
    if (value === undefined) throw new Error(`live message has no ${name}`);
    return value;
  };
  const pair = (name: string, by: string): [number, number] => {
    const [a, b] = text(name).split(by).map(Number);
    if (a === undefined || b === undefined || !Number.isFinite(a) || !Number.isFinite(b)) {
      throw new Error(`live message: ${name} is ${text(name)}`);
    }
    return [a, b];
  };
  const [openId, recordingId] = pair("x-recording-id", ".");
  const [from90k, to90k] = pair("x-media-time-range", "-");
  return {
    contentType: text("content-type"),
    sampleEntryId: text("x-video-sample-entry-id"),
    openId,
    recordingId,
    recordingStart90k: Number(text("x-recording-start")),
    from90k,
    to90k,
    prevMediaDuration90k: Number(text("x-prev-media-duration")),
    body: bytes.subarray(end + 4),
  };
}

function headerEnd(b: Uint8Array): number {
  for (let i = 0; i + 3 < b.length && i < 4096; i++) {
    if (b[i] === 13 && b[i + 1] === 10 && b[i + 2] === 13 && b[i + 3] === 10) return i;
  }
  throw new Error("live message has no end of headers");
}
