// Photographs pages: node shoot.mjs FILE URL [FILE URL …]. Chromium is $CHROMIUM, else /usr/bin/chromium.
import { createRequire } from 'node:module';

const { chromium } = createRequire(new URL('../../ui/package.json', import.meta.url))('playwright-core');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 } });
  for (let i = 2; i + 1 < process.argv.length; i += 2) {
    await page.goto(process.argv[i + 1], { waitUntil: 'load' });
    await page.getByText('Nightly').first().waitFor({ timeout: 30_000 });
    await page.waitForLoadState('networkidle', { timeout: 10_000 }).catch(() => {}); // pages that poll are never idle
    await page.screenshot({ path: process.argv[i] });
    console.log(`wrote ${process.argv[i]}`);
  }
} finally {
  await browser.close();
}
