// Words for numbers, money and times. Money stays a decimal string or a bigint of micros all the way: Intl formats both exactly.
import { change, fromMicros, micros } from './decimal.ts';
import { zone } from './prefs.ts';

const locale = navigator.language || 'en';

const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(locale, { notation: 'compact', maximumSignificantDigits: 3 });
const tenth = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 1 });
const wholePercents = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 0 });

export const none = '–';

// sentence makes one of words that the platform gave as a part of one.
export const sentence = (words: string) => (words === '' ? '' : `${words[0]?.toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? '' : '.'}`);

type N = number | bigint | null | undefined;

export const count = (n: N) => (n == null ? none : whole.format(n));
export const compact = (n: N) => (n == null ? none : Math.abs(Number(n)) < 100_000 ? whole.format(n) : short.format(n));
export const decimal = (n: N) => (n == null ? none : tenth.format(n));
export const percent = (n: N) => (n == null ? none : percents.format(n));

const moneyFormats = new Map<string, Intl.NumberFormat | null>();

function moneyFormat(currency: string, cents: boolean): Intl.NumberFormat | null {
  const key = `${currency}${cents ? '' : ' whole'}`;
  let f = moneyFormats.get(key);
  if (f === undefined) {
    try {
      f = new Intl.NumberFormat(locale, { style: 'currency', currency, ...(cents ? {} : { maximumFractionDigits: 0, minimumFractionDigits: 0 }) });
    } catch {
      f = null; // no currency code: the text is shown beside the number
    }
    moneyFormats.set(key, f);
  }
  return f;
}

// money shows cents below 100,000 units, and none above: a tile has place for ten characters.
export function money(amount: string | null | undefined, currency: string): string {
  if (amount == null) return none;
  const m = micros(amount);
  if (m === undefined) return `${amount} ${currency}`.trim();
  const f = moneyFormat(currency, m < 100_000_000_000n && m > -100_000_000_000n);
  const exact = fromMicros(m) as Intl.StringNumericLiteral;
  return f ? f.format(exact) : `${new Intl.NumberFormat(locale, { maximumFractionDigits: 2 }).format(exact)} ${currency}`.trim();
}

export type Trend = { direction: 'up' | 'down' | 'level'; text: string };

export function trend(now: bigint, before: bigint): Trend {
  if (now === before) return { direction: 'level', text: 'unchanged' };
  const direction = now > before ? 'up' : 'down';
  const c = change(now, before);
  if (c === undefined) return { direction, text: 'from none' };
  const abs = Math.abs(c);
  return { direction, text: abs >= 10 ? `×${tenth.format(Number(now) / Number(before))}` : (abs < 0.1 ? percents : wholePercents).format(abs) };
}

export function seconds(s: N): string {
  if (s == null) return none;
  const n = Math.max(0, Number(s));
  if (n < 9.95) return `${tenth.format(n)} s`;
  if (n < 120) return `${whole.format(n)} s`;
  if (n < 7200) return `${whole.format(n / 60)} min`;
  if (n < 172_800) return `${whole.format(n / 3600)} h`;
  return `${whole.format(n / 86_400)} days`;
}

// hours says how long something lasts that is known by the hour.
export const hours = (h: N) => (h == null ? none : seconds(Number(h) * 3600));

export function millis(ms: N): string {
  if (ms == null) return none;
  const n = Number(ms);
  return n >= 1000 ? `${tenth.format(n / 1000)} s` : n >= 10 ? `${whole.format(n)} ms` : `${tenth.format(n)} ms`;
}

export function bytes(b: N): string {
  if (b == null) return none;
  let n = Number(b);
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) {
    n /= 1000;
    i++;
  }
  return `${i === 0 ? whole.format(n) : tenth.format(n)} ${units[i]}`;
}

const timeFormats = new Map<string, Intl.DateTimeFormat>();

type TimeKind = 'clock' | 'minute' | 'full' | 'millis' | 'day' | 'hour';

function timeFormat(kind: TimeKind): Intl.DateTimeFormat {
  const tz = zone();
  let f = timeFormats.get(kind + tz);
  if (!f) {
    const hms = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' } as const;
    const options: Record<TimeKind, Intl.DateTimeFormatOptions> = {
      clock: hms,
      day: { weekday: 'short', day: 'numeric' },
      hour: { weekday: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
      minute: { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
      millis: { ...hms, fractionalSecondDigits: 3 },
      full: { year: 'numeric', month: 'short', day: 'numeric', ...hms, timeZoneName: 'short' },
    };
    f = new Intl.DateTimeFormat(locale, { ...options[kind], timeZone: tz });
    timeFormats.set(kind + tz, f);
  }
  return f;
}

function inZone(kind: TimeKind, t: string | number | null | undefined): string {
  if (t == null) return none;
  const d = typeof t === 'number' ? new Date(t * 1000) : new Date(t);
  return Number.isNaN(d.getTime()) ? String(t) : timeFormat(kind).format(d);
}

export const clockTime = (t: string | number | null | undefined) => inZone('clock', t);
export const minuteTime = (t: string | number | null | undefined) => inZone('minute', t);
export const milliTime = (t: string | number | null | undefined) => inZone('millis', t);
export const dayTime = (t: string | number | null | undefined) => inZone('day', t);
export const hourTime = (t: string | number | null | undefined) => inZone('hour', t);
export const fullTime = (t: string | number | null | undefined) => inZone('full', t);

export function age(t: string | null | undefined, now: number): string {
  if (t == null) return none;
  const then = Date.parse(t);
  return Number.isNaN(then) ? none : seconds((now - then) / 1000);
}

const regions = new Intl.DisplayNames(locale, { type: 'region' });

// country names an ISO code; what is none is shown as it came.
export function country(code: string): string {
  if (code === '') return 'Unknown';
  try {
    return regions.of(code) ?? code;
  } catch {
    return code;
  }
}
