// Figures: numbers with their change, and what is ranked.
import type { ComponentChildren } from 'preact';
import { compact, percent, trend, type Trend } from './format.ts';
import type { Rank } from './series.ts';

const arrows = { up: '▲', down: '▼', level: '＝' } as const;
const directions = { up: 'up', down: 'down', level: '' } as const;

export function Delta({ t }: { t: Trend }) {
  return (
    <span class={`delta ${t.direction}`}>
      <span aria-hidden="true">{t.direction === 'level' ? '' : arrows[t.direction]} </span>
      <span class="hidden">{directions[t.direction]} </span>
      {t.text}
    </span>
  );
}

export function Tile({ label, value, now, before, hint }: { label: string; value: string; now?: bigint; before?: bigint; hint?: string }) {
  return (
    <div class="tile">
      <dt>{label}</dt>
      <dd>
        <span class="value">{value}</span>
        {now !== undefined && before !== undefined && <Delta t={trend(now, before)} />}
        {hint && <span class="sub">{hint}</span>}
      </dd>
    </div>
  );
}

// Facts are a few values with their names.
export function Facts({ of }: { of: [string, string][] }) {
  return (
    <dl class="facts">
      {of.map(([k, v]) => (
        <div key={k}>
          <dt>{k}</dt>
          <dd class="value">{v}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Legend({ items, colors }: { items: string[]; colors?: number[] }) {
  return (
    <ul class="legend" aria-label="Legend">
      {items.map((x, i) => (
        <li key={x} class={`k${colors?.[i] ?? i + 1}`}>
          {x}
        </li>
      ))}
    </ul>
  );
}

export function Ranking({ rows, name }: { rows: Rank[]; name: (key: string) => ComponentChildren }) {
  const top = rows[0]?.n ?? 1;
  return (
    <ol class="ranking">
      {rows.map((r) => (
        <li key={r.key}>
          <span class="label">{name(r.key)}</span>
          <span class="n">{compact(r.n)}</span>
          <span class="n share">{percent(r.share)}</span>
          <meter min={0} max={top} value={r.n} aria-hidden="true" />
        </li>
      ))}
    </ol>
  );
}

