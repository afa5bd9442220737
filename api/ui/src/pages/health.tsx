// Pipeline health: the flow with its rates, what is wrong and what to do, and the figures behind the verdict.
import { usePoll, type Health, type State } from '../api.ts';
import { compact, count, decimal, millis, seconds } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { Badge, Block, Empty, Panel, Prose, Table, type Column } from '../ui.tsx';

const rank: Record<State, number> = { ok: 0, degraded: 1, down: 2 };

// A stage of the picture: the parts that belong to it by name, the consumer groups that read for it, and the store it fills.
type Stage = { title: string; parts: RegExp; group?: RegExp; store?: Health['freshness'][number]['store']; latency?: RegExp; words: string };

const front: Stage[] = [
  { title: 'Gateway', parts: /^gateway/, latency: /^gateway/, words: 'accepts, acknowledges when durable' },
  { title: 'Kafka', parts: /^(kafka|broker|registry|schema)/, words: 'holds every event' },
  { title: 'Hot topology', parts: /^(stream|hot)/, group: /hot|stream/, latency: /^(stream|hot)/, words: 'deduplicates, enriches, counts' },
];

const stores: Stage[] = [
  { title: 'ClickHouse', parts: /clickhouse/, group: /clickhouse/, store: 'clickhouse', latency: /clickhouse/, words: 'SQL, history' },
  { title: 'Redis', parts: /redis/, group: /redis/, store: 'redis', latency: /redis/, words: 'live figures' },
  { title: 'Iceberg', parts: /iceberg|lake/, group: /iceberg/, store: 'iceberg', latency: /iceberg/, words: 'the lakehouse' },
];

function worst(h: Health, s: Stage): State | undefined {
  const states = [...h.parts.filter((p) => s.parts.test(p.name)).map((p) => p.state), ...h.reasons.filter((r) => s.parts.test(r.part)).map((r) => r.severity)];
  return states.length === 0 ? undefined : states.reduce((a, b) => (rank[b] > rank[a] ? b : a));
}

function lagOf(h: Health, s: Stage): number | undefined {
  if (!s.group) return undefined;
  const rows = h.lag.filter((l) => s.group?.test(l.group));
  return rows.length === 0 ? undefined : rows.reduce((n, l) => n + l.records, 0);
}

// The newest of a store's tables says whether it is fed; a table that nobody writes to may be as old as it likes.
function newest(h: Health, s: Stage): number | undefined {
  const ages = h.freshness.filter((f) => f.store === s.store && f.seconds !== null).map((f) => f.seconds ?? 0);
  return ages.length === 0 ? undefined : Math.min(...ages);
}

