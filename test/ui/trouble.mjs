// What the page does when the platform does not do what it should.
import { assert, equal, until } from './harness.mjs';
import { open } from './pages.mjs';
import { ready } from './looks.mjs';

const problem = { type: 'docs/errors.md', title: 'a store does not answer', status: 503, detail: 'ClickHouse is away <b>now</b>', id: 'MR-API-099', remedy: 'Start it again.', errors: [{ field: 'window', message: 'too long' }] };

export async function trouble({ chrome, base, results, millrace, out }) {
  await results.check('a block that waits shows that it loads', async () => {
    const page = await open(chrome, base, '/tables');
    await page.locator(ready['/tables']).first().waitFor();
    let go;
    const held = new Promise((r) => (go = r));
    await page.route('**/api/v1/failed**', async (route) => {
      await held;
      await route.continue();
    });
    await page.keyboard.press('g');
    await page.keyboard.press('f');
    await page.locator('.state.loading').first().waitFor();
    go();
    await page.locator(ready['/failed']).first().waitFor();
    equal(await page.locator('.state.loading').count(), 0, 'blocks that still load');
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await page.context().close();
  });

  await results.check('a refusal is shown with its remedy and id, and ends by itself', async () => {
    const page = await open(chrome, base, '/tables');
    await page.locator(ready['/tables']).first().waitFor();
    await page.route('**/api/v1/failed**', (route) => route.fulfill({ status: 503, contentType: 'application/problem+json', body: JSON.stringify(problem) }));
    await page.keyboard.press('g');
    await page.keyboard.press('f');
    const box = page.locator('.state.failure');
    await box.waitFor();
    const words = await box.innerText();
    for (const w of [problem.title, problem.detail, problem.remedy, problem.id, 'window: too long']) assert(words.includes(w), `${w} is not in ${words}`);
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await page.locator(ready['/failed']).first().waitFor();
    await page.context().close();
  });

  await results.check('data that cannot be renewed stays, greyed, with its age', async () => {
    const page = await open(chrome, base, '/tables');
    await page.locator(ready['/tables']).first().waitFor();
    await page.route('**/api/v1/tables**', (route) => route.fulfill({ status: 502, contentType: 'text/html', body: '<h1>bad gateway</h1>' }));
    await page.locator('.outdated').waitFor();
    assert((await page.locator('.old tbody tr').count()) > 3, 'the rows are gone');
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await until('the notice goes', async () => (await page.locator('.outdated').count()) === 0);
    await page.context().close();
  });

  await results.check('nothing to show is said in words', async () => {
    const page = await open(chrome, base, '/tables');
    await page.locator(ready['/tables']).first().waitFor();
    const none = { as_of: new Date().toISOString(), tenant: 'default', window_seconds: 1, total: 0, by_reason: [], series: { step_seconds: 1, times: [], series: [] }, samples: [] };
    await page.route('**/api/v1/failed**', (route) => route.fulfill({ json: none }));
    await page.keyboard.press('g');
    await page.keyboard.press('f');
    await page.getByText('No event failed in this window').waitFor();
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await page.context().close();
  });

  await results.check('rules that the stream cannot use are told with the reason, and the ones in force stay', async () => {
    const page = await open(chrome, base, '/fraud');
    await page.locator('tr[data-rule]').first().waitFor();
    const reason = 'rule card-testing: <b>threshold</b> 0 matches everything';
    await page.route('**/api/v1/rules', async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ json: { ...(await answer.json()), rejected: 1, refused: [{ version: 4711, reason }] } });
    });
    await page.getByRole('alert').filter({ hasText: 'Version 4711' }).filter({ hasText: reason }).waitFor();
    assert((await page.locator('.c-force').innerText()).includes('In force in every task'), 'the set in force is gone');
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await until('the notice goes', async () => (await page.getByRole('alert').filter({ hasText: '4711' }).count()) === 0);
    await page.context().close();
  });

  await results.check('what is wrong is on the overview, with its remedy', async () => {
    const page = await open(chrome, base, '/tables');
    await page.locator(ready['/tables']).first().waitFor();
    const reason = { part: 'sink-clickhouse', severity: 'degraded', message: 'lag grows <b>fast</b>', remedy: 'Look at its log.' };
    const health = { state: 'degraded', reasons: [reason], events_per_second: 1, failed_per_second: 0, lag_records: 99, freshest_seconds: 75 };
    const message = { as_of: new Date().toISOString(), kpis: null, health, tail: null };
    await page.route('**/api/v1/stream**', (route) => route.fulfill({ contentType: 'text/event-stream', body: `event: live\ndata: ${JSON.stringify(message)}\n\n` }));
    await page.goto(`${base}/`, { waitUntil: 'domcontentloaded' });
    const banner = page.locator('.banner.degraded');
    await banner.waitFor();
    assert((await banner.innerText()).includes('lag grows <b>fast</b>') && (await banner.innerText()).includes(reason.remedy), await banner.innerText());
    equal([await page.locator('[data-answer=fresh]').innerText(), await page.locator('[data-answer=orders]').innerText()], ['Stale', '–'], 'freshness, and figures that nobody has');
    assert(/1 problem/.test(await page.locator('[data-answer=wrong]').innerText()), 'the verdict');
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await page.context().close();
  });

  await results.check('pages come back by themselves after the api was away', async () => {
    const overview = await open(chrome, base, '/');
    const live = await open(chrome, base, '/live');
    await overview.locator(ready['/']).first().waitFor();
    await live.locator(ready['/live']).first().waitFor();
    await millrace('child', 'stop', 'api');
    await overview.locator('.banner.lost').waitFor();
    await overview.locator('.answers.old').waitFor();
    await overview.screenshot({ path: `${out}/lost-1280-light.png` });
    equal(await overview.locator('.connection').innerText().then((s) => s.trim().split(/\s/)[0]), 'Reconnecting', 'the state');
    assert((await overview.locator('.answers .figure').count()) === 5, 'the old figures are gone');
    const before = await overview.locator('.answers').getAttribute('data-as-of');
    const row = await live.locator('tr[data-name]').first().innerText();
    await millrace('child', 'start', 'api');
    await until('the banner goes', async () => (await overview.locator('.banner.lost').count()) === 0);
    await until('new figures', async () => (await overview.locator('.answers').getAttribute('data-as-of')) > before && (await overview.locator('.old').count()) === 0);
    await until('new events', async () => (await live.locator('tr[data-name]').first().innerText()) !== row && (await live.locator('[data-tail=open]').count()) === 1);
    await overview.context().close();
    await live.context().close();
  });
}
