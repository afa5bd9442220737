// Fraud: what the rules found, told as it happens, and the rules themselves.
import { useMemo, useState } from 'preact/hooks';
import { get, usePoll, type Alert, type AlertsMessage, type Fraud, type Rules } from '../api.ts';
import { Chart } from '../chart.tsx';
import { useFeed } from '../feed.ts';
import { Facts, Tile } from '../figures.tsx';
import { age, clockTime, count, decimal, fullTime, none, percent, seconds } from '../format.ts';
import { alertDelay, byRule, newestAlerts, perHour, type RuleCount } from '../fraud.ts';
import { spans } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Json, Mark, More, Options, Panel, Segments, Select, Severity, Table, Twist } from '../ui.tsx';

const severities = ['info', 'warn', 'critical'] as const;
const states = ['confirmed', 'provisional'] as const;
type Filter = { rule: string; severity: '' | (typeof severities)[number]; state: '' | (typeof states)[number] };

const shownFirst = 15;
const most = 200; // alerts that a page asks for

// useAlerts joins what the stream tells with what is stored: the stream has a new alert first, the store has those that it has forgotten.
function useAlerts(span: string, filter: Filter) {
  const { rule, severity, state } = filter;
  const query = { kind: 'fraud', ...(rule ? { rule } : {}), ...(severity ? { severity } : {}), ...(state ? { state } : {}) } as const;
  const stored = usePoll('/api/v1/alerts', { ...query, from: `-${span}`, limit: most }, 15_000);
  const feed = useFeed<'/api/v1/alerts/stream', AlertsMessage, Alert>({
    path: '/api/v1/alerts/stream',
    query,
    event: 'alerts',
    read: (m) => ({ rows: m.alerts, skipped: m.skipped }),
    id: (a) => a.alert_id,
    check: (signal) => get('/api/v1/alerts', { ...query, limit: 1 }, signal),
  });
  const length = (spans.find((s) => s.id === span) ?? spans[2]).seconds;
  const rows = useMemo(() => newestAlerts(feed.rows, stored.data?.alerts ?? [], Date.now() - length * 1000), [feed.rows, stored.data, length]);
  return { rows, stored, phase: feed.phase };
}

function Figures({ f }: { f: Fraud }) {
  const all = byRule(f.hours);
  const alerts = all.reduce((n, r) => n + r.alerts, 0);
  const confirmed = all.reduce((n, r) => n + r.confirmed, 0);
  const critical = all.filter((r) => r.severity === 'critical').reduce((n, r) => n + r.alerts, 0);
  const busiest = all[0];
  const slowest = Math.max(...f.hours.map((h) => h.delay_seconds));
  return (
    <dl class="tiles">
      <Tile label="Alerts" value={count(alerts)} hint={`of ${count(all.length)} ${all.length === 1 ? 'rule' : 'rules'}`} />
      <Tile label="Confirmed" value={alerts > 0 ? percent(confirmed / alerts) : none} hint={alerts > confirmed ? `${count(alerts - confirmed)} told on arrival only` : 'of those told'} />
      <Tile label="Critical" value={count(critical)} hint={alerts > 0 ? `${percent(critical / alerts)} of all` : 'nothing was met'} />
      <Tile label="Told after" value={busiest ? seconds(busiest.delay) : none} hint={busiest ? `median; slowest hour ${seconds(slowest)}` : 'from event to alert'} />
    </dl>
  );
}

function Hours({ f }: { f: Fraud }) {
  const h = useMemo(() => perHour(f), [f]);
  return <Chart times={h.times} curves={[{ label: 'Alerts', values: h.values, color: 5 }]} kind="bars" label="Alerts by hour" step={3600} height={150} />;
}

// ByRule lists the rules in force with what they found; those that found nothing are there too, and so are those that are in force no longer.
function ByRule({ f, rules, chosen, choose }: { f: Fraud; rules: Rules | undefined; chosen: string; choose: (rule: string) => void }) {
  const rows = useMemo(() => byRule(f.hours, rules?.rules), [f, rules]);
  const top = Math.max(1, ...rows.map((r) => r.alerts));
  const kinds = new Map(rules?.rules.map((r) => [r.rule, r]));
  return (
    <Table<RuleCount>
      label="Alerts by rule"
      rows={rows}
      id={(r) => r.rule}
      mark={(r) => ({ class: r.rule === chosen ? 'chosen' : undefined })}
      columns={[
        {
          head: 'Rule',
          row: true,
          cell: (r) => (
            <>
              <button type="button" class="plain" aria-pressed={r.rule === chosen} title={kinds.get(r.rule)?.reason} onClick={() => choose(r.rule === chosen ? '' : r.rule)}>
                {r.rule}
              </button>{' '}
              <span class="version">{r.entity}</span>
            </>
          ),
        },
        { head: 'Alerts', n: true, class: 'strong', cell: (r) => count(r.alerts) },
        { head: <span class="hidden">Share of the first</span>, class: 'bar', cell: (r) => <meter min={0} max={top} value={r.alerts} aria-hidden="true" /> },
        { head: 'Severity', cell: (r) => <Severity of={r.severity} /> },
        { head: 'Confirmed', n: true, cell: (r) => (r.alerts > 0 ? percent(r.confirmed / r.alerts) : none) },
        { head: 'Score', title: 'The highest, of 100', n: true, cell: (r) => (r.alerts > 0 ? decimal(r.score * 100) : none) },
        { head: 'Told after', title: 'Median, from the event to the alert', n: true, cell: (r) => (r.alerts > 0 ? seconds(r.delay) : none) },
        { head: 'Version', n: true, cell: (r) => r.versions.join(', ') || none },
      ]}
    />
  );
}

