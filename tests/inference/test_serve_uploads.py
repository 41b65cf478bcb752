"""Uploads in their turn: waiting, standing still, given up by their clients; without a server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from a2video.errors import InputError
from a2video.inference import serve_uploads
from a2video.inference.serve_guard import Guard, is_foreign
from a2video.inference.serve_uploads import Stopped, Uploads, Work, shown_name


class Client:
    """Sends its messages, then nothing; goes away when told to."""

    def __init__(self, *bodies: bytes, is_whole: bool = True) -> None:
        last = len(bodies) - 1
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": body, "more_body": place < last or not is_whole}
            for place, body in enumerate(bodies)
        ]
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        scope = {"type": "http", "method": "POST", "headers": [], "query_string": b"name=a.mp4"}
        return Request(scope, self.receive)


def size(path: Path, stop: threading.Event) -> Response:
    return JSONResponse({"suffix": path.suffix, "size": path.stat().st_size})


def until_stopped(path: Path, stop: threading.Event) -> Response:
    assert stop.wait(30)
    raise Stopped


def answered(folder: Path, client: Client, work: Work = size) -> tuple[int, dict[str, Any]]:
    async def answer() -> Response:
        return await Uploads(folder, 100).answer(client.request(), work)

    response = asyncio.run(answer())
    assert list(folder.iterdir()) == []
    return response.status_code, json.loads(response.body or b"{}")


def test_the_whole_body_is_worked_on(tmp_path: Path) -> None:
    assert answered(tmp_path, Client(b"a" * 60, b"", b"b" * 40)) == (200, {"suffix": ".mp4", "size": 100})
    status, answer = answered(tmp_path, Client(b"a" * 60, b"b" * 41))
    assert status == 413
    assert answer["error"] == "a.mp4: has more than the 0.0001 MB that this server takes: shorten it"


def test_mistakes_and_failures_are_sentences_without_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, stop: threading.Event) -> Response:
        raise InputError(f"{path}: is bad")

    def fail(path: Path, stop: threading.Event) -> Response:
        raise RuntimeError(f"no memory for {path}")

    assert answered(tmp_path, Client(b"a"), refuse) == (422, {"error": "a.mp4: is bad"})
    assert answered(tmp_path, Client(b"a"), fail) == (
        500,
        {"error": "a.mp4: the server failed, and its terminal says why"},
    )
    assert "no memory for" in caplog.text
    monkeypatch.setattr(serve_uploads, "STILL_SECONDS", 0.05)
    assert answered(tmp_path, Client(b"a", is_whole=False)) == (
        408,
        {"error": "a.mp4: its upload stood still for 0.05 seconds: try again"},
    )


def test_an_upload_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Client):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"a", "more_body": True}

    monkeypatch.setattr(serve_uploads, "UPLOAD_SECONDS", 0.1)
    assert answered(tmp_path, Slow())[0] == 408


def test_one_at_a_time_in_their_order(tmp_path: Path) -> None:
    running, order = threading.Lock(), []

    def work(path: Path, stop: threading.Event) -> Response:
        assert running.acquire(blocking=False)
        time.sleep(0.02)
        order.append(path.stat().st_size)
        running.release()
        return Response()

    async def all_answers() -> list[Response]:
        uploads = Uploads(tmp_path, 100)
        return await asyncio.gather(*(uploads.answer(Client(b"a" * n).request(), work) for n in (3, 1, 2)))

    assert [answer.status_code for answer in asyncio.run(all_answers())] == [200] * 3
    assert order == [3, 1, 2]


@pytest.mark.parametrize("leaver", [0, 1])
def test_clients_that_go_away_are_not_worked_for(tmp_path: Path, leaver: int) -> None:
    """The first is being worked for, the second waits; the third gets its answer as soon as both have gone."""
    works: list[Work] = [until_stopped, until_stopped, size]

    async def scene() -> None:
        uploads = Uploads(tmp_path, 100)
        clients = [Client(b"a") for _ in works]
        tasks = []
        for client, work in zip(clients, works, strict=True):
            tasks.append(asyncio.create_task(uploads.answer(client.request(), work)))
            await asyncio.sleep(0.05)
        assert len(list(tmp_path.iterdir())) == 3
        clients[leaver].gone.set()
        assert (await asyncio.wait_for(tasks[leaver], 10)).status_code == 499
        assert len(list(tmp_path.iterdir())) == 2
        clients[1 - leaver].gone.set()
        assert (await asyncio.wait_for(tasks[2], 10)).status_code == 200
        await asyncio.gather(*tasks)

    asyncio.run(scene())
    assert list(tmp_path.iterdir()) == []


def test_names_in_sentences() -> None:
    assert shown_name("holiday.mp4") == "holiday.mp4"
    assert shown_name("a\n\x1b[2J\u202e\udcff.mp4") == "a\ufffd\ufffd[2J\ufffd\ufffd.mp4"
    assert shown_name("") == "the file"
    assert shown_name("x" * 121) == "x" * 120 + "…"


def test_own_names() -> None:
    async def app(*parts: Any) -> None: ...

    for_all, for_one = Guard(app, "0.0.0.0"), Guard(app, "my-machine")
    for host, by_all, by_one in (
        ("192.168.1.7:7860", True, False),
        ("[fe80::1]:7860", True, False),
        ("my-machine:7860", False, True),
        ("MY-MACHINE", False, True),
        ("evil.example", False, False),
        ("evil.example:7860", False, False),
        ("localhost", True, True),
        ("[::1]", True, True),
        (":7860", False, False),
    ):
        assert (for_all._is_own(host), for_one._is_own(host)) == (by_all, by_one), host


def test_foreign_pages() -> None:
    host = {"host": "localhost:7860"}
    assert not is_foreign(Headers(host))
    assert not is_foreign(Headers(host | {"origin": "http://localhost:7860", "sec-fetch-site": "same-origin"}))
    assert is_foreign(Headers(host | {"origin": "http://localhost:3000"}))
    assert is_foreign(Headers(host | {"origin": "null"}))
    assert is_foreign(Headers(host | {"sec-fetch-site": "none"}))
