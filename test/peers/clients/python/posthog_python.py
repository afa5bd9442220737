from posthog import Posthog

from env import GATEWAY, SESSION, TIMEOUT, WRITE_KEY, when

posthog = Posthog(WRITE_KEY, host=GATEWAY, timeout=TIMEOUT, flush_at=5, gzip=True, max_retries=5)
for call in SESSION["calls"]:
    at = {"timestamp": when(call["at"])} if "at" in call else {}
    if call["call"] == "capture":
        posthog.capture(call["event"], distinct_id=call["distinctId"], properties=call["properties"], **at)
    elif call["call"] == "identify":
        posthog.set(distinct_id=call["distinctId"], properties=call["properties"], **at)
    elif call["call"] == "groupIdentify":
        posthog.group_identify(call["groupType"], call["groupKey"], call["properties"], **at)
    elif call["call"] == "alias":
        posthog.alias(call["alias"], call["distinctId"], **at)
posthog.shutdown()
