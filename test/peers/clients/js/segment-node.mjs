import { Analytics } from '@segment/analytics-node';
import { gateway, patience, session, timeout, writeKey } from './env.mjs';

const analytics = new Analytics({ writeKey, host: gateway, flushAt: 5, httpRequestTimeout: timeout });
analytics.on('error', (error) => console.error('segment-node:', error.code, error.reason));
for (const { call, at, ...rest } of session.calls) analytics[call]({ ...rest, timestamp: new Date(at) });
await analytics.closeAndFlush({ timeout: patience });
