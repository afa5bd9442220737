// Products by revenue, quantity or orders.
import { useState } from 'preact/hooks';
import { usePoll, type Product } from '../api.ts';
import { micros } from '../decimal.ts';
import { count, money, percent } from '../format.ts';
import { prefs } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { useStore } from '../store.ts';
import { Block, Empty, Panel, Segments, Sideways } from '../ui.tsx';

const orders = [
  { id: 'revenue', label: 'Revenue' },
  { id: 'quantity', label: 'Quantity' },
  { id: 'orders', label: 'Orders' },
] as const;
type By = (typeof orders)[number]['id'];

const spans = [
  { id: '15m', label: '15 min' },
  { id: '1h', label: '1 h' },
  { id: '24h', label: '24 h' },
  { id: '7d', label: '7 d' },
] as const;

function weight(p: Product, by: By): number {
  return by === 'revenue' ? Number(micros(p.revenue) ?? 0n) : by === 'quantity' ? p.quantity : p.orders;
}

function Table({ rows, by, label }: { rows: Product[]; by: By; label: string }) {
  const top = Math.max(1, ...rows.map((p) => weight(p, by)));
  return (
    <Sideways label={label}>
      <table class="rows">
        <thead>
          <tr>
            <th scope="col" class="n">
              #
            </th>
            <th scope="col">Product</th>
            <th scope="col" class="bar">
              <span class="hidden">Share of the first</span>
            </th>
            <th scope="col" class="n">
              Revenue
            </th>
            <th scope="col" class="n">
              Quantity
            </th>
            <th scope="col" class="n">
              Orders
            </th>
            <th scope="col" class="n">
              Views
            </th>
            <th scope="col" class="n">
              Cart adds
            </th>
            <th scope="col" class="n">
              Carts per view
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((p) => (
            <tr key={`${p.currency} ${p.product_id} ${p.category}`}>
              <td class="n">{p.rank}</td>
              <th scope="row" class="product">
                {p.name ?? p.product_id}
                <span class="sub">
                  {p.name !== null && <code>{p.product_id}</code>} {p.category}
                </span>
              </th>
              <td class="bar">
                <meter min={0} max={top} value={weight(p, by)} aria-hidden="true" />
              </td>
              <td class="n strong">{money(p.revenue, p.currency)}</td>
              <td class="n">{count(p.quantity)}</td>
              <td class="n">{count(p.orders)}</td>
              <td class="n">{count(p.item_views)}</td>
              <td class="n">{count(p.cart_adds)}</td>
              <td class="n">{p.item_views > 0 ? percent(p.cart_adds / p.item_views) : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sideways>
  );
}

export function Products() {
  const { currency } = useStore(prefs);
  const [by, setBy] = useState<By>('revenue');
  const [span, setSpan] = useState<string>('1h');
  const top = usePoll('/api/v1/products/top', { window: span, by, limit: 20, ...(currency ? { currency } : {}) }, 5000);
  return (
    <>
      <Title title="Products" note="What sells, from orders and views of the window.">
        <Choices currency />
      </Title>
      <div class="bar-tools">
        <Segments label="Window" value={span} choices={spans} choose={setSpan} />
        <Segments label="Ranked by" value={by} choices={orders} choose={(id) => setBy(id as By)} />
      </div>
      <Block of={top} lines={10}>
        {(t) => {
          if (t.products.length === 0) return <Empty>Nothing was sold or looked at{currency && ` in ${currency}`} in this window.</Empty>;
          if (by !== 'revenue')
            return (
              <Panel title="Top products" note="all currencies; money is each in its own">
                <Table rows={t.products} by={by} label="Top products" />
              </Panel>
            );
          // Revenue is ranked within a currency only.
          const currencies = [...new Set(t.products.map((p) => p.currency))].filter((c) => c !== '');
          return (
            <div class="stack">
              {currencies.map((c) => (
                <Panel key={c} title={`Top products in ${c}`}>
                  <Table rows={t.products.filter((p) => p.currency === c)} by={by} label={`Top products in ${c}`} />
                </Panel>
              ))}
            </div>
          );
        }}
      </Block>
    </>
  );
}
