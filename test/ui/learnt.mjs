// The pages of what the platform finds out by itself: fraud, demand, recommendations.
import { assert, equal, send, until } from './harness.mjs';
import { seldom, steady, varied } from './history.mjs';
import { open } from './pages.mjs';

const run = Date.now().toString(36);
const number = (s) => Number(s.replace(/[^\d.-]/g, ''));

export async function learnt({ chrome, base, results, endpoints }) {
  const ask = async (path) => (await fetch(base + path)).json();
  const painted = (page, selector) =>
    page.evaluate((s) => {
      const c = document.querySelector(`${s} canvas`);
      return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((x, i) => i % 4 === 3 && x > 0).length;
    }, selector);
  const rows = (page, label) => page.getByRole('region', { name: label, exact: true }).locator('tbody tr');

  await results.check('fraud lists the rules in force with what each has found, as the API counts it', async () => {
    const page = await open(chrome, base, '/fraud');
    const rules = await ask('/api/v1/rules');
    await until('a row for each rule', async () => (await rows(page, 'Alerts by rule').count()) >= rules.rules.length);
    await until('the same sum in both', async () => {
      const sum = (await ask('/api/v1/fraud')).hours.reduce((n, h) => n + h.alerts, 0);
      const shown = (await rows(page, 'Alerts by rule').locator('td.strong').allInnerTexts()).reduce((n, s) => n + number(s), 0);
      return sum > 0 && sum === shown && number(await page.locator('.c-figures .value').first().innerText()) === sum;
    });
    await until('every task has the version', async () => (await page.locator('.c-force').innerText()).includes('In force in every task'));
    equal(await page.locator('.c-force .value').first().innerText(), String(rules.version), 'the version');
    assert((await painted(page, '.c-time')) > 200, 'the chart is empty');
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });

  await results.check('an alert appears by itself, is confirmed, and says why', async () => {
    const page = await open(chrome, base, '/fraud');
    await page.locator('[data-feed=open]').waitFor();
    const visitor = `ui-thief-${run}`;
    const mine = page.locator('tr[data-rule=card-testing]', { hasText: visitor });
    equal(await mine.count(), 0, 'alerts before anything happened');
    // Each a moment after the one before: on arrival and in the order of event time the same event is one too many.
    const began = Date.now() - 1000;
    const events = Array.from({ length: 6 }, (_, i) => ({
      event_id: `${visitor}-${i}`, name: 'add_payment_info', occurred_at: new Date(began + i * 100).toISOString(), visitor_id: visitor, currency: 'EUR', value: 5, payment: { method: 'card', card_fingerprint: `ui-card-${run}-${i}` }, items: [{ item_id: 'p1', price: 5, quantity: 1 }],
    }));
    await send(endpoints, JSON.stringify(events));
    await mine.first().waitFor();
    equal(await mine.count(), 1, 'one alert, told twice');
    await until('confirmed', async () => (await mine.innerText()).includes('confirmed'));
    await mine.getByRole('button').click();
    const details = page.locator('tr.details');
    assert((await details.innerText()).includes(`${visitor}-`) && /cards or refusals within/.test(await mine.innerText()), `details: ${await details.innerText()}`);
    await page.locator('.c-alerts select').nth(0).selectOption('card-testing');
    await until('alerts of one rule', async () => {
      const all = await rows(page, 'Alerts').evaluateAll((trs) => [...new Set(trs.map((t) => t.dataset.rule).filter(Boolean))]);
      return all.join() === 'card-testing';
    });
    await page.locator('.c-alerts select').nth(1).selectOption('critical');
    await mine.waitFor();
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });

  await results.check('demand tells low stock, the risk of selling out and a price band, or that prices hardly varied', async () => {
    const page = await open(chrome, base, '/demand');
    const row = (id) => page.locator(`tr[data-product=${id}]`);
    await row(varied).waitFor();
    await until('the forecasts have reached the stream', async () => (await row(varied).innerText()).includes('forecast') && (await row(steady).innerText()).includes('forecast'));
    await until('stock', async () => /40, low/.test(await row(steady).innerText()) && /2,000/.test(await row(varied).innerText()) && /none left/.test(await row(seldom).innerText()));
    assert(number(await row(steady).locator('td').nth(4).innerText()) > 90, `risk: ${await row(steady).innerText()}`);
    await row(varied).getByRole('button').click();
    await page.locator('.c-hours canvas').waitFor();
    assert((await painted(page, '.c-hours')) > 2000, 'the chart is empty');
    const words = page.locator('.product-demand');
    await until('a band', async () => /Elasticity\s+−?-?[12]\.\d/.test(await words.innerText()) && /ams-1/.test(await words.innerText()));
    await row(steady).getByRole('button').click();
    await page.getByText('That is the normal answer').waitFor();
    await page.getByRole('button', { name: 'Low stock' }).click();
    await until('only what is low', async () => (await page.locator('tr[data-product]').count()) > 0 && (await page.locator('tr[data-product]').evaluateAll((trs) => trs.every((t) => /low|none left/.test(t.textContent)))));
    await page.getByRole('button', { name: 'Best sellers' }).click();
    await page.getByRole('searchbox', { name: 'Product id' }).fill(`nobody-${run}`);
    await page.getByText('Nothing is known of').first().waitFor();
    equal(page.problems.filter((p) => !p.includes('404')), [], 'problems in the console'); // the browser notes the answer for what is not known
    await page.context().close();
  });

  await results.check('recommendations show what goes together, for a product and for a visitor, beside popularity', async () => {
    const page = await open(chrome, base, '/recommendations');
    await page.locator('tr[data-item]').first().waitFor();
    await page.getByRole('combobox', { name: 'Product id' }).fill('set-3-1');
    await page.locator('[data-about=set-3-1]').waitFor();
    const items = (label) => rows(page, label).evaluateAll((trs) => trs.map((t) => t.dataset.item));
    await until('the others of its set first', async () => (await items('Looked at together')).slice(0, 4).sort().join() === 'set-3-0,set-3-2,set-3-3,set-3-4');
    const popular = (await ask('/api/v1/recommendations?limit=6')).items.map((i) => i.item);
    await until('what is popular', async () => (await items('Popular')).length === popular.length);
    const { version } = await ask('/api/v1/recommendations');
    assert(version !== '' && (await page.locator('.c-model').innerText()).includes(version.slice(0, 16)), 'the version that is served');
    const m = (await ask('/api/v1/models')).versions.find((v) => v.version === version).metrics;
    assert(m.recall_at_20 > m.popular_recall_at_20, 'the model is no better than popularity');
    const beside = (await page.locator('.beside').first().locator('.n').allInnerTexts()).map(number);
    equal(beside.map(Math.round), [m.recall_at_20, m.popular_recall_at_20].map((x) => Math.round(x * 100)), 'recall of model and popularity');
    await rows(page, 'Looked at together').first().getByRole('button').click();
    await page.locator('[data-about^=set-3-]:not([data-about=set-3-1])').waitFor();
    // A visitor who looks at two products of a set is shown the others.
    const visitor = `ui-looker-${run}`;
    await send(endpoints, JSON.stringify(['set-5-0', 'set-5-1'].map((item_id, i) => ({ event_id: `${visitor}-${i}`, name: 'view_item', visitor_id: visitor, items: [{ item_id, quantity: 1 }] }))));
    await page.getByRole('button', { name: 'A visitor' }).click();
    await page.getByRole('combobox', { name: 'Visitor id' }).fill(visitor);
    await until('the session at hand', async () => (await page.locator('.c-half').first().innerText()).includes('2 products of the session at hand'));
    await until('the rest of the set', async () => (await items('Next for this visitor')).slice(0, 3).sort().join() === 'set-5-2,set-5-3,set-5-4');
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });
}
