import RudderAnalytics from '@rudderstack/rudder-sdk-node';
import { gateway, pause, patience, session, writeKey } from './env.mjs';

// No timeout, as it comes: with one of axios' the SDK does not send again what ran into it.
const analytics = new RudderAnalytics(writeKey, { dataPlaneUrl: gateway, flushAt: 5, flushInterval: 500 });
let answered = 0;
for (const { call, at, ...rest } of session.calls) {
  analytics[call]({ ...rest, timestamp: new Date(at) }, (error) => {
    answered++;
    if (error) console.error('rudderstack-node:', error.message);
  });
}
const until = Date.now() + patience;
while (answered < session.calls.length && Date.now() < until) await pause(50);
process.exit(answered < session.calls.length ? 1 : 0);
