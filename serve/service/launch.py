"""Start the service: with engines that are there, or with one that is started for a model's folder."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from core.errors import UserError
from core.launch import end_with_parent, free_port
from core.openai_client import OpenAIEndpointConfig, ask, from_options
from core.provenance import atomic_io
from serve.service.app import LOOPBACK, Service, run
from serve.service.assistant import Assistant
from serve.service.engines import Engine, Engines
from serve.service.limits import Limits
from serve.service.question_log import QuestionLog
from serve.service.ratings import Ratings

KEY = "PATENT_LLAMA_KEY"
"""The environment variable with the key that clients must send."""
ENGINE_KEY = "OPENAI_API_KEY"
"""The one with the key that the engines want."""
BYTES_PER_TOKEN = 2
"""Of a prompt at least, in any language: what a model's context holds of sources and conversation."""

START_SECONDS = 1800
"""Until an engine that is started must answer."""


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal ends it, with the options of `python -m serve run`. UserError for what cannot be
    served."""
    key = os.environ.get(KEY) or None
    if options.host.strip("[]") not in {name.strip("[]") for name in (*LOOPBACK, "::1")} and key is None:
        raise UserError(
            f"--host {options.host}: other machines could reach the service, so clients need a key. Set {KEY}"
            " to a long random text, for instance that of `openssl rand -hex 32`."
        )
    if key is not None and len(key) < 16:
        raise UserError(f"{KEY} has {len(key)} characters. Use at least 16, such as `openssl rand -hex 32`.")
    assistant = _assistant(options)
    with ExitStack() as stack:
        options.run.mkdir(parents=True, exist_ok=True)
        stack.enter_context(
            atomic_io.lock(options.run / ".lock", f"{options.run} is used by another service")
        )
        ratings = Ratings(options.run)
        urls, process = options.endpoint, None
        if not urls:
            url, process = stack.enter_context(started(options))
            urls = (url,)
        named = {"attempts": 1, "model": options.model}
        endpoints = [
            from_options(OpenAIEndpointConfig, {"url": "--endpoint"}, url=url, **named) for url in urls
        ]
        assistant.input_slot = _fills_slot(options, endpoints[0])
        engines = [Engine(endpoint.url.rstrip("/")) for endpoint in endpoints]
        limits = Limits(
            answer_tokens=options.answer_tokens, streams=options.streams, requests_per_minute=options.rate
        )
        service = Service(
            assistant,
            Engines(engines, options.model, os.environ.get(ENGINE_KEY)),
            ratings,
            QuestionLog(options.run, options.keep_days),
            limits,
            key,
        )
        try:
            asyncio.run(_until_signal(service, options, process))
        except OSError as error:
            raise UserError(f"--host {options.host} --port {options.port}: {error.strerror}.") from None
        if process and process.poll() is not None:
            said = _last_lines(options.run / "engine.log")
            raise UserError(f"the engine ended with exit code {process.poll()}. Its last lines:\n{said}")
    return 0


def _assistant(options: argparse.Namespace) -> Assistant:
    from serve.retrieval.search import open_index

    gate = None
    if options.gate:
        from serve.gate.classifier import Gate

        gate = Gate.open(options.gate)
    elif options.gate_mode == "refuse":
        raise UserError("--gate-mode refuse needs a gate: --gate DIR. Make one with `python -m serve gate`.")
    room = options.prompt_bytes
    if room is None:
        context = _config(options.model).get("max_position_embeddings")
        longest = Assistant.prompt_bytes
        room = min(longest, BYTES_PER_TOKEN * int(context) // 2) if isinstance(context, int) else longest
    index = open_index(options.index) if options.index else None
    return Assistant(index, gate, options.gate_mode, options.sources, room)


async def _until_signal(
    service: Service, options: argparse.Namespace, engine: subprocess.Popen[bytes] | None
) -> None:
    """Serve until a signal comes, or the engine that was started ends."""
    serving = asyncio.ensure_future(
        run(service, options.host, options.port, partial(print, "the assistant:", flush=True))
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    while not serving.done() and (engine is None or engine.poll() is None):
        await asyncio.wait([serving], timeout=1)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


@contextmanager
def started(options: argparse.Namespace) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of an engine that is started for `options.model`, and ended with the block."""
    folder = Path(options.model)
    if not (folder / "config.json").exists():
        raise UserError(
            f"--model {options.model}: no model's folder. Give one, or the --endpoint of an engine that"
            " serves a model of this name."
        )
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"--model {folder} is an adapter, and the engine needs a whole model: merge it first with"
            f" `python -m sft merge --adapter {folder} --output FOLDER`."
        )
    port, log = free_port(), options.run / "engine.log"
    name = options.engine
    if name == "auto":
        name = "vllm" if shutil.which("vllm") else "transformers"
    with log.open("w") as output:
        process = subprocess.Popen(
            _command(name, folder, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),  # noqa: PLW1509 (no thread runs here)
            process_group=0,
        )
        try:
            print(f"starting the engine ({name}; its log: {log})", flush=True)
            _wait(process, f"http://127.0.0.1:{port}", log, START_SECONDS)
            yield f"http://127.0.0.1:{port}/v1", process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):  # with the processes that it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(name: str, folder: Path, port: str) -> list[str]:
    if name == "vllm":
        program = shutil.which("vllm")
        if program is None:
            raise UserError(
                "--engine vllm: there is no program vllm. Install it, or use --engine transformers."
            )
        return [program, "serve", str(folder), "--host", "127.0.0.1", "--port", port]
    program = str(Path(sys.executable).parent / "transformers")
    return [program, "serve", str(folder), "--host", "127.0.0.1", "--port", port]


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    """Wait until an engine answers; UserError if it ends or takes too long."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    ended = f"ended with exit code {process.poll()}" if process.poll() is not None else "is not ready"
    raise UserError(f"the engine {ended}. The last lines of {log}:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])


def _fills_slot(options: argparse.Namespace, endpoint: OpenAIEndpointConfig) -> bool:
    """Whether the sources go into the slot `input` of the model's template: it has one, and the engine passes
    it on, which is tried."""
    template = _template(options.model)
    if options.input_slot is False or (options.input_slot is None and ".input" not in template):
        return False
    empty, filled = (_prompt_tokens(endpoint, slot) for slot in ("", "word " * 50))
    if empty is not None and filled is not None and filled > empty:
        return True
    if options.input_slot:
        raise UserError(
            "--input-slot: the engine does not pass the messages' `input` on to the model's template. Leave"
            " the option out: the sources then stand at the end of the question."
        )
    return False


def _prompt_tokens(endpoint: OpenAIEndpointConfig, slot: str) -> int | None:
    """How many tokens an engine counts in a prompt with this `input`; None if it does not say."""
    message = {"role": "user", "content": "word", **({"input": slot} if slot else {})}
    body = {"messages": [message], "max_tokens": 1}
    ((_, found),) = ask(
        endpoint, "chat/completions", [(body, lambda answer: int(answer["usage"]["prompt_tokens"]))]
    )
    return found if isinstance(found, int) else None


def _template(model: str) -> str:
    file = Path(model) / "chat_template.jinja"
    return file.read_text("utf-8") if file.exists() else ""


def _config(model: str) -> dict[str, object]:
    file = Path(model) / "config.json"
    try:
        return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}.") from None
