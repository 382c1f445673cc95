"""How the door behaves when the broker fails, and what it leaves behind there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deploy.sandbox.processes import free_port
from shared.celery_broker import BrokerConnection
from shared.celery_control import CeleryControl
from shared.celery_reply_queues import DEAD_AFTER_S, LISTENERS
from shared.errors import BrokerUnavailable
from shared.urls import address, redacted
from tests.bench.crowd import crowd
from tests.brokers import Server, valkey
from tests.workers import celery_workers, send_tasks

NODE = "celery@alone"
BINDINGS = "_kombu.binding.reply.celery.pidbox"
PATIENCE_S = 20.0
HOUR_S = 3600.0
AGED_TASK = "3c1b0e4e-0000-4000-8000-000000000000"


@pytest.fixture
def store(valkey_server: Server) -> Iterator[redis.Redis]:
    """A database of its own on the shared server, as plain keys."""
    store = redis.Redis.from_url(f"{valkey_server.url[:-1]}7", decode_responses=True)
    store.flushdb()
    yield store
    store.flushdb()
    store.close()


@pytest.fixture
def store_url(valkey_server: Server) -> str:
    return f"{valkey_server.url[:-1]}7"


async def test_old_unacknowledged_tasks_stay_where_they_are(store: redis.Redis, store_url: str) -> None:
    """A task that runs for two hours is not handed out a second time because we listened.

    On Redis, every kombu consumer returns tasks to their queue after its own visibility timeout, an hour.
    """
    started_at = time.time() - 2 * HOUR_S
    store.zadd("unacked_index", {AGED_TASK: started_at})
    store.hset("unacked", AGED_TASK, '[{"body": "", "properties": {}}, "", "default"]')
    control = CeleryControl(store_url)
    await control.inspect([NODE], timeout_s=1.0)
    await control.close()
    assert store.zscore("unacked_index", AGED_TASK) == pytest.approx(started_at)
    assert store.hexists("unacked", AGED_TASK)
    assert store.llen("default") == 0


async def test_nothing_is_left_at_the_broker(store: redis.Redis, store_url: str) -> None:
    """No reply queue and no binding outlives a question: each one left makes every later reply slower."""
    control = CeleryControl(store_url)
    for _ in range(3):
        await control.inspect([NODE], timeout_s=0.1)
    await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    await control.close()
    assert [key for key in store.scan_iter("*") if "reply" in key or "unacked" in key] == []


async def test_pools_that_ask_at_the_same_moment_ask_once(store: redis.Redis, store_url: str) -> None:
    """Every worker of a broker reads every command, also those that are not for it."""
    control = CeleryControl(store_url)
    await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    before = published(store)
    questions = [control.inspect([f"celery@nobody-{number}"], timeout_s=0.1) for number in range(20)]
    await asyncio.gather(*questions)
    assert published(store) - before == len(("stats", "active_queues", "scheduled", "reserved", "active"))
    await control.close()


async def test_a_queue_that_cannot_be_looked_at_fails_alone(store: redis.Redis, store_url: str) -> None:
    """What other pools ask at the same moment is answered."""
    store.set("broken", "no list")
    control = CeleryControl(store_url)
    broken, well, silent = await asyncio.gather(
        control.queue_lengths(["broken"], timeout_s=PATIENCE_S),
        control.queue_lengths(["default"], timeout_s=PATIENCE_S),
        control.inspect([NODE], timeout_s=0.1),
        return_exceptions=True,
    )
    await control.close()
    assert isinstance(broken, BrokerUnavailable)
    assert well == {"default": 0}
    assert not isinstance(silent, BaseException)
    assert silent.silent == {NODE}


def published(store: redis.Redis) -> int:
    statistics: dict[str, dict[str, int]] = store.info("commandstats")
    return statistics.get("cmdstat_publish", {}).get("calls", 0)


async def test_close_ends_the_thread_and_what_is_open(store_url: str) -> None:
    """A call that is still waiting fails; no thread stays."""
    before = set(threading.enumerate())
    control = CeleryControl(store_url)
    await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    waiting = asyncio.create_task(control.inspect([NODE], timeout_s=4 * PATIENCE_S))
    await asyncio.sleep(0.05)
    await control.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        await waiting
    assert [t for t in set(threading.enumerate()) - before if t.name == "celery-control"] == []


async def test_a_broker_that_restarts() -> None:
    """Calls fail while it is away, and the next one after its return works without being asked twice."""
    port = free_port()
    with valkey(port=port) as server:
        control = CeleryControl(server.url)
        assert await control.queue_lengths(["default"], timeout_s=PATIENCE_S) == {"default": 0}
    with pytest.raises(BrokerUnavailable):
        await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    with valkey(port=port) as server, celery_workers(server.url, {NODE: ["default"]}, pool="solo"):
        assert set((await control.inspect([NODE], timeout_s=PATIENCE_S)).workers) == {NODE}
    with valkey(port=port) as server, celery_workers(server.url, {NODE: ["default"]}, pool="solo"):
        assert set((await control.inspect([NODE], timeout_s=PATIENCE_S)).workers) == {NODE}
    await control.close()


async def test_a_broker_that_dies_under_a_question() -> None:
    """Whoever waits for answers hears of it at once, not at the deadline."""
    with valkey() as server:
        control = CeleryControl(server.url)
        waiting = asyncio.create_task(control.inspect([NODE], timeout_s=6 * PATIENCE_S))
        await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    async with asyncio.timeout(3 * PATIENCE_S):
        with pytest.raises(BrokerUnavailable):
            await waiting
    await control.close()


async def test_a_broker_that_hangs() -> None:
    """Our deadline holds although the connection does not break; afterwards it serves again."""
    with valkey() as server:
        control = CeleryControl(server.url, connect_timeout_s=1.0)
        await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
        server.freeze()
        with pytest.raises(BrokerUnavailable, match="did not answer within"):
            await control.queue_lengths(["default"], timeout_s=0.1)
        server.thaw()
        assert await control.queue_lengths(["default"], timeout_s=PATIENCE_S) == {"default": 0}
        await control.close()


async def test_a_wrong_password_is_not_repeated() -> None:
    """The sentence names the broker and the reason, never the password."""
    with valkey("--requirepass", "right") as server:
        control = CeleryControl(server.url.replace("//", "//:wr%3Ang-secret@"))
        with pytest.raises(BrokerUnavailable) as caught:
            await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
        await control.close()
        assert server.url in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense://host", "redis://[broken", "redis://127.0.0.1:notaport/0", "?"])
async def test_a_url_that_is_none(url: str) -> None:
    """It is a broker that cannot be used, like any other."""
    control = CeleryControl(url)
    with pytest.raises(BrokerUnavailable):
        await control.queue_lengths(["default"], timeout_s=PATIENCE_S)
    await control.close()


def test_where_the_broker_is() -> None:
    """User and password are no part of an address."""
    assert address("amqp://user:p@ss@rabbit:5672/host") == "amqp://rabbit:5672/host"
    assert address("redis://:secret@one:1/0;redis://two:2/0") == "redis://one:1/0, redis://two:2/0"
    assert address("amqp://u:one@first;u:two@second:5672") == "amqp://first, second:5672"


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret", "12/cret", "se@cret", "://cret"])
def test_a_password_that_should_have_been_encoded_is_no_part_of_an_address(password: str) -> None:
    """A library takes what comes before the / for host and port; people must not read it in a log."""
    assert address(f"redis://:{password}@one:1/0") == "redis://one:1/0"


@pytest.mark.parametrize(
    ("written", "decoded"), [("secret", "secret"), ("se%63ret", "secret"), ("p@ss:word", "p@ss:word")]
)
def test_passwords_are_struck_out(written: str, decoded: str) -> None:
    """As the url has them, and as libraries decode them."""
    url = f"amqp://other@rabbit;amqp://user:{written}@rabbit:5672//;user:{written}@third"
    text = redacted(f"{url} was refused with {decoded!r}", url=url)
    assert written not in text
    assert decoded not in text


async def test_a_busy_solo_worker_is_silent(store: redis.Redis, store_url: str, tmp_path: Path) -> None:
    """It runs its task in the thread that would answer: silence is not idleness."""
    gate = tmp_path / "gate"
    with celery_workers(store_url, {NODE: ["default"]}, pool="solo", concurrency=1):
        control = CeleryControl(store_url)
        assert (await control.inspect([NODE], timeout_s=PATIENCE_S)).workers[NODE].is_idle
        send_tasks(store_url, "tests.wait_for_file", str(gate), queue="default")
        async with asyncio.timeout(PATIENCE_S):
            while not store.hlen("unacked"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        assert (await control.inspect([NODE], timeout_s=1.0)).silent == {NODE}
        gate.touch()
        assert (await control.inspect([NODE], timeout_s=PATIENCE_S)).workers[NODE].is_idle
        await control.close()


def test_a_connection_remembers_nothing_of_past_questions(store_url: str) -> None:
    """kombu notes each binding in memory for good; a service that asks every few seconds must not grow."""
    connection = BrokerConnection(
        store_url, control_exchange="celery", transport_options={}, timeout_s=5.0, heard=lambda *_: None
    )
    for _ in range(5):
        connection.listen()
        connection.hush()
    exchanges = connection._channel.state.exchanges
    assert [exchange["table"] for exchange in exchanges.values()] == [[] for _ in exchanges]
    connection.close()


@pytest.mark.parametrize("permissions", ["+@all", "+@all -rpop"])
async def test_replies_of_many_arrive_whether_or_not_the_server_hands_out_several_at_once(
    tmp_path: Path, permissions: str
) -> None:
    """Redis does since 6.2; an older one, or one that forbids it, is asked for each by itself."""
    user = f"limited on >secret ~* &* {permissions}"
    nodes = [f"celery@worker-{number}" for number in range(100)]
    with valkey("--user", *user.split()) as server:
        async with crowd(tmp_path, server.url, "default"):
            control = CeleryControl(server.url.replace("redis://", "redis://limited:secret@"))
            try:
                for _ in range(2):
                    fleet = await control.inspect(nodes, timeout_s=PATIENCE_S)
                    assert fleet.workers.keys() == set(nodes)
            finally:
                await control.close()


def connected(url: str) -> BrokerConnection:
    return BrokerConnection(
        url, control_exchange="celery", transport_options={}, timeout_s=5.0, heard=lambda *_: None
    )


def killed(url: str, store: redis.Redis, *, ago_s: float) -> str:
    """The reply queue of one who was killed so long ago, amid a question, with an answer in it."""
    victim = connected(url)
    victim.listen()
    queue: str = victim._replies.name
    store.lpush(queue, "an answer")
    store.hset(LISTENERS, queue, time.time() - ago_s)
    victim.abandon()
    return queue


@pytest.mark.parametrize(("ago_s", "stays"), [(DEAD_AFTER_S + 60, False), (DEAD_AFTER_S - 60, True)])
def test_what_a_killed_process_left_is_swept_up_by_the_next(
    store: redis.Redis, store_url: str, ago_s: float, stays: bool
) -> None:
    """Each binding that stays makes each answer of each worker slower; one that lives must stay."""
    queue = killed(store_url, store, ago_s=ago_s)
    successor = connected(store_url)
    successor.listen()
    left = {
        "binding": any(queue in member for member in store.smembers(BINDINGS)),
        "queue": bool(store.exists(queue)),
        "entry": bool(store.hexists(LISTENERS, queue)),
    }
    assert left == dict.fromkeys(left, stays)
    assert any(successor._replies.name in member for member in store.smembers(BINDINGS))
    successor.close()


def test_leftovers_are_found_under_a_prefix_and_without_a_binding(store: redis.Redis, store_url: str) -> None:
    """Several may share a Redis; and a process may be killed before it has bound what it announced."""
    store.hset(f"ours:{LISTENERS}", "never bound", time.time() - DEAD_AFTER_S - 60)
    connection = BrokerConnection(
        store_url,
        control_exchange="celery",
        transport_options={"global_keyprefix": "ours:"},
        timeout_s=5.0,
        heard=lambda *_: None,
    )
    connection.listen()
    assert set(store.hgetall(f"ours:{LISTENERS}")) == {connection._replies.name}
    connection.close()
    assert not store.exists(f"ours:{LISTENERS}")


def test_the_reply_queues_of_others_are_left_alone(store: redis.Redis, store_url: str) -> None:
    """Flower, or an operator's celery inspect: nobody told when they listened."""
    binding = "\x06\x16".join(("other", "", "other.reply.celery.pidbox"))
    store.sadd(BINDINGS, binding)
    connection = connected(store_url)
    connection.listen()
    connection.close()
    assert store.smembers(BINDINGS) == {binding}
    assert not store.exists(LISTENERS)


def test_without_the_permission_for_it_nothing_is_swept_and_all_else_works(tmp_path: Path) -> None:
    with valkey("--user", "limited", "on", ">secret", "~*", "&*", "+@all", "-hset") as server:
        connection = connected(server.url.replace("redis://", "redis://limited:secret@"))
        for _ in range(2):
            connection.listen()
            connection.publish("ping", {}, nodes=None, ticket="t")
            connection.hush()
        connection.close()
