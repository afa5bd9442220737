// Charts: uPlot for what has axes, plain SVG for the small line in a tile.
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { clockTime, compact, dayTime, decimal, hourTime, minuteTime } from './format.ts';
import { dark, prefs, zone } from './prefs.ts';
import { useStore } from './store.ts';

// A curve of a chart of bars may be a line before them.
export type Curve = { label: string; values: (number | null)[]; color: number; line?: boolean };

const color = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function translucent(name: string, alpha: number): string {
  const hex = color(name).replace('#', '');
  const n = Number.parseInt(hex, 16);
  return `rgba(${n >> 16}, ${(n >> 8) & 255}, ${n & 255}, ${alpha})`;
}

type Props = { times: number[]; curves: Curve[]; kind: 'bars' | 'lines'; label: string; step: number; height?: number; format?: (v: number) => string };

// Days are named on the axis where a chart is of several.
const days = (p: Props) => (p.times.at(-1) ?? 0) - (p.times[0] ?? 0) > 100_000;
const pointed = (p: Props) => (days(p) ? hourTime : p.step < 60 ? clockTime : minuteTime);

// Whatever is charted is counted in whole numbers, or in money where cents do not show.
const steps = Array.from({ length: 15 }, (_, e) => [1, 2, 5].map((n) => n * 10 ** e)).flat();

function options(p: Props, width: number, onCursor: (u: uPlot) => void): uPlot.Options {
  const axis = { stroke: color('--muted'), font: '11px system-ui, sans-serif', ticks: { show: false } };
  const grid = { stroke: color('--grid'), width: 1 };
  const format = p.format ?? ((v: number) => compact(v));
  const tz = zone();
  const time = days(p) ? dayTime : pointed(p);
  const bars = p.kind === 'bars' ? uPlot.paths.bars?.({ size: [0.72, 40], align: 0, radius: 0.12 }) : undefined;
  return {
    width,
    height: p.height ?? 180,
    padding: [10, 26, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    hooks: { setCursor: [onCursor] },
    tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), tz),
    scales: {
      x: { time: true, range: (_, min, max) => [min - p.step * 0.6, max + p.step * 0.6] },
      y: { range: (_, min, max) => [Math.min(0, min), Math.max(max * 1.12, 1)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 64, size: 26, ...(days(p) ? { incrs: [1, 2, 4, 7].map((n) => n * 86_400) } : {}), values: (_, at) => at.map((t) => time(t)) },
      { ...axis, grid, size: 52, space: (p.height ?? 180) < 160 ? 22 : 32, incrs: steps, values: (_, at) => at.map((v) => format(v)) },
    ],
    series: [
      {},
      ...p.curves.map((c): uPlot.Series => {
        const line = color(`--c${c.color}`);
        const solid = p.kind === 'bars' && !c.line;
        return {
          label: c.label,
          stroke: line,
          width: solid ? 0 : 1.8,
          points: { show: false },
          fill: translucent(`--c${c.color}`, solid ? 0.85 : p.curves.length === 1 ? 0.14 : 0),
          ...(bars && solid ? { paths: bars } : {}),
        };
      }),
    ],
  };
}

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLParagraphElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const isDark = useStore(dark);
  const tz = useStore(prefs).tz;
  const shape = `${isDark} ${tz} ${props.kind} ${props.step} ${props.height} ${days(props)} ${props.curves.map((c) => `${c.label}/${c.color}/${c.line}`).join()}`;

  const data = (p: Props): uPlot.AlignedData => [p.times, ...p.curves.map((c) => c.values)];

  const tell = (u: uPlot) => {
    const p = latest.current;
    const i = u.cursor.idx;
    if (!tip.current) return;
    const time = pointed(p);
    const format = p.format ?? ((v: number) => decimal(v));
    tip.current.textContent =
      i == null || p.times[i] === undefined ? '' : `${time(p.times[i])} · ${p.curves.map((c) => `${p.curves.length > 1 ? `${c.label} ` : ''}${c.values[i] == null ? '–' : format(c.values[i])}`).join(' · ')}`;
  };

  useEffect(() => {
    const el = box.current;
    if (!el) return;
    const p = latest.current;
    const u = new uPlot(options(p, Math.max(120, el.clientWidth), tell), data(p), el);
    plot.current = u;
    const fit = new ResizeObserver(() => u.setSize({ width: Math.max(120, el.clientWidth), height: p.height ?? 180 }));
    fit.observe(el);
    return () => {
      fit.disconnect();
      u.destroy();
      plot.current = undefined;
    };
  }, [shape]);

  useEffect(() => plot.current?.setData(data(props)), [props.times, props.curves]);

  const all = props.curves.flatMap((c) => c.values.filter((v): v is number => v !== null));
  const format = props.format ?? compact;
  const words = all.length === 0 ? 'no points' : `${props.times.length} points, lowest ${format(Math.min(...all))}, highest ${format(Math.max(...all))}`;
  return (
    <div class="chart">
      <div ref={box} role="img" aria-label={`${props.label}: ${words}`} />
      <p class="tip" ref={tip} aria-hidden="true" />
    </div>
  );
}

// Spark is a line without axes; it is decoration beside a number that says the same.
export function Spark({ values }: { values: (number | null)[] }) {
  const v = values.map((x) => x ?? 0);
  const top = Math.max(1, ...v);
  const at = (x: number, i: number) => `${((i / Math.max(1, v.length - 1)) * 100).toFixed(2)} ${(27 - (x / top) * 25).toFixed(2)}`;
  const path = v.map(at).join('L');
  return (
    <svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" aria-hidden="true">
      {v.length > 1 && <path class="area" d={`M0 28L${path}L100 28Z`} />}
      {v.length > 1 && <path class="line" d={`M${path}`} vector-effect="non-scaling-stroke" />}
    </svg>
  );
}
