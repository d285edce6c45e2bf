"""A running service in front of a fake engine, with an index of pumps, a law and a hostile passage."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.retrieval.index import build
from tests.data.records import record, write_shards
from tests.serve.client import call
from tests.serve.engine import ANSWER, HOSTILE, FakeEngine, assistant, engine


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index")
    law = record(
        1, id="law", title="专利法", abstract=None, claims=None, description="第一条 甲。\n第二条 乙。"
    )
    hostile = record(
        2, title="A xylophone", abstract=HOSTILE, claims=None, description=None, date="2015-01-06"
    )
    write_shards(
        [[law, hostile, *map(record, range(3, 40)), *(record(n, "zh") for n in range(40, 60))]], place / "r"
    )
    build([place / "r"], place / "index")
    return place / "index"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeEngine]:
    with engine() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def url(index: Path, fake: FakeEngine, folder: Path) -> Iterator[str]:
    with assistant(
        folder, "--endpoint", fake.url, "--model", "m", "--index", index, "--rate", "0"
    ) as address:
        yield address


@pytest.fixture(autouse=True)
def _as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    fake, url = (name in request.fixturenames and request.getfixturevalue(name) for name in ("fake", "url"))
    yield
    if fake:
        fake.pieces, fake.delay, fake.fault = list(ANSWER), 0.0, lambda _: None
        fake.asked.clear()
    if url:  # an engine that failed several times is left out for a while
        deadline = time.monotonic() + 20
        while call(url, "/health")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
