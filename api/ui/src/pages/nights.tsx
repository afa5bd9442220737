// Nights: what the nightly pipeline did, night by night and step by step, and how a failed one is repaired.
import { useState } from 'preact/hooks';
import { usePoll, type Nights } from '../api.ts';
import { count, fullTime, none, seconds } from '../format.ts';
import { Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, More, Out, Outcome, Panel, Select, Table } from '../ui.tsx';

type Night = Nights['nights'][number];
type Step = Night['steps'][number];

// order is that of the pipeline: the union of all steps, as the newest night that has most of them lists them.
function order(nights: Night[]): string[] {
  const out: string[] = [];
  for (const n of [...nights].sort((a, b) => b.steps.length - a.steps.length)) {
    for (const s of n.steps) if (!out.includes(s.step)) out.push(s.step);
  }
  return out;
}

function Calendar({ nights, gaps, chosen, choose }: { nights: Night[]; gaps: string[]; chosen: string; choose: (night: string) => void }) {
  const steps = order(nights);
  const rows = [...nights.map((n) => ({ at: n.night, night: n as Night | undefined })), ...gaps.map((g) => ({ at: g, night: undefined as Night | undefined }))].sort((a, b) => (a.at < b.at ? 1 : -1));
  return (
    <Table
      label="Nights and their steps"
      class="rows nights"
      rows={rows}
      id={(r) => r.at}
      mark={(r) => ({ class: r.at === chosen ? 'chosen' : undefined })}
      columns={[
        {
          head: 'Night',
          row: true,
          cell: ({ at, night }) =>
            night ? (
              <button type="button" class="plain" aria-pressed={at === chosen} onClick={() => choose(at)}>
                {at}
              </button>
            ) : (
              at
            ),
        },
        { head: 'Outcome', cell: ({ night }) => <Outcome of={night?.outcome ?? 'missing'} note={night?.reason ?? 'This night has not run: millrace nightly gaps --fill'} /> },
        ...steps.map((s) => ({
          head: s,
          class: 'step',
          cell: ({ night }: (typeof rows)[number]) => {
            const step = night?.steps.find((x) => x.step === s);
            return step ? <Outcome of={step.outcome} short note={`${step.outcome}${step.reason && `: ${step.reason}`}`} /> : none;
          },
        })),
        { head: 'Took', n: true, cell: ({ night }) => (night ? seconds(night.duration_seconds) : none) },
      ]}
    />
  );
}

const numbers = (s: Step) =>
  Object.entries(s.numbers)
    .map(([k, v]) => `${k.replaceAll('_', ' ')} ${count(v)}`)
    .join(', ');

const ended = (x: { outcome: string; reason: string }) => (
  <>
    <Outcome of={x.outcome} />
    {x.reason && <span class="sub">{x.reason}</span>}
  </>
);

// A night has a workflow for each topic and hour: those that are done are shown when they are asked for.
function Workflows({ night }: { night: Night }) {
  const [all, setAll] = useState(false);
  const rows = all ? night.workflows : night.workflows.filter((w) => w.outcome !== 'done');
  return (
    <>
      {rows.length > 0 && (
        <Table
          label={`Workflows of ${night.night}`}
          rows={rows}
          id={(w) => w.workflow_id}
          columns={[
            { head: 'Workflow', row: true, cell: (w) => <Out href={w.url}>{w.workflow_id}</Out> },
            { head: 'Outcome', cell: ended },
            { head: 'Type', cell: (w) => w.type },
            { head: 'Took', n: true, cell: (w) => seconds(w.duration_seconds) },
          ]}
        />
      )}
      <More hidden={night.workflows.length - rows.length} what="workflows that are done" show={() => setAll(true)} />
    </>
  );
}

function Detail({ night, now }: { night: Night; now: number }) {
  return (
    <>
      <p class="note">
        <Out href={night.url}>{night.workflow_id}</Out>, {night.trigger}, started <span title={fullTime(night.started_at)}>{seconds((now - Date.parse(night.started_at)) / 1000)} ago</span>
        {night.reason && `: ${night.reason}`}
      </p>
      {(night.outcome === 'failed' || night.outcome === 'partial' || night.outcome === 'canceled') && (
        <p class="remedy">
          Mend the cause, then start <code>Nightly</code> again in the Temporal UI with the input <code>{night.input}</code>, or <code>millrace nightly run {night.night}</code>: only what is not done runs.
        </p>
      )}
      <Table
        label={`Steps of ${night.night}`}
        rows={night.steps}
        id={(s) => s.step}
        columns={[
          { head: 'Step', row: true, cell: (s) => s.step },
          { head: 'Outcome', cell: ended },
          { head: 'Took', n: true, cell: (s) => seconds(s.duration_seconds) },
          { head: 'Numbers', cell: (s) => numbers(s) || none },
        ]}
      />
      <Workflows key={night.night} night={night} />
    </>
  );
}

export function NightsPage() {
  const now = useStore(clock);
  const [days, setDays] = useState('30');
  const [chosen, choose] = useState('');
  const all = usePoll('/api/v1/nights', { days: Number(days) }, 5000);
  const nights = all.data?.nights ?? [];
  const night = nights.find((n) => n.night === chosen) ?? nights[0];
  const failed = nights.filter((n) => n.outcome === 'failed').length;
  const gaps = all.data?.gaps.length ?? 0;
  return (
    <>
      <Title title="Nights" note={all.data?.ui ? <Out href={all.data.ui}>Temporal UI</Out> : 'The nightly pipeline, step by step.'} />
      <Panel
        title="Pipeline"
        note={all.data && `${count(nights.length)} nights, ${count(failed)} failed, ${count(gaps)} missing`}
        tools={
          <Select label="Show" value={days} choose={setDays}>
            {['7', '30', '90'].map((d) => (
              <option key={d} value={d}>
                {d} nights
              </option>
            ))}
          </Select>
        }
      >
        <Block of={all} lines={8}>
          {(d) =>
            d.nights.length + d.gaps.length > 0 ? (
              <Calendar nights={d.nights} gaps={d.gaps} chosen={night?.night ?? ''} choose={choose} />
            ) : (
              <Empty>No night has run yet. The first one runs by schedule, or now: millrace nightly backfill.</Empty>
            )
          }
        </Block>
      </Panel>
      {night && (
        <Panel title={`Night ${night.night}`} note={<Outcome of={night.outcome} />}>
          <Detail night={night} now={now} />
        </Panel>
      )}
    </>
  );
}
