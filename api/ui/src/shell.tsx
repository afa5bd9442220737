// The frame around every page: name, navigation, choices, the state of the connection, keyboard.
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { clockTime, seconds } from './format.ts';
import { link } from './link.ts';
import { choose, dark, prefs, validZone, windows, type Theme } from './prefs.ts';
import { navigate, pages, route, type Page } from './router.ts';
import { clock, Store, useStore } from './store.ts';
import { live, reconnect } from './stream.ts';
import { Link, Segments, Select, useLate } from './ui.tsx';

const help = new Store(false);

const themes: { id: Theme; label: string }[] = [
  { id: 'auto', label: 'Auto' },
  { id: 'light', label: 'Light' },
  { id: 'dark', label: 'Dark' },
];

function Nav({ page }: { page: Page | undefined }) {
  const health = useStore(live).message?.health;
  useEffect(() => {
    // On a narrow screen the row of pages scrolls.
    const nav = document.querySelector<HTMLElement>('nav');
    const here = nav?.querySelector<HTMLElement>('[aria-current]');
    if (nav && here) nav.scrollLeft = here.offsetLeft - nav.clientWidth / 2 + here.offsetWidth / 2;
  }, [page]);
  return (
    <nav aria-label="Pages">
      <ul>
        {pages.map((p) => (
          <li key={p.path}>
            <Link to={p.path} current={p === page}>
              {p.title}
              {p.path === '/health' && health && health.state !== 'ok' && <span class={`dot ${health.state}`} role="img" aria-label={health.state} />}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function zones(): string[] {
  return ['UTC', ...Intl.supportedValuesOf('timeZone').filter((z) => z !== 'UTC' && validZone(z))];
}

// Choices are those of the page in front: window and currency only where they mean something.
export function Choices({ window: w, currency: c }: { window?: boolean; currency?: boolean }) {
  const p = useStore(prefs);
  const kpis = useStore(live).message?.kpis;
  const all = useMemo(zones, []);
  const currencies = [...new Set([...(kpis?.currencies ?? []), ...(p.currency ? [p.currency] : [])])].sort();
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return (
    <div class="choices">
      {w && <Segments label="Window" value={p.window} choices={windows} choose={(id) => choose({ window: id })} />}
      {c && (
        <Select label="Currency" value={p.currency} choose={(v) => choose({ currency: v })}>
          <option value="">All, side by side</option>
          {currencies.map((x) => (
            <option key={x} value={x}>
              {x}
            </option>
          ))}
        </Select>
      )}
      <Select label="Time zone" value={p.tz} choose={(v) => choose({ tz: v })}>
        <option value="">Browser ({own})</option>
        {all.map((z) => (
          <option key={z} value={z}>
            {z}
          </option>
        ))}
      </Select>
    </div>
  );
}

// Title is the head of a page; the heading can take the focus after navigation.
export function Title({ title, children, note }: { title: string; note?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="title">
      <div>
        <h1 tabIndex={-1}>{title}</h1>
        {note && <p class="note">{note}</p>}
      </div>
      {children}
    </div>
  );
}

function Connection() {
  const l = useStore(link);
  const { message } = useStore(live);
  const lost = useLate(l.state === 'lost', 1500);
  const word = lost ? 'Reconnecting' : l.state === 'open' ? 'Live' : 'Connecting';
  return (
    <p class={`connection ${lost ? 'lost' : l.state}`} data-connection={l.state}>
      <span class="pulse" aria-hidden="true" />
      {word}
      {message && <span class="asof"> {clockTime(message.as_of)}</span>}
    </p>
  );
}

function LostBanner() {
  const l = useStore(link);
  const now = useStore(clock);
  const { at } = useStore(live);
  const lost = useLate(l.state === 'lost', 1500);
  return (
    <div role="status" class="banners">
      {lost && (
        <div class="banner lost">
          <p>
            <strong>Reconnecting to the platform…</strong>{' '}
            {at > 0 ? `What is greyed was read ${seconds((now - at) / 1000)} ago. ` : ''}
            <span aria-hidden="true">Next try {l.retryAt > now ? `in ${seconds((l.retryAt - now) / 1000)}` : 'now'}.</span>
          </p>
          <button type="button" onClick={reconnect}>
            Try now
          </button>
        </div>
      )}
    </div>
  );
}

const keys: [string, string][] = [
  [`g then ${pages.map((p) => p.key).join(' ')}`, `go to ${pages.map((p) => p.title).join(', ')}`],
  ['[ and ]', 'shorter and longer window'],
  ['d', 'dark or light'],
  ['/', 'into the first filter of the page'],
  ['space', 'pause or go on (live events)'],
  ['?', 'this help'],
];

function Help() {
  const open = useStore(help);
  const p = useStore(prefs);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const d = dialog.current;
    if (open && d && !d.open) d.showModal();
    if (!open && d?.open) d.close();
  }, [open]);
  return (
    <dialog ref={dialog} aria-labelledby="help-title" onClose={() => help.set(false)}>
      <h2 id="help-title">Keyboard</h2>
      <dl class="keys">
        {keys.map(([k, what]) => (
          <div key={k}>
            <dt>
              <kbd>{k}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label class="check">
        <input type="checkbox" checked={p.shortcuts} onChange={(e) => choose({ shortcuts: e.currentTarget.checked })} /> Shortcuts of one key are on
      </label>
      <p class="actions">
        <button type="button" onClick={() => help.set(false)}>
          Close
        </button>
      </p>
    </dialog>
  );
}

function useKeys(): void {
  useEffect(() => {
    let g = 0;
    const onKey = (e: KeyboardEvent) => {
      const el = e.target as HTMLElement;
      if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || help.get()) return;
      if (/^(INPUT|SELECT|TEXTAREA)$/.test(el.tagName) || el.isContentEditable) return;
      if (!prefs.get().shortcuts && e.key !== '?') return;
      if (g > Date.now()) {
        g = 0;
        const page = pages.find((p) => p.key === e.key);
        if (page) {
          e.preventDefault();
          navigate(page.path);
          return;
        }
      }
      const at = windows.findIndex((w) => w.id === prefs.get().window);
      switch (e.key) {
        case 'g':
          g = Date.now() + 1500;
          return;
        case '?':
          help.set(true);
          break;
        case 'd':
          choose({ theme: dark.get() ? 'light' : 'dark' });
          break;
        case '[':
        case ']': {
          const next = windows[at + (e.key === '[' ? -1 : 1)];
          if (next) choose({ window: next.id });
          break;
        }
        case '/':
          document.querySelector<HTMLElement>('main input, main select')?.focus();
          break;
        default:
          return;
      }
      e.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
}

export function Shell({ children }: { children: ComponentChildren }) {
  const path = useStore(route);
  const page = pages.find((p) => p.path === path);
  const theme = useStore(prefs).theme;
  const orders = useStore(live).message?.kpis?.total.orders;
  useKeys();
  useEffect(() => {
    document.title = `${page?.title ?? 'Not found'}${path === '/' && orders !== undefined ? ` · ${orders} orders/min` : ''} · Millrace`;
  }, [page, path, orders]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(e) => {
          e.preventDefault();
          document.getElementById('main')?.focus();
        }}
      >
        Skip to content
      </a>
      <header class="top">
        <p class="brand">
          <img src="/favicon.svg" width="24" height="24" alt="" />
          Millrace
        </p>
        <Connection />
        <Nav page={page} />
        <div class="foot">
          <Segments label="Theme" value={theme} choices={themes} choose={(id) => choose({ theme: id as Theme })} />
          <button type="button" class="quiet" onClick={() => help.set(true)}>
            <kbd>?</kbd> Keyboard
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <LostBanner />
        {children}
      </main>
      <Help />
    </>
  );
}
