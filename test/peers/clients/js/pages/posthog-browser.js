import posthog from 'posthog-js';

const { gateway, session, writeKey } = window.suite;
posthog.init(writeKey, {
  api_host: gateway,
  bootstrap: { distinctID: session.visitor },
  autocapture: false,
  capture_pageview: false,
  capture_pageleave: false,
  persistence: 'memory',
  person_profiles: 'always',
});
for (const { call, at, event, distinctId, properties, groupType, groupKey, alias } of session.calls) {
  if (call === 'capture') posthog.capture(event, properties, { timestamp: new Date(at) });
  if (call === 'identify') posthog.identify(distinctId, properties);
  if (call === 'groupIdentify') posthog.group(groupType, groupKey, properties);
  if (call === 'alias') posthog.alias(alias);
}
