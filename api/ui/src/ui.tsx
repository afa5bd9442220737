// The pieces that pages are made of.
import { Fragment, type ComponentChildren } from 'preact';
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

// Block shows what was asked for in each of its states: on its way, refused, not there (which may be normal), here, and here but old.
export function Block<T>({ of, lines, absent, children }: { of: Polled<T>; lines?: number; absent?: ComponentChildren; children: (data: T) => ComponentChildren }) {
  const now = useStore(clock);
  if (absent && of.error?.problem?.status === 404) return <Empty>{absent}</Empty>;
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

const icons: Record<string, string> = { ok: '✓', running: '▸', degraded: '!', down: '✕', '': '–' };

// Mark is a word in the colours of a state, with a sign that says the same; short shows the sign alone.
export function Mark({ state, word, icon, short, note }: { state: string; word: string; icon?: string; short?: boolean; note?: string }) {
  return (
    <span class={`badge ${state}`} title={note}>
      <span aria-hidden="true" class="icon">
        {icon ?? icons[state] ?? '!'}
      </span>
      <span class={short ? 'hidden' : undefined}>{word}</span>
    </span>
  );
}

const words: Record<State, string> = { ok: 'OK', degraded: 'Degraded', down: 'Down' };

export const Badge = ({ state, word }: { state: State; word?: string }) => <Mark state={state} word={word ?? words[state]} />;

const outcomes: Record<string, string> = { done: 'ok', equal: 'ok', repaired: 'ok', differs: 'down', running: 'running', partial: 'degraded', canceled: 'degraded', skipped: '', failed: 'down', missing: 'down' };

// Outcome is how a run or one of its steps ended.
export const Outcome = ({ of, short, note }: { of: string; short?: boolean; note?: string }) => (
  <Mark state={outcomes[of] ?? 'degraded'} word={of} note={note || of} {...(short ? { short } : {})} {...(of === 'missing' ? { icon: '?' } : {})} />
);

// Severity is how much an alert asks for attention.
export const Severity = ({ of }: { of: string }) => <Mark state={of === 'critical' ? 'down' : of === 'warn' ? 'degraded' : ''} word={of} />;

// Column is one of a table: n is a number, row names the row.
export type Column<R> = { head: ComponentChildren; cell: (row: R, i: number) => ComponentChildren; n?: boolean; row?: boolean; class?: string; title?: string };

type TableOf<R> = {
  label: string;
  columns: Column<R>[];
  rows: readonly R[];
  id: (row: R) => string | number;
  class?: string;
  mark?: (row: R) => { class?: string | undefined; [data: `data-${string}`]: string };
  below?: (row: R) => ComponentChildren; // what an open row shows
};

// Table is a table of rows that scrolls by itself where it is too wide.
export function Table<R>({ label, columns, rows, id, class: cls = 'rows', mark, below }: TableOf<R>) {
  const classes = (c: Column<R>) => [c.n && 'n', c.class].filter(Boolean).join(' ') || undefined;
  return (
    <Sideways label={label}>
      <table class={cls}>
        <thead>
          <tr>
            {columns.map((c, i) => (
              <th scope="col" key={i} class={classes(c)} title={c.title}>
                {c.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((r, n) => {
            const more = below?.(r);
            return (
              <Fragment key={id(r)}>
                <tr {...mark?.(r)}>
                  {columns.map((c, i) =>
                    c.row ? (
                      <th scope="row" key={i} class={classes(c)}>
                        {c.cell(r, n)}
                      </th>
                    ) : (
                      <td key={i} class={classes(c)}>
                        {c.cell(r, n)}
                      </td>
                    ),
                  )}
                </tr>
                {more && (
                  <tr class="details">
                    <td colSpan={columns.length} id={`below-${id(r)}`}>
                      {more}
                    </td>
                  </tr>
                )}
              </Fragment>
            );
          })}
        </tbody>
      </table>
    </Sideways>
  );
}

// Twist opens what is below a row of a table.
export function Twist({ open, row, toggle, children }: Children & { open: boolean; row: string | number; toggle: () => void }) {
  return (
    <button type="button" class="row" aria-expanded={open} aria-controls={`below-${row}`} onClick={toggle}>
      <span aria-hidden="true" class="twist">
        ▸
      </span>
      {children}
      <span class="hidden"> details</span>
    </button>
  );
}

// Search is a field for text that is looked for; ideas are offered while one types.
export function Search({ label, value, change, placeholder, grow, ideas }: { label: string; value: string; change: (v: string) => void; placeholder?: string; grow?: boolean; ideas?: readonly Choice[] }) {
  const list = `ideas-${label.replaceAll(' ', '-')}`;
  return (
    <label class={`field ${grow ? 'grow' : ''}`}>
      <span>{label}</span>
      <input type="search" value={value} maxLength={128} placeholder={placeholder} autocomplete="off" spellcheck={false} list={ideas && list} onInput={(e) => change(e.currentTarget.value)} />
      {ideas && (
        <datalist id={list}>
          {ideas.map((i) => (
            <option key={i.id} value={i.id}>
              {i.label}
            </option>
          ))}
        </datalist>
      )}
    </label>
  );
}

export type Choice = { id: string; label: string };

// Segments are choices side by side; their label is for screen readers alone unless it is to be shown.
export function Segments({ label, value, choices, choose, shown }: { label: string; value: string; choices: readonly Choice[]; choose: (id: string) => void; shown?: boolean }) {
  const row = (
    <div class="segments" role="group" aria-label={label}>
      {choices.map((c) => (
        <button type="button" key={c.id} aria-pressed={c.id === value} onClick={() => choose(c.id)}>
          {c.label}
        </button>
      ))}
    </div>
  );
  if (!shown) return row;
  return (
    <div class="field">
      <span aria-hidden="true">{label}</span>
      {row}
    </div>
  );
}

// Options are those of a Select, each called by its own name.
export const Options = ({ of }: { of: readonly string[] }) => (
  <>
    {of.map((x) => (
      <option key={x} value={x}>
        {x}
      </option>
    ))}
  </>
);

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
