// The overview answers five questions at a glance: how many orders, is that more or less, where from, is it fresh, is anything wrong. The rest is the window chosen.
import { useMemo } from 'preact/hooks';
import { usePoll, type KPISeries, type KPIWindow, type LiveKPIs, type MoneyKPIs, type Polled } from '../api.ts';
import { Chart, Spark } from '../chart.tsx';
import { micros } from '../decimal.ts';
import { Delta, Legend, Ranking, Tile } from '../figures.tsx';
import { compact, count, country, decimal, money, none, percent, seconds, trend } from '../format.ts';
import { currentWindow, prefs, type Window } from '../prefs.ts';
import { bucket, measures, ranking, settle } from '../series.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { live, tail } from '../stream.ts';
import { Badge, Block, Empty, Link, Loading, Panel, Prose, Table, useLost } from '../ui.tsx';

function sumOf(series: KPISeries | undefined, measure: string, from: number): number[] {
  if (!series) return [];
  const out: number[] = [];
  series.times.forEach((t, i) => {
    if (t < from) return;
    out.push(series.series.filter((s) => s.measure === measure).reduce((n, s) => n + (s.values[i] ?? 0), 0));
  });
  return out;
}

// Answers is always about the last minute, whatever window is chosen below.
function Answers() {
  const { message: m } = useStore(live);
  const base = useStore(tail);
  const lost = useLost();
  const countries = usePoll('/api/v1/kpis/series', { measures: 'orders,page_views', by: 'country', grain: '1s', from: '-60s', limit: 10 }, 3000);
  if (!m) return <Loading lines={5} />;
  const k = m.kpis ?? undefined;
  const t = k && trend(BigInt(k.total.orders), BigInt(k.previous.total.orders));
  const last = base?.times.at(-1) ?? 0;
  const h = m.health;
  const fresh = h.freshest_seconds;
  const by = biggest(countries.data);
  return (
    <section class={`answers ${lost ? 'old' : ''}`} aria-label="The last minute at a glance" data-as-of={m.as_of}>
      <div class="answer wide">
        <h2>Orders in the last minute</h2>
        <p class="figure" data-answer="orders">
          {k ? count(k.total.orders) : none}
        </p>
        <Spark values={sumOf(base, 'orders', last - 59)} />
      </div>
      <div class="answer">
        <h2>Trend</h2>
        <p class="figure" data-answer="trend">
          {t ? t.direction === 'level' ? 'Level' : <Delta t={t} /> : none}
        </p>
        <p class="sub">{k ? `${k.previous.total.orders === 0 ? 'none' : count(k.previous.total.orders)} in the minute before` : 'no figures yet'}</p>
      </div>
      <div class="answer">
        <h2>Biggest country</h2>
        <p class="figure name" data-answer="country">
          {by ? country(by.key) : none}
        </p>
        <p class="sub">{by ? `${percent(by.share)} of ${by.measure}` : countries.error ? 'not available' : 'no orders yet'}</p>
      </div>
      <div class="answer">
        <h2>Data is</h2>
        <p class="figure" data-answer="fresh">
          {fresh == null ? none : fresh < 10 ? 'Fresh' : fresh < 60 ? 'Late' : 'Stale'}
        </p>
        <p class="sub">{fresh == null ? (h.state === 'ok' ? 'no event has arrived yet' : 'age not known') : `newest event ${seconds(fresh)} old`}</p>
      </div>
      <div class={`answer verdict ${h.state}`}>
        <h2>Anything wrong?</h2>
        <p class="figure name" data-answer="wrong">
          <Badge state={h.state} word={h.state === 'ok' ? 'Nothing' : `${count(Math.max(1, h.reasons.length))} ${h.reasons.length > 1 ? 'problems' : 'problem'}`} />
        </p>
        <p class="sub">
          {h.state === 'ok' ? `${decimal(h.events_per_second)} events/s, lag ${compact(h.lag_records)}` : <Link to="/health">See reasons and remedies</Link>}
        </p>
      </div>
    </section>
  );
}

