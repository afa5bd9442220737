import { PostHog } from 'posthog-node';
import { gateway, patience, session, timeout, writeKey } from './env.mjs';

const posthog = new PostHog(writeKey, { host: gateway, flushAt: 5, flushInterval: 500, requestTimeout: timeout, fetchRetryDelay: 300 });
posthog.on('error', (error) => console.error('posthog-node:', error.message));
for (const { call, at, ...rest } of session.calls) posthog[call]({ ...rest, ...(at && { timestamp: new Date(at) }) });
await posthog.shutdown(patience);
