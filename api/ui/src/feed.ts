// A feed: rows that a stream of server-sent events brings, newest first.
import { useEffect, useRef, useState } from 'preact/hooks';
import { address, ApiError, type Path, type Query } from './api.ts';
import { Source, type Phase } from './link.ts';
import { prefs } from './prefs.ts';
import { useStore } from './store.ts';

const kept = 200;

type Options<P extends Path, M, T> = {
  path: P;
  query: Query<P>;
  event: string;
  read: (message: M) => { rows: T[]; skipped: number };
  id: (row: T) => string; // a later row takes the place of an earlier one
  paused?: boolean;
  check: (signal: AbortSignal) => Promise<unknown>; // the same question as a request: a stream cannot say why it was refused
};

// useFeed follows a stream. What comes while it is paused waits.
export function useFeed<P extends Path, M, T>(o: Options<P, M, T>) {
  const [rows, setRows] = useState<T[]>([]);
  const [skipped, setSkipped] = useState(0);
  const [waiting, setWaiting] = useState(0);
  const [phase, setPhase] = useState<Phase>('connecting');
  const [heard, setHeard] = useState(false);
  const [error, setError] = useState<ApiError>();
  const held = useRef<T[]>([]);
  const latest = useRef(o);
  latest.current = o;
  useStore(prefs); // the tenant is part of the address
  const url = address(o.path, o.query);

  const join = (more: T[], old: T[]) => {
    const ids = new Set(more.map(latest.current.id));
    return [...more, ...old.filter((r) => !ids.has(latest.current.id(r)))].slice(0, kept);
  };

  useEffect(() => {
    const ctl = new AbortController();
    setRows([]);
    setSkipped(0);
    setHeard(false);
    setError(undefined);
    held.current = [];
    setWaiting(0);
    const source = new Source({
      url: () => url,
      event: o.event,
      silence: 0,
      phase: (p) => {
        setPhase(p);
        if (p !== 'lost') setError(undefined);
        else
          latest.current.check(ctl.signal).catch((err: unknown) => {
            if (err instanceof ApiError && err.problem) setError(err);
          });
      },
      message: (data) => {
        let m: M;
        try {
          m = JSON.parse(data) as M;
        } catch {
          return; // a cut message
        }
        const { rows: more, skipped: passed } = latest.current.read(m);
        setHeard(true);
        setSkipped((n) => n + passed);
        if (latest.current.paused) {
          held.current = join(more, held.current);
          setWaiting(held.current.length);
        } else setRows((old) => join(more, old));
      },
    });
    return () => {
      ctl.abort();
      source.close();
    };
  }, [url, o.event]);

  useEffect(() => {
    if (o.paused) return;
    const more = held.current;
    if (more.length > 0) setRows((old) => join(more, old));
    held.current = [];
    setWaiting(0);
  }, [o.paused]);

  return { rows, skipped, waiting, phase, heard, error };
}
