// Tests of what needs no browser. Run by `npm test`: Vite bundles this file for Node.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { change, fromMicros, micros } from '../src/decimal.ts';
import { layout, segments } from '../src/json.ts';
import { bucket, mergeTail, ranking, settle } from '../src/series.ts';
import { alertDelay, byRule, newestAlerts, perHour } from '../src/fraud.ts';
import type { Alert, KPISeries } from '../src/api.ts';

test('a decimal string keeps every digit, beyond what a float holds', () => {
  for (const s of ['0.000000', '-0.000001', '129.900000', '90071992547409931.123457', '-123456789012345678901234567890.000001']) {
    const m = micros(s);
    assert.ok(m !== undefined);
    assert.equal(fromMicros(m), s);
  }
});

test('what is no decimal number is none', () => {
  for (const s of ['', '1e3', 'NaN', '1,5', '--1', '<b>', '1.', '.5', ' 1']) assert.equal(micros(s), undefined, s);
});

test('a change is relative to the size of what was before', () => {
  assert.equal(change(110n, 100n), 0.1);
  assert.equal(change(50n, 100n), -0.5);
  assert.equal(change(-50n, -100n), 0.5);
  assert.equal(change(5n, 0n), undefined);
});

const marked = (text: string, path: string) => {
  const l = layout(text, path);
  return { found: l.found, text: l.lines.flatMap((x) => x.tokens.filter((t) => t.marked).map((t) => t.text)).join('') };
};

test('the value at a path is marked with its key', () => {
  const text = '{"a":{"b":[{"c":1},{"c":1.50,"d":2}]},"c":9}';
  assert.deepEqual(marked(text, 'a.b[1].c'), { found: 'value', text: '"c"1.50' });
  assert.deepEqual(marked(text, '$.a.b[0]'), { found: 'value', text: '{"c": 1}' });
  assert.deepEqual(marked(text, '/a/b/1/d'), { found: 'value', text: '"d"2' });
  assert.deepEqual(marked(text, 'c'), { found: 'value', text: '"c"9' });
});

test('where the value is missing, the nearest thing around it is marked', () => {
  assert.deepEqual(marked('{"a":{"b":1},"x":2}', 'a.c'), { found: 'parent', text: '"a"{"b": 1}' });
  assert.deepEqual(marked('{"x":2}', 'a.c'), { found: 'none', text: '' });
});

test('a key with dots is found by its path', () => {
  assert.deepEqual(marked('{"p":{"a.b":1,"a":2}}', 'p.a.b'), { found: 'value', text: '"a.b"1' });
});

test('text is shown as it was sent, whatever it is', () => {
  const literal = '{"big":12345678901234567890.10,"s":"\\u0041\\"x","e":1E+5,"n":null}';
  assert.equal(layout(literal).lines.flatMap((l) => l.tokens.map((t) => t.text)).join('').replaceAll(': ', ':'), literal);
  for (const text of ['', 'no json', '{"a":[1,2,"abc', '{"a":1}}}]]', '[[[[', '"', '\\', '{"a" "b"}', '{,}', '\u0000{}', '{"a":tru']) {
    const shown = layout(text, 'a.b').lines.flatMap((l) => l.tokens.map((t) => t.text)).join('');
    assert.equal(shown.replace(/\s/g, ''), text.replace(/\s/g, ''), JSON.stringify(text));
  }
});

test('text that was cut off says so, and its path is still marked', () => {
  const l = layout('{"a":[1,2,"abc', 'a[1]');
  assert.equal(l.cut, true);
  assert.equal(l.found, 'value');
  assert.equal(layout('{"a":1}').cut, false);
});

test('a very long text is bounded', () => {
  const l = layout(`[${'1,'.repeat(50_000)}1]`);
  assert.ok(l.lines.length <= 5000 && l.cut);
});

test('empty containers stay on one line', () => {
  assert.deepEqual(layout('{"a":{},"b":[]}').lines.map((l) => l.tokens.map((t) => t.text).join('')), ['{', '"a": {},', '"b": []', '}']);
});

test('paths are read in every notation', () => {
  assert.deepEqual(segments('items[0].price'), ['items', '0', 'price']);
  assert.deepEqual(segments('$.items[0]'), ['items', '0']);
  assert.deepEqual(segments(''), []);
});

const series = (from: number, values: Record<string, (number | null)[]>): KPISeries => ({
  grain: '1s', from: '', to: '', tz: 'UTC', by: 'none', source: 'redis', tenant: 'default', truncated: false,
  times: Array.from({ length: Object.values(values)[0]?.length ?? 0 }, (_, i) => from + i),
  series: Object.entries(values).map(([measure, v]) => ({ measure, unit: 'count', currency: '', key: '', total: null, values: v })),
});

test('newer seconds replace older ones, and what lies between is unknown', () => {
  const m = mergeTail(series(100, { orders: [1, 2, 3] }), series(102, { orders: [7, 8] }));
  assert.deepEqual([m.times, m.series[0]?.values], [[100, 101, 102, 103], [1, 2, 7, 8]]);
  const gap = mergeTail(series(100, { orders: [1] }), series(103, { orders: [4] }));
  assert.deepEqual([gap.times, gap.series[0]?.values], [[100, 101, 102, 103], [1, null, null, 4]]);
});

