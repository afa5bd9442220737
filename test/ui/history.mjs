// What a new platform has not got: weeks of orders, baskets that belong together, attacks, and the two workflows that learn from them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { send, until } from './harness.mjs';

const hour = 3_600_000;
const days = 56;
const sets = 12; // sets of five products each, which visitors look at together

// draws is a small generator of numbers (mulberry32): the same history every time.
function draws(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

// The products of which there is a history. One of them had several prices, and sells less when it costs more.
export const varied = 'history-varied';
export const steady = 'history-steady';
export const seldom = 'history-seldom';

const products = [
  { id: varied, rate: 3, price: (day) => [20, 18, 22, 20][Math.floor(day / 5) % 4] },
  { id: steady, rate: 2, price: () => 35 },
  { id: seldom, rate: 0.08, price: () => 90 },
];

function poisson(random, mean) {
  const limit = Math.exp(-mean);
  let n = 0;
  for (let p = random(); p > limit; p *= random()) n++;
  return n;
}

function* orders(random, end) {
  let n = 0;
  for (const p of products) {
    for (let h = 0; h < days * 24; h++) {
      const at = end - (days * 24 - h) * hour;
      const price = p.price(Math.floor(h / 24));
      const clock = new Date(at).getUTCHours();
      const curve = 1 + 0.8 * Math.sin(((clock - 9) / 24) * 2 * Math.PI);
      for (let i = poisson(random, p.rate * curve * (p.id === varied ? (20 / price) ** 2 : 1)); i > 0; i--) {
        n++;
        yield {
          event_id: `history-order-${n}`, name: 'purchase', occurred_at: new Date(at + Math.floor(random() * hour)).toISOString(), visitor_id: `history-buyer-${n % 997}`, order_id: `history-${n}`,
          currency: 'EUR', value: price, items: [{ item_id: p.id, name: p.id, price, quantity: 1 }],
        };
      }
    }
  }
}

function* looks(random, end) {
  let n = 0;
  for (let visitor = 0; visitor < 1000; visitor++) {
    const set = Math.floor(random() * sets);
    // Twice some time ago, and twice lately: that is what the model is asked for.
    const [before, lately] = [end - (1 + Math.floor(random() * 19 * 24)) * hour, end - Math.floor(random() * 6) * hour];
    for (let i = 0; i < 4; i++) {
      n++;
      // One look in seven is at anything.
      const item = random() < 0.15 ? Math.floor(random() * sets * 5) : set * 5 + Math.floor(random() * 5);
      yield {
        event_id: `history-look-${n}`, name: 'view_item', occurred_at: new Date((i > 1 ? lately : before) - (10 - i) * 90_000).toISOString(), visitor_id: `history-visitor-${visitor}`,
        items: [{ item_id: `set-${Math.floor(item / 5)}-${item % 5}`, quantity: 1 }],
      };
    }
  }
}

// stock says what is left: of one there is plenty, of one too little, of one nothing.
const stock = { [varied]: 2000, [steady]: 40, [seldom]: 0 };

// history gives a platform all of it, once.
export async function history({ base, dir, endpoints, millrace }) {
  const have = await until('an answer on demand', async () => {
    const res = await fetch(`${base}/api/v1/demand?product=${varied}`);
    return [200, 404].includes(res.status) && res.json();
  });
  if (have.products?.[0].forecast) return; // a platform that was tested before
  const random = draws(7);
  const end = Math.floor(Date.now() / hour) * hour;
  const past = [...orders(random, end), ...looks(random, end)].filter((e) => Date.parse(e.occurred_at) < end);
  const file = join(dir, 'history.ndjson');
  writeFileSync(file, past.map((e) => JSON.stringify(e)).join('\n') + '\n');
  await millrace('import', file);
  const now = Object.entries(stock).map(([item_id, level]) => ({ event_id: `history-stock-${item_id}`, name: 'inventory_change', item_id, warehouse_id: 'ams-1', stock_level: level, change_reason: 'count', occurred_at: new Date().toISOString() }));
  await send(endpoints, JSON.stringify(now));
  const bought = past.filter((e) => e.name === 'purchase').length;
  await until('the lakehouse has the history', async () => {
    const t = (await (await fetch(`${base}/api/v1/tables`)).json()).iceberg.tables;
    const rows = (name) => t.find((x) => x.name === name)?.rows ?? 0;
    return rows('events_purchase') >= bought && rows('events_page') >= past.length - bought;
  }, 240_000);
  await millrace('simulate', '--events', '2500', '--rate', '100', '--fraud', '0.05', '--late', '0', '--malformed', '0');
  await until('Temporal answers', async () => (await (await fetch(`${base}/api/v1/workflows`)).json()).available, 300_000);
  for (const type of ['ForecastDemand', 'TrainRecommendations']) await millrace('workflows', 'start', type, '--input', '{"ref": "main"}', '--wait');
}
