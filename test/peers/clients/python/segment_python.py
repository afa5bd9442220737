from segment.analytics import Client

from env import GATEWAY, SESSION, TIMEOUT, WRITE_KEY, when

client = Client(WRITE_KEY, host=GATEWAY, timeout=TIMEOUT, upload_size=5, gzip=True)
NAMES = {"userId": "user_id", "anonymousId": "anonymous_id", "groupId": "group_id", "previousId": "previous_id"}
for call in SESSION["calls"]:
    arguments = {NAMES.get(key, key): value for key, value in call.items() if key not in ("call", "at")}
    getattr(client, call["call"])(timestamp=when(call["at"]), **arguments)
client.flush()
client.join()
