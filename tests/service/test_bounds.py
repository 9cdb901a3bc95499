"""Too much at once, clients that leave, a service that is killed: nothing lost, nothing twice."""

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lad_agent.store import InspectionFilter, open_store
from tests.scripted import Scripted, good, write_recipe
from tests.service.conftest import API, eventually, form, problem, serving

POST = f"{API}/inspections"
QUEUE = 48


@pytest.mark.parametrize("posts", [150, pytest.param(500, marks=pytest.mark.slow)])
async def test_many_posts_at_once_are_bounded_and_all_recorded(posts: int, tmp_path: Path) -> None:
    reasoner = Scripted(good, delay_s=0.05)
    forms = [form(number) for number in range(posts)]
    with serving(tmp_path, reasoner, queue=QUEUE, in_flight=8) as running:
        context = ssl.create_default_context()
        answers = await asyncio.gather(
            *(_post_until_taken(running.url, one, context) for one in forms)
        )
        refused = [answer for tries in answers for answer in tries[:-1]]
        assert refused
        for answer in refused[:20]:
            problem(answer, 429, "queue-full")
            assert answer.headers["Retry-After"] == "1"
        under_way = [int(answer.json()["detail"].split()[0]) for answer in refused]
        assert max(under_way) == QUEUE
        store = running.services.store
        eventually(lambda: store.count(InspectionFilter(complete=True)) == posts, within_s=120)
        figures = httpx.get(f"{running.url}/metrics", trust_env=False).text
        assert f"lad_agent_refused_total {len(refused)}.0" in figures
    assert max(Counter(reasoner.asked).values()) == 1


async def _post_until_taken(
    url: str, said: dict[str, Any], context: ssl.SSLContext
) -> list[httpx.Response]:
    """Has a client to itself: one of 500 connections looks at all of them for each request."""
    answers = []
    async with httpx.AsyncClient(
        base_url=url, timeout=120, trust_env=False, verify=context
    ) as client:
        while True:
            answers.append(await client.post(POST, **said))
            if answers[-1].status_code != 429:
                assert answers[-1].status_code in (201, 202), answers[-1].text
                return answers
            await asyncio.sleep(float(answers[-1].headers["Retry-After"]))


def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    with serving(tmp_path, queue=1) as running, running.client() as client:
        host, port = running.url.removeprefix("http://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as leaving:
                leaving.sendall(
                    f"POST {POST} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
                    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                    '--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
                    "half a picture".encode()
                )
                eventually(lambda: "lad_agent_queue 1.0" in client.get("/metrics").text)
            eventually(lambda: "lad_agent_queue 0.0" in client.get("/metrics").text)
        assert client.get(POST).json()["items"] == []
        assert client.post(POST, params={"wait": 20}, **form(1)).status_code == 201


def test_what_was_accepted_before_a_stop_is_finished(tmp_path: Path) -> None:
    reasoner = Scripted(good, delay_s=0.3)
    with serving(tmp_path, reasoner, in_flight=2) as running, running.client() as client:
        for number in range(6):
            assert client.post(POST, **form(number)).status_code == 202
    assert reasoner.closed
    with open_store(tmp_path / "audit.db") as store:
        assert store.count(InspectionFilter(complete=True)) == 6


def test_a_stream_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        with client.stream("GET", f"{API}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            began = time.monotonic()
            running.services.inspecting.close()
            assert list(lines) == [""]
            assert time.monotonic() - began < 5
        problem(client.post(POST, **form(1)), 503, "stopping")
        problem(client.get("/readyz"), 503, "stopping")


@contextmanager
def _child(folder: Path, delay_s: float) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`lad-agent serve` as a process of its own, and its address."""
    command = [sys.executable, "-m", "tests.scripted_cli", str(delay_s), "serve"]
    flags = ["--store", "audit.db", "--recipes", "recipes", "--station", "line-1", "--port", "0"]
    process = subprocess.Popen(
        [*command, *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                yield process, found[0]
                break
        else:
            pytest.fail("the service did not start")
    finally:
        process.kill()
        process.wait(30)
        if process.stderr:
            process.stderr.close()


@pytest.mark.slow
def test_a_killed_service_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipes" / "screw_bag")
    with _child(tmp_path, 0.5) as (process, url):
        _until_ready(url)
        locations = [
            httpx.post(url + POST, trust_env=False, timeout=30, **form(number)).headers["Location"]
            for number in range(8)
        ]
        process.send_signal(signal.SIGKILL)
    with open_store(tmp_path / "audit.db") as store:
        left = store.count(InspectionFilter(complete=False))
        assert left > 0
    with _child(tmp_path, 0.0) as (process, url):
        _until_ready(url)
        eventually(
            lambda: all(
                "result" in httpx.get(url + place, trust_env=False).json() for place in locations
            )
        )
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    with open_store(tmp_path / "audit.db") as store:
        assert store.count() == 8
        for one in store.inspections():
            types = [event.type for event in store.history(one.id).events]
            assert types.count("inspection.recorded") == 1
        assert store.verify_chain().intact


def _until_ready(url: str) -> None:
    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready, within_s=60)


def test_a_part_whose_recipe_was_changed_before_it_was_judged_goes_to_a_person(
    tmp_path: Path,
) -> None:
    write_recipe(tmp_path / "recipes" / "screw_bag")
    with _child(tmp_path, 60) as (_, url):
        _until_ready(url)
        httpx.post(url + POST, trust_env=False, timeout=30, **form(1)).raise_for_status()
    write_recipe(tmp_path / "recipes" / "screw_bag", audit_rate=0.5)
    with serving(tmp_path, Scripted(good)) as running, running.client() as client:
        (found,) = client.get(POST).json()["items"]
        assert (found["result"], found["reason"]) == ("NotDecidable", "reasoner-failed")
        (review,) = client.get(f"{API}/reviews").json()["items"]
        assert review["inspection"] == found["id"]
