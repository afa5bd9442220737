// Decimal strings as exact whole numbers of micros.

const plain = /^-?\d+(\.\d+)?$/;

export function micros(money: string): bigint | undefined {
  if (!plain.test(money)) return undefined;
  const negative = money.startsWith('-');
  const [units = '0', rest = ''] = money.replace('-', '').split('.');
  const n = BigInt(units) * 1_000_000n + BigInt(rest.slice(0, 6).padEnd(6, '0'));
  return negative ? -n : n;
}

export function fromMicros(n: bigint): string {
  const abs = n < 0n ? -n : n;
  return `${n < 0n ? '-' : ''}${abs / 1_000_000n}.${String(abs % 1_000_000n).padStart(6, '0')}`;
}

// change is how much now differs from before, as a ratio; undefined where before is 0.
export function change(now: bigint, before: bigint): number | undefined {
  if (before === 0n) return undefined;
  return Number(((now - before) * 10_000n) / (before < 0n ? -before : before)) / 10_000;
}