function biggest(s: KPISeries | undefined): { key: string; share: number; measure: string } | undefined {
  for (const [measure, words] of [
    ['orders', 'orders'],
    ['page_views', 'page views'],
  ] as const) {
    const rows = ranking(s, measure);
    const top = rows[0];
    if (top && top.n > 0) return { key: top.key, share: top.share, measure: words };
  }
  return undefined;
}

function Wrong() {
  const h = useStore(live).message?.health;
  if (!h || h.state === 'ok') return null;
  return (
    <div class={`banner ${h.state}`} role="status">
      <div>
        {h.reasons.slice(0, 3).map((r) => (
          <p key={r.part + r.message}>
            <strong>{r.part}:</strong> {r.message} <span class="remedy"><Prose text={r.remedy} /></span>
          </p>
        ))}
        {h.reasons.length > 3 && <p>and {h.reasons.length - 3} more</p>}
      </div>
      <Link to="/health">Pipeline health</Link>
    </div>
  );
}

// useWindow gives the figures of the chosen window: the live message holds those of a minute, longer ones are asked for.
function useWindow(w: Window): Polled<LiveKPIs> {
  const { message, at } = useStore(live);
  const live60 = w.seconds === 60;
  const asked = usePoll('/api/v1/kpis/live', { window: w.id }, w.poll || 60_000);
  if (!live60) return asked;
  const data = message?.kpis ?? undefined;
  return data ? { data, at, again: asked.again } : asked;
}

const tiles = [
  ['Visitors', 'visitors'],
  ['Page views', 'page_views'],
  ['Item views', 'item_views'],
  ['Cart adds', 'cart_adds'],
  ['Checkouts', 'checkouts'],
  ['Orders', 'orders'],
  ['Items sold', 'units'],
  ['Refunds', 'refunds'],
] as const;

function Tiles({ k }: { k: LiveKPIs }) {
  const points = (r: number | null) => (r == null ? undefined : BigInt(Math.round(r * 1e6)));
  const [c, p] = [points(k.total.conversion), points(k.previous.total.conversion)];
  return (
    <dl class="tiles" data-as-of={k.as_of}>
      {tiles.map(([label, field]) => (
        <Tile key={field} label={label} value={compact(k.total[field])} now={BigInt(k.total[field])} before={BigInt(k.previous.total[field])} />
      ))}
      <Tile label="Conversion" value={percent(k.total.conversion)} {...(c !== undefined && p !== undefined ? { now: c, before: p } : { hint: 'orders per visitor' })} />
      <Tile label="Items / order" value={decimal(k.total.units_per_order)} hint="on average" />
    </dl>
  );
}

function shown(rows: MoneyKPIs[], chosen: string): MoneyKPIs[] {
  return chosen === '' ? rows : rows.filter((r) => r.currency === chosen);
}

function Revenue({ now, before, chosen }: { now: KPIWindow; before: KPIWindow; chosen: string }) {
  const rows = shown(now.money, chosen);
  if (rows.length === 0) return <Empty>No order{chosen && ` in ${chosen}`} in this window.</Empty>;
  return (
    <Table
      label="Revenue by currency"
      class="money"
      rows={rows}
      id={(r) => r.currency}
      mark={(r) => ({ 'data-currency': r.currency })}
      columns={[
        { head: 'Currency', row: true, cell: (r) => r.currency },
        { head: 'Revenue', n: true, class: 'strong', cell: (r) => money(r.revenue, r.currency) },
        { head: 'Change', n: true, cell: (r) => <Delta t={trend(micros(r.revenue) ?? 0n, micros(before.money.find((b) => b.currency === r.currency)?.revenue ?? '0') ?? 0n)} /> },
        { head: 'Orders', n: true, cell: (r) => count(r.orders) },
        { head: 'Per order', n: true, cell: (r) => money(r.aov, r.currency) },
        { head: 'Refunded', n: true, class: 'extra', cell: (r) => money(r.refund_value, r.currency) },
      ]}
    />
  );
}

