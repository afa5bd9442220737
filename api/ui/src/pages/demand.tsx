// Demand: what there is of each product, how much of it will be asked for, and where a price would be looked for.
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { usePoll, type ProductDemand } from '../api.ts';
import { Chart } from '../chart.tsx';
import { Facts, Legend, Tile } from '../figures.tsx';
import { age, compact, count, decimal, hours, money, none, percent, sentence } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Mark, More, Panel, Search, Segments, Table } from '../ui.tsx';

const leads = [
  { id: '1d', label: '1 day' },
  { id: '3d', label: '3 days' },
  { id: '7d', label: '7 days' },
  { id: '14d', label: '14 days' },
] as const;

const which = [
  { id: 'false', label: 'Best sellers' },
  { id: 'true', label: 'Low stock' },
] as const;

const likely = 0.2; // the probability of selling out from which a product stands out

type Units = NonNullable<ProductDemand['lead']>;

const interval = (u: Units) => `${compact(u.low)} to ${compact(u.high)}`;

function Stock({ p }: { p: ProductDemand }) {
  if (p.stock === null) return <span class="sub">not known</span>;
  return p.stock <= 0 ? <Mark state="down" word="none left" /> : p.low ? <Mark state="degraded" word={`${compact(p.stock)}, low`} /> : <>{compact(p.stock)}</>;
}

function Risk({ p }: { p: ProductDemand }) {
  if (p.stock_out === null) return <>{none}</>;
  const state = p.stock_out >= 0.5 ? 'down' : p.stock_out >= likely ? 'degraded' : '';
  return state ? <Mark state={state} word={percent(p.stock_out)} /> : <>{p.stock_out < 0.001 ? '< 0.1%' : percent(p.stock_out)}</>;
}

const Lead = ({ p }: { p: ProductDemand }) =>
  p.lead ? (
    <>
      <span class="strong">{compact(Math.round(p.lead.mean))}</span> <span class="around">{interval(p.lead)}</span>
    </>
  ) : (
    <>{none}</>
  );

const bases: Record<ProductDemand['basis'], string> = { forecast: 'forecast', sales: 'sales', none: 'nothing yet' };

type Price = NonNullable<ProductDemand['price']>;

const at = (b: Price, v: number | null) => (v === null ? none : money(v.toFixed(2), b.currency));

function band(b: Price): string {
  const [low, high] = [at(b, b.low), at(b, b.high)];
  return low === high ? low : `${low} to ${high}`;
}

const priceOf = (p: ProductDemand) => (!p.price ? none : p.price.state === 'band' ? band(p.price) : 'not varied');

function Products({ rows, chosen, choose }: { rows: ProductDemand[]; chosen: string; choose: (id: string) => void }) {
  return (
    <Table
      label="Products"
      rows={rows}
      id={(p) => p.product_id}
      mark={(p) => ({ class: p.product_id === chosen ? 'chosen' : undefined, 'data-product': p.product_id })}
      columns={[
        {
          head: 'Product',
          row: true,
          cell: (p) => (
            <button type="button" class="plain" aria-pressed={p.product_id === chosen} onClick={() => choose(p.product_id)}>
              {p.product_id}
            </button>
          ),
        },
        { head: 'Stock', n: true, cell: (p) => <Stock p={p} /> },
        { head: 'Sold, 24 h', n: true, cell: (p) => compact(p.sold_24h) },
        { head: 'Until delivery', n: true, title: 'Demand until a delivery that is ordered now, and what holds it with 90%', cell: (p) => <Lead p={p} /> },
        { head: 'Lasts', n: true, title: 'Until the stock is gone as forecast', cell: (p) => (p.cover_hours !== null && p.cover_hours >= 2160 ? '90+ days' : hours(p.cover_hours)) },
        { head: 'Sells out first', n: true, title: 'Probability that the stock does not last until the delivery', cell: (p) => <Risk p={p} /> },
        { head: 'By', cell: (p) => bases[p.basis] },
        { head: 'Price band', cell: priceOf },
      ]}
    />
  );
}

