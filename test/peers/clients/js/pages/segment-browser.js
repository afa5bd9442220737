import { AnalyticsBrowser } from '@segment/analytics-next';

const { gateway, session, writeKey } = window.suite;
const host = gateway.replace('http://', '');
const analytics = AnalyticsBrowser.load(
  { writeKey, cdnURL: gateway },
  { integrations: { 'Segment.io': { apiHost: `${host}/v1`, protocol: 'http' } } },
);
analytics.setAnonymousId(session.visitor);
for (const { call, at, event, properties, traits, groupId, previousId, userId } of session.calls) {
  const options = { timestamp: at };
  if (call === 'track') analytics.track(event, properties, options);
  if (call === 'page') analytics.page(undefined, undefined, properties, options);
  if (call === 'identify') analytics.identify(userId, traits, options);
  if (call === 'group') analytics.group(groupId, traits, options);
  if (call === 'alias') analytics.alias(userId, previousId, options);
}
