// Recommendations: what would be shown to whom now, and how well the model does beside popularity.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { usePoll, type Models, type Polled, type Recommendations } from '../api.ts';
import { age, count, decimal, fullTime, none, percent, sentence } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Mark, Panel, Search, Segments, Table } from '../ui.tsx';

const model = 'similar-items';
const asked = [
  { id: 'item', label: 'A product' },
  { id: 'visitor', label: 'A visitor' },
] as const;
type Asked = (typeof asked)[number]['id'];

type Item = Recommendations['items'][number];
type Version = Models['versions'][number];
type Names = Map<string, string>;

// useNames gives the products that sell, by id: what is recommended is an id, and a name says more.
function useNames(): Names {
  const top = usePoll('/api/v1/products/top', { window: '7d', by: 'orders', limit: 100 }, 60_000);
  return useMemo(() => new Map((top.data?.products ?? []).map((p) => [p.product_id, p.name ?? p.product_id])), [top.data]);
}

function Items({ rows, names, label, pick }: { rows: Item[]; names: Names; label: string; pick: (id: string) => void }) {
  const top = Math.max(...rows.map((r) => r.score), 1e-9);
  const lifts = rows.some((r) => r.lift !== undefined);
  return (
    <Table
      label={label}
      rows={rows}
      id={(r) => r.item}
      mark={(r) => ({ 'data-item': r.item })}
      columns={[
        { head: '#', n: true, cell: (_, i) => i + 1 },
        {
          head: 'Product',
          row: true,
          class: 'product',
          cell: (r) => (
            <>
              <button type="button" class="plain" title="What goes with this one" onClick={() => pick(r.item)}>
                {names.get(r.item) ?? r.item}
              </button>
              {names.has(r.item) && names.get(r.item) !== r.item && (
                <span class="sub">
                  <code>{r.item}</code>
                </span>
              )}
            </>
          ),
        },
        { head: <span class="hidden">Share of the first</span>, class: 'bar', cell: (r) => r.score > 0 && <meter min={0} max={top} value={r.score} aria-hidden="true" /> },
        { head: 'Score', n: true, cell: (r) => (r.score > 0 ? r.score.toFixed(3) : <span class="tag">popular</span>) },
        ...(lifts ? [{ head: 'Lift', n: true, title: 'How much more often than by chance both came together lately', cell: (r: Item) => (r.lift === undefined ? none : `×${decimal(r.lift)}`) }] : []),
      ]}
    />
  );
}

type List = { title: string; note: (r: Recommendations) => string; of: Polled<Recommendations>; names: Names; pick: (id: string) => void; none: string; class?: string };

function Recommended({ title, note, of, names, pick, none: nothing, class: cls = 'c-half' }: List) {
  return (
    <Panel title={title} note={of.data && note(of.data)} class={cls}>
      <Block of={of} lines={8} absent="No version is published yet, and the stream has learnt nothing: it does within seconds of looks at products.">
        {(r) => (r.items.length > 0 ? <Items rows={r.items} names={names} label={title} pick={pick} /> : <Empty>{nothing}</Empty>)}
      </Block>
    </Panel>
  );
}

const together = (r: Recommendations) => (r.basis === 'items' ? 'goes with it; where there is too little, what is popular follows' : 'nothing goes with it yet: what is popular instead');

function OfItem({ id, names, pick }: { id: string; names: Names; pick: (id: string) => void }) {
  const similar = usePoll('/api/v1/recommendations', { item: id, kind: 'similar', limit: 10 }, 5000);
  const bought = usePoll('/api/v1/recommendations', { item: id, kind: 'bought', limit: 10 }, 5000);
  return (
    <>
      <Recommended title="Looked at together" note={together} of={similar} names={names} pick={pick} none="Nothing is known." />
      <Recommended title="Bought together" note={together} of={bought} names={names} pick={pick} none="No order held it and something else." />
    </>
  );
}

function known(r: Recommendations): string {
  if (r.known === 0) return 'nothing is known of this visitor: what is popular';
  return `by ${count(r.known)} ${r.known === 1 ? 'product' : 'products'} of ${r.session ? 'the session at hand' : 'the last 30 days'}`;
}

function OfVisitor({ id, names, pick }: { id: string; names: Names; pick: (id: string) => void }) {
  const next = usePoll('/api/v1/recommendations', { visitor: id, limit: 10 }, 3000);
  return <Recommended title="Next for this visitor" note={known} of={next} names={names} pick={pick} none="Nothing is known." />;
}

// Beside is one measure of the model beside the same of popularity.
function Beside({ label, ours, theirs }: { label: string; ours: number | undefined; theirs: number | undefined }) {
  const top = Math.max(ours ?? 0, theirs ?? 0, 1e-9);
  const row = (who: string, v: number | undefined, cls: string) => (
    <li class={cls}>
      <span class="label">{who}</span>
      <span class="n">{percent(v)}</span>
      <meter min={0} max={top} value={v ?? 0} aria-hidden="true" />
    </li>
  );
  return (
    <div>
      <h3>{label}</h3>
      <ul class="ranking beside">
        {row('Model', ours, '')}
        {row('Popularity', theirs, 'other')}
      </ul>
    </div>
  );
}

