// Runs one page of pages/ (or, with SNIPPET, a snippet) in Chromium: bundled as a shop would, served from an origin that is not the gateway's, open until stdin ends.
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { gateway, session, timeout, writeKey } from './env.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const entry = process.argv[2];
const bundle = await build({
  entryPoints: [entry],
  bundle: true,
  write: false,
  format: 'iife',
  platform: 'browser',
  nodePaths: [`${here}/node_modules`],
  define: { 'process.env.NODE_ENV': '"production"' },
});
const settings = JSON.stringify({ gateway, session, timeout, writeKey }).replaceAll('<', '\\u003c');
const html = `<!doctype html><meta charset="utf-8"><title>Deals</title><body data-state="loading"><script>window.suite = ${settings}</script><script src="/page.js"></script>`;
const shop = createServer((request, response) => {
  const path = request.url.split('?')[0];
  const [status, type, body] = path === '/page.js' ? [200, 'text/javascript', bundle.outputFiles[0].contents] : path === '/favicon.ico' ? [204, 'image/x-icon', ''] : [200, 'text/html', html];
  response.writeHead(status, { 'content-type': `${type}; charset=utf-8` }).end(body);
});
await new Promise((done) => shop.listen(0, '127.0.0.1', done));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-blink-features=AutomationControlled', '--host-resolver-rules=MAP shop.localhost 127.0.0.1'],
});
let broken = false;
try {
  // PostHog drops the events of browsers that look like robots, as one without a window does.
  const userAgent = `Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/${browser.version().split('.')[0]}.0.0.0 Safari/537.36`;
  const page = await browser.newPage({ userAgent });
  page.on('pageerror', (error) => {
    broken = true;
    console.error('page:', error.stack ?? error.message);
  });
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && console.error('console:', message.text()));
  await page.goto(`http://shop.localhost:${shop.address().port}/deals?utm_source=ads`, { waitUntil: 'load' });
  await new Promise((done) => process.stdin.resume().on('end', done));
  await page.close();
} finally {
  await browser.close();
  shop.close();
}
process.exit(broken ? 1 : 0);
