// Failed events: what could not be understood, why, and where in the payload.
import { useMemo, useState } from 'preact/hooks';
import { usePoll, type FailedEvents, type FailedSample } from '../api.ts';
import { Chart } from '../chart.tsx';
import { Legend } from '../figures.tsx';
import { age, count, fullTime, percent } from '../format.ts';
import { spans } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Json, Panel, Segments } from '../ui.tsx';

// What each reason means to the team that sends the events.
const meanings: Record<string, string> = {
  malformed: 'The bytes are not what they say they are.',
  schema: 'A field is missing or not of its type.',
  size: 'Larger than an event may be.',
  depth: 'Nested deeper than 64.',
  bad_time: 'Not between 1990 and a day from now.',
  bad_amount: 'Not an exact amount with at most 6 decimals.',
  bad_name: 'Not a well-formed event name.',
  unknown_key: 'The write key is not known, or revoked.',
  category: 'The write key may not send this category.',
  rate: 'The write key sent more than it may.',
  store: 'A store refused the row.',
};

function Reasons({ f, reason, choose }: { f: FailedEvents; reason: string; choose: (r: string) => void }) {
  const now = useStore(clock);
  const top = f.by_reason[0]?.count ?? 1;
  return (
    <ul class="reasons">
      <li>
        <button type="button" aria-pressed={reason === ''} onClick={() => choose('')}>
          <span class="label">All reasons</span>
          <span class="n">{count(f.by_reason.reduce((n, r) => n + r.count, 0))}</span>
        </button>
      </li>
      {f.by_reason.map((r) => (
        <li key={r.reason}>
          <button type="button" aria-pressed={reason === r.reason} onClick={() => choose(reason === r.reason ? '' : r.reason)}>
            <span class="label">
              <code>{r.reason}</code>
              <span class="sub">{meanings[r.reason] ?? ''} Last {age(r.last_at, now)} ago.</span>
            </span>
            <span class="n">{count(r.count)}</span>
            <meter min={0} max={top} value={r.count} aria-hidden="true" />
          </button>
        </li>
      ))}
    </ul>
  );
}

function Timeline({ f }: { f: FailedEvents }) {
  const curves = useMemo(() => f.series.series.slice(0, 5).map((s, i) => ({ label: s.reason, values: s.values, color: i + 1 })), [f.series]);
  if (curves.length === 0) return <Empty>Nothing failed in this window.</Empty>;
  return (
    <>
      <Legend items={curves.map((c) => c.label)} />
      <Chart times={f.series.times} curves={curves} kind="lines" label="Failed events by reason" step={f.series.step_seconds} height={170} />
    </>
  );
}

function Sample({ s }: { s: FailedSample }) {
  return (
    <article class="sample" data-reason={s.reason} aria-label={`Failed event ${s.failed_id}`}>
      <header>
        <code class="tag failed">{s.reason}</code>
        <p class="strong">{s.error}</p>
        {s.error_path !== '' && (
          <p>
            at <code class="path">{s.error_path}</code>
          </p>
        )}
        <p class="note">
          {fullTime(s.failed_at)} · source {s.source || '–'}
          {s.event_id && (
            <>
              {' '}
              · event <code>{s.event_id}</code>
            </>
          )}{' '}
          · <code>{s.failed_id}</code>
        </p>
      </header>
      {s.payload === '' ? <p class="note">No payload was kept.</p> : <Json text={s.payload} path={s.error_path} label={`Payload of ${s.failed_id}`} />}
      {s.payload_truncated && <p class="note">Only the beginning of the payload is shown.</p>}
    </article>
  );
}

export function Failed() {
  const [span, setSpan] = useState<string>('24h');
  const [reason, setReason] = useState('');
  const [open, setOpen] = useState(10);
  const all = usePoll('/api/v1/failed', { window: span, limit: 50, ...(reason ? { reason } : {}) }, 5000);
  return (
    <>
      <Title title="Failed events" note="What producers sent and nobody could understand. It is kept and can be replayed; the sender was answered 200.">
        <Choices />
      </Title>
      <div class="bar-tools">
        <Segments label="Window" value={span} choices={spans} choose={setSpan} />
      </div>
      <Block of={all} lines={10}>
        {(f) =>
          f.by_reason.length === 0 ? (
            <Empty>
              <span class="good">No event failed in this window.</span>
            </Empty>
          ) : (
            <div class="grid failed">
              <Panel title="By reason" note={`${count(f.total)} in all`} class="c-reasons">
                <Reasons
                  f={f}
                  reason={reason}
                  choose={(r) => {
                    setReason(r);
                    setOpen(10);
                  }}
                />
              </Panel>
              <Panel title="Over time" class="c-time">
                <Timeline f={f} />
              </Panel>
              <Panel title="Samples" note={`newest first${f.total > 0 && f.samples.length < f.total ? `, ${percent(f.samples.length / f.total)} of all` : ''}; what is wrong is marked`} class="c-samples">
                {f.samples.length === 0 ? <Empty>No sample of this reason.</Empty> : f.samples.slice(0, open).map((s) => <Sample key={s.failed_id} s={s} />)}
                {f.samples.length > open && (
                  <p class="actions">
                    <button type="button" onClick={() => setOpen(open + 20)}>
                      Show more
                    </button>
                  </p>
                )}
              </Panel>
            </div>
          )
        }
      </Block>
    </>
  );
}
