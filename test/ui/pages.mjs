// What each page shows and does.
import { assert, equal, patience, send, until } from './harness.mjs';

export async function open(chrome, base, path, options = {}) {
  const context = await chrome.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-US', timezoneId: 'UTC', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  page.problems = [];
  page.on('pageerror', (e) => page.problems.push(String(e)));
  page.on('console', (m) => m.type() === 'error' && page.problems.push(m.text()));
  await page.goto(base + path, { waitUntil: 'domcontentloaded' }); // a page with a stream is never idle
  return page;
}

const text = (page, selector) => page.locator(selector).first().innerText();
const number = (s) => Number(s.replace(/[^\d.-]/g, ''));

// Hostile text, for every place that the page shows what somebody sent.
const hostile = '<img src=x onerror="window.hacked=1">';
// Ids are new in each run: the platform drops what it has seen before, failed events too.
const run = Date.now().toString(36);

export async function pages({ chrome, base, results, endpoints }) {
  await results.check('the overview answers the five questions', async () => {
    const page = await open(chrome, base, '/');
    await until('orders in the last minute', async () => number(await text(page, '[data-answer=orders]')) > 0);
    await until('a country', async () => /^[A-Z][a-z]/.test(await text(page, '[data-answer=country]')));
    assert(/[\d%×]|Level|new|from none/.test(await text(page, '[data-answer=trend]')), 'the trend says nothing');
    await until('a word on freshness', async () => /Fresh|Late|Stale/.test(await text(page, '[data-answer=fresh]')));
    assert(/Nothing|problem/.test(await text(page, '[data-answer=wrong]')), 'the verdict says nothing');
    assert(/orders\/min · Millrace$/.test(await page.title()), `title ${await page.title()}`);
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });

  await results.check('the figures move by themselves, and are those of the API', async () => {
    const page = await open(chrome, base, '/');
    const asOf = () => page.locator('.answers').getAttribute('data-as-of');
    const seen = new Set();
    await until('five different seconds', async () => seen.add(await asOf()).size >= 5);
    // The page's figures are those of one message of the stream: compare with the API at the same second.
    await until('the same second in both', async () => {
      const res = await page.evaluate(async () => (await fetch('/api/v1/kpis/live?window=60s')).json());
      const [shown, when] = await page.evaluate(() => [document.querySelector('[data-answer=orders]').textContent, document.querySelector('.answers').dataset.asOf]);
      return when === res.as_of && Number(shown.replace(/\D/g, '')) === res.total.orders;
    });
    const ink = await page.evaluate(() => {
      const c = document.querySelector('.c-orders canvas');
      return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((x, i) => i % 4 === 3 && x > 0).length;
    });
    assert(ink > 500, `the chart of orders has ${ink} painted pixels`);
    await page.context().close();
  });

  await results.check('window, currency and time zone are chosen, shown and in the address', async () => {
    const page = await open(chrome, base, '/');
    await until('rows of revenue', async () => (await page.locator('.money tbody tr').count()) > 1);
    await page.getByRole('button', { name: '15 min' }).click();
    await until('the window in the note', async () => /last 15 minutes/.test(await text(page, '.c-tiles .note')));
    const currency = await page.locator('.money tbody tr').first().getAttribute('data-currency');
    await page.getByRole('combobox', { name: 'Currency' }).selectOption(currency);
    await until('one currency', async () => (await page.locator('.money tbody tr').count()) === 1);
    assert(/\d/.test(await text(page, '.money td.strong')), 'no revenue');
    await page.getByRole('combobox', { name: 'Time zone' }).selectOption('Asia/Tokyo');
    const clock = (await text(page, '.asof')).trim();
    const tokyo = new Intl.DateTimeFormat('en-US', { timeZone: 'Asia/Tokyo', hour: '2-digit', hourCycle: 'h23' }).format(new Date());
    equal(clock.slice(0, 2), tokyo, 'hour in Tokyo');
    const q = new URL(page.url()).searchParams;
    equal([q.get('window'), q.get('currency'), q.get('tz')], ['15m', currency, 'Asia/Tokyo'], 'the address');
    await page.reload({ waitUntil: 'domcontentloaded' });
    await until('the choices after a reload', async () => (await page.getByRole('button', { name: '15 min' }).getAttribute('aria-pressed')) === 'true' && (await page.getByRole('combobox', { name: 'Time zone' }).inputValue()) === 'Asia/Tokyo');
    await page.context().close();
  });

  await results.check('the exact amounts of the API are shown, each in its currency', async () => {
    const page = await open(chrome, base, '/?window=3h');
    await until('amounts equal to the answer of the API', async () => {
      const res = await page.evaluate(async () => (await fetch('/api/v1/kpis/live?window=3h')).json());
      return page.evaluate((money) => {
        return money.length > 1 && money.every((m) => {
          const shown = document.querySelector(`[data-currency=${m.currency}] td.strong`)?.textContent ?? '';
          const big = Number(m.revenue) >= 100000;
          const want = new Intl.NumberFormat('en-US', { style: 'currency', currency: m.currency, ...(big ? { maximumFractionDigits: 0, minimumFractionDigits: 0 } : {}) }).format(m.revenue);
          return shown === want;
        });
      }, res.money);
    });
    await page.context().close();
  });

  await results.check('what is no choice in the address is left out', async () => {
    const page = await open(chrome, base, '/?window=10y&currency=%3Cb%3E&tz=Mars/Olympus');
    await until('the figures', async () => /\d/.test(await text(page, '[data-answer=orders]')));
    equal(await page.getByRole('button', { name: '1 min' }).getAttribute('aria-pressed'), 'true', 'the default window');
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });

  await results.check('live events arrive, newest first', async () => {
    const page = await open(chrome, base, '/live');
    await until('ten rows', async () => (await page.locator('tr[data-name]').count()) >= 10);
    const first = await text(page, 'tr[data-name]');
    await until('another first row', async () => (await text(page, 'tr[data-name]')) !== first);
    await page.context().close();
  });

  await results.check('live events are filtered by category, name and id', async () => {
    const page = await open(chrome, base, '/live');
    const all = (attribute) => page.locator('tr[data-name]').evaluateAll((rows, a) => [...new Set(rows.map((r) => r.getAttribute(a)))], attribute);
    await page.getByRole('combobox', { name: 'Category' }).selectOption('cart');
    await until('events of the cart only', async () => (await all('data-category')).join() === 'cart');
    await page.getByRole('combobox', { name: 'Category' }).selectOption('');
    await page.getByLabel('Event name').fill('view_item');
    await until('view_item only', async () => (await all('data-name')).join() === 'view_item');
    await page.getByLabel('Event name').fill('no_such_event');
    await page.getByText('No event of the last hour fits the filters').waitFor();
    await page.context().close();
  });

  await results.check('hostile text is shown as text, and every digit is kept', async () => {
    const id = `ui-hostile-${run}`;
    const event = { event_id: id, name: 'ui_check', visitor_id: hostile, user_id: hostile, properties: { html: '<script>window.hacked=1</script>', big: 'BIG' } };
    await send(endpoints, JSON.stringify(event).replace('"BIG"', '12345678901234567890.10'));
    const page = await open(chrome, base, '/live');
    await page.getByLabel('Event, visitor, user').fill(id);
    await page.locator('tr[data-name=ui_check] button').click();
    const shown = await page.locator('.details .json').innerText();
    assert(shown.includes('<script>window.hacked=1</script>') && shown.includes('12345678901234567890.1'), `details: ${shown.slice(0, 600)}`);
    assert((await text(page, 'tr[data-name=ui_check]')).includes('<img src=x'), 'the visitor is not shown as sent');
    equal(await page.evaluate(() => [window.hacked, document.querySelectorAll('main img, main script').length]), [null, 0], 'hostile text came to life');
    equal(page.problems, [], 'problems in the console');
    await page.context().close();
  });

  await results.check('the tail is held and goes on', async () => {
    const page = await open(chrome, base, '/live');
    await page.locator('tr[data-name]').first().waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    const held = await text(page, '.tail tbody');
    await until('events that wait', async () => /\(\d+ new\)/.test(await text(page, 'button.primary')));
    equal((await text(page, '.tail tbody')) === held, true, 'the rows moved while held');
    await page.keyboard.press('Tab');
    await page.locator('h1').focus();
    await page.keyboard.press(' ');
    await until('the rows move again', async () => (await text(page, '.tail tbody')) !== held);
    await page.context().close();
  });

  await results.check('products are ranked, by currency and by quantity', async () => {
    const page = await open(chrome, base, '/products');
    await until('a ranking', async () => (await page.locator('tbody tr').count()) >= 3);
    const headings = await page.locator('.panel h2').allInnerTexts();
    assert(headings.length > 1 && headings.every((h) => /^Top products in [A-Z]{3}$/.test(h)), `headings ${headings}`);
    await page.getByRole('button', { name: 'Quantity' }).click();
    await until('one ranking over all currencies', async () => (await page.locator('.panel h2').allInnerTexts()).join() === 'Top products');
    const quantities = (await page.locator('tbody tr td:nth-child(5)').allInnerTexts()).map(number);
    assert(quantities.length > 2 && quantities.every((n, i) => i === 0 || n <= quantities[i - 1]), `quantities ${quantities}`);
    await page.context().close();
  });

  await results.check('a failed event shows its reason, and its place in the payload is marked', async () => {
    const id = `ui-amount-${run}`;
    await send(endpoints, `{"event_id":"${id}","name":"purchase","visitor_id":"v-ui","currency":"EUR","items":[{"item_id":"p1","price":"64.95"},{"item_id":"<b>p2</b>","price":12.12345678}]}`);
    await send(endpoints, `{"event_id":"ui-broken-${run}","name":"page_view","visitor_id":"${hostile.replaceAll('"', "'")}`);
    const page = await open(chrome, base, '/failed');
    await page.locator('.reasons button', { hasText: 'bad_amount' }).click();
    const sample = page.locator('article[data-reason=bad_amount]', { hasText: id }).first();
    await until('the sample', async () => {
      const more = page.getByRole('button', { name: 'Show more' });
      if ((await sample.count()) === 0 && (await more.count()) > 0) await more.click();
      return (await sample.count()) > 0;
    });
    equal(await sample.locator('.path').innerText(), 'items[1].price', 'the path');
    equal((await sample.locator('mark').allInnerTexts()).join(''), '"price"12.12345678', 'what is marked');
    assert((await sample.innerText()).includes('<b>p2</b>'), 'the payload is not shown as sent');
    const reasons = await page.locator('article').evaluateAll((all) => [...new Set(all.map((a) => a.dataset.reason))]);
    equal(reasons, ['bad_amount'], 'samples of the chosen reason');
    await page.locator('.reasons button', { hasText: 'malformed' }).click();
    await page.locator('article[data-reason=malformed]').first().waitFor();
    equal(await page.evaluate(() => window.hacked ?? null), null, 'hostile text came to life');
    await page.context().close();
  });

  await results.check('pipeline health draws the flow with figures of each stage', async () => {
    const page = await open(chrome, base, '/health');
    await page.locator('.stage').first().waitFor();
    equal((await page.locator('.stage h3').allInnerTexts()).map((s) => s.split(/\s{2,}|\n/)[0].replace(/ [✓!✕].*/, '').trim()), ['Gateway', 'Kafka', 'Hot topology', 'ClickHouse', 'Redis', 'Iceberg'], 'the stages');
    await until('a rate at the gateway', async () => /[1-9]\d*(\.\d)?\/s/.test(await page.locator('.stage').first().innerText()));
    await until('each stage is seen', async () => (await page.locator('.stage.unknown').count()) === 0);
    await until('latencies, freshness and watermarks', async () => {
      const rows = async (label) => page.getByRole('region', { name: label, exact: true }).locator('tbody tr').count();
      return (await rows('Latency')) >= 4 && (await rows('Freshness')) >= 7 && (await rows('Watermark delay')) >= 1;
    });
    await page.context().close();
  });

  await results.check('tables stand side by side and are found by name', async () => {
    const page = await open(chrome, base, '/tables');
    const row = page.locator('tr', { has: page.locator('code', { hasText: /^events_page$/ }) });
    await until('rows in both stores', async () => (await row.locator('td.strong').allInnerTexts()).every((s) => number(s) > 0) && (await row.count()) === 1);
    await page.getByRole('searchbox', { name: 'Name' }).fill('failed');
    await until('one table', async () => (await page.locator('tbody tr').count()) === 1);
    await page.getByRole('searchbox', { name: 'Name' }).fill('nonsense');
    await page.getByText('No table has this in its name').waitFor();
    await page.context().close();
  });

  await results.check('workflows have schedules with links into the Temporal UI, or say that Temporal is away', async () => {
    const page = await open(chrome, base, '/workflows');
    const { available } = await until('the answer of the API', () => page.evaluate(async () => (await fetch('/api/v1/workflows')).json()));
    if (available) {
      const link = page.getByRole('region', { name: 'Schedules' }).locator('a').first();
      assert(/^http.*\/schedules\//.test(await link.getAttribute('href')), `link ${await link.getAttribute('href')}`);
      equal(await link.getAttribute('rel'), 'noopener noreferrer', 'rel of the link');
    } else await page.getByText('Temporal is not available').waitFor();
    await page.context().close();
  });

  await results.check('nights show each step, or say that none has run', async () => {
    const page = await open(chrome, base, '/nights');
    const { nights } = await until('the answer of the API', () => page.evaluate(async () => (await fetch('/api/v1/nights?days=30')).json()));
    if (nights.length > 0) {
      const row = page.getByRole('region', { name: 'Pipeline' }).locator('tbody tr').first();
      await row.getByRole('button').click();
      await page.getByRole('heading', { name: `Night ${await row.getByRole('button').innerText()}` }).waitFor();
    } else await page.getByText('No night has run yet').waitFor();
    await page.context().close();
  });

  await results.check('a wrong address says so and leads back', async () => {
    const page = await open(chrome, base, '/nonsense');
    await page.getByRole('heading', { name: 'No such page', exact: true }).waitFor();
    await page.locator('main').getByRole('link').click();
    await page.getByRole('heading', { name: 'Overview', exact: true }).waitFor();
    await page.goBack();
    await page.getByRole('heading', { name: 'No such page', exact: true }).waitFor();
    await page.context().close();
  });
}
