import sys
import time

import requests
from cloudevents.core.bindings.http import to_binary_event
from cloudevents.core.v1.event import CloudEvent

from env import APP_RETRY, GATEWAY, PATIENCE, SESSION, TIMEOUT, WRITE_KEY, when


def send(message):
    try:
        return requests.post(f"{GATEWAY}/cloudevents", data=message.body, headers=message.headers, auth=(WRITE_KEY, ""), timeout=TIMEOUT).ok
    except requests.RequestException as error:
        print("cloudevents-python:", error, file=sys.stderr)
        return False


for event in SESSION["events"]:
    attributes = {"type": event["type"], "id": event["id"], "source": "/shop/web", "subject": event["subject"], "time": when(event["at"]), "visitorid": SESSION["visitor"]}
    message = to_binary_event(CloudEvent(attributes, event["data"]))
    until = time.monotonic() + PATIENCE
    while not send(message) and APP_RETRY and time.monotonic() < until:
        time.sleep(0.2)
