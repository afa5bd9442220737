// The live tail: events as they arrive, newest first.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { address, get, ApiError, type EventsMessage, type ShopEvent } from '../api.ts';
import { count, fullTime, milliTime, money, none } from '../format.ts';
import { Source, type Phase } from '../link.ts';
import { prefs } from '../prefs.ts';
import { Choices, Title } from '../shell.tsx';
import { useStore } from '../store.ts';
import { Empty, Failure, Json, Loading, Panel, Select, Sideways } from '../ui.tsx';

const categories = ['page', 'cart', 'purchase', 'inventory', 'exposure', 'identity', 'custom'] as const;
type Category = (typeof categories)[number];
type Filter = { category: '' | Category; name: string; q: string };

const kept = 200;

function useTail(filter: Filter, paused: boolean) {
  const [events, setEvents] = useState<ShopEvent[]>([]);
  const [skipped, setSkipped] = useState(0);
  const [waiting, setWaiting] = useState(0);
  const [phase, setPhase] = useState<Phase>('connecting');
  const [heard, setHeard] = useState(false);
  const [error, setError] = useState<ApiError>();
  const held = useRef<ShopEvent[]>([]);
  const stop = useRef(paused);
  stop.current = paused;
  const tenant = useStore(prefs).tenant;

  const add = (more: ShopEvent[]) =>
    setEvents((old) => {
      const seen = new Set(old.map((e) => e.where));
      return [...more.filter((e) => !seen.has(e.where)), ...old].slice(0, kept);
    });

  useEffect(() => {
    const query = { ...(filter.category === '' ? {} : { category: filter.category }), ...(filter.name ? { name: filter.name } : {}), ...(filter.q ? { q: filter.q } : {}) };
    const ctl = new AbortController();
    setEvents([]);
    setSkipped(0);
    setHeard(false);
    setError(undefined);
    held.current = [];
    setWaiting(0);
    const source = new Source({
      url: () => address('/api/v1/events/stream', query),
      event: 'events',
      silence: 0,
      phase: (p) => {
        setPhase(p);
        if (p !== 'lost') setError(undefined);
        // A stream cannot say why it was refused: the same question as a request can.
        else
          get('/api/v1/events/recent', { ...query, limit: 1 }, ctl.signal).catch((err: unknown) => {
            if (err instanceof ApiError && err.problem) setError(err);
          });
      },
      message: (data) => {
        let m: EventsMessage;
        try {
          m = JSON.parse(data) as EventsMessage;
        } catch {
          return;
        }
        setHeard(true);
        setSkipped((n) => n + m.skipped);
        if (stop.current) {
          held.current = [...m.events, ...held.current].slice(0, kept);
          setWaiting(held.current.length);
        } else add(m.events);
      },
    });
    return () => {
      ctl.abort();
      source.close();
    };
  }, [filter.category, filter.name, filter.q, tenant]);

  useEffect(() => {
    if (paused) return;
    add(held.current);
    held.current = [];
    setWaiting(0);
  }, [paused]);

  return { events, skipped, waiting, phase, heard, error };
}

function Row({ e, open, toggle }: { e: ShopEvent; open: boolean; toggle: () => void }) {
  const id = `d-${e.where.replace(/[^a-zA-Z0-9]/g, '-')}`;
  return (
    <>
      <tr class={open ? 'open' : undefined} data-name={e.name} data-category={e.category}>
        <td class="nowrap">
          <button type="button" class="row" aria-expanded={open} aria-controls={id} onClick={toggle}>
            <span aria-hidden="true" class="twist">
              ▸
            </span>
            {milliTime(e.received_at)}
            <span class="hidden"> details</span>
          </button>
        </td>
        <td class="strong">{e.name}</td>
        <td>
          <span class={`tag ${e.category}`}>{e.category}</span>
        </td>
        <td class="n">{e.value === null ? '' : money(e.value, e.currency ?? '')}</td>
        <td class="clip">{e.visitor_id || e.user_id || none}</td>
        <td class="clip">{e.order_id ?? e.product_ids.join(', ')}</td>
        <td class="clip">{e.source}</td>
      </tr>
      {open && (
        <tr class="details">
          <td colSpan={7} id={id}>
            <Details e={e} />
          </td>
        </tr>
      )}
    </>
  );
}

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
  const tail = useTail(filter, paused);

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
  const rows = useMemo(() => tail.events.map((e) => <Row key={e.where} e={e} open={open === e.where} toggle={() => setOpen((o) => (o === e.where ? undefined : e.where))} />), [tail.events, open, prefs.get().tz]);
  return (
    <>
      <Title title="Live events" note="Accepted events as they arrive; at most 50 a second are shown.">
        <Choices />
      </Title>
      <Panel
        title="Tail"
        note={
          <span data-tail={tail.phase}>
            {count(tail.events.length)} shown
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
            {categories.map((c) => (
              <option key={c} value={c}>
                {c}
              </option>
            ))}
          </Select>
          <label class="field">
            <span>Event name</span>
            <input type="search" value={draft.name} maxLength={128} placeholder="purchase" autocomplete="off" spellcheck={false} onInput={(e) => setDraft({ ...draft, name: e.currentTarget.value })} />
          </label>
          <label class="field grow">
            <span>Event, visitor, user, session, order or product id</span>
            <input type="search" value={draft.q} maxLength={128} autocomplete="off" spellcheck={false} onInput={(e) => setDraft({ ...draft, q: e.currentTarget.value })} />
          </label>
        </form>
        {tail.error ? (
          <Failure error={tail.error} />
        ) : tail.events.length > 0 ? (
          <div class={tail.phase === 'lost' ? 'old' : undefined}>
            <Sideways label="Events">
              <table class="rows tail">
                <thead>
                  <tr>
                    <th scope="col">Received</th>
                    <th scope="col">Name</th>
                    <th scope="col">Category</th>
                    <th scope="col" class="n">
                      Value
                    </th>
                    <th scope="col">Visitor</th>
                    <th scope="col">Order or products</th>
                    <th scope="col">Source</th>
                  </tr>
                </thead>
                <tbody>{rows}</tbody>
              </table>
            </Sideways>
          </div>
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
