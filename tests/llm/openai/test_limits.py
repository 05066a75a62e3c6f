"""The pace of requests: on a simulated clock against models of endpoints, and against a real server."""

import heapq
import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from multicsr.llm.openai.limits import RateLimiter, is_busy, retry_after_s, seconds_to_reset
from tests.support.chat_server import engine_at, said, serving

OK: tuple[int, dict[str, str]] = (200, {})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def simulate(endpoint, most, requests, longest_pause_s=600.0):
    """Send requests as fast as the limiter allows.

    Args:
        endpoint: (time, requests in flight) -> (status, headers, seconds until the answer).

    Returns:
        The limiter, and (start, end, status) of every request.
    """
    clock = Clock()
    limiter = RateLimiter(most, longest_pause_s, 0.5, clock)
    running, log = [], []
    while len(log) + len(running) < requests or running:
        wait_s = limiter.wait_s()
        next_end_s = running[0][0] if running else math.inf
        if wait_s == 0 and len(log) + len(running) < requests:
            started_s = limiter.enter()
            status, headers, takes_s = endpoint(clock.now, len(running) + 1)
            heapq.heappush(
                running, (clock.now + takes_s, len(log) + len(running), started_s, status, headers)
            )
        elif clock.now + wait_s < next_end_s and len(log) + len(running) < requests:
            clock.now += wait_s
        else:
            clock.now, _, started_s, status, headers = heapq.heappop(running)
            limiter.leave(started_s, status, headers)
            log.append((started_s, clock.now, status))
    return limiter, log


def busy_share(log, skip):
    """Number of 429 per 100 answers after the first `skip` requests."""
    after = [status for _, _, status in log[skip:]]
    return 100 * after.count(429) / after.count(200)


def test_concurrency_begins_low_and_grows_to_the_setting():
    seen = []

    def endpoint(now, in_flight):
        seen.append(in_flight)
        return 200, {}, 1.0

    limiter, _ = simulate(endpoint, most=32, requests=2_000)
    assert max(seen[:4]) == 4
    assert max(seen[:100]) < 16
    assert max(seen) == limiter.limit == 32


@pytest.mark.parametrize("most", [1, 2])
def test_setting_below_the_start_is_obeyed(most):
    seen = []

    def endpoint(now, in_flight):
        seen.append(in_flight)
        return 200, {}, 1.0

    simulate(endpoint, most=most, requests=50)
    assert max(seen) == most


@pytest.mark.parametrize("places", [8, 24])
def test_limit_in_flight_is_found_and_probed_rarely(places):
    """The endpoint takes so many requests at a time and answers 429 to more, at once."""
    draw = random.Random(places)

    def endpoint(now, in_flight):
        return (429, {}, 0.01) if in_flight > places else (200, {}, draw.uniform(0.8, 1.2))

    _, log = simulate(endpoint, most=64, requests=4_000)
    assert busy_share(log, 500) < 3
    seconds = log[-1][1] - log[500][1]
    assert 3_500 / seconds > 0.7 * places  # at least so much of what it can do


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {}])
def test_hard_rate_limit_is_kept(headers):
    """50 requests in every second, whose answers take 50 ms; the others are answered 429 at once."""
    windows, draw = {}, random.Random(1)

    def endpoint(now, in_flight):
        window = int(now)
        windows[window] = windows.get(window, 0) + 1
        return (429, headers, 0.005) if windows[window] > 50 else (200, {}, draw.uniform(0.04, 0.06))

    _, log = simulate(endpoint, most=64, requests=3_000)
    assert busy_share(log, 500) < 6


