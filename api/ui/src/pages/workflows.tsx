// Workflows: what runs in Temporal, when it runs next, and the way there.
import { useState } from 'preact/hooks';
import { usePoll, type Workflows } from '../api.ts';
import { count, fullTime, none, seconds } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Out, Panel, Select, Sideways } from '../ui.tsx';

type Run = Workflows['runs'][number];
type Schedule = Workflows['schedules'][number];

const good: Record<string, string> = { completed: 'ok', running: 'running', active: 'running', continued_as_new: 'running', paused: 'degraded', unknown: 'degraded' };
const marks: Record<string, string> = { ok: '✓', running: '▸', degraded: '!', down: '✕' };

function Status({ status }: { status: string }) {
  const state = good[status] ?? 'down';
  return (
    <span class={`badge ${state}`}>
      <span aria-hidden="true" class="icon">
        {marks[state]}
      </span>
      {status.replaceAll('_', ' ')}
    </span>
  );
}

function ago(t: string | null, now: number): string {
  if (t === null) return none;
  const s = (now - Date.parse(t)) / 1000;
  return s >= 0 ? `${seconds(s)} ago` : `in ${seconds(-s)}`;
}

function Runs({ rows, now }: { rows: Run[]; now: number }) {
  return (
    <Sideways label="Runs">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">Workflow</th>
            <th scope="col">Status</th>
            <th scope="col">Started</th>
            <th scope="col" class="n">
              Took
            </th>
            <th scope="col">Phase</th>
            <th scope="col">Type</th>
            <th scope="col">Queue</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((r) => (
            <tr key={r.run_id}>
              <th scope="row">
                <Out href={r.url}>{r.workflow_id}</Out>
              </th>
              <td>
                <Status status={r.status} />
              </td>
              <td class="nowrap" title={fullTime(r.started_at)}>
                {ago(r.started_at, now)}
              </td>
              <td class="n">{seconds(r.closed_at === null ? (now - Date.parse(r.started_at)) / 1000 : r.duration_seconds)}</td>
              <td>{r.phase ?? none}</td>
              <td>{r.type}</td>
              <td>
                <code>{r.task_queue}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sideways>
  );
}

function Schedules({ rows, now }: { rows: Schedule[]; now: number }) {
  return (
    <Sideways label="Schedules">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">Schedule</th>
            <th scope="col">Starts</th>
            <th scope="col">When</th>
            <th scope="col">State</th>
            <th scope="col">Last</th>
            <th scope="col">Next</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((s) => (
            <tr key={s.id}>
              <th scope="row">
                <Out href={s.url}>{s.id}</Out>
                {s.note && <span class="sub">{s.note}</span>}
              </th>
              <td>{s.workflow_type}</td>
              <td>{s.spec}</td>
              <td>
                <Status status={s.paused ? 'paused' : 'active'} />
              </td>
              <td class="nowrap">{ago(s.last_at, now)}</td>
              <td class="nowrap">{s.paused ? none : ago(s.next_at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Sideways>
  );
}

export function WorkflowsPage() {
  const now = useStore(clock);
  const [type, setType] = useState('');
  const all = usePoll('/api/v1/workflows', { limit: 100, ...(type ? { type } : {}) }, 3000);
  const w = all.data;
  const [seen] = useState(new Set<string>());
  for (const t of [...(w?.runs.map((r) => r.type) ?? []), ...(w?.schedules.map((s) => s.workflow_type) ?? [])]) seen.add(t);
  const types = [...seen].filter((t) => t !== '').sort();
  return (
    <>
      <Title title="Workflows" note={w?.ui ? <Out href={w.ui}>Temporal UI</Out> : 'Everything that is batch runs in Temporal.'}>
        <Choices />
      </Title>
      <Panel
        title="Runs"
        note={w?.available ? `${count(w.runs.filter((r) => r.status === 'running').length)} running, ${count(w.runs.length)} shown, newest first` : undefined}
        tools={
          <Select label="Type" value={type} choose={setType}>
            <option value="">All</option>
            {types.map((t) => (
              <option key={t} value={t}>
                {t}
              </option>
            ))}
          </Select>
        }
      >
        <Block of={all} lines={8}>
          {(d) => (
            <>
              {!d.available && (
                <p class="outdated" role="status">
                  Temporal is not available: {d.detail}
                </p>
              )}
              {d.runs.length > 0 ? <Runs rows={d.runs} now={now} /> : d.available && <Empty>No workflow has run yet{type && ` of type ${type}`}.</Empty>}
            </>
          )}
        </Block>
      </Panel>
      <Panel title="Schedules">
        <Block of={all} lines={3}>
          {(d) => (d.schedules.length > 0 ? <Schedules rows={d.schedules} now={now} /> : <Empty>{d.available ? 'There is no schedule. Run millrace schedules apply.' : 'Not known while Temporal is away.'}</Empty>)}
        </Block>
      </Panel>
    </>
  );
}
