"""What every peer adds up over the rows of one table, so that their results can be compared field by field."""

import decimal

decimal.getcontext().prec = 60  # every sum here is exact

# A table has one name everywhere; its rows are the records of one topic.
TOPICS = {f"events_{c}": f"events.{c}" for c in ("page", "cart", "purchase", "inventory", "exposure", "identity", "custom")}
TOPICS["failed_events"] = "events.failed"


class Sums:
    """What is added up over the batches of one table."""

    def __init__(self):
        self.rows = self.hash_lo = self.hash_hi = self.items = 0
        self.ids, self.value, self.revenue, self.offsets = set(), {}, {}, {}
        self.item_price = decimal.Decimal(0)

    def add(self, columns):
        """columns is a batch: {name: list of values}, the lists of one length."""
        self.rows += len(columns["kafka_offset"])
        if "row_hash" in columns:
            self.ids.update(zip(columns["tenant"], columns["source"], columns["event_id"]))
        else:
            self.ids.update(columns["failed_id" if "failed_id" in columns else "alert_id"])
        for h in columns.get("row_hash", ()):
            self.hash_lo += h & 0xFFFFFFFF
            self.hash_hi += (h >> 32) & 0xFFFFFFFF
        for name, currency, value in zip(columns.get("name", ()), columns.get("currency", ()), columns.get("value", ())):
            if value is None:
                continue
            for total in (self.value, self.revenue) if name == "purchase" else (self.value,):
                total[currency or ""] = total.get(currency or "", decimal.Decimal(0)) + value
        for lines in columns.get("items", ()):
            for item in lines or ():
                self.items += 1
                if item["price"] is not None:
                    self.item_price += item["price"]
        for partition, offset in zip(columns["kafka_partition"], columns["kafka_offset"]):
            self.offsets[partition] = max(offset, self.offsets.get(partition, -1))

    def result(self):
        return {
            "rows": self.rows, "distinct": len(self.ids), "hash_lo": self.hash_lo, "hash_hi": self.hash_hi,
            "value": amounts(self.value), "revenue": amounts(self.revenue), "items": self.items, "item_price": text(self.item_price),
            "offsets": {str(k): v for k, v in sorted(self.offsets.items())},
        }


def text(amount):
    """An amount as text with its six decimals, whatever number of them it was computed with."""
    return str(decimal.Decimal(amount).quantize(decimal.Decimal("0.000001")))


def amounts(by_currency):
    return {currency: text(amount) for currency, amount in sorted(by_currency.items())}
