// The live message of each second, shared by all pages, and the series by the second that grow with it.
import { address, get, type KPISeries, type LiveMessage } from './api.ts';
import { link, Source, type Phase } from './link.ts';
import { prefs } from './prefs.ts';
import { measures, mergeTail } from './series.ts';
import { Store } from './store.ts';

export const live = new Store<{ message?: LiveMessage; at: number }>({ at: 0 });

// tail holds the last minutes by the second; undefined until they were read.
export const tail = new Store<KPISeries | undefined>(undefined);

let source: Source | undefined;

async function fill(): Promise<void> {
  try {
    const base = await get('/api/v1/kpis/series', { grain: '1s', from: '-5m', measures: measures.join(','), limit: 10 });
    const now = tail.get();
    tail.set(now && now.times.length > 0 ? mergeTail(base, now) : base);
  } catch {
    // the tail fills by itself from the live messages
  }
}

function phase(p: Phase, retryAt: number): void {
  const old = link.get();
  if (p === old.state) {
    if (p === 'lost') link.update({ retryAt });
    return;
  }
  const back = p === 'open';
  link.set({ state: p, since: Date.now(), retryAt, generation: old.generation + (back && old.state === 'lost' ? 1 : 0) });
  if (back) void fill();
}

export function start(): void {
  source = new Source({
    url: () => address('/api/v1/stream', {}),
    event: 'live',
    silence: 8000,
    phase,
    message: (data) => {
      let m: LiveMessage;
      try {
        m = JSON.parse(data) as LiveMessage;
      } catch {
        return; // a cut message: the next one comes within a second
      }
      live.set({ message: m, at: Date.now() });
      if (m.tail) {
        const base = tail.get();
        tail.set(base ? mergeTail(base, m.tail) : m.tail);
      }
    },
  });
  let tenant = prefs.get().tenant;
  prefs.watch(() => {
    if (prefs.get().tenant === tenant) return;
    tenant = prefs.get().tenant;
    live.set({ at: 0 });
    tail.set(undefined);
    source?.again();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && link.get().state === 'lost') source?.again();
  });
}

export function reconnect(): void {
  source?.again();
}
