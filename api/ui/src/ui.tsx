// The pieces that pages are made of.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { ApiError, Polled, State } from './api.ts';
import { count, seconds } from './format.ts';
import { layout } from './json.ts';
import { link } from './link.ts';
import { navigate } from './router.ts';
import { search } from './prefs.ts';
import { clock, useStore } from './store.ts';

type Children = { children?: ComponentChildren };

// Link goes to a page without loading it anew.
export function Link({ to, class: cls, current, children }: Children & { to: string; class?: string; current?: boolean }) {
  return (
    <a
      class={cls}
      href={to + search()}
      aria-current={current ? 'page' : undefined}
      onClick={(e) => {
        if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
        e.preventDefault();
        navigate(to);
      }}
    >
      {children}
    </a>
  );
}

// Out is a link to another program. Addresses come with data, so anything but http is shown as text.
export function Out({ href, children }: Children & { href: string }) {
  if (!/^https?:\/\//i.test(href)) return <>{children}</>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {children}
      <span class="out" aria-hidden="true"> ↗</span>
      <span class="hidden"> (opens in a new tab)</span>
    </a>
  );
}

export function Panel({ title, note, tools, class: cls, children }: Children & { title: string; note?: ComponentChildren; tools?: ComponentChildren; class?: string }) {
  return (
    <section class={`panel ${cls ?? ''}`}>
      <header>
        <h2>{title}</h2>
        {note && <p class="note">{note}</p>}
        {tools && <div class="tools">{tools}</div>}
      </header>
      {children}
    </section>
  );
}

// Prose is a sentence in which `…` stands for code.
export function Prose({ text }: { text: string }) {
  return <>{text.split('`').map((part, i) => (i % 2 === 1 ? <code key={i}>{part}</code> : part))}</>;
}

export function Failure({ error, again }: { error: ApiError; again?: () => void }) {
  const p = error.problem;
  return (
    <div class="state failure">
      <p>
        <strong>{p?.title ?? 'Not available'}</strong>
      </p>
      <p>{error.message}</p>
      {p?.errors?.map((e) => (
        <p key={e.field}>
          <code>{e.field}</code>: {e.message}
        </p>
      ))}
      {p?.remedy && (
        <p class="remedy">
          <Prose text={p.remedy} />
        </p>
      )}
      <p class="actions">
        {again && (
          <button type="button" onClick={again}>
            Try again
          </button>
        )}
        {p?.id && <code>{p.id}</code>}
      </p>
    </div>
  );
}

export const Empty = ({ children }: Children) => <div class="state empty">{children}</div>;

export const Loading = ({ lines = 4 }: { lines?: number }) => (
  <div class="state loading" role="status">
    <span class="hidden">Loading…</span>
    {Array.from({ length: lines }, (_, i) => (
      <span class="bone" key={i} aria-hidden="true" />
    ))}
  </div>
);

// Block shows what was asked for in each of its states: on its way, refused, here, and here but old.
export function Block<T>({ of, lines, children }: { of: Polled<T>; lines?: number; children: (data: T) => ComponentChildren }) {
  const now = useStore(clock);
  if (of.data === undefined) return of.error ? <Failure error={of.error} again={of.again} /> : <Loading {...(lines ? { lines } : {})} />;
  return (
    <>
      {of.error && (
        <p class="outdated" role="status">
          As of {seconds((now - of.at) / 1000)} ago: {of.error.message}
        </p>
      )}
      <div class={of.error ? 'old' : undefined}>{children(of.data)}</div>
    </>
  );
}

const marks: Record<State, { icon: string; word: string }> = {
  ok: { icon: '✓', word: 'OK' },
  degraded: { icon: '!', word: 'Degraded' },
  down: { icon: '✕', word: 'Down' },
};

export function Badge({ state, word }: { state: State; word?: string }) {
  const m = marks[state] ?? marks.degraded;
  return (
    <span class={`badge ${state}`}>
      <span aria-hidden="true" class="icon">
        {m.icon}
      </span>
      {word ?? m.word}
    </span>
  );
}

const outcomes: Record<string, { cls: string; icon: string }> = {
  done: { cls: 'ok', icon: '✓' },
  equal: { cls: 'ok', icon: '✓' },
  repaired: { cls: 'ok', icon: '✓' },
  differs: { cls: 'down', icon: '✕' },
  running: { cls: 'running', icon: '▸' },
  partial: { cls: 'degraded', icon: '!' },
  canceled: { cls: 'degraded', icon: '!' },
  skipped: { cls: '', icon: '–' },
  failed: { cls: 'down', icon: '✕' },
  missing: { cls: 'down', icon: '?' },
};

// Outcome is how a run or one of its steps ended; short shows the mark alone.
export function Outcome({ of, short, note }: { of: string; short?: boolean; note?: string }) {
  const l = outcomes[of] ?? { cls: 'degraded', icon: '!' };
  return (
    <span class={`badge ${l.cls}`} title={note || of}>
      <span aria-hidden="true" class="icon">
        {l.icon}
      </span>
      <span class={short ? 'hidden' : undefined}>{of}</span>
    </span>
  );
}

type Choice = { id: string; label: string };

export function Segments({ label, value, choices, choose }: { label: string; value: string; choices: readonly Choice[]; choose: (id: string) => void }) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {choices.map((c) => (
        <button type="button" key={c.id} aria-pressed={c.id === value} onClick={() => choose(c.id)}>
          {c.label}
        </button>
      ))}
    </div>
  );
}

export function Select({ label, value, choose, children }: Children & { label: string; value: string; choose: (v: string) => void }) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(e) => choose(e.currentTarget.value)}>
        {children}
      </select>
    </label>
  );
}

// More is the button below a table that shows its first rows only.
export function More({ hidden, what, show }: { hidden: number; what: string; show: () => void }) {
  if (hidden <= 0) return null;
  return (
    <p class="more">
      <button type="button" onClick={show}>
        Show {count(hidden)} {what}
      </button>
    </p>
  );
}

// Sideways is a wide table that scrolls by itself, by keyboard too.
export function Sideways({ label, children }: Children & { label: string }) {
  return (
    <div class="sideways" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

// Json shows text as it was sent, with what lies at the path marked.
export function Json({ text, path = '', label }: { text: string; path?: string; label: string }) {
  const l = layout(text, path);
  return (
    <>
      {path !== '' && l.found === 'parent' && <p class="note">Nothing is at this path; what would hold it is marked.</p>}
      {path !== '' && l.found === 'none' && <p class="note">The payload has no <code>{path}</code>.</p>}
      <pre class="json" tabIndex={0} role="region" aria-label={label}>
        {l.lines.map((line, i) => (
          <span key={i} class={line.marked ? 'line marked' : 'line'}>
            {'  '.repeat(Math.min(line.indent, 40))}
            {line.tokens.map((t, j) =>
              t.marked ? (
                <mark key={j} class={t.kind}>
                  {t.text}
                </mark>
              ) : (
                <span key={j} class={t.kind}>
                  {t.text}
                </span>
              ),
            )}
            {'\n'}
          </span>
        ))}
        {l.cut && <span class="line bad">… (cut off)</span>}
      </pre>
    </>
  );
}

// useLate is true once a condition has lasted for a while, so that a blink of the connection alarms nobody.
export function useLate(condition: boolean, ms: number): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    if (!condition) {
      setLate(false);
      return;
    }
    const t = setTimeout(() => setLate(true), ms);
    return () => clearTimeout(t);
  }, [condition, ms]);
  return condition && late;
}

// useLost says whether what the live stream gave is to be shown as old.
export function useLost(): boolean {
  return useStore(link).state === 'lost';
}