function StageBox({ h, s }: { h: Health; s: Stage }) {
  const state = worst(h, s);
  const lag = lagOf(h, s);
  const fresh = s.store ? newest(h, s) : undefined;
  const slow = s.latency ? h.latency.find((l) => s.latency?.test(l.stage) && l.p99_ms !== null) : undefined;
  const facts: [string, string][] = [];
  if (s.title === 'Gateway') facts.push(['Accepted', `${decimal(h.ingest.events_per_second)}/s`], ['Failed', `${decimal(h.ingest.failed_per_second)}/s`]);
  if (s.title === 'Kafka') facts.push(['To be read', compact(h.lag.reduce((n, l) => n + l.records, 0))]);
  if (lag !== undefined) facts.push(['Lag', `${compact(lag)}`]);
  if (s.title === 'Hot topology') {
    const w = Math.max(...h.watermark.map((x) => x.delay_seconds ?? -1));
    if (w >= 0) facts.push(['Watermark', `−${seconds(w)}`]);
  }
  if (fresh !== undefined) facts.push(['Newest', `${seconds(fresh)} old`]);
  if (slow) facts.push(['p99', millis(slow.p99_ms)]);
  return (
    <div class={`stage ${state ?? 'unknown'}`}>
      <h3>
        {s.title} {state ? <Badge state={state} /> : <span class="badge unknown">not seen</span>}
      </h3>
      <p class="sub">{s.words}</p>
      <dl>
        {facts.map(([k, v]) => (
          <div key={k}>
            <dt>{k}</dt>
            <dd>{v}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function Flow({ h }: { h: Health }) {
  return (
    <div class="flow">
      {front.map((s) => (
        <StageBox key={s.title} h={h} s={s} />
      ))}
      <div class="stores">
        {stores.map((s) => (
          <StageBox key={s.title} h={h} s={s} />
        ))}
      </div>
    </div>
  );
}

function Reasons({ h }: { h: Health }) {
  if (h.reasons.length === 0)
    return (
      <Empty>
        <span class="good">Nothing is wrong.</span>
      </Empty>
    );
  return (
    <ul class="wrong">
      {h.reasons.map((r) => (
        <li key={r.part + r.message}>
          <Badge state={r.severity} />
          <div>
            <p>
              <strong>{r.part}</strong>: {r.message}
            </p>
            <p class="remedy">
              <Prose text={r.remedy} />
            </p>
          </div>
        </li>
      ))}
    </ul>
  );
}

// Rows is a table, or words where there is none.
function Rows<T>({ empty, columns, ...rest }: { label: string; rows: T[]; columns: Column<T>[]; empty: string }) {
  if (rest.rows.length === 0) return <Empty>{empty}</Empty>;
  return <Table {...rest} columns={columns.map((c, i) => ({ ...c, row: i === 0 }))} id={(r) => rest.rows.indexOf(r)} />;
}

type Lag = { group: string; topic: string; partitions: number; records: number; worst: number };

function lags(h: Health): Lag[] {
  const by = new Map<string, Lag>();
  for (const l of h.lag) {
    const key = `${l.group} ${l.topic}`;
    const row = by.get(key) ?? { group: l.group, topic: l.topic, partitions: 0, records: 0, worst: 0 };
    row.partitions++;
    row.records += l.records;
    row.worst = Math.max(row.worst, l.records);
    by.set(key, row);
  }
  return [...by.values()].sort((a, b) => b.records - a.records || a.group.localeCompare(b.group) || a.topic.localeCompare(b.topic));
}

function quiet(h: Health): string {
  const n = lags(h).filter((l) => l.records === 0).length;
  return n === 0 ? '' : `; ${n} more topics are read to their ends`;
}

type Ages = { table: string; clickhouse?: number | null; iceberg?: number | null; redis?: number | null };

// tables puts the stores of a table side by side: a table has one name everywhere.
function tables(h: Health): Ages[] {
  const by = new Map<string, Ages>();
  for (const f of h.freshness) by.set(f.table, { ...by.get(f.table), table: f.table, [f.store]: f.seconds });
  return [...by.values()].sort((a, b) => a.table.localeCompare(b.table));
}

export function HealthPage() {
  const all = usePoll('/api/v1/health', {}, 2000);
  return (
    <>
      <Title title="Pipeline health" note={all.data && <Badge state={all.data.state} word={all.data.state === 'ok' ? 'Everything works' : all.data.state === 'degraded' ? 'Works, but not as it should' : 'Not working'} />}>
        <Choices />
      </Title>
      <Block of={all} lines={12}>
        {(h) => (
          <div class="grid health">
            <Panel title="Flow" note="from the producers to the stores" class="c-flow">
              <Flow h={h} />
            </Panel>
            <Panel title="What is wrong, and what to do" class="c-wrong">
              <Reasons h={h} />
            </Panel>
            <Panel title="Parts">
              <ul class="parts">
                {h.parts.map((p) => (
                  <li key={p.name}>
                    <Badge state={p.state} />
                    <span class="strong">{p.name}</span>
                    <span class="sub">{p.detail}</span>
                  </li>
                ))}
              </ul>
              {h.parts.length === 0 && <Empty>No part is known.</Empty>}
            </Panel>
            <Panel title="Latency" note="of each stage">
              <Rows
                label="Latency"
                rows={h.latency}
                empty="Nothing was measured yet."
                columns={[
                  { head: 'Stage', cell: (l) => l.stage },
                  { head: 'Median', cell: (l) => millis(l.p50_ms), n: true },
                  { head: '99th percentile', cell: (l) => millis(l.p99_ms), n: true },
                ]}
              />
            </Panel>
            <Panel title="Freshness" note="age of the newest event of each table">
              <Rows
                label="Freshness"
                rows={tables(h)}
                empty="No store could be asked."
                columns={[
                  { head: 'Table', cell: (f) => f.table },
                  { head: 'ClickHouse', cell: (f) => seconds(f.clickhouse), n: true },
                  { head: 'Iceberg', cell: (f) => seconds(f.iceberg), n: true },
                  { head: 'Redis', cell: (f) => seconds(f.redis), n: true },
                ]}
              />
            </Panel>
            <Panel title="Lag" note={`records that a group has still to read${quiet(h)}`}>
              <Rows
                label="Lag"
                rows={lags(h).filter((l) => l.records > 0)}
                empty={h.lag.length === 0 ? 'Kafka could not be asked.' : 'Everything has been read.'}
                columns={[
                  { head: 'Topic', cell: (l) => l.topic },
                  { head: 'Group', cell: (l) => l.group },
                  { head: 'Records', cell: (l) => count(l.records), n: true },
                  { head: 'Most in one', cell: (l) => count(l.worst), n: true },
                ]}
              />
            </Panel>
            <Panel title="Watermark delay" note="how far event time lies behind, by task">
              <Rows
                label="Watermark delay"
                rows={h.watermark}
                empty="No task reports its watermark."
                columns={[
                  { head: 'Partition', cell: (w) => String(w.partition) },
                  { head: 'Delay', cell: (w) => seconds(w.delay_seconds), n: true },
                ]}
              />
            </Panel>
            <Panel title="Errors" note="counters that grew in the last minutes">
              <Rows
                label="Errors"
                rows={h.errors}
                empty="No counter of errors has grown."
                columns={[
                  { head: 'Counter', cell: (e) => e.name },
                  { head: 'Part', cell: (e) => e.part },
                  { head: 'Per minute', cell: (e) => decimal(e.per_minute), n: true },
                  { head: 'In all', cell: (e) => compact(e.total), n: true },
                ]}
              />
            </Panel>
          </div>
        )}
      </Block>
    </>
  );
}
