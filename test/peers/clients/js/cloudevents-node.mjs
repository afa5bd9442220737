import { CloudEvent, emitterFor, HTTP, httpTransport, Mode } from 'cloudevents';
import { appRetry, gateway, pause, patience, session, timeout, writeKey } from './env.mjs';

const url = `${gateway}/cloudevents?writeKey=${writeKey}`;
const emit = emitterFor(httpTransport(url), { mode: Mode.BINARY });

// The SDK sends once and tells of no status.
const once = (event) => Promise.race([emit(event), pause(timeout)]);

// An application that must not lose events sends the same message until it is taken.
async function untilTaken(event) {
  const { headers, body } = HTTP.structured(event);
  const until = Date.now() + patience;
  while (Date.now() < until) {
    try {
      const answer = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(timeout) });
      if (answer.ok) return;
    } catch (error) {
      console.error('cloudevents-node:', error.message);
    }
    await pause(200);
  }
  throw new Error('not taken');
}

for (const { type, id, subject, at, data } of session.events) {
  const event = new CloudEvent({ type, id, subject, source: '/shop/web', time: at, visitorid: session.visitor, data });
  await (appRetry ? untilTaken(event) : once(event).catch((error) => console.error('cloudevents-node:', error.message)));
}
process.exit(0);