function Figures({ rows }: { rows: ProductDemand[] }) {
  const known = rows.filter((p) => p.stock !== null);
  const out = known.filter((p) => (p.stock ?? 0) <= 0).length;
  const risky = rows.filter((p) => (p.stock_out ?? 0) >= likely).length;
  const fitted = rows.filter((p) => p.basis === 'forecast').length;
  return (
    <dl class="tiles">
      <Tile label="Low stock" value={count(rows.filter((p) => p.low).length)} hint="somebody was told" />
      <Tile label="Likely to sell out" value={count(risky)} hint={`${percent(likely)} or more before delivery`} />
      <Tile label="None left" value={count(out)} hint={`of ${count(known.length)} with a known stock`} />
      <Tile label="With a forecast" value={count(fitted)} hint={`of ${count(rows.length)} listed`} />
    </dl>
  );
}

function Hours({ p }: { p: ProductDemand }) {
  const chart = useMemo(
    () => ({
      times: p.hours.map((h) => Date.parse(h.at) / 1000),
      curves: [
        { label: 'Sold', values: p.hours.map((h) => h.sold), color: 4 },
        { label: 'Forecast', values: p.hours.map((h) => h.expected), color: 2, line: true },
      ],
    }),
    [p.hours],
  );
  const past = p.hours.filter((h) => h.sold !== null && h.expected !== null);
  if (p.hours.length === 0) return <Empty>Nothing was sold in the last week.</Empty>;
  const sum = (of: (h: (typeof past)[number]) => number | null) => past.reduce((n, h) => n + (of(h) ?? 0), 0);
  return (
    <>
      <Chart {...chart} kind="bars" label={`Units of ${p.product_id} sold and forecast by hour`} step={3600} height={220} format={decimal} />
      <p class="note">
        {past.length > 0
          ? `Of the ${count(past.length)} hours before now: ${compact(sum((h) => h.sold))} sold, ${compact(Math.round(sum((h) => h.expected)))} as the forecast now explains them.`
          : p.basis === 'forecast'
            ? 'The forecast begins now.'
            : 'There is no forecast of this product yet: it needs 20 days since its first sale.'}
      </p>
    </>
  );
}

function Forecast({ p }: { p: ProductDemand }) {
  const now = useStore(clock);
  const f = p.forecast;
  if (!f) return <Empty>No night has fitted this product yet: millrace workflows start ForecastDemand, or the step "forecasts" of a night.</Empty>;
  return (
    <>
      <Facts
        of={[
          ['Next 7 days', p.week ? compact(Math.round(p.week.mean)) : none],
          ['90% within', p.week ? interval(p.week) : none],
          ['Error (MASE)', f.mase === null ? none : f.mase.toFixed(2)],
          ['As a week ago', f.naive_mase === null ? none : f.naive_mase.toFixed(2)],
        ]}
      />
      <p class="told">
        {f.state === 'history' ? <Mark state="" word="Not enough history" /> : f.mase !== null && f.naive_mase !== null && f.mase > f.naive_mase ? <Mark state="degraded" word="Not better than a week ago" /> : <Mark state="ok" word={`Fitted, ${f.method}`} />}
      </p>
      <p class="note">
        {f.state === 'history' ? 'That is normal for what is new: 20 days since the first sale are needed. ' : f.mase === null ? 'Too little was held back to measure it. ' : `Measured on ${count(f.held_back_days)} days that were held back. `}
        Fitted {age(f.fitted_at, now)} ago, version <code>{f.version}</code>.
      </p>
    </>
  );
}

function Pricing({ p }: { p: ProductDemand }) {
  const b = p.price;
  if (!b) return <Empty>Prices are looked at when a night has fitted the product.</Empty>;
  if (b.state !== 'band')
    return (
      <>
        <p class="told">
          <Mark state="" word="Not enough variation" />
        </p>
        <p class="note">The price hardly changed, or for too few days, so nothing can be said of what another one would do. That is the normal answer{b.reason && `: ${b.reason}`}.</p>
      </>
    );
  return (
    <>
      <Facts
        of={[
          ['Band', band(b)],
          ['Price now', at(b, b.current)],
          ['Floor', at(b, b.floor)],
          ['Elasticity', b.elasticity === null ? none : b.elasticity.toFixed(2)],
        ]}
      />
      <p class="note">
        {b.elasticity !== null && b.elasticity_interval && `One percent more on the price goes with ${Math.abs(b.elasticity).toFixed(1)}% ${b.elasticity < 0 ? 'fewer' : 'more'} units (95% within ${b.elasticity_interval.map((x) => x.toFixed(1)).join(' to ')}). `}
        Seen, not tried out. {sentence(b.reason)}
      </p>
    </>
  );
}