// useSeries gives the last minutes second by second from the live stream, longer windows from the API.
function useSeries(w: Window): Polled<KPISeries> {
  const t = useStore(tail);
  const at = useStore(live).at;
  const streamed = w.seconds <= 300;
  const asked = usePoll('/api/v1/kpis/series', { measures: measures.join(','), grain: streamed ? '1s' : w.grain, from: `-${w.id}`, limit: 10 }, streamed ? 60_000 : w.poll);
  return useMemo(() => {
    if (!streamed) return asked;
    if (!t) return asked;
    const from = (t.times.at(-1) ?? 0) - w.seconds + 1;
    const first = Math.max(0, t.times.findIndex((x) => x >= from));
    return { data: settle({ ...t, times: t.times.slice(first), series: t.series.map((s) => ({ ...s, values: s.values.slice(first) })) }), at, again: asked.again };
  }, [streamed, t, at, asked.data, asked.error, w.seconds]);
}

type Picked = { times: number[]; values: (number | null)[] };

function pick(s: KPISeries, w: Window, measure: string, currency = ''): Picked {
  const one = s.series.find((x) => x.measure === measure && x.currency === currency);
  return bucket(s.times, one?.values ?? s.times.map(() => 0), w.bucket);
}

const per = (w: Window) => (w.bucket === 1 ? 'per second' : w.bucket < 60 ? `per ${w.bucket} seconds` : w.bucket === 60 ? 'per minute' : `per ${w.bucket / 60} minutes`);

function Charts({ s, w, chosen, ranked }: { s: KPISeries; w: Window; chosen: string; ranked: string[] }) {
  const orders = useMemo(() => pick(s, w, 'orders'), [s, w]);
  const activity = useMemo(() => [pick(s, w, 'page_views'), pick(s, w, 'cart_adds'), pick(s, w, 'checkouts')], [s, w]);
  // The currencies with most orders first, as in the table of revenue.
  const place = (c: string) => (ranked.includes(c) ? ranked.indexOf(c) : ranked.length);
  const currencies = s.series
    .filter((x) => x.measure === 'revenue' && (chosen === '' || x.currency === chosen))
    .map((x) => x.currency)
    .sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  return (
    <>
      <Panel title="Orders" note={per(w)} class="c-orders">
        <Chart times={orders.times} curves={[{ label: 'Orders', values: orders.values, color: 1 }]} kind="bars" label="Orders" step={w.bucket} height={190} />
      </Panel>
      <Panel title="Shop activity" note={per(w)} class="c-activity" tools={<Legend items={['Page views', 'Cart adds', 'Checkouts']} />}>
        <Chart
          times={activity[0]?.times ?? []}
          curves={['Page views', 'Cart adds', 'Checkouts'].map((label, i) => ({ label, values: activity[i]?.values ?? [], color: i + 1 }))}
          kind="lines"
          label="Page views, cart adds and checkouts"
          step={w.bucket}
          height={190}
        />
      </Panel>
      <Panel title="Revenue" note={`${per(w)}, each currency on its own scale`} class="c-revenue">
        {currencies.length === 0 ? (
          <Empty>No revenue{chosen && ` in ${chosen}`} in this window.</Empty>
        ) : (
          <div class="multiples">
            {currencies.slice(0, 8).map((c) => {
              const r = pick(s, w, 'revenue', c);
              return (
                <figure key={c}>
                  <figcaption>{c}</figcaption>
                  <Chart times={r.times} curves={[{ label: c, values: r.values, color: 4 }]} kind="bars" label={`Revenue in ${c}`} step={w.bucket} height={currencies.length > 2 ? 116 : 150} />
                </figure>
              );
            })}
          </div>
        )}
      </Panel>
    </>
  );
}

