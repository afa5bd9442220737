// Arithmetic on alerts: pure, so that it is tested without a browser.
import type { Alert, Fraud, Rules } from './api.ts';

type Hour = Fraud['hours'][number];
type Rule = Rules['rules'][number];

export const alertDelay = (a: Alert) => Math.max(0, (Date.parse(a.detected_at) - Date.parse(a.occurred_at)) / 1000);

// newestAlerts joins two lists of alerts, newest first. An alert is in both, and may be confirmed in one of them only: once confirmed it stays so.
export function newestAlerts(told: Alert[], stored: Alert[], since: number): Alert[] {
  const by = new Map<string, Alert>();
  for (const a of [...told, ...stored]) {
    const old = by.get(a.alert_id);
    if ((!old || (a.confirmed && !old.confirmed)) && Date.parse(a.occurred_at) >= since) by.set(a.alert_id, a);
  }
  return [...by.values()].sort((a, b) => (a.occurred_at < b.occurred_at ? 1 : a.occurred_at > b.occurred_at ? -1 : a.alert_id < b.alert_id ? 1 : -1));
}

export type RuleCount = { rule: string; entity: string; severity: string; versions: number[]; alerts: number; confirmed: number; score: number; delay: number };

// byRule adds the hours of each rule up, and has the rules that found nothing, too. The delay is the mean of the hours' medians, each counting as often as it had alerts.
export function byRule(hours: Hour[], rules: Rule[] = []): RuleCount[] {
  const by = new Map<string, RuleCount>(rules.map((r) => [r.rule, { rule: r.rule, entity: r.entity, severity: r.severity, versions: [], alerts: 0, confirmed: 0, score: 0, delay: 0 }]));
  for (const h of hours) {
    const r = by.get(h.rule) ?? { rule: h.rule, entity: h.entity, severity: h.severity, versions: [], alerts: 0, confirmed: 0, score: 0, delay: 0 };
    r.delay = (r.delay * r.alerts + h.delay_seconds * h.alerts) / Math.max(1, r.alerts + h.alerts);
    r.alerts += h.alerts;
    r.confirmed += h.confirmed;
    r.score = Math.max(r.score, h.score);
    if (!r.versions.includes(h.rule_version)) r.versions.push(h.rule_version);
    by.set(h.rule, r);
  }
  return [...by.values()].sort((a, b) => b.alerts - a.alerts || a.rule.localeCompare(b.rule));
}

// perHour counts the alerts of every hour of the range, those without any included.
export function perHour(f: Fraud): { times: number[]; values: number[] } {
  const by = new Map<number, number>();
  for (const h of f.hours) {
    const at = Date.parse(h.hour) / 1000;
    by.set(at, (by.get(at) ?? 0) + h.alerts);
  }
  const times: number[] = [];
  for (let t = Math.floor(Date.parse(f.from) / 3_600_000) * 3600; t * 1000 < Date.parse(f.to); t += 3600) times.push(t);
  return { times, values: times.map((t) => by.get(t) ?? 0) };
}