function Places({ p }: { p: ProductDemand }) {
  const now = useStore(clock);
  if (p.warehouses.length === 0) return <Empty>No change of stock has come yet.</Empty>;
  return (
    <Table
      label="Stock by place"
      rows={p.warehouses}
      id={(w) => w.warehouse}
      columns={[
        { head: 'Place', row: true, cell: (w) => w.warehouse || 'not named' },
        { head: 'Stock', n: true, cell: (w) => count(w.level) },
        { head: 'Counted', n: true, cell: (w) => (w.counted_at === null ? 'never' : `${age(w.counted_at, now)} ago`) },
      ]}
    />
  );
}

function Product({ id, lead }: { id: string; lead: string }) {
  const one = usePoll('/api/v1/demand', { product: id, lead }, 10_000);
  const missing = (
    <>
      Nothing is known of <code>{id}</code>: no sale, no stock, no forecast.
    </>
  );
  const block = (what: (p: ProductDemand) => ComponentChildren, lines: number) => (
    <Block of={one} lines={lines} absent={missing}>
      {(d) => d.products[0] && what(d.products[0])}
    </Block>
  );
  return (
    <div class="grid product-demand">
      <Panel title={`Demand by hour: ${id}`} note="the last seven days and the next seven" class="c-hours" tools={<Legend items={['Sold', 'Forecast']} colors={[4, 2]} />}>
        {block((p) => <Hours p={p} />, 8)}
      </Panel>
      <Panel title="Forecast" class="c-third">
        {block((p) => <Forecast p={p} />, 4)}
      </Panel>
      <Panel title="Price" class="c-third">
        {block((p) => <Pricing p={p} />, 4)}
      </Panel>
      <Panel title="Stock by place" class="c-third">
        {block((p) => <Places p={p} />, 4)}
      </Panel>
    </div>
  );
}

export function DemandPage() {
  const [lead, setLead] = useState<string>('3d');
  const [low, setLow] = useState<string>('false');
  const [text, setText] = useState('');
  const [chosen, choose] = useState('');
  const [shown, setShown] = useState(10);
  const all = usePoll('/api/v1/demand', { lead, low: low as 'true' | 'false', limit: 50 }, 5000);
  const rows = all.data?.products ?? [];
  const wanted = text.trim();
  const listed = rows.filter((p) => p.product_id.includes(wanted));
  // A product that is not among those listed is asked for by its whole id, once the typing pauses.
  const [typed, setTyped] = useState('');
  useEffect(() => {
    const t = setTimeout(() => setTyped(wanted), 400);
    return () => clearTimeout(t);
  }, [wanted]);
  const product = chosen && listed.some((p) => p.product_id === chosen) ? chosen : (listed[0]?.product_id ?? typed);
  const lasting = leads.find((l) => l.id === lead)?.label;
  return (
    <>
      <Title title="Demand" note="Stock and sales from the stream; forecasts and prices as the night has fitted them.">
        <Choices />
      </Title>
      <div class="bar-tools">
        <Segments shown label="A delivery takes" value={lead} choices={leads} choose={setLead} />
        <Segments shown label="Products" value={low} choices={which} choose={setLow} />
        <Search label="Product id" value={text} placeholder="sku-0001" change={setText} />
      </div>
      <Panel title="Key figures" note={`if a delivery takes ${lasting}`}>
        <Block of={all}>{(d) => <Figures rows={d.products} />}</Block>
      </Panel>
      <Panel title="Products" note={low === 'true' ? 'whose stock is low' : 'those of which most is sold'}>
        <Block of={all} lines={10}>
          {() =>
            listed.length > 0 ? (
              <>
                <Products rows={listed.slice(0, shown)} chosen={product} choose={choose} />
                <More hidden={listed.length - shown} what="more products" show={() => setShown(listed.length)} />
              </>
            ) : wanted ? (
              <Empty>None of those listed has this in its id.</Empty>
            ) : low === 'true' ? (
              <Empty>
                <span class="good">No stock is low.</span>
              </Empty>
            ) : (
              <Empty>Nothing was sold in the last day. Send orders, or traffic with millrace simulate.</Empty>
            )
          }
        </Block>
      </Panel>
      {product && <Product key={product} id={product} lead={lead} />}
    </>
  );
}
