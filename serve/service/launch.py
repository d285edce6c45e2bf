"""Start the service: with engines that are there, or with one that is started for a model's folder."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from core.errors import UserError
from core.launch import end_with_parent, free_port
from core.provenance import atomic_io
from serve.service.app import LOOPBACK, Service, run
from serve.service.assistant import Assistant, GateMode
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

EngineName = Literal["auto", "vllm", "transformers"]


@dataclass(frozen=True)
class Options:
    """What `python -m serve run` is given."""

    run: Path
    """Folder of the ratings, the engine's log, and the questions if they are kept."""
    model: str
    endpoints: tuple[str, ...] = ()
    engine: EngineName = "auto"
    index: str | None = None
    """A folder, or the address of an index on a server."""
    gate: Path | None = None
    gate_mode: GateMode = "warn"
    host: str = "127.0.0.1"
    port: int = 8080
    sources: int = 5
    prompt_bytes: int | None = None
    input_slot: bool | None = None
    """None: if the template of a model's folder has the slot, and the engine fills it."""
    keep_days: int = 0
    limits: Limits = field(default_factory=Limits)
    start_seconds: float = 1800


def serve(options: Options) -> int:
    """Serve until a signal ends it. UserError for what cannot be served."""
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
        urls, process = options.endpoints, None
        if not urls:
            url, process = stack.enter_context(started(options))
            urls = (url,)
        engines = Engines([Engine(_base(url)) for url in urls], options.model, os.environ.get(ENGINE_KEY))
        assistant.input_slot = _fills_slot(options, engines)
        log = QuestionLog(options.run, options.keep_days)
        service = Service(assistant, engines, ratings, log, options.limits, key)
        try:
            asyncio.run(_until_signal(service, options, process))
        except OSError as error:
            raise UserError(f"--host {options.host} --port {options.port}: {error.strerror}.") from None
        if process and process.poll() is not None:
            said = _last_lines(options.run / "engine.log")
            raise UserError(f"the engine ended with exit code {process.poll()}. Its last lines:\n{said}")
    return 0


def _assistant(options: Options) -> Assistant:
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


async def _until_signal(service: Service, options: Options, engine: subprocess.Popen[bytes] | None) -> None:
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
def started(options: Options) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
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
            _wait(process, f"http://127.0.0.1:{port}", log, options.start_seconds)
            yield f"http://127.0.0.1:{port}/v1", process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
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
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    ended = f"ended with exit code {process.poll()}" if process.poll() is not None else "is not ready"
    raise UserError(f"the engine {ended}. The last lines of {log}:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])


def _fills_slot(options: Options, engines: Engines) -> bool:
    """Whether the sources go into the slot `input` of the model's template: it has one, and the engine passes
    it on, which is tried."""
    template = _template(options.model)
    if options.input_slot is False or (options.input_slot is None and ".input" not in template):
        return False
    empty, filled = (_prompt_tokens(engines, slot) for slot in ("", "word " * 50))
    if empty is not None and filled is not None and filled > empty:
        return True
    if options.input_slot:
        raise UserError(
            "--input-slot: the engine does not pass the messages' `input` on to the model's template. Leave"
            " the option out: the sources then stand at the end of the question."
        )
    return False


def _prompt_tokens(engines: Engines, slot: str) -> int | None:
    """How many tokens an engine counts in a prompt with this `input`."""
    message = {"role": "user", "content": "word", **({"input": slot} if slot else {})}
    body = {"model": engines.model, "messages": [message], "max_tokens": 1}
    headers = {"Content-Type": "application/json"}
    if engines.key:
        headers["Authorization"] = f"Bearer {engines.key}"
    asked = urllib.request.Request(
        f"{engines.engines[0].url}/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(asked, timeout=engines.silence_seconds) as response:
            return int(json.load(response)["usage"]["prompt_tokens"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _template(model: str) -> str:
    file = Path(model) / "chat_template.jinja"
    return file.read_text("utf-8") if file.exists() else ""


def _config(model: str) -> dict[str, object]:
    file = Path(model) / "config.json"
    try:
        return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}.") from None


def _base(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"--endpoint {url}: give a base URL such as http://localhost:8000/v1.")
    if "@" in parts.netloc:
        raise UserError(f"--endpoint: an address holds no password; {ENGINE_KEY} holds the engine's key.")
    return url.rstrip("/")
