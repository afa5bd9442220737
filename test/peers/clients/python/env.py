"""What the suite tells a driver: where to send, with which key, and the session in the dialect of its SDK."""

import datetime
import json
import os
import pathlib

GATEWAY = os.environ["GATEWAY"]
WRITE_KEY = os.environ["WRITE_KEY"]
SESSION = json.loads(pathlib.Path(os.environ["SESSION"]).read_text())
TIMEOUT = int(os.environ["TIMEOUT_MS"]) / 1000
PATIENCE = int(os.environ["PATIENCE_MS"]) / 1000
APP_RETRY = os.environ.get("APP_RETRY") == "1"  # the application repeats what its SDK reports as failed


def when(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
