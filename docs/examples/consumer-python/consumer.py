"""Prints what changes in MarchProxy's configuration. A durable consumer: what happens while it is away is
printed at its next start.

    pip install nats-py
    python consumer.py --nats nats://USER:PASSWORD@127.0.0.1:4222 --state /var/lib/consumer.state route
"""

import argparse
import asyncio
import hashlib
import json
import os
import time

import nats
from nats.errors import TimeoutError as NoMessages
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM, PREFIX = "MARCHPROXY_CONFIG", "marchproxy.config.v1."
PATIENCE = 5  # seconds that the state may differ from what the commits say before everything is read again


class Amiss(Exception):
    """Everything is to be read again."""


class Follower:
    def __init__(self, path, kinds):
        self.path, self.kinds = path, kinds
        self.commit, self.applied, self.next = {}, {}, {}
        self.pending, self.amiss = 0, None

    def load(self):
        with open(self.path) as file:
            saved = json.load(file)
        self.commit, self.applied, self.next = saved["commit"], saved["applied"], dict(saved["applied"])

    def save(self):
        with open(self.path + ".new", "w") as file:
            json.dump({"commit": self.commit, "applied": self.applied}, file)
        os.replace(self.path + ".new", self.path)

    def put(self, payload):
        """Keeps a payload exactly as it came: its bytes are hashed."""
        event = json.loads(payload)
        key = event["kind"] + "/" + event["name"]
        if event.get("deleted"):
            self.next.pop(key, None)
        else:
            self.next[key] = payload.decode()

    def state(self, kind):
        """The count and hash of a kind: the sum, in four lanes modulo 2^64, of its objects' digests."""
        count, lanes = 0, [0, 0, 0, 0]
        for key, payload in self.next.items():
            of, _, name = key.partition("/")
            if of != kind:
                continue
            revision = json.loads(payload)["revision"]
            digest = hashlib.sha256(f"{kind}\0{name}\0{revision}\0{payload}".encode()).digest()
            for i in range(4):
                lanes[i] = (lanes[i] + int.from_bytes(digest[8 * i : 8 * i + 8], "big")) % 2**64
            count += 1
        return count, "".join(f"{lane:016x}" for lane in lanes)

    def matches(self, commit):
        """Whether the messages so far amount to the state that a commit speaks of."""
        for kind in self.kinds:
            want = commit.get("state", {}).get(kind)
            count, digest = self.state(kind)
            if count != (want["count"] if want else 0) or (want and want["hash"] != digest):
                return False
        return True

    def apply(self, commit):
        """Acts on what differs between two states that the database had. This one prints it."""
        for key, payload in self.next.items():
            if self.applied.get(key) != payload:
                print(f"revision {commit['revision']}: {key} is now {payload}", flush=True)
        for key in self.applied.keys() - self.next.keys():
            print(f"revision {commit['revision']}: {key} was deleted", flush=True)
        self.commit, self.applied = commit, dict(self.next)

    def message(self, m):
        """Takes one message; true says that everything up to it is done."""
        self.pending = m.metadata.num_pending
        try:
            if m.subject != PREFIX + "revision":
                self.put(m.data)
                return False
            commit = json.loads(m.data)
        except (ValueError, KeyError) as err:
            print(f"{m.subject} cannot be read: {err}")  # the hash will not be equal
            return False
        if not self.matches(commit):
            return False  # wait for the next commit
        if commit["epoch"] == self.commit.get("epoch") and commit["revision"] < self.commit["revision"]:
            return False  # the stream was set back; it will be repaired
        self.apply(commit)
        self.save()
        return True

    async def look(self, js):
        """Compares with the stream's last commit: a consumer can die quietly."""
        try:
            last = json.loads((await js.get_last_msg(STREAM, PREFIX + "revision", direct=True)).data)
        except NotFoundError:
            last = None  # purged: there is nothing to compare with yet
        same = last is None or all(last[k] == self.commit.get(k) for k in ("epoch", "revision"))
        if same or self.pending > 0:
            self.amiss = None
            return
        self.amiss = self.amiss or time.monotonic()
        if time.monotonic() - self.amiss > PATIENCE:
            self.amiss = None
            raise Amiss("the state has stayed another than the stream's")

    async def follow(self, js, durable, filters, fresh):
        """Reads messages until something is amiss. fresh reads everything again."""
        if fresh:
            self.next, self.pending = {}, 0
            try:
                await js.delete_consumer(STREAM, durable)
            except NotFoundError:
                pass
        # Acknowledging a commit acknowledges all before it. A transaction may have any number of messages,
        # so that the number of unacknowledged ones must not be limited.
        await js.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=durable,
                filter_subjects=filters,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                ack_policy=AckPolicy.ALL,
                max_ack_pending=-1,
                ack_wait=60,
            ),
        )
        messages = await js.pull_subscribe_bind(durable, STREAM)
        try:
            while True:
                try:
                    batch = await messages.fetch(500, timeout=1)
                except NoMessages:
                    batch = []
                for m in batch:
                    if self.message(m):
                        await m.ack()
                await self.look(js)
        finally:
            await messages.unsubscribe()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nats", default="nats://127.0.0.1:4222", help="where NATS is")
    parser.add_argument("--state", default="consumer.state", help="what is kept between runs")
    parser.add_argument("--name", default="example-python", help="of the durable consumer")
    parser.add_argument("kinds", nargs="+", help="as in subjects: route, rate_limit_policy")
    args = parser.parse_args()
    # rate_limit_policy in subjects is RateLimitPolicy in events.
    follower = Follower(args.state, ["".join(w.capitalize() for w in k.split("_")) for k in args.kinds])
    fresh = not os.path.exists(args.state)
    if not fresh:
        follower.load()
    filters = [PREFIX + "revision"] + [f"{PREFIX}resource.{k}.*" for k in args.kinds]
    nc = await nats.connect(args.nats, max_reconnect_attempts=-1)
    while True:
        try:
            await follower.follow(nc.jetstream(), args.name, filters, fresh)
        except (Amiss, nats.errors.Error) as err:
            print(f"reading everything again: {err}", flush=True)
            await asyncio.sleep(1)
        fresh = True


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
