// Workflows: what runs in Temporal, when it runs next, and the way there.
import { useState } from 'preact/hooks';
import { usePoll, type Workflows } from '../api.ts';
import { count, fullTime, none, seconds } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Mark, Options, Out, Panel, Select, Table } from '../ui.tsx';

type Run = Workflows['runs'][number];
type Schedule = Workflows['schedules'][number];

const good: Record<string, string> = { completed: 'ok', running: 'running', active: 'running', continued_as_new: 'running', paused: 'degraded', unknown: 'degraded' };
const Status = ({ status }: { status: string }) => <Mark state={good[status] ?? 'down'} word={status.replaceAll('_', ' ')} />;

function ago(t: string | null, now: number): string {
  if (t === null) return none;
  const s = (now - Date.parse(t)) / 1000;
  return s >= 0 ? `${seconds(s)} ago` : `in ${seconds(-s)}`;
}

const Runs = ({ rows, now }: { rows: Run[]; now: number }) => (
  <Table
    label="Runs"
    rows={rows}
    id={(r) => r.run_id}
    columns={[
      { head: 'Workflow', row: true, cell: (r) => <Out href={r.url}>{r.workflow_id}</Out> },
      { head: 'Status', cell: (r) => <Status status={r.status} /> },
      { head: 'Started', class: 'nowrap', cell: (r) => <span title={fullTime(r.started_at)}>{ago(r.started_at, now)}</span> },
      { head: 'Took', n: true, cell: (r) => seconds(r.closed_at === null ? (now - Date.parse(r.started_at)) / 1000 : r.duration_seconds) },
      { head: 'Phase', cell: (r) => r.phase ?? none },
      { head: 'Type', cell: (r) => r.type },
      { head: 'Queue', cell: (r) => <code>{r.task_queue}</code> },
    ]}
  />
);

const Schedules = ({ rows, now }: { rows: Schedule[]; now: number }) => (
  <Table
    label="Schedules"
    rows={rows}
    id={(s) => s.id}
    columns={[
      {
        head: 'Schedule',
        row: true,
        cell: (s) => (
          <>
            <Out href={s.url}>{s.id}</Out>
            {s.note && <span class="sub">{s.note}</span>}
          </>
        ),
      },
      { head: 'Starts', cell: (s) => s.workflow_type },
      { head: 'When', cell: (s) => s.spec },
      { head: 'State', cell: (s) => <Status status={s.paused ? 'paused' : 'active'} /> },
      { head: 'Last', class: 'nowrap', cell: (s) => ago(s.last_at, now) },
      { head: 'Next', class: 'nowrap', cell: (s) => (s.paused ? none : ago(s.next_at, now)) },
    ]}
  />
);

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
            <Options of={types} />
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