function Measured({ v }: { v: Version }) {
  const m = v.metrics;
  return (
    <>
      <div class="pair">
        <Beside label="Recall@20" ours={m['recall_at_20']} theirs={m['popular_recall_at_20']} />
        <Beside label="Coverage" ours={m['coverage']} theirs={m['popular_coverage']} />
      </div>
      <p class="note">
        {m['test_baskets'] ? `${count(m['test_baskets'])} baskets were asked for what they did next` : 'Too few baskets to measure'}
        {m['hit_rate'] !== undefined && `; ${percent(m['hit_rate'])} had a hit`}. Trained on {count(v.rows)} interactions with {count(v.items)} products.{v.reason && ` ${sentence(`${v.state}: ${v.reason}`)}`}
      </p>
    </>
  );
}

const good: Record<string, string> = { published: 'ok', refused: 'degraded' };

function Model({ m, served, now }: { m: Models; served: string | undefined; now: number }) {
  const v = m.versions.find((x) => x.version === served) ?? m.versions[0];
  if (!v)
    return (
      <Empty>
        {served === undefined ? '' : 'The stream answers alone. '}No version has been trained: millrace workflows start TrainRecommendations, or the step "recommendations" of a night.
      </Empty>
    );
  return (
    <>
      <Measured v={v} />
      <Table
        label="Trained versions"
        rows={m.versions}
        id={(x) => x.version}
        columns={[
          { head: 'Version', row: true, cell: (x) => <code title={x.version}>{x.version.slice(0, 16)}</code> },
          { head: 'State', cell: (x) => <Mark state={good[x.state] ?? ''} word={x.version === served ? 'served' : x.state} note={x.reason || x.state} /> },
          { head: 'Age', n: true, title: 'Since it was trained', cell: (x) => <span title={fullTime(x.trained_at)}>{age(x.trained_at, now)}</span> },
          { head: 'Recall@20', n: true, cell: (x) => percent(x.metrics['recall_at_20']) },
          { head: 'Popularity', n: true, cell: (x) => percent(x.metrics['popular_recall_at_20']) },
          { head: 'Coverage', n: true, cell: (x) => percent(x.metrics['coverage']) },
        ]}
      />
    </>
  );
}

function servedBy(r: Recommendations | undefined): string {
  if (!r) return '';
  return r.version === '' ? 'none is served: the stream answers alone' : `${r.version.slice(0, 16)} is served, and what the stream has learnt since`;
}

export function RecommendationsPage() {
  const now = useStore(clock);
  const [by, setBy] = useState<Asked>('item');
  const [text, setText] = useState('');
  const [id, setId] = useState('');
  const names = useNames();
  const popular = usePoll('/api/v1/recommendations', { limit: 6 }, 10_000);
  const models = usePoll('/api/v1/models', { model, limit: 10 }, 15_000);
  const recent = usePoll('/api/v1/events/recent', { name: 'view_item', limit: 100 }, 30_000);
  const visitors = [...new Set((recent.data?.events ?? []).map((e) => e.visitor_id))].filter((v) => v !== '').slice(0, 50);
  const ideas = by === 'item' ? [...names].map(([x, name]) => ({ id: x, label: name })) : visitors.map((v) => ({ id: v, label: v }));
  const first = by === 'item' ? (names.keys().next().value ?? popular.data?.items[0]?.item ?? '') : (visitors[0] ?? '');
  const [held, hold] = useState<Record<Asked, string>>({ item: '', visitor: '' });
  // What is shown before anybody chooses stays, whatever sells best next.
  useEffect(() => {
    if (held[by] === '' && first !== '') hold({ ...held, [by]: first });
  }, [by, first, held]);
  useEffect(() => {
    const t = setTimeout(() => setId(text.trim()), 300);
    return () => clearTimeout(t);
  }, [text]);
  const about = id || held[by];
  const pick = (item: string) => {
    setBy('item');
    setText(item);
    setId(item);
    document.querySelector('main h1')?.scrollIntoView({ block: 'nearest' });
  };
  const change = (to: string) => {
    setBy(to as Asked);
    setText('');
    setId('');
  };
  const served = popular.data?.version || undefined;
  return (
    <>
      <Title title="Recommendations" note="What would be shown now: the night's model and what the stream has learnt since.">
        <Choices />
      </Title>
      <div class="bar-tools">
        <Segments shown label="Asked about" value={by} choices={asked} choose={change} />
        <Search label={by === 'item' ? 'Product id' : 'Visitor id'} value={text} placeholder={held[by]} change={setText} ideas={ideas} grow />
      </div>
      {about && (
        <p class="about" data-about={about}>
          {by === 'item' ? 'About' : 'For'} <strong>{(by === 'item' && names.get(about)) || about}</strong>
          {by === 'item' && names.has(about) && names.get(about) !== about && (
            <>
              {' '}
              <code>{about}</code>
            </>
          )}
        </p>
      )}
      <div class="grid recommended">
        {about ? (
          by === 'item' ? (
            <OfItem key={about} id={about} names={names} pick={pick} />
          ) : (
            <OfVisitor key={about} id={about} names={names} pick={pick} />
          )
        ) : (
          <Panel title={by === 'item' ? 'Together' : 'Next'} class="c-half">
            <Empty>Type an id. Those that sell, and visitors of the last hour, are offered as you type.</Empty>
          </Panel>
        )}
        <Recommended title="Popular" note={() => 'for anybody of whom nothing is known'} of={popular} names={names} pick={pick} none="Nothing was looked at yet." class={by === 'item' ? 'c-popular' : 'c-half'} />
        <Panel title="Model" note={servedBy(popular.data)} class={`c-model ${by}`}>
          <Block of={models} lines={8}>
            {(m) => <Model m={m} served={served} now={now} />}
          </Block>
        </Panel>
      </div>
    </>
  );
}
