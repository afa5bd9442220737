// A reader of JSON text for showing it: it never throws, keeps every literal as it was sent (numbers too), goes on through text that was cut off, and knows the
// path of each value, so that the place of an error can be marked.

export type Kind = 'key' | 'string' | 'number' | 'word' | 'punct' | 'bad';
export type Token = { kind: Kind; text: string; marked: boolean };
export type Line = { indent: number; tokens: Token[]; marked: boolean };
export type Layout = { lines: Line[]; found: 'value' | 'parent' | 'none'; cut: boolean };

const lexer = /\s+|"(?:[^"\\]|\\[^])*"|-?\d[\d.eE+-]*|[A-Za-z_]+|[{}[\],:]|"[^]*$|[^]/gy;

// segments reads items[0].price, $.items[0].price and /items/0/price alike.
export function segments(path: string): string[] {
  return path.split(/[.[\]/]+/).filter((s) => s !== '' && s !== '$');
}

function unquote(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return text.replace(/^"|"$/g, '');
  }
}

type Frame = { array: boolean; index: number; key: string | undefined; empty: boolean };

// layout breaks text into lines of tokens. What lies at the path is marked; if nothing is there, the nearest thing around it.
export function layout(text: string, path = '', limit = 5000): Layout {
  const wanted = segments(path);
  const first = pass(text, wanted, limit);
  if (wanted.length === 0) return { ...first, found: 'none' };
  if (first.hit) return { ...first, found: 'value' };
  // Not there, e.g. a field that is missing: mark the key of the longest prefix that is.
  for (let n = wanted.length - 1; n > 0; n--) {
    const again = pass(text, wanted.slice(0, n), limit);
    if (again.hit) return { ...again, found: 'parent' };
  }
  return { ...first, found: 'none' };
}

function pass(text: string, wanted: string[], limit: number): { lines: Line[]; hit: boolean; cut: boolean } {
  const lines: Line[] = [];
  const stack: Frame[] = [];
  let line: Line = { indent: 0, tokens: [], marked: false };
  let hit = false;
  let cut = false;
  let markDepth = -1; // depth of the container that is being marked
  let expectValue = true;

  const newline = () => {
    if (line.tokens.length > 0) lines.push(line);
    line = { indent: stack.length, tokens: [], marked: false };
  };
  const put = (kind: Kind, t: string, marked: boolean) => {
    line.tokens.push({ kind, text: t, marked });
    if (marked) line.marked = true;
  };
  // Property names may hold dots: both sides are compared in the same broken-up form.
  const here = () => stack.flatMap((f) => (f.array ? [String(f.index)] : f.key === undefined ? [] : segments(f.key)));
  const atPath = () => {
    const p = here();
    return wanted.length > 0 && p.length === wanted.length && p.every((s, i) => s === wanted[i]);
  };
  const inside = () => markDepth >= 0;

  lexer.lastIndex = 0;
  for (let m = lexer.exec(text); m !== null && m[0] !== ''; m = lexer.exec(text)) {
    const t = m[0];
    if (/^\s/.test(t)) continue;
    if (lines.length >= limit) {
      cut = true;
      break;
    }
    const top = stack.at(-1);
    if (t === '{' || t === '[') {
      const start = !inside() && atPath();
      if (start) {
        hit = true;
        markDepth = stack.length;
      }
      if (top) top.empty = false;
      put('punct', t, inside());
      stack.push({ array: t === '[', index: 0, key: undefined, empty: true });
      newline();
      expectValue = t === '[';
    } else if (t === '}' || t === ']') {
      const done = stack.pop();
      const marked = inside();
      if (done?.empty && line.tokens.length === 0 && lines.length > 0) {
        line = lines.pop() ?? line; // {} and [] on one line
      } else {
        newline();
        line.indent = stack.length;
      }
      put('punct', t, marked);
      if (stack.length === markDepth) markDepth = -1;
      expectValue = false;
    } else if (t === ',') {
      put('punct', ',', inside());
      if (top?.array) top.index++;
      else if (top) top.key = undefined;
      newline();
      expectValue = top?.array ?? true;
    } else if (t === ':') {
      put('punct', ': ', inside());
      expectValue = true;
    } else if (t.startsWith('"') && top && !top.array && !expectValue) {
      top.key = unquote(t);
      top.empty = false;
      put('key', t, inside() || atPath());
    } else {
      const marked = inside() || atPath();
      if (atPath()) hit = true;
      if (top) top.empty = false;
      const open = t.startsWith('"') && !/^"(?:[^"\\]|\\[^])*"$/.test(t);
      if (open) cut = true;
      const kind: Kind = open ? 'bad' : t.startsWith('"') ? 'string' : /^-?\d/.test(t) ? 'number' : /^(true|false|null)$/.test(t) ? 'word' : 'bad';
      put(kind, t, marked);
      expectValue = false;
    }
    if (t === ',' && top && !top.array) expectValue = false;
    if (t === '{') expectValue = false;
  }
  if (line.tokens.length > 0) lines.push(line);
  if (stack.length > 0) cut = true;
  return { lines, hit, cut };
}