def test_limits_in_headers_avoid_every_429():
    """A bucket of 20 requests, full again every 10 s; its headers say so."""
    windows = {}

    def endpoint(now, in_flight):
        window = int(now // 10)
        windows[window] = windows.get(window, 0) + 1
        left = 20 - windows[window]
        reset_s = (window + 1) * 10 - now
        headers = {
            "x-ratelimit-remaining-requests": str(max(left, 0)),
            "x-ratelimit-reset-requests": f"{reset_s + 0.01:.3f}s",
        }
        return (429, headers, 0.01) if left < 0 else (200, headers, 0.01)

    _, log = simulate(endpoint, most=1, requests=500)
    assert [status for _, _, status in log].count(429) == 0
    assert log[-1][1] > 230


def test_one_burst_lowers_the_limit_once_by_a_quarter():
    limiter = RateLimiter(16, 600, 0.5, Clock())
    limiter.limit = 16.0
    started = [limiter.enter() for _ in range(16)]
    limiter._clock.now = 1.0
    for started_s in started:
        limiter.leave(started_s, 429, {"Retry-After": "3"})
    assert limiter.limit == 12
    assert limiter.wait_s() == 3
    limiter._clock.now = 4.5
    limiter.leave(limiter.enter(), 503, {"Retry-After": "7"})
    assert limiter.limit == 9
    assert limiter.wait_s() == 7


def test_server_error_says_nothing_about_the_pace():
    limiter = RateLimiter(16, 600, 0.5, Clock())
    for status in (500, 502, 503, 0, 404):
        limiter.leave(limiter.enter(), status, {})
    assert (limiter.limit, limiter.wait_s()) == (4, 0)


def test_busy_endpoint_without_an_hour_is_left_alone_longer_each_time():
    limiter = RateLimiter(16, 600, 0.5, clock := Clock())
    waits = []
    for _ in range(6):
        limiter.leave(limiter.enter(), 429, {})
        waits.append(limiter.wait_s())
        clock.now += waits[-1] + 0.01
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits))


def test_no_pause_is_longer_than_the_patience():
    limiter = RateLimiter(16, 20.0, 0.5, Clock())
    limiter.leave(limiter.enter(), 429, {"Retry-After": "86400"})
    assert limiter.wait_s() == 20


def test_close_frees_all_who_wait():
    limiter = RateLimiter(1, 600, 0.5)
    limiter.leave(limiter.enter(), 429, {"Retry-After": "500"})
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(limiter.enter) for _ in range(4)]
        limiter.close()
        assert all(each.result(timeout=10) for each in waiting)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "-5", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7.66"}, 7.66),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5 s or 3s"}, 0),
        ({"x-ratelimit-remaining-requests": "0"}, 0),
        ({"x-ratelimit-remaining-requests": "none", "x-ratelimit-reset-requests": "9s"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "nan"}, 0),
    ],
)
def test_limits_are_read_from_headers(headers, seconds):
    assert seconds_to_reset(headers) == pytest.approx(seconds)


def test_busy_is_429_or_503_with_a_time():
    assert is_busy(429, {})
    assert is_busy(503, {"Retry-After": "1"})
    assert not is_busy(503, {})
    assert not is_busy(200, {"Retry-After": "1"})
    assert retry_after_s({"Retry-After": "2"}) == 2


def send_all(server, requests, concurrency, **llm):
    """Send requests in as many threads as the stage would."""
    engine = engine_at(server.url, llm={"concurrency": concurrency, **llm})
    with ThreadPoolExecutor(concurrency) as threads:
        results = list(threads.map(lambda i: engine.reply(["4"], [str(i)], 8)[0], range(requests)))
    assert all(result.text == "Fine." for result in results)


def test_real_server_with_a_hard_rate_limit_answers_few_429():
    """120 requests a second and no more; 64 threads want more than that."""
    lock, times = threading.Lock(), []

    def answer(body):
        now = time.monotonic()
        with lock:
            recent = [each for each in times if each > now - 1]
            times[:] = recent
            if len(recent) >= 120:
                return 429, {"Retry-After": f"{recent[0] + 1 - now:.3f}"}, {}
            times.append(now)
        time.sleep(random.uniform(0.01, 0.03))
        return said("Fine.")

    with serving(answer) as server:
        send_all(server, 200, 64)
        start = server.statuses.copy()
        send_all(server, 600, 64)
    found = server.statuses - start
    print(f"\n{found[429]} times 429 for {found[200]} answers after the start")  # noqa: T201
    assert found[429] / found[200] < 0.08


def test_real_server_whose_headers_say_that_nothing_is_left_gets_nothing():
    """After 20 requests nothing is left for 0.5 s, which all threads obey but for those in flight."""
    lock, state = threading.Lock(), {"left": 20, "reset": 0.0}
    too_early = []

    def answer(body):
        now = time.monotonic()
        with lock:
            if now >= state["reset"]:
                state.update(left=20, reset=now + 0.5)
            state["left"] -= 1
            if state["left"] < 0:
                too_early.append(now)
            left, wait_s = max(state["left"], 0), state["reset"] - now
        status, _, body = said("Fine.")
        return (
            status,
            {"x-ratelimit-remaining-requests": str(left), "x-ratelimit-reset-requests": f"{wait_s:.3f}s"},
            body,
        )

    with serving(answer) as server:
        send_all(server, 100, 4)
    assert len(too_early) <= 3 * 5  # of each of the 5 windows, those in flight when the last one was given