const stateWords: Record<Rules['state'], { state: string; word: string }> = {
  in_force: { state: 'ok', word: 'In force in every task' },
  changing: { state: 'degraded', word: 'Some tasks have another version' },
  unknown: { state: 'degraded', word: 'No task says what it has' },
};

function InForce({ r, now }: { r: Rules; now: number }) {
  const s = stateWords[r.state];
  const here = r.applied.find((a) => a.hash === r.hash);
  const others = r.tasks.filter((t) => t.version !== r.version);
  const stages = [...new Set(r.tasks.map((t) => t.stage))].map((stage) => ({ stage, versions: r.tasks.filter((t) => t.stage === stage).map((t) => t.version) }));
  return (
    <>
      <Facts
        of={[
          ['Version', String(r.version)],
          ['Rules', count(r.rules.length)],
          ['Tasks that have it', r.tasks.length > 0 ? `${count(r.tasks.length - others.length)} of ${count(r.tasks.length)}` : none],
        ]}
      />
      <p>
        <Mark {...s} />
        {others.length > 0 && <span class="sub"> {others.map((t) => `${t.stage} ${t.partition} has ${t.version}`).join(', ')}</span>}
      </p>
      {stages.length > 0 && (
        <Table
          label="Tasks"
          rows={stages}
          id={(x) => x.stage}
          columns={[
            { head: 'Stage', row: true, cell: (x) => x.stage },
            { head: 'Tasks', n: true, cell: (x) => count(x.versions.length) },
            { head: 'Version', n: true, cell: (x) => [...new Set(x.versions)].join(', ') },
          ]}
        />
      )}
      {r.refused.map((x) => (
        <p class="outdated" role="alert" key={x.version + x.reason}>
          {x.version ? `Version ${x.version}` : 'The last set'} on the topic <code>control</code> cannot be used, so the set before stays in force: {x.reason}
        </p>
      ))}
      {r.rejected > 0 && r.refused.length === 0 && (
        <p class="outdated" role="status">
          {r.rejected === 1 ? 'A set' : `${count(r.rejected)} sets`} on the topic <code>control</code> could not be used and stayed out; a usable one has come since.
        </p>
      )}
      <p class="note">
        {r.default && !here ? 'The set that the platform comes with.' : here ? `Applied ${age(here.applied_at, now)} ago${here.forced ? ', forced' : ''}, replayed on ${count(here.replay_events)} events before.` : 'Applied elsewhere.'} <code title={r.hash}>{r.hash.slice(0, 12)}</code>
      </p>
      {r.applied.length > 0 ? (
        <Table
          label="Sets that were applied"
          rows={r.applied}
          id={(a) => a.applied_at + a.version}
          columns={[
            { head: 'Version', row: true, cell: (a) => a.version },
            { head: 'Applied', class: 'nowrap', cell: (a) => <span title={fullTime(a.applied_at)}>{age(a.applied_at, now)} ago</span> },
            { head: 'Replayed', n: true, title: 'Events of the past that the set was tried on', cell: (a) => count(a.replay_events) },
            { head: '', cell: (a) => (a.hash === r.hash ? 'in force' : a.forced ? 'forced' : '') },
          ]}
        />
      ) : (
        <p class="note">
          Another set: <code>millrace rules check</code>, <code>replay</code> and <code>apply</code>.
        </p>
      )}
    </>
  );
}

function Details({ a }: { a: Alert }) {
  return (
    <>
      <p class="note">
        Occurred {fullTime(a.occurred_at)} · told {clockTime(a.detected_at)} · event <code>{a.trigger_event_id}</code> · {a.entity} <code>{a.key}</code> · alert <code>{a.alert_id}</code>
      </p>
      {a.reasons.length > 1 && (
        <ul class="reasons-of">
          {a.reasons.map((r) => (
            <li key={r}>{r}</li>
          ))}
        </ul>
      )}
      {a.details !== null && <Json text={JSON.stringify(a.details)} label={`Details of ${a.alert_id}`} />}
    </>
  );
}

