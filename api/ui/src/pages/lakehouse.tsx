// Lakehouse: what maintenance made of the Iceberg tables' files, and whether the stores hold what the control totals say.
import { useState } from 'preact/hooks';
import { usePoll, type Maintenance, type Reconciliations } from '../api.ts';
import { age, bytes, count, fullTime, none, percent, seconds } from '../format.ts';
import { Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, More, Options, Out, Outcome, Panel, Select, Table } from '../ui.tsx';

type Step = Maintenance['steps'][number];
type Change = NonNullable<Step['files']>;

// first is how many rows of a table are shown until all are asked for.
const first = 12;

const became = (c: Pick<Change, 'before' | 'after'> | null, show: (n: number) => string) => (c === null ? none : `${show(c.before)} → ${show(c.after)}`);

// Run is one run of MaintainTable: its steps together.
type Run = { first: Step; steps: Step[] };

function runs(steps: Step[]): Run[] {
  const out = new Map<string, Run>();
  for (const s of steps) {
    const key = `${s.workflow_id} ${s.run}`;
    const r = out.get(key);
    if (r) r.steps.push(s);
    else out.set(key, { first: s, steps: [s] });
  }
  return [...out.values()];
}

const sum = (r: Run, name: string) => r.steps.reduce((n, s) => n + (s.numbers[name] ?? 0), 0);
const some = (n: number) => (n > 0 ? count(n) : none);

const manifests = (r: Run) => {
  const [before, after] = [sum(r, 'manifests_before'), sum(r, 'manifests_after')];
  return before > after ? became({ before, after }, count) : none;
};

const compacted = (r: Run) => r.steps.find((s) => s.files !== null);

function Ended({ r }: { r: Run }) {
  const bad = r.steps.find((s) => s.outcome !== 'done');
  return (
    <>
      <Outcome of={bad?.outcome ?? 'done'} note={bad?.reason ?? r.steps.map((s) => s.step).join(', ')} />
      {bad && <span class="sub">{`${bad.step}${bad.reason && `: ${bad.reason}`}`}</span>}
    </>
  );
}

const Maintained = ({ rows, now }: { rows: Run[]; now: number }) => (
  <Table
    label="Runs of maintenance"
    rows={rows}
    id={(r) => r.first.workflow_id + r.first.run}
    columns={[
      { head: 'Table', row: true, cell: (r) => <Out href={r.first.url}>{r.first.table}</Out> },
      { head: 'Outcome', cell: (r) => <Ended r={r} /> },
      { head: 'Files', n: true, cell: (r) => became(compacted(r)?.files ?? null, count) },
      { head: 'Bytes', n: true, cell: (r) => became(compacted(r)?.bytes ?? null, bytes) },
      {
        head: 'Ratio',
        n: true,
        cell: (r) => {
          const b = compacted(r)?.bytes;
          return b && b.before > 0 ? percent(b.ratio) : none;
        },
      },
      { head: 'Files read', n: true, title: "Files that readers open for the table's query set", cell: (r) => became(compacted(r)?.files_read ?? null, count) },
      { head: 'Manifests', n: true, cell: manifests },
      { head: 'Expired', n: true, title: 'Snapshots that were expired', cell: (r) => some(sum(r, 'snapshots_removed')) },
      { head: 'Orphans', n: true, title: 'Files without a table that were removed', cell: (r) => some(sum(r, 'orphans')) },
      { head: 'Took', n: true, cell: (r) => seconds(r.steps.reduce((n, s) => n + s.duration_seconds, 0)) },
      { head: 'Ended', class: 'nowrap', cell: (r) => age(r.first.finished_at, now) },
    ]}
  />
);

type Reconciled = Reconciliations['runs'][number];

const differences = (r: Reconciled) =>
  Object.entries(r.differences)
    .filter(([, n]) => n > 0)
    .map(([kind, n]) => `${count(n)} ${kind.replaceAll('_', ' ')}`)
    .join(', ');

const Compared = ({ rows, now }: { rows: Reconciled[]; now: number }) => (
  <Table
    label="Reconciliations"
    rows={rows}
    id={(r) => r.topic + r.hour + r.store + r.run}
    columns={[
      { head: 'Topic', row: true, cell: (r) => <Out href={r.url}>{r.topic}</Out> },
      { head: 'Hour', class: 'nowrap', cell: (r) => fullTime(r.hour) },
      { head: 'Store', cell: (r) => r.store },
      { head: 'Outcome', cell: (r) => <Outcome of={r.outcome} /> },
      { head: 'Expected', n: true, cell: (r) => count(r.expected) },
      { head: 'Found', n: true, cell: (r) => count(r.found) },
      { head: 'Repaired', n: true, cell: (r) => count(r.repaired) },
      { head: 'Differences', cell: (r) => differences(r) || none },
      { head: 'Ended', class: 'nowrap', cell: (r) => age(r.finished_at, now) },
    ]}
  />
);

export function LakehousePage() {
  const now = useStore(clock);
  const [table, setTable] = useState('');
  const [most, setMost] = useState(first);
  const [pairs, setPairs] = useState(first);
  const all = usePoll('/api/v1/maintenance', { limit: 200, ...(table ? { table } : {}) }, 5000);
  const compared = usePoll('/api/v1/reconcile', { limit: 100 }, 5000);
  const [seen] = useState(new Set<string>());
  for (const s of all.data?.steps ?? []) seen.add(s.table);
  return (
    <>
      <Title title="Lakehouse" note={all.data?.ui ? <Out href={all.data.ui}>Temporal UI</Out> : 'What keeps the Iceberg tables small, sorted and equal.'} />
      <Panel
        title="Maintenance"
        note="Files and bytes that each run rewrote, before and after"
        tools={
          <Select label="Table" value={table} choose={setTable}>
            <option value="">All</option>
            <Options of={[...seen].sort()} />
          </Select>
        }
      >
        <Block of={all} lines={8}>
          {(d) => {
            const done = runs(d.steps);
            if (done.length > 0)
              return (
                <>
                  <Maintained rows={done.slice(0, most)} now={now} />
                  <More hidden={done.length - most} what="earlier runs" show={() => setMost(done.length)} />
                </>
              );
            return (
              <Empty>No maintenance has run yet{table && ` on ${table}`}. It runs by schedule, or now: millrace workflows start MaintainTable.</Empty>
            );
          }}
        </Block>
      </Panel>
      <Panel title="Reconciliation" note="The stores beside the control totals, hour by hour">
        <Block of={compared} lines={8}>
          {(d) =>
            d.runs.length > 0 ? (
              <>
                <Compared rows={d.runs.slice(0, pairs)} now={now} />
                <More hidden={d.runs.length - pairs} what="earlier ones" show={() => setPairs(d.runs.length)} />
              </>
            ) : (
              <Empty>Nothing has been compared yet. It runs each hour, or now: millrace reconcile.</Empty>
            )
          }
        </Block>
      </Panel>
    </>
  );
}
