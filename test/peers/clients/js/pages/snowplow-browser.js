import { SnowplowEcommercePlugin, trackAddToCart, trackCheckoutStep, trackProductView, trackRefund, trackTransaction } from '@snowplow/browser-plugin-snowplow-ecommerce';
import { newTracker, setCustomUrl, setUserId, trackPageView, trackSelfDescribingEvent, trackStructEvent } from '@snowplow/browser-tracker';

const { gateway, session, timeout, writeKey } = window.suite;
newTracker('shop', gateway, { appId: writeKey, plugins: [SnowplowEcommercePlugin()], connectionTimeout: timeout });
setUserId(session.user);
const ecommerce = { product_view: trackProductView, add_to_cart: trackAddToCart, checkout_step: trackCheckoutStep, transaction: trackTransaction, refund: trackRefund };
for (const event of session.events) {
  const timestamp = { type: 'ttm', value: Date.parse(event.at) };
  if (event.kind === 'page_view') {
    setCustomUrl(event.url);
    trackPageView({ title: event.title, timestamp });
  } else if (event.kind === 'struct') {
    trackStructEvent({ category: event.category, action: event.action, label: event.label, property: event.property, value: event.value, timestamp });
  } else if (event.plugin) {
    ecommerce[event.plugin]({ ...event.arguments, timestamp });
  } else {
    trackSelfDescribingEvent({ event: { schema: event.schema, data: event.data }, context: event.entities, timestamp });
  }
}
