// Drives the dashboard in a real browser against a real platform. Ends with "N passed, N failed".
import { mkdirSync, rmSync } from 'node:fs';
import { browser, platform, Results } from './harness.mjs';
import { history } from './history.mjs';
import { learnt } from './learnt.mjs';
import { looks } from './looks.mjs';
import { pages } from './pages.mjs';
import { trouble } from './trouble.mjs';

const out = new URL('./out/', import.meta.url).pathname;
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });

const results = new Results();
const chrome = await browser();
let p;
try {
  p = await platform();
  console.log(`dashboard ${p.base}`);
  const given = { chrome, results, out, ...p };
  await history(given);
  await pages(given);
  await learnt(given);
  await looks(given);
  await trouble(given);
} catch (err) {
  results.broke(err);
} finally {
  await chrome.close();
  await p?.stop();
}
process.exitCode = results.end() ? 0 : 1;
