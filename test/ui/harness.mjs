// What the checks stand on: a platform, a browser, and a list of results.
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

const root = new URL('../../', import.meta.url).pathname;
const run = promisify(execFile);

export const patience = 120_000; // ms; the machine may be busy with other things

// Platform is one that runs already (DASHBOARD=url, and DATA=its data directory), or one of its own with traffic.
export async function platform() {
  const bin = process.env.MILLRACE ?? join(root, 'bin/millrace');
  const given = process.env.DASHBOARD;
  const data = process.env.DATA ?? (given ? '' : mkdtempSync(join(tmpdir(), 'millrace-ui-')));
  const millrace = (...args) => run(bin, [...args, '--data', data], { cwd: root, timeout: 600_000 });
  const stop = async () => {
    if (given) return;
    await millrace('down').catch((err) => console.error(String(err)));
    rmSync(data, { recursive: true, force: true });
  };
  if (!given) {
    console.log(`starting a platform in ${data}`);
    try {
      await millrace('up', '--broker', 'kfake', '--rate', '50', '--detach');
    } catch (err) {
      await stop();
      throw new Error(`the platform does not start: ${err.stderr || err}`);
    }
  }
  if (data === '') throw new Error('DASHBOARD needs DATA, the data directory of the platform: events are sent to it, and its api is stopped and started');
  const endpoints = JSON.parse(readFileSync(join(data, 'endpoints.json'), 'utf8'));
  return { base: (given ?? endpoints.dashboard).replace(/\/$/, ''), endpoints, millrace, dir: data, stop };
}

export async function send(endpoints, body) {
  const res = await fetch(`${endpoints.gateway}/v1/events`, { method: 'POST', headers: { Authorization: `Bearer ${endpoints.write_key}` }, body });
  if (res.status !== 200) throw new Error(`the gateway answered ${res.status}: ${await res.text()}`);
  return res.json();
}

export async function browser() {
  const path = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => existsSync(p));
  if (!path) throw new Error('no browser: apt-get install -y --no-install-recommends chromium fonts-liberation, or give CHROMIUM=path');
  console.log(execFileSync(path, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim());
  return chromium.launch({ executablePath: path, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
}

export class Results {
  passed = 0;
  failed = [];
  left = 0;

  // ONLY=expression runs the checks whose names fit it, while one works on them.
  async check(name, what) {
    if (!new RegExp(process.env.ONLY ?? '').test(name)) {
      this.left++;
      return;
    }
    const start = Date.now();
    try {
      await what();
      this.passed++;
      console.log(`ok    ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
    } catch (err) {
      this.failed.push(name);
      console.log(`FAIL  ${name}\n      ${String(err.message ?? err).split('\n').slice(0, 6).join('\n      ')}`);
    }
  }

  // broke takes what ended the run before its end.
  broke(err) {
    this.failed.push('the run');
    console.log(`FAIL  the run\n      ${String(err?.stack ?? err)}`);
  }

  end() {
    if (this.left > 0) console.log(`ONLY left ${this.left} checks away`);
    console.log(`${this.passed} passed, ${this.failed.length} failed`);
    return this.failed.length === 0 && this.passed > 0;
  }
}

// until asks again until what gives something true; what it gave last is in the message.
export async function until(words, what, ms = patience) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try {
      last = await what();
      if (last) return last;
    } catch (err) {
      last = err;
    }
    if (Date.now() > end) throw new Error(`waited ${ms / 1000} s for: ${words}; last: ${String(last)}`);
    await new Promise((r) => setTimeout(r, 200));
  }
}

export function assert(condition, words) {
  if (!condition) throw new Error(words);
}

export function equal(got, want, words) {
  const [g, w] = [JSON.stringify(got), JSON.stringify(want)];
  if (g !== w) throw new Error(`${words}: got ${g}, want ${w}`);
}
