import { RudderAnalytics } from '@rudderstack/analytics-js/bundled';

const { gateway, session, writeKey } = window.suite;
const analytics = new RudderAnalytics();
analytics.load(writeKey, gateway, { configUrl: gateway });
analytics.setAnonymousId(session.visitor);
for (const { call, at, event, properties, traits, groupId, previousId, userId } of session.calls) {
  const options = { originalTimestamp: at };
  if (call === 'track') analytics.track(event, properties, options);
  if (call === 'page') analytics.page(undefined, undefined, properties, options);
  if (call === 'identify') analytics.identify(userId, traits, options);
  if (call === 'group') analytics.group(groupId, traits, options);
  if (call === 'alias') analytics.alias(userId, previousId, options);
}
