// Times as people read them, in the time zone of the recorder.

export class Zone {
  readonly name: string;
  readonly #date: Intl.DateTimeFormat;
  readonly #time: Intl.DateTimeFormat;
  readonly #minute: Intl.DateTimeFormat;

  /** A zone this browser does not know is shown as its own. */
  constructor(name: string) {
    let timeZone: string | undefined = name;
    try {
      new Intl.DateTimeFormat("en", { timeZone });
    } catch {
      timeZone = undefined;
    }
    // The Swedish way of writing dates is ISO 8601.
    const make = (o: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("sv-SE", { ...o, timeZone });
    this.#date = make({ year: "numeric", month: "2-digit", day: "2-digit" });
    this.#time = make({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
    this.#minute = make({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    this.name = timeZone ?? this.#date.resolvedOptions().timeZone;
  }

  /** "2026-11-23" */
  day(t90k: number): string {
    return this.#date.format(t90k / 90);
  }

  /** "08:05:11" */
  time(t90k: number): string {
    return this.#time.format(t90k / 90);
  }

  /** "08:05" today, "2026-11-22 08:05" else. */
  since(t90k: number, now90k: number): string {
    const day = this.day(t90k);
    const time = this.#minute.format(t90k / 90);
    return day === this.day(now90k) ? time : `${day} ${time}`;
  }
}

/** addDays moves "2026-11-23" by whole days of the calendar. */
export function addDays(day: string, n: number): string {
  const [y, m, d] = day.split("-").map(Number);
  return new Date(Date.UTC(y!, m! - 1, d! + n)).toISOString().slice(0, 10);
}

/** isDay reports whether the text is a day of the calendar. */
export function isDay(text: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)) && addDays(text, 0) === text;
}

/** "7 s", "3 min 20 s", "2 h 5 min" */
export function duration(d90k: number): string {
  const s = Math.round(d90k / 90000);
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return s % 60 ? `${min} min ${s % 60} s` : `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 48) return min % 60 ? `${h} h ${min % 60} min` : `${h} h`;
  const days = Math.floor(h / 24);
  return h % 24 ? `${days} d ${h % 24} h` : `${days} d`;
}

/** "740 kB", "12.3 MB" */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) {
    n /= 1000;
    i++;
  }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}
