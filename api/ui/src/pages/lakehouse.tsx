// Lakehouse: what maintenance made of the Iceberg tables' files, and whether the stores hold what the control totals say.
import { useState } from 'preact/hooks';
import { usePoll, type Maintenance, type Reconciliations } from '../api.ts';
import { age, bytes, count, fullTime, none, percent, seconds } from '../format.ts';
import { Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, More, Out, Outcome, Panel, Select, Sideways } from '../ui.tsx';

type Step = Maintenance['steps'][number];
type Change = NonNullable<Step['files']>;

// first is how many rows of a table are shown until all are asked for.
const first = 12;

const became = (c: Change | null, show: (n: number) => string) => (c === null ? none : `${show(c.before)} → ${show(c.after)}`);

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

function Maintained({ rows, now }: { rows: Run[]; now: number }) {
  return (
    <Sideways label="Runs of maintenance">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">Table</th>
            <th scope="col">Outcome</th>
            <th scope="col" class="n">
              Files
            </th>
            <th scope="col" class="n">
              Bytes
            </th>
            <th scope="col" class="n">
              Ratio
            </th>
            <th scope="col" class="n" title="Files that readers open for the table's query set">
              Files read
            </th>
            <th scope="col" class="n">
              Manifests
            </th>
            <th scope="col" class="n" title="Snapshots that were expired">
              Expired
            </th>
            <th scope="col" class="n" title="Files without a table that were removed">
              Orphans
            </th>
            <th scope="col" class="n">
              Took
            </th>
            <th scope="col">Ended</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((r) => {
            const bad = r.steps.find((s) => s.outcome !== 'done');
            const compact = r.steps.find((s) => s.files !== null);
            const manifests = sum(r, 'manifests_before') > sum(r, 'manifests_after') ? `${count(sum(r, 'manifests_before'))} → ${count(sum(r, 'manifests_after'))}` : none;
            return (
              <tr key={r.first.workflow_id + r.first.run}>
                <th scope="row">
                  <Out href={r.first.url}>{r.first.table}</Out>
                </th>
                <td>
                  <Outcome of={bad?.outcome ?? 'done'} note={bad?.reason ?? r.steps.map((s) => s.step).join(', ')} />
                  {bad && <span class="sub">{`${bad.step}${bad.reason && `: ${bad.reason}`}`}</span>}
                </td>
                <td class="n">{became(compact?.files ?? null, count)}</td>
                <td class="n">{became(compact?.bytes ?? null, bytes)}</td>
                <td class="n">{compact?.bytes && compact.bytes.before > 0 ? percent(compact.bytes.ratio) : none}</td>
                <td class="n">{became(compact?.files_read ?? null, count)}</td>
                <td class="n">{manifests}</td>
                <td class="n">{some(sum(r, 'snapshots_removed'))}</td>
                <td class="n">{some(sum(r, 'orphans'))}</td>
                <td class="n">{seconds(r.steps.reduce((n, s) => n + s.duration_seconds, 0))}</td>
                <td class="nowrap">{age(r.first.finished_at, now)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Sideways>
  );
}

type Reconciled = Reconciliations['runs'][number];

const differences = (r: Reconciled) =>
  Object.entries(r.differences)
    .filter(([, n]) => n > 0)
    .map(([kind, n]) => `${count(n)} ${kind.replaceAll('_', ' ')}`)
    .join(', ');

function Compared({ rows, now }: { rows: Reconciled[]; now: number }) {
  return (
    <Sideways label="Reconciliations">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">Topic</th>
            <th scope="col">Hour</th>
            <th scope="col">Store</th>
            <th scope="col">Outcome</th>
            <th scope="col" class="n">
              Expected
            </th>
            <th scope="col" class="n">
              Found
            </th>
            <th scope="col" class="n">
              Repaired
            </th>
            <th scope="col">Differences</th>
            <th scope="col">Ended</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((r) => (
            <tr key={r.topic + r.hour + r.store + r.run}>
              <th scope="row">
                <Out href={r.url}>{r.topic}</Out>
              </th>
              <td class="nowrap">{fullTime(r.hour)}</td>
              <td>{r.store}</td>
              <td>
                <Outcome of={r.outcome} />
              </td>
              <td class="n">{count(r.expected)}</td>
              <td class="n">{count(r.found)}</td>
              <td class="n">{count(r.repaired)}</td>
              <td>{differences(r) || none}</td>
              <td class="nowrap">{age(r.finished_at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sideways>
  );
}

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
            {[...seen].sort().map((t) => (
              <option key={t} value={t}>
                {t}
              </option>
            ))}
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
