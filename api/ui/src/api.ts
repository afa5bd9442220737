// The client of /api/v1. Types come from the API's own OpenAPI file (schema.d.ts is generated from it).
import { useEffect, useRef, useState } from 'preact/hooks';
import type { components, paths } from './schema.d.ts';
import { prefs } from './prefs.ts';
import { link } from './link.ts';
import { useStore } from './store.ts';

type Schemas = components['schemas'];
export type LiveMessage = Schemas['LiveMessage'];
export type LiveKPIs = Schemas['LiveKPIs'];
export type KPIWindow = Schemas['KPIWindow'];
export type KPISeries = Schemas['KPISeries'];
export type Series = Schemas['Series'];
export type MoneyKPIs = Schemas['MoneyKPIs'];
export type Product = Schemas['Product'];
export type ShopEvent = Schemas['Event'];
export type EventsMessage = Schemas['EventsMessage'];
export type FailedEvents = Schemas['FailedEvents'];
export type FailedSample = Schemas['FailedSample'];
export type Health = Schemas['Health'];
export type HealthSummary = Schemas['HealthSummary'];
export type Reason = Schemas['Reason'];
export type State = Schemas['State'];
export type Tables = Schemas['Tables'];
export type Workflows = Schemas['Workflows'];
export type Reconciliations = Schemas['Reconciliations'];
export type Maintenance = Schemas['Maintenance'];
export type Nights = Schemas['Nights'];
export type Alert = Schemas['Alert'];
export type AlertsMessage = Schemas['AlertsMessage'];
export type Fraud = Schemas['Fraud'];
export type Rules = Schemas['Rules'];
export type ProductDemand = Schemas['ProductDemand'];
export type Recommendations = Schemas['Recommendations'];
export type Models = Schemas['Models'];
export type Problem = Schemas['Problem'];

export type Path = keyof paths;
type Get<P extends Path> = paths[P]['get'];
type Given<Q> = [NonNullable<Q>] extends [never] ? Record<string, never> : NonNullable<Q>;
export type Query<P extends Path> = Get<P> extends { parameters: { query?: infer Q } } ? Given<Q> : never;
type Answer<P extends Path> = Get<P> extends { responses: { 200: { content: { 'application/json': infer A } } } } ? A : never;

// ApiError is a refusal in the API's own words, or a failure to reach it (problem is then undefined).
export class ApiError extends Error {
  readonly problem: Problem | undefined;
  constructor(message: string, problem?: Problem) {
    super(message);
    this.problem = problem;
  }
}

// Of the whole platform, not of a tenant: these paths know no such parameter.
const everybodys = ['health', 'tables', 'workflows', 'nights', 'reconcile', 'maintenance', 'rules'].map((p) => `/api/v1/${p}`);

export function address<P extends Path>(path: P, query: Query<P>): string {
  const q = new URLSearchParams();
  const tenant = prefs.get().tenant;
  if (tenant !== '' && !everybodys.includes(path)) q.set('tenant', tenant);
  for (const [k, v] of Object.entries(query as Record<string, unknown>)) {
    if (v !== undefined && v !== '') q.set(k, String(v));
  }
  const s = q.toString();
  return s === '' ? path : `${path}?${s}`;
}

export async function get<P extends Path>(path: P, query: Query<P>, signal?: AbortSignal): Promise<Answer<P>> {
  const limit = AbortSignal.timeout(15_000);
  let res: Response;
  try {
    res = await fetch(address(path, query), {
      headers: { Accept: 'application/json' },
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new ApiError(limit.aborted ? 'The platform did not answer within 15 seconds.' : 'The platform cannot be reached.');
  }
  const text = await res.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new ApiError(`The answer of the platform (status ${res.status}) could not be read.`);
  }
  if (!res.ok) {
    const p = body as Problem;
    throw new ApiError(p.detail || p.title || `The platform answered with status ${res.status}.`, p);
  }
  return body as Answer<P>;
}

// Polled is what a block shows: data stays while newer data cannot be had, and says so by its age.
export type Polled<T> = { data?: T; error?: ApiError; at: number; again: () => void };

// usePoll asks again every period, sooner after the platform came back, and not at all while nobody looks.
export function usePoll<P extends Path>(path: P, query: Query<P>, period: number): Polled<Answer<P>> {
  type T = Answer<P>;
  const url = address(path, query);
  const [state, setState] = useState<{ url: string; data?: T; error?: ApiError; at: number }>({ url, at: 0 });
  const [nudge, setNudge] = useState(0);
  const generation = useStore(link).generation;
  const latest = useRef(query);
  latest.current = query;

  useEffect(() => {
    const ctl = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    const ask = async () => {
      timer = undefined;
      if (document.hidden) return; // visibilitychange starts it again
      try {
        const data = await get(path, latest.current, ctl.signal);
        failures = 0;
        setState({ url, data, at: Date.now() });
      } catch (err) {
        if (ctl.signal.aborted) return;
        failures++;
        const error = err instanceof ApiError ? err : new ApiError(String(err));
        setState((old) => (old.url === url && old.data !== undefined ? { ...old, error } : { url, error, at: 0 }));
      }
      if (!ctl.signal.aborted) timer = setTimeout(ask, failures === 0 ? period : Math.min(30_000, 1000 * 2 ** Math.min(failures, 5)));
    };
    const shown = () => {
      if (!document.hidden && timer === undefined) void ask();
    };
    document.addEventListener('visibilitychange', shown);
    void ask();
    return () => {
      ctl.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', shown);
    };
  }, [url, period, nudge, generation]);

  const again = () => setNudge((n) => n + 1);
  return state.url === url ? { ...state, again } : { at: 0, again };
}
