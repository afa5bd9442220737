import { buildPageView, buildSelfDescribingEvent, buildStructEvent, newTracker } from '@snowplow/node-tracker';
import { gateway, pause, patience, session, timeout, writeKey } from './env.mjs';

let delivered = 0;
const tracker = newTracker(
  { namespace: 'shop', appId: writeKey },
  {
    endpoint: gateway,
    connectionTimeout: timeout,
    onRequestSuccess: (batch) => (delivered += batch.length),
    onRequestFailure: ({ status, message }) => console.error('snowplow-node:', status, message),
  },
);
tracker.setUserId(session.user);
tracker.setDomainUserId(session.visitor);
const built = {
  page_view: (e) => buildPageView({ pageUrl: e.url, pageTitle: e.title }),
  struct: (e) => buildStructEvent({ category: e.category, action: e.action, label: e.label, property: e.property, value: e.value }),
  self_describing: (e) => buildSelfDescribingEvent({ event: { schema: e.schema, data: e.data } }),
};
for (const event of session.events) tracker.track(built[event.kind](event), event.entities, { type: 'ttm', value: Date.parse(event.at) });
// The tracker sends again what failed with the next event, or when it is told to.
const until = Date.now() + patience;
do {
  await pause(300);
  await tracker.flush();
} while (delivered < session.events.length && Date.now() < until);
process.exit(delivered < session.events.length ? 1 : 0);
