// Products by revenue, quantity or orders.
import { useState } from 'preact/hooks';
import { usePoll, type Product } from '../api.ts';
import { micros } from '../decimal.ts';
import { count, money, none, percent } from '../format.ts';
import { prefs, spans } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { useStore } from '../store.ts';
import { Block, Empty, Panel, Segments, Table } from '../ui.tsx';

const orders = [
  { id: 'revenue', label: 'Revenue' },
  { id: 'quantity', label: 'Quantity' },
  { id: 'orders', label: 'Orders' },
] as const;
type By = (typeof orders)[number]['id'];

function weight(p: Product, by: By): number {
  return by === 'revenue' ? Number(micros(p.revenue) ?? 0n) : by === 'quantity' ? p.quantity : p.orders;
}

function Ranked({ rows, by, label }: { rows: Product[]; by: By; label: string }) {
  const top = Math.max(1, ...rows.map((p) => weight(p, by)));
  return (
    <Table
      label={label}
      rows={rows}
      id={(p) => `${p.currency} ${p.product_id} ${p.category}`}
      columns={[
        { head: '#', n: true, cell: (p) => p.rank },
        {
          head: 'Product',
          row: true,
          class: 'product',
          cell: (p) => (
            <>
              {p.name ?? p.product_id}
              <span class="sub">
                {p.name !== null && <code>{p.product_id}</code>} {p.category}
              </span>
            </>
          ),
        },
        { head: <span class="hidden">Share of the first</span>, class: 'bar', cell: (p) => <meter min={0} max={top} value={weight(p, by)} aria-hidden="true" /> },
        { head: 'Revenue', n: true, class: 'strong', cell: (p) => money(p.revenue, p.currency) },
        { head: 'Quantity', n: true, cell: (p) => count(p.quantity) },
        { head: 'Orders', n: true, cell: (p) => count(p.orders) },
        { head: 'Views', n: true, cell: (p) => count(p.item_views) },
        { head: 'Cart adds', n: true, cell: (p) => count(p.cart_adds) },
        { head: 'Carts per view', n: true, cell: (p) => (p.item_views > 0 ? percent(p.cart_adds / p.item_views) : none) },
      ]}
    />
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
                <Ranked rows={t.products} by={by} label="Top products" />
              </Panel>
            );
          // Revenue is ranked within a currency only.
          const currencies = [...new Set(t.products.map((p) => p.currency))].filter((c) => c !== '');
          return (
            <div class="stack">
              {currencies.map((c) => (
                <Panel key={c} title={`Top products in ${c}`}>
                  <Ranked rows={t.products.filter((p) => p.currency === c)} by={by} label={`Top products in ${c}`} />
                </Panel>
              ))}
            </div>
          );
        }}
      </Block>
    </>
  );
}
