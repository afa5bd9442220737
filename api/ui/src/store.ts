// A value that components can watch. The whole state of the page is a handful of these.
import { useEffect, useState } from 'preact/hooks';

export class Store<T> {
  private readonly watchers = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const w of [...this.watchers]) w();
  }

  update(part: Partial<T>): void {
    this.set({ ...this.value, ...part });
  }

  watch(w: () => void): () => void {
    this.watchers.add(w);
    return () => this.watchers.delete(w);
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState({});
  useEffect(() => {
    const seen = store.get();
    const off = store.watch(() => redraw({}));
    redraw((old) => (Object.is(seen, store.get()) ? old : {}));
    return off;
  }, [store]);
  return store.get();
}

// now ticks once a second while anybody looks, for ages and countdowns.
export const clock = new Store(Date.now());
setInterval(() => clock.set(Date.now()), 1000);