const deviceNames: Record<string, string> = { '': 'Unknown', mobile: 'Mobile', desktop: 'Desktop', tablet: 'Tablet' };

function Breakdown({ w }: { w: Window }) {
  const grain = w.seconds <= 900 ? '1s' : '1m';
  const query = { grain, from: `-${w.id}`, measures: 'orders', limit: 8 } as const;
  const period = Math.max(3000, w.poll);
  const countries = usePoll('/api/v1/kpis/series', { ...query, by: 'country' }, period);
  const devices = usePoll('/api/v1/kpis/series', { ...query, by: 'device' }, period);
  const none = <Empty>No order in this window.</Empty>;
  const rowsOf = (s: KPISeries) => ranking(s, 'orders').filter((r) => r.n > 0);
  return (
    <>
      <Panel title="Orders by country" note="share of those shown" class="c-country">
        <Block of={countries}>{(s) => (rowsOf(s).length === 0 ? none : <Ranking rows={rowsOf(s)} name={country} />)}</Block>
      </Panel>
      <Panel title="Orders by device" class="c-device">
        <Block of={devices} lines={3}>
          {(s) => (rowsOf(s).length === 0 ? none : <Ranking rows={rowsOf(s)} name={(k) => deviceNames[k] ?? k} />)}
        </Block>
      </Panel>
    </>
  );
}

const steps = [
  ['Item views', 'item_views'],
  ['Cart adds', 'cart_adds'],
  ['Checkouts', 'checkouts'],
  ['Orders', 'orders'],
] as const;

function Funnel({ k }: { k: LiveKPIs }) {
  const first = k.total.item_views;
  if (first === 0) return <Empty>No item was looked at in this window.</Empty>;
  return (
    <ol class="ranking funnel">
      {steps.map(([label, field], i) => {
        const n = k.total[field];
        const above = i === 0 ? null : k.total[steps[i - 1]?.[1] ?? 'item_views'];
        return (
          <li key={field}>
            <span class="label">{label}</span>
            <span class="n">{compact(n)}</span>
            <span class="n share">{above ? percent(n / above) : ''}</span>
            <meter min={0} max={Math.max(first, 1)} value={n} aria-hidden="true" />
          </li>
        );
      })}
    </ol>
  );
}

export function Overview() {
  const p = useStore(prefs);
  const w = currentWindow();
  const kpis = useWindow(w);
  const series = useSeries(w);
  const lost = useLost();
  const now = useStore(clock);
  const of = kpis.data;
  return (
    <>
      <Title title="Overview">
        <Choices window currency />
      </Title>
      <Wrong />
      <Answers />
      <div class={`grid overview ${lost ? 'old' : ''}`}>
        <Panel title="Key figures" note={`last ${w.words}, against the ${w.words} before`} class="c-tiles">
          <Block of={kpis}>{(k) => <Tiles k={k} />}</Block>
        </Panel>
        <Panel title="Revenue by currency" note="never added up across currencies" class="c-money">
          <Block of={kpis}>{(k) => <Revenue now={k} before={k.previous} chosen={p.currency} />}</Block>
        </Panel>
        {series.data ? (
          <Charts s={series.data} w={w} chosen={p.currency} ranked={of?.currencies ?? []} />
        ) : (
          <Panel title="Orders" class="c-orders">
            <Block of={series} lines={6}>
              {() => null}
            </Block>
          </Panel>
        )}
        <Breakdown w={w} />
        <Panel title="Funnel" note="share of the step before" class="c-funnel">
          <Block of={kpis}>{(k) => <Funnel k={k} />}</Block>
        </Panel>
      </div>
      {of && (
        <p class="source note">
          Figures end {seconds(Math.max(0, (now - Date.parse(of.as_of)) / 1000))} ago, read from {of.source === 'redis' ? 'Redis' : 'ClickHouse'}.
        </p>
      )}
    </>
  );
}
