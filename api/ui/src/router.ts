// The pages and their addresses.
import { Store } from './store.ts';
import { search } from './prefs.ts';

export const pages = [
  { path: '/', title: 'Overview', key: 'o' },
  { path: '/live', title: 'Live events', key: 'l' },
  { path: '/products', title: 'Products', key: 'p' },
  { path: '/demand', title: 'Demand', key: 'd' },
  { path: '/recommendations', title: 'Recommendations', key: 'r' },
  { path: '/fraud', title: 'Fraud', key: 'a' },
  { path: '/failed', title: 'Failed events', key: 'f' },
  { path: '/health', title: 'Pipeline health', key: 'h' },
  { path: '/tables', title: 'Tables', key: 't' },
  { path: '/workflows', title: 'Workflows', key: 'w' },
  { path: '/nights', title: 'Nights', key: 'n' },
  { path: '/lakehouse', title: 'Lakehouse', key: 'i' },
] as const;

export type Page = (typeof pages)[number];

const normal = () => (location.pathname === '/' ? '/' : location.pathname.replace(/\/+$/, ''));

export const route = new Store(normal());

addEventListener('popstate', () => route.set(normal()));

// navigate changes the page; the heading takes the focus, so that a screen reader says where one is.
export function navigate(to: string): void {
  if (to === route.get()) return;
  history.pushState(null, '', to + search());
  route.set(to);
  scrollTo(0, 0);
  requestAnimationFrame(() => document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true }));
}
