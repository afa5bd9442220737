// Lakehouse: what maintenance made of the Iceberg tables' files, and whether the stores hold what the control totals say.
import { useState } from 'preact/hooks';
import { usePoll, type Maintenance, type Reconciliations } from '../api.ts';
import { age, bytes, count, fullTime, none, percent, seconds } from '../format.ts';
import { Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Out, Outcome, Panel, Select, Sideways } from '../ui.tsx';

type Step = Maintenance['steps'][number];
type Change = NonNullable<Step['files']>;

const became = (c: Change | null, show: (n: number) => string) => (c === null ? none : `${show(c.before)} → ${show(c.after)}`);

function Steps({ rows, now }: { rows: Step[]; now: number }) {
  return (
    <Sideways label="Steps of maintenance">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">Table</th>
            <th scope="col">Step</th>
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
            <th scope="col" class="n">
              Files read
            </th>
            <th scope="col" class="n">
              Took
            </th>
            <th scope="col">Ended</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((s) => (
            <tr key={s.workflow_id + s.run + s.step}>
              <th scope="row">
                <Out href={s.url}>{s.table}</Out>
              </th>
              <td>{s.step}</td>
              <td>
                <Outcome of={s.outcome} note={s.reason} />
                {s.reason && <span class="sub">{s.reason}</span>}
              </td>
              <td class="n">{became(s.files, count)}</td>
              <td class="n">{became(s.bytes, bytes)}</td>
              <td class="n">{s.bytes === null || s.bytes.before === 0 ? none : percent(s.bytes.ratio)}</td>
              <td class="n">{became(s.files_read, count)}</td>
              <td class="n">{seconds(s.duration_seconds)}</td>
              <td class="nowrap">{age(s.finished_at, now)}</td>
            </tr>
          ))}
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
  const all = usePoll('/api/v1/maintenance', { limit: 100, ...(table ? { table } : {}) }, 5000);
  const compared = usePoll('/api/v1/reconcile', { limit: 100 }, 5000);
  const [seen] = useState(new Set<string>());
  for (const s of all.data?.steps ?? []) seen.add(s.table);
  return (
    <>
      <Title title="Lakehouse" note={all.data?.ui ? <Out href={all.data.ui}>Temporal UI</Out> : 'What keeps the Iceberg tables small, sorted and equal.'} />
      <Panel
        title="Maintenance"
        note="Files that were rewritten, and files that readers open for the table's query set, before and after"
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
          {(d) => (d.steps.length > 0 ? <Steps rows={d.steps} now={now} /> : <Empty>No maintenance has run yet{table && ` on ${table}`}. It runs by schedule, or now: millrace workflows start MaintainTable.</Empty>)}
        </Block>
      </Panel>
      <Panel title="Reconciliation" note="The stores beside the control totals, hour by hour">
        <Block of={compared} lines={8}>
          {(d) => (d.runs.length > 0 ? <Compared rows={d.runs} now={now} /> : <Empty>Nothing has been compared yet. It runs each hour, or now: millrace reconcile.</Empty>)}
        </Block>
      </Panel>
    </>
  );
}
