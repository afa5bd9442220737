// Arithmetic on series: pure, so that it is tested without a browser.
import type { KPISeries } from './api.ts';

const kept = 6 * 60; // seconds

// measures are those that are kept by the second.
export const measures = ['orders', 'revenue', 'page_views', 'cart_adds', 'checkouts'];

// mergeTail puts newer seconds to older ones. Where both know a second the newer answer holds, since late events correct it; a series that one of them does not
// have is 0 there.
export function mergeTail(base: KPISeries, more: KPISeries): KPISeries {
  const first = base.times[0];
  const last = Math.max(base.times.at(-1) ?? 0, more.times.at(-1) ?? 0);
  if (first === undefined || more.times.length === 0) return more;
  const from = Math.max(first, last - kept + 1);
  const times: number[] = [];
  for (let t = from; t <= last; t++) times.push(t);
  const id = (s: KPISeries['series'][number]) => `${s.measure} ${s.currency} ${s.key}`;
  const ids = new Map([...base.series, ...more.series].filter((s) => measures.includes(s.measure)).map((s) => [id(s), s]));
  const read = (of: KPISeries, key: string) => {
    const s = of.series.find((x) => id(x) === key);
    const at = new Map<number, number | null>();
    of.times.forEach((t, i) => at.set(t, s ? (s.values[i] ?? null) : 0));
    return at;
  };
  const series = [...ids].map(([key, s]) => {
    const [a, b] = [read(base, key), read(more, key)];
    return { ...s, values: times.map((t) => (b.has(t) ? (b.get(t) ?? null) : (a.get(t) ?? null))) };
  });
  return { ...more, times, series };
}

// settle leaves away the last seconds in which nothing at all happened, up to five: they are more likely still on their way than silent.
export function settle(s: KPISeries): KPISeries {
  let n = s.times.length;
  while (n > Math.max(1, s.times.length - 5) && s.series.every((x) => !x.values[n - 1])) n--;
  if (n === s.times.length) return s;
  return { ...s, times: s.times.slice(0, n), series: s.series.map((x) => ({ ...x, values: x.values.slice(0, n) })) };
}

// bucket adds a series by the second or minute up to about sixty points; null where nothing is known of a whole bucket.
export function bucket(times: number[], values: (number | null)[], size: number): { times: number[]; values: (number | null)[] } {
  const out = new Map<number, number | null>();
  times.forEach((t, i) => {
    const b = Math.floor(t / size) * size;
    const v = values[i] ?? null;
    const old = out.get(b) ?? null;
    out.set(b, v === null ? old : (old ?? 0) + v);
  });
  return { times: [...out.keys()], values: [...out.values()] };
}

export type Rank = { key: string; n: number; share: number };

// ranking orders the keys of a dimension by a measure's exact totals; shares are of what is listed.
export function ranking(s: KPISeries | undefined, measure: string): Rank[] {
  const rows = (s?.series ?? []).filter((x) => x.measure === measure).map((x) => ({ key: x.key, n: Number(x.total ?? 0) }));
  const all = rows.reduce((n, r) => n + r.n, 0);
  return rows.sort((a, b) => b.n - a.n).map((r) => ({ ...r, share: all > 0 ? r.n / all : 0 }));
}
