// The connection to the platform: server-sent events that come back by themselves.
import { Store } from './store.ts';

// Link is what the page knows of its connection. generation grows each time the platform comes back, so that what was read before is read anew.
export type Link = { state: 'connecting' | 'open' | 'lost'; since: number; retryAt: number; generation: number };

export const link = new Store<Link>({ state: 'connecting', since: Date.now(), retryAt: 0, generation: 0 });

export type Phase = 'connecting' | 'open' | 'lost';

type Options = {
  url: () => string;
  event: string;
  message: (data: string) => void;
  phase: (p: Phase, retryAt: number) => void;
  silence: number; // ms without any message after which the connection is taken for dead; 0: never
};

// Source keeps one EventSource alive. The browser's own reconnection gives up for good on an error status, as a proxy or a starting platform sends it, so
// it is not used: every failure closes the connection, and a new one is tried after 0.5 s, 1 s, … 10 s, with jitter.
export class Source {
  private es: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private closed = false;

  constructor(private readonly o: Options) {
    this.open();
  }

  private open(): void {
    this.timer = undefined;
    const es = new EventSource(this.o.url());
    this.es = es;
    this.watch();
    es.addEventListener(this.o.event, (e) => {
      if (this.es !== es) return;
      this.failures = 0;
      this.watch();
      this.o.phase('open', 0);
      this.o.message((e as MessageEvent<string>).data);
    });
    es.addEventListener('open', () => {
      if (this.es !== es) return;
      if (this.o.silence === 0) {
        this.failures = 0;
        this.o.phase('open', 0);
      }
    });
    es.addEventListener('error', () => {
      if (this.es === es) this.fail();
    });
  }

  private watch(): void {
    clearTimeout(this.watchdog);
    if (this.o.silence > 0) this.watchdog = setTimeout(() => this.fail(), this.o.silence);
  }

  private fail(): void {
    this.drop();
    if (this.closed) return;
    const wait = Math.min(10_000, 500 * 2 ** Math.min(this.failures, 6)) * (0.8 + 0.4 * Math.random());
    this.failures++;
    this.o.phase('lost', Date.now() + wait);
    this.timer = setTimeout(() => this.open(), wait);
  }

  private drop(): void {
    clearTimeout(this.watchdog);
    clearTimeout(this.timer);
    this.timer = undefined;
    this.es?.close();
    this.es = undefined;
  }

  // again tries at once: the viewer asked, or the page is looked at again.
  again(): void {
    if (this.closed) return;
    this.drop();
    this.open();
  }

  close(): void {
    this.closed = true;
    this.drop();
  }
}
