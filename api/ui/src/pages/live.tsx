// The live tail: events as they arrive, newest first.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { get, type EventsMessage, type ShopEvent } from '../api.ts';
import { useFeed } from '../feed.ts';
import { count, fullTime, milliTime, money, none } from '../format.ts';
import { prefs } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { useStore } from '../store.ts';
import { Empty, Failure, Json, Loading, Options, Panel, Search, Select, Table, Twist } from '../ui.tsx';

const categories = ['page', 'cart', 'purchase', 'inventory', 'exposure', 'identity', 'custom'] as const;
type Category = (typeof categories)[number];
type Filter = { category: '' | Category; name: string; q: string };

function Details({ e }: { e: ShopEvent }) {
  // The properties are text from outside: they are set into the event as they are, not read and written again, so that no digit changes.
  const { properties, ...rest } = e;
  const text = `${JSON.stringify(rest).slice(0, -1)},"properties":${properties || '{}'}}`;
  return (
    <>
      <p class="note">
        Occurred {fullTime(e.occurred_at)} · received {milliTime(e.received_at)} · known {milliTime(e.ingested_at)} · Kafka <code>{e.where}</code>
      </p>
      <Json text={text} label={`Event ${e.event_id}`} />
    </>
  );
}

export function LiveEvents() {
  useStore(prefs);
  const [draft, setDraft] = useState<Filter>({ category: '', name: '', q: '' });
  const [filter, setFilter] = useState<Filter>(draft);
  const [paused, setPaused] = useState(false);
  const [open, setOpen] = useState<string>();
  const query = { ...(filter.category === '' ? {} : { category: filter.category }), ...(filter.name ? { name: filter.name } : {}), ...(filter.q ? { q: filter.q } : {}) };
  const tail = useFeed<'/api/v1/events/stream', EventsMessage, ShopEvent>({
    path: '/api/v1/events/stream',
    query,
    event: 'events',
    read: (m) => ({ rows: m.events, skipped: m.skipped }),
    id: (e) => e.where,
    paused,
    check: (signal) => get('/api/v1/events/recent', { ...query, limit: 1 }, signal),
  });

  useEffect(() => {
    const t = setTimeout(() => setFilter((old) => (old.category === draft.category && old.name === draft.name.trim() && old.q === draft.q.trim() ? old : { category: draft.category, name: draft.name.trim(), q: draft.q.trim() })), 250);
    return () => clearTimeout(t);
  }, [draft]);

  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.key !== ' ' || !prefs.get().shortcuts || (e.target as HTMLElement).closest('button,a,input,select,dialog,[tabindex="0"]')) return;
      e.preventDefault();
      setPaused((p) => !p);
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);

  const filtered = filter.category !== '' || filter.name !== '' || filter.q !== '';
  const toggle = (where: string) => setOpen((o) => (o === where ? undefined : where));
  // Drawn anew with new events only, not with each word that is typed.
  const table = useMemo(
    () => (
      <Table
        label="Events"
        class="rows tail"
        rows={tail.rows}
        id={(e) => e.where}
        mark={(e) => ({ class: open === e.where ? 'open' : undefined, 'data-name': e.name, 'data-category': e.category })}
        below={(e) => open === e.where && <Details e={e} />}
        columns={[
          {
            head: 'Received',
            class: 'nowrap',
            cell: (e) => (
              <Twist open={open === e.where} row={e.where} toggle={() => toggle(e.where)}>
                {milliTime(e.received_at)}
              </Twist>
            ),
          },
          { head: 'Name', class: 'strong', cell: (e) => e.name },
          { head: 'Category', cell: (e) => <span class={`tag ${e.category}`}>{e.category}</span> },
          { head: 'Value', n: true, cell: (e) => (e.value === null ? '' : money(e.value, e.currency ?? '')) },
          { head: 'Visitor', class: 'clip', cell: (e) => e.visitor_id || e.user_id || none },
          { head: 'Order or products', class: 'clip', cell: (e) => e.order_id ?? e.product_ids.join(', ') },
          { head: 'Source', class: 'clip', cell: (e) => e.source },
        ]}
      />
    ),
    [tail.rows, open, prefs.get().tz],
  );
  return (
    <>
      <Title title="Live events" note="Accepted events as they arrive; at most 50 a second are shown.">
        <Choices />
      </Title>
      <Panel
        title="Tail"
        note={
          <span data-tail={tail.phase}>
            {count(tail.rows.length)} shown
            {tail.skipped > 0 && `, ${count(tail.skipped)} more passed by`}
          </span>
        }
        tools={
          <button type="button" class={paused ? 'primary' : undefined} aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? `Go on${tail.waiting > 0 ? ` (${count(tail.waiting)} new)` : ''}` : 'Pause'}
          </button>
        }
      >
        <form class="filters" onSubmit={(e) => e.preventDefault()} aria-label="Filters">
          <Select label="Category" value={draft.category} choose={(v) => setDraft({ ...draft, category: v as Filter['category'] })}>
            <option value="">All</option>
            <Options of={categories} />
          </Select>
          <Search label="Event name" value={draft.name} placeholder="purchase" change={(name) => setDraft({ ...draft, name })} />
          <Search label="Event, visitor, user, session, order or product id" value={draft.q} grow change={(q) => setDraft({ ...draft, q })} />
        </form>
        {tail.error ? (
          <Failure error={tail.error} />
        ) : tail.rows.length > 0 ? (
          <div class={tail.phase === 'lost' ? 'old' : undefined}>{table}</div>
        ) : tail.heard || tail.phase === 'open' ? (
          <Empty>
            {filtered ? 'No event of the last hour fits the filters. New ones appear here as they arrive.' : 'No event has arrived yet. Point an SDK at the gateway, or send traffic with millrace simulate.'}
          </Empty>
        ) : (
          <Loading lines={8} />
        )}
      </Panel>
    </>
  );
}
