"""What the assistant adds to an engine: 200 answers at a time, with it and without it, in turns.

    python -m benchmarks.serve --quick       100 streams of 50 tokens
    python -m benchmarks.serve               200 streams of 100 tokens

The engine is made: it writes a token every 50 ms and does nothing else. What is measured is what stands
in between, on this machine's cores, which clients, engine and assistant share. Each client asks the engine
itself or the assistant (gate and retrieval included where an index is given), and notes when the first token
and each next one came.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web

from benchmarks.result import print_result

PACKAGES = ("aiohttp", "tantivy")
PAUSE = 0.05
"""Seconds between two tokens of the engine."""


def main() -> None:
    """Start both, ask in turns, print the figures and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="100 streams of 50 tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", type=int, metavar="TOKENS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        asyncio.run(engine(arguments.engine))
        return
    streams, tokens = (100, 50) if arguments.quick else (200, 100)
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), streams, tokens, arguments.repeats)
    print_result("serve", PACKAGES, results, table=True)


async def engine(tokens: int) -> None:
    """Answer every question with this many tokens."""
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    piece = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    last = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    async def chat(_: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(_)
        for _number in range(tokens):
            await asyncio.sleep(PAUSE)
            await response.write(piece)
        await response.write(last)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"the engine: http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def measure(scratch: Path, streams: int, tokens: int, repeats: int) -> dict[str, float]:
    """Milliseconds to the first token and between tokens, of the engine and of the assistant before it."""
    corpus, index = scratch / "corpus", scratch / "index"
    for step in (
        ["data", "run", "--until", "dedup", f"output_dir={corpus}", "synthetic.inventions=1000"],
        ["serve", "index", "--corpus", str(corpus), "--output", str(index)],
    ):
        subprocess.run([sys.executable, "-m", *step], check=True, capture_output=True)
    started = [start("benchmarks.serve", "--engine", str(tokens))]
    try:
        served = ["--endpoint", f"{started[0][1]}/v1", "--model", "m", "--rate", "0", "--port", "0"]
        for name, more in (("bare", []), ("index", ["--index", str(index)])):
            run = ["--run", str(scratch / name), "--streams", str(streams), *more]
            started.append(start("serve", "run", *served, *run))
        ways = dict(zip(("engine", "assistant", "assistant_index"), (url for _, url in started), strict=True))
        times: dict[str, list[list[float]]] = {name: [] for name in ways}
        for round_ in range(repeats + 1):  # the first warms up
            for name, url in ways.items():
                found = asyncio.run(ask_all(url, streams))
                if round_:
                    times[name].append(found)
    finally:
        for process, _ in started:
            process.terminate()
            process.wait()
    medians = {
        name: [statistics.median(each) for each in zip(*found, strict=True)] for name, found in times.items()
    }
    keys = ("first_token_p50_ms", "first_token_p99_ms", "token_p50_ms", "token_p99_ms")
    results = {
        f"{name}_{key}": value
        for name, found in medians.items()
        for key, value in zip(keys, found, strict=True)
    }
    for name in ("assistant", "assistant_index"):
        results |= {f"{name}_adds_{key}": results[f"{name}_{key}"] - results[f"engine_{key}"] for key in keys}
    return results | {"streams": float(streams), "tokens": float(tokens)}


def start(*command: str) -> tuple[subprocess.Popen[str], str]:
    """A process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout
    line = next(line for line in process.stdout if line.startswith(("the engine:", "the assistant:")))
    return process, line.split()[-1]


async def ask_all(url: str, streams: int) -> list[float]:
    """Percentiles 50 and 99 of the time to the first token and from one token to the next, in ms."""
    first: list[float] = []
    gaps: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, url, number, first, gaps) for number in range(streams)))
    both = [1000 * np.percentile(found, [50, 99]) for found in (first, gaps)]
    return [float(value) for found in both for value in found]


async def ask(
    session: aiohttp.ClientSession, url: str, number: int, first: list[float], gaps: list[float]
) -> None:
    """One question; they do not all come in the same instant."""
    await asyncio.sleep(PAUSE * number / 40)
    body = {"model": "m", "messages": [{"role": "user", "content": f"变频压缩机 {number}"}], "stream": True}
    before, begun = time.perf_counter(), False
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if b'"content": "word' in line:
                now = time.perf_counter()
                (gaps if begun else first).append(now - before)
                before, begun = now, True
    assert begun


if __name__ == "__main__":
    main()