function AlertRows({ rows }: { rows: Alert[] }) {
  const [open, setOpen] = useState('');
  const [shown, setShown] = useState(shownFirst);
  return (
    <>
      <Table
        label="Alerts"
        rows={rows.slice(0, shown)}
        id={(a) => a.alert_id}
        mark={(a) => ({ class: open === a.alert_id ? 'open' : undefined, 'data-rule': a.rule })}
        below={(a) => open === a.alert_id && <Details a={a} />}
        columns={[
          {
            head: 'Occurred',
            class: 'nowrap',
            cell: (a) => (
              <Twist open={open === a.alert_id} row={a.alert_id} toggle={() => setOpen(open === a.alert_id ? '' : a.alert_id)}>
                {clockTime(a.occurred_at)}
              </Twist>
            ),
          },
          { head: 'Severity', cell: (a) => <Severity of={a.severity} /> },
          {
            head: 'Rule',
            row: true,
            cell: (a) => (
              <>
                {a.rule} <span class="version">v{a.rule_version}</span>
                <span class="sub">
                  {a.entity} {a.key.length > 24 ? `${a.key.slice(0, 22)}…` : a.key}
                </span>
              </>
            ),
          },
          { head: 'Score', n: true, title: 'Of 100, with the other rules that were met', cell: (a) => decimal(a.score * 100) },
          { head: 'Told after', n: true, title: 'From the event to the alert', cell: (a) => seconds(alertDelay(a)) },
          { head: 'State', cell: (a) => (a.confirmed ? <Mark state="ok" word="confirmed" /> : <Mark state="running" word="provisional" note="Told on arrival: the order of event time may take it back" />) },
          { head: 'Reason', class: 'wide', cell: (a) => <span title={a.reasons.join('; ')}>{a.reasons[0] ?? none}{a.reasons.length > 1 && ` (+${count(a.reasons.length - 1)})`}</span> },
        ]}
      />
      <More hidden={rows.length - shown} what="earlier alerts" show={() => setShown(rows.length)} />
    </>
  );
}

export function FraudPage() {
  const now = useStore(clock);
  const [span, setSpan] = useState<string>('24h');
  const [filter, setFilter] = useState<Filter>({ rule: '', severity: '', state: '' });
  const found = usePoll('/api/v1/fraud', { from: `-${span}` }, 5000);
  const rules = usePoll('/api/v1/rules', {}, 10_000);
  const alerts = useAlerts(span, filter);
  const names = [...new Set([...(rules.data?.rules.map((r) => r.rule) ?? []), ...(found.data?.hours.map((h) => h.rule) ?? []), ...(filter.rule ? [filter.rule] : [])])].sort();
  const label = spans.find((s) => s.id === span)?.label;
  const nothing = filter.rule || filter.severity || filter.state ? 'No alert of this window fits the filters.' : 'No rule was met in this window.';
  const table = useMemo(() => <AlertRows rows={alerts.rows} />, [alerts.rows]);
  return (
    <>
      <Title title="Fraud" note="What the rules found: told on arrival, confirmed when the watermark has passed.">
        <Choices />
      </Title>
      <div class="bar-tools">
        <Segments label="Window" value={span} choices={spans} choose={setSpan} />
      </div>
      <div class="grid fraud">
        <Panel title="Key figures" note={`last ${label}`} class="c-figures">
          <Block of={found}>{(f) => <Figures f={f} />}</Block>
        </Panel>
        <Panel title="Alerts by hour" class="c-time">
          <Block of={found} lines={6}>
            {(f) => <Hours f={f} />}
          </Block>
        </Panel>
        <Panel title="By rule" note="choose one to see its alerts" class="c-rules">
          <Block of={found} lines={10}>
            {(f) => <ByRule f={f} rules={rules.data} chosen={filter.rule} choose={(rule) => setFilter({ ...filter, rule })} />}
          </Block>
        </Panel>
        <Panel title="Rules in force" class="c-force">
          <Block of={rules}>{(r) => <InForce r={r} now={now} />}</Block>
        </Panel>
        <Panel
          title="Alerts"
          note={
            <span data-feed={alerts.phase}>
              {count(alerts.rows.length)} newest{alerts.phase === 'open' ? ', live' : alerts.phase === 'lost' ? ', read every 15 s' : ''}
            </span>
          }
          class="c-alerts"
          tools={
            <>
              <Select label="Rule" value={filter.rule} choose={(rule) => setFilter({ ...filter, rule })}>
                <option value="">All</option>
                <Options of={names} />
              </Select>
              <Select label="At least" value={filter.severity} choose={(v) => setFilter({ ...filter, severity: v as Filter['severity'] })}>
                <option value="">Any severity</option>
                <Options of={severities} />
              </Select>
              <Select label="State" value={filter.state} choose={(v) => setFilter({ ...filter, state: v as Filter['state'] })}>
                <option value="">All</option>
                <Options of={states} />
              </Select>
            </>
          }
        >
          {alerts.rows.length === 0 ? (
            <Block of={alerts.stored} lines={8}>
              {() => <Empty>{nothing}</Empty>}
            </Block>
          ) : (
            <>
              {alerts.stored.error && (
                <p class="outdated" role="status">
                  Those that the stream tells: {alerts.stored.error.message}
                </p>
              )}
              {table}
            </>
          )}
        </Panel>
      </div>
    </>
  );
}
