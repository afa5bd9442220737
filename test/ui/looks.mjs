// Every page in every form: width, colours, motion, keyboard, and axe's rules.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { assert, equal, until } from './harness.mjs';
import { open } from './pages.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// What tells that a page has its data.
export const ready = {
  '/': '.answers .figure',
  '/live': 'tr[data-name]',
  '/products': 'tbody tr',
  '/demand': 'tr[data-product]',
  '/recommendations': 'tr[data-item]',
  '/fraud': 'tr[data-rule]',
  '/failed': 'article.sample',
  '/health': '.stage dl dd',
  '/tables': 'tbody tr',
  '/workflows': 'tbody tr, .outdated',
  '/nights': 'tbody tr, .empty',
  '/lakehouse': 'tbody tr, .empty',
};

// Pages of several panels, each with an answer of its own.
const whole = ['/', '/demand', '/recommendations', '/fraud'];

async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).slice(0, 2).join(' | ')}`);
}

export async function looks({ chrome, base, results, out }) {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    for (const colorScheme of ['light', 'dark']) {
      for (const [path, selector] of Object.entries(ready)) {
        const name = path === '/' ? 'overview' : path.slice(1);
        await results.check(`${name} at ${width} px, ${colorScheme}: fits, no axe violation`, async () => {
          const page = await open(chrome, base, path, { viewport: { width, height }, colorScheme, hasTouch: width < 500 });
          await page.locator(selector).first().waitFor();
          if (whole.includes(path)) await until('all panels', async () => (await page.locator('.state.loading').count()) === 0);
          await page.screenshot({ path: join(out, `${name}-${width}-${colorScheme}.png`), fullPage: true });
          equal(await page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth)), 0, 'pixels beyond the right edge');
          equal(await violations(page), [], 'axe');
          equal(await page.evaluate(() => document.documentElement.dataset.theme), colorScheme, 'theme of the system');
          equal(page.problems, [], 'problems in the console');
          await page.context().close();
        });
      }
    }
  }

  await results.check('the help has no axe violation either', async () => {
    const page = await open(chrome, base, '/');
    await page.locator(ready['/']).first().waitFor();
    await page.keyboard.press('?');
    await page.getByRole('dialog').waitFor();
    equal(await violations(page), [], 'axe');
    await page.keyboard.press('Escape');
    await until('the dialog closes', async () => (await page.getByRole('dialog').count()) === 0);
    await page.context().close();
  });

  await results.check('everything is reached by keyboard, and the focus is seen', async () => {
    const page = await open(chrome, base, '/');
    await page.locator(ready['/']).first().waitFor();
    await page.keyboard.press('Tab');
    equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content', 'first stop');
    await until('the link is on the screen', () => page.evaluate(() => document.activeElement.getBoundingClientRect().top >= 0));
    await page.keyboard.press('Enter');
    equal(await page.evaluate(() => document.activeElement.id), 'main', 'after the skip link');
    await page.keyboard.press('Tab');
    const outline = await page.evaluate(() => {
      const el = document.activeElement;
      return [el.tagName, el.textContent, getComputedStyle(el).outlineStyle];
    });
    equal(outline, ['BUTTON', '1 min', 'solid'], 'first stop in the content');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await until('the window of 5 minutes', async () => new URL(page.url()).searchParams.get('window') === '5m');
    await page.context().close();
  });

  await results.check('shortcuts go to pages, change window and colours, and keep out of fields', async () => {
    const page = await open(chrome, base, '/', { colorScheme: 'light' });
    await page.locator(ready['/']).first().waitFor();
    await page.keyboard.press(']');
    equal(new URL(page.url()).searchParams.get('window'), '5m', 'longer window');
    await page.keyboard.press('d');
    equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark', 'theme');
    await page.keyboard.press('g');
    await page.keyboard.press('t');
    await page.getByRole('heading', { name: 'Tables', exact: true }).waitFor();
    await until('the heading has the focus', () => page.evaluate(() => document.activeElement.tagName === 'H1'));
    equal(new URL(page.url()).searchParams.get('window'), '5m', 'the choice goes along');
    await page.keyboard.press('g');
    await page.keyboard.press('l');
    await page.getByRole('heading', { name: 'Live events', exact: true }).waitFor();
    await page.getByLabel('Event name').focus();
    await page.keyboard.type('gd?');
    equal(await page.getByLabel('Event name').inputValue(), 'gd?', 'the field');
    equal([await page.evaluate(() => document.documentElement.dataset.theme), await page.getByRole('dialog').count()], ['dark', 0], 'typing is no shortcut');
    await page.context().close();
  });

  await results.check('the chosen theme wins over the system and is remembered', async () => {
    const page = await open(chrome, base, '/tables', { colorScheme: 'light' });
    await page.getByRole('button', { name: 'Dark' }).click();
    await page.reload({ waitUntil: 'domcontentloaded' });
    await until('dark', () => page.evaluate(() => document.documentElement.dataset.theme === 'dark'));
    await page.context().close();
  });

  await results.check('nothing moves where the system asks for less motion', async () => {
    const page = await open(chrome, base, '/', { reducedMotion: 'reduce' });
    await page.locator(ready['/']).first().waitFor();
    equal(await page.evaluate(() => document.getAnimations().length), 0, 'animations');
    await page.context().close();
  });

  await results.check('the page loads nothing from elsewhere and allows no inline code', async () => {
    const page = await open(chrome, base, '/');
    await page.locator(ready['/']).first().waitFor();
    const loaded = await page.evaluate(() => performance.getEntriesByType('resource').map((e) => new URL(e.name).origin));
    equal([...new Set(loaded)], [new URL(base).origin], 'origins');
    const res = await page.request.get(`${base}/`);
    assert(!/unsafe/.test(res.headers()['content-security-policy']), 'policy');
    await page.context().close();
  });
}
