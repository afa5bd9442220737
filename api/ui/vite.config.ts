import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

// MILLRACE_API is the address of a running platform's API, for `npm run dev`.
const api = process.env['MILLRACE_API'] ?? 'http://127.0.0.1:8080';

// build.txt in the output names the sources that it was made from, so that a test finds out without Node whether it is current. ui_test.go computes the same.
function provenance(): Plugin {
  const root = import.meta.dirname;
  const files = ['index.html', 'package-lock.json', 'package.json', 'tsconfig.json', 'vite.config.ts'].map((f) => join(root, f));
  const walk = (dir: string) => {
    for (const e of readdirSync(dir, { withFileTypes: true })) {
      if (e.isDirectory()) walk(join(dir, e.name));
      else files.push(join(dir, e.name));
    }
  };
  walk(join(root, 'public'));
  walk(join(root, 'src'));
  return {
    name: 'provenance',
    apply: 'build',
    generateBundle() {
      const lines = files.map((f) => `${relative(root, f)} ${createHash('sha256').update(readFileSync(f)).digest('hex')}\n`).sort();
      this.emitFile({ type: 'asset', fileName: 'build.txt', source: `${createHash('sha256').update(lines.join('')).digest('hex')}\n` });
    },
  };
}

export default defineConfig(({ isSsrBuild }) => ({
  plugins: isSsrBuild ? [] : [provenance()],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // the content security policy admits files of this origin only
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: { proxy: { '/api': api } },
}));
