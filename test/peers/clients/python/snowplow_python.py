import sys
import time

from snowplow_tracker import EmitterConfiguration, PageView, SelfDescribing, SelfDescribingJson, Snowplow, StructuredEvent, Subject, TrackerConfiguration

from env import GATEWAY, PATIENCE, SESSION, TIMEOUT, WRITE_KEY, when

delivered = 0


def on_success(events):
    global delivered
    delivered += len(events)


def on_failure(count, events):
    print(f"snowplow-python: {len(events)} events wait", file=sys.stderr)


tracker = Snowplow.create_tracker(
    namespace="shop", endpoint=GATEWAY, app_id=WRITE_KEY,
    subject=Subject().set_user_id(SESSION["user"]).set_domain_user_id(SESSION["visitor"]),
    emitter_config=EmitterConfiguration(batch_size=4, request_timeout=TIMEOUT, on_success=on_success, on_failure=on_failure),
)
for event in SESSION["events"]:
    shared = {
        "true_timestamp": int(when(event["at"]).timestamp() * 1000 + 0.5),
        "context": [SelfDescribingJson(entity["schema"], entity["data"]) for entity in event.get("entities", [])],
    }
    if event["kind"] == "page_view":
        tracker.track(PageView(page_url=event["url"], page_title=event["title"], **shared))
    elif event["kind"] == "struct":
        tracker.track(StructuredEvent(event["category"], event["action"], event["label"], event["property"], event["value"], **shared))
    else:
        tracker.track(SelfDescribing(SelfDescribingJson(event["schema"], event["data"]), **shared))
tracker.flush()
until = time.monotonic() + PATIENCE  # its own timer sends again what failed
while delivered < len(SESSION["events"]) and time.monotonic() < until:
    time.sleep(0.05)
sys.exit(delivered < len(SESSION["events"]))
