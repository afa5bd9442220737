// What the viewer chose. Window, currency and time zone live in the address, so that a link shows what its sender saw; the browser remembers them and the theme.
import { Store } from './store.ts';

export const windows = [
  { id: '60s', label: '1 min', words: 'minute', seconds: 60, grain: '1s', bucket: 1, poll: 0 },
  { id: '5m', label: '5 min', words: '5 minutes', seconds: 300, grain: '1s', bucket: 5, poll: 2000 },
  { id: '15m', label: '15 min', words: '15 minutes', seconds: 900, grain: '1s', bucket: 15, poll: 5000 },
  { id: '1h', label: '1 h', words: 'hour', seconds: 3600, grain: '1m', bucket: 60, poll: 5000 },
  { id: '3h', label: '3 h', words: '3 hours', seconds: 10_800, grain: '1m', bucket: 180, poll: 10_000 },
] as const;

// spans are the windows of pages that look further back; the choice is the page's.
export const spans = [
  { id: '15m', label: '15 min', seconds: 900 },
  { id: '1h', label: '1 h', seconds: 3600 },
  { id: '24h', label: '24 h', seconds: 86_400 },
  { id: '7d', label: '7 d', seconds: 604_800 },
] as const;

export type Window = (typeof windows)[number];
export type Theme = 'auto' | 'light' | 'dark';

export type Prefs = { window: string; currency: string; tz: string; tenant: string; theme: Theme; shortcuts: boolean };

const defaults: Prefs = { window: '60s', currency: '', tz: '', tenant: '', theme: 'auto', shortcuts: true };
const shared = ['window', 'currency', 'tz', 'tenant'] as const;
const key = 'millrace.prefs';

export function validZone(tz: string): boolean {
  try {
    new Intl.DateTimeFormat(undefined, { timeZone: tz });
    return true;
  } catch {
    return false;
  }
}

// clean drops what is no choice: both the address and the memory may hold anything.
function clean(p: Partial<Record<keyof Prefs, unknown>>): Prefs {
  const text = (v: unknown) => (typeof v === 'string' ? v : '');
  const tz = text(p.tz);
  return {
    window: windows.some((w) => w.id === p.window) ? text(p.window) : defaults.window,
    currency: /^[A-Z]{3}$/.test(text(p.currency)) ? text(p.currency) : '',
    tz: tz !== '' && validZone(tz) ? tz : '',
    tenant: text(p.tenant).slice(0, 64),
    theme: p.theme === 'light' || p.theme === 'dark' ? p.theme : 'auto',
    shortcuts: p.shortcuts !== false,
  };
}

function load(): Prefs {
  let kept: Partial<Prefs> = {};
  try {
    kept = JSON.parse(localStorage.getItem(key) ?? '{}') as Partial<Prefs>;
  } catch {
    // no memory in this browser, or not ours: the defaults hold
  }
  const query = new URLSearchParams(location.search);
  const linked: Record<string, string> = {};
  for (const k of shared) {
    const v = query.get(k);
    if (v !== null) linked[k] = v;
  }
  return clean({ ...kept, tenant: '', ...linked });
}

export const prefs = new Store<Prefs>(load());

// search is the query string that stands for the choices, with what a page adds to it.
export function search(): string {
  const q = new URLSearchParams();
  const p = prefs.get();
  for (const k of shared) if (p[k] !== defaults[k]) q.set(k, p[k]);
  const s = q.toString();
  return s === '' ? '' : `?${s}`;
}

export function choose(part: Partial<Prefs>): void {
  prefs.set(clean({ ...prefs.get(), ...part }));
  const { tenant: _, ...kept } = prefs.get();
  try {
    localStorage.setItem(key, JSON.stringify(kept));
  } catch {
    // the choice holds for this page only
  }
  history.replaceState(null, '', location.pathname + search() + location.hash);
}

export function currentWindow(): Window {
  return windows.find((w) => w.id === prefs.get().window) ?? windows[0];
}

export function zone(): string {
  return prefs.get().tz || Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
}

const darkSystem = matchMedia('(prefers-color-scheme: dark)');

export function isDark(): boolean {
  const t = prefs.get().theme;
  return t === 'dark' || (t === 'auto' && darkSystem.matches);
}

// dark is what is in force: the choice, or the system's.
export const dark = new Store(isDark());

function applyTheme(): void {
  dark.set(isDark());
  document.documentElement.dataset['theme'] = dark.get() ? 'dark' : 'light';
}

darkSystem.addEventListener('change', applyTheme);
prefs.watch(applyTheme);
applyTheme();
