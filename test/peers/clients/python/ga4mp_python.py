import socket
import sys
import time

from ga4mp import GtagMP

from env import APP_RETRY, GATEWAY, PATIENCE, SESSION, TIMEOUT, WRITE_KEY, when

socket.setdefaulttimeout(TIMEOUT)  # the SDK has no timeout of its own
ga = GtagMP(api_secret=WRITE_KEY, measurement_id="G-SHOP", client_id=SESSION["visitor"])
ga._base_domain = f"{GATEWAY}/mp/collect"
ga.store.set_user_property("user_id", SESSION["user"])


def send(event, at):
    try:
        ga.send([event], date=when(at).astimezone().replace(tzinfo=None))
        return True
    except OSError as error:  # HTTP errors too
        print("ga4mp-python:", error, file=sys.stderr)
        return False


for one in SESSION["events"]:
    event = ga.create_new_event(one["name"])
    for name, value in one["params"].items():
        event.set_event_param(name, value)
    until = time.monotonic() + PATIENCE
    while not send(event, one["at"]) and APP_RETRY and time.monotonic() < until:
        time.sleep(0.2)
