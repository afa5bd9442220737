// Tables: one name, two stores.
import { useState } from 'preact/hooks';
import { usePoll, type Tables } from '../api.ts';
import { age, bytes, compact, count, none } from '../format.ts';
import { Choices, Title } from '../shell.tsx';
import { clock, useStore } from '../store.ts';
import { Block, Empty, Panel, Search, Sideways } from '../ui.tsx';

type Row = { name: string; ch?: Tables['clickhouse']['tables'][number]; ice?: Tables['iceberg']['tables'][number] };

function join(t: Tables): Row[] {
  const rows = new Map<string, Row>();
  for (const ch of t.clickhouse.tables) rows.set(ch.name, { name: ch.name, ch });
  for (const ice of t.iceberg.tables) rows.set(ice.name, { ...rows.get(ice.name), name: ice.name, ice });
  return [...rows.values()].sort((a, b) => a.name.localeCompare(b.name));
}

const Away = ({ store, of }: { store: string; of: { available: boolean; detail: string } }) =>
  of.available ? null : (
    <p class="outdated" role="status">
      {store} is not available: {of.detail}
    </p>
  );

function sums(t: Tables): string {
  const rows = t.clickhouse.tables.reduce((n, x) => n + x.rows, 0);
  const b = t.clickhouse.tables.reduce((n, x) => n + x.bytes, 0);
  const ib = t.iceberg.tables.reduce((n, x) => n + x.bytes, 0);
  const files = t.iceberg.tables.reduce((n, x) => n + x.files, 0);
  return `ClickHouse ${compact(rows)} rows in ${bytes(b)}; Iceberg ${bytes(ib)} in ${compact(files)} files`;
}

export function TablesPage() {
  const [q, setQ] = useState('');
  const now = useStore(clock);
  const all = usePoll('/api/v1/tables', {}, 5000);
  return (
    <>
      <Title title="Tables" note="A table has one name in ClickHouse, Iceberg and BigQuery.">
        <Choices />
      </Title>
      <Panel
        title="All tables"
        note={all.data && sums(all.data)}
        tools={<Search label="Name" value={q} placeholder="events" change={setQ} />}
      >
        <Block of={all} lines={12}>
          {(t) => {
            const rows = join(t).filter((r) => r.name.includes(q.trim().toLowerCase()));
            return (
              <>
                <Away store="ClickHouse" of={t.clickhouse} />
                <Away store="Iceberg" of={t.iceberg} />
                {rows.length === 0 ? (
                  <Empty>{q ? 'No table has this in its name.' : 'There is no table yet.'}</Empty>
                ) : (
                  <Sideways label="Tables">
                    <table class="rows two">
                      <thead>
                        <tr>
                          <th scope="col" rowSpan={2}>
                            Table
                          </th>
                          <th scope="colgroup" colSpan={4} class="group">
                            ClickHouse
                          </th>
                          <th scope="colgroup" colSpan={5} class="group">
                            Iceberg
                          </th>
                        </tr>
                        <tr>
                          {['Rows', 'Size', 'Parts', 'Newest', 'Rows', 'Size', 'Files', 'Snapshots', 'Newest'].map((h, i) => (
                            <th scope="col" class={`n ${i === 0 || i === 4 ? 'edge' : ''}`} key={i}>
                              {h}
                            </th>
                          ))}
                        </tr>
                      </thead>
                      <tbody>
                        {rows.map((r) => (
                          <tr key={r.name}>
                            <th scope="row">
                              <code>{r.name}</code>
                            </th>
                            <td class="n edge strong">{r.ch ? count(r.ch.rows) : none}</td>
                            <td class="n">{r.ch ? bytes(r.ch.bytes) : none}</td>
                            <td class="n">{r.ch ? count(r.ch.parts) : none}</td>
                            <td class="n">{age(r.ch?.newest, now)}</td>
                            <td class="n edge strong">{r.ice ? count(r.ice.rows) : none}</td>
                            <td class="n">{r.ice ? bytes(r.ice.bytes) : none}</td>
                            <td class="n">{r.ice ? count(r.ice.files) : none}</td>
                            <td class="n">{r.ice ? count(r.ice.snapshots) : none}</td>
                            <td class="n">{age(r.ice?.newest, now)}</td>
                          </tr>
                        ))}
                      </tbody>
                    </table>
                  </Sideways>
                )}
              </>
            );
          }}
        </Block>
      </Panel>
    </>
  );
}