test('a tail that was read before the older seconds loses nothing', () => {
  const m = mergeTail(series(100, { orders: [1, 2, 3, 4] }), series(102, { orders: [9] }));
  assert.deepEqual(m.series[0]?.values, [1, 2, 9, 4]);
});

test('a series that appears later is 0 before', () => {
  const m = mergeTail(series(100, { orders: [1, 2] }), series(101, { orders: [2, 2], revenue: [5, 6] }));
  assert.deepEqual(m.series.find((s) => s.measure === 'revenue')?.values, [0, 5, 6]);
});

test('the kept seconds are bounded', () => {
  let m = series(0, { orders: [1] });
  for (let t = 1; t < 2000; t++) m = mergeTail(m, series(t, { orders: [1] }));
  assert.ok(m.times.length <= 360 && m.times.at(-1) === 1999);
});

test('the last seconds without anything are left away, but no more than five, and no silence in between', () => {
  assert.deepEqual(settle(series(0, { orders: [1, 0, 2, 0, 0] })).series[0]?.values, [1, 0, 2]);
  assert.equal(settle(series(0, { orders: [1, 0, 0, 0, 0, 0, 0, 0] })).times.length, 3);
  assert.deepEqual(settle(series(0, { orders: [0, 0], page_views: [1, 1] })).times.length, 2);
});

test('buckets add up, and keep what is unknown apart from nothing', () => {
  assert.deepEqual(bucket([10, 11, 14, 15, 16, 20], [1, null, 2, null, null, 0], 5), { times: [10, 15, 20], values: [3, null, 0] });
});

test('the biggest key comes first, with its share', () => {
  const s = series(0, { orders: [1] });
  s.series = ['DE', 'US'].map((key, i) => ({ measure: 'orders', unit: 'count' as const, currency: '', key, values: [], total: String(1 + 2 * i) }));
  assert.deepEqual(ranking(s, 'orders'), [{ key: 'US', n: 3, share: 0.75 }, { key: 'DE', n: 1, share: 0.25 }]);
});

const alert = (id: string, second: number, confirmed: boolean): Alert => ({
  alert_id: id, kind: 'fraud', rule: 'r', rule_version: 1, tenant: 'default', entity: 'card', key: 'k', severity: 'warn', score: 0.5, reasons: [], trigger_event_id: 'e',
  occurred_at: new Date(second * 1000).toISOString(), detected_at: new Date(second * 1000 + 500).toISOString(), confirmed, details: null,
});

test('an alert that is confirmed anywhere is confirmed, and the newest comes first', () => {
  const told = [alert('b', 20, false), alert('a', 10, false)];
  const stored = [alert('c', 15, true), alert('a', 10, true), alert('old', 1, true)];
  const want = [['b', false], ['c', true], ['a', true]];
  assert.deepEqual(newestAlerts(told, stored, 5000).map((a) => [a.alert_id, a.confirmed]), want);
  assert.deepEqual(newestAlerts(stored, told, 5000).map((a) => [a.alert_id, a.confirmed]), want);
});

test('the delay of an alert is never negative', () => {
  assert.equal(alertDelay(alert('a', 10, true)), 0.5);
  assert.equal(alertDelay({ ...alert('a', 10, true), detected_at: new Date(0).toISOString() }), 0);
});

const hour = (rule: string, h: number, alerts: number, version = 1, delay = 1) => ({
  rule, rule_version: version, entity: 'card', severity: 'warn', hour: new Date(h * 3_600_000).toISOString(), alerts, confirmed: alerts - 1, keys: 1, score: h / 10, delay_seconds: delay,
});

test('the hours of a rule are added up, over its versions, and rules that found nothing are listed', () => {
  const rules = ['quiet', 'a'].map((rule) => ({ rule, kind: 'velocity', entity: 'card', on: [], where: '', window_seconds: 1, threshold: 2, severity: 'info', score: 1, reason: '' }));
  const rows = byRule([hour('a', 2, 3, 2, 4), hour('a', 1, 1, 1, 8), hour('gone', 1, 9)], rules);
  assert.deepEqual(rows.map((r) => [r.rule, r.alerts, r.confirmed, r.versions, r.score, r.delay]), [['gone', 9, 8, [1], 0.1, 1], ['a', 4, 2, [2, 1], 0.2, 5], ['quiet', 0, 0, [], 0, 0]]);
});

test('hours without an alert are there with none', () => {
  const f = { as_of: '', tenant: 'default', from: new Date(1.5 * 3_600_000).toISOString(), to: new Date(4.2 * 3_600_000).toISOString(), hours: [hour('a', 3, 2), hour('b', 3, 1)] };
  assert.deepEqual(perHour(f), { times: [3600, 7200, 10_800, 14_400], values: [0, 0, 3, 0] });
});
