"""Talk to a model in the terminal, with the template that it was trained with.

    python -m sft chat --model FOLDER [--adapter FOLDER] [--load-in-4bit]

What is typed is a question; /new begins a new conversation, /system TEXT too, with that system message; the
end of the input (Ctrl-D) leaves. Where a conversation outgrows the model's context, its oldest exchange is
forgotten.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from core.errors import UserError

Message = dict[str, str]


def main(arguments: list[str]) -> None:
    """Load the model, then answer line by line."""
    parser = argparse.ArgumentParser(
        prog="python -m sft chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a model's folder, or an adapter's")
    parser.add_argument("--adapter", type=Path, help="an adapter for it")
    parser.add_argument("--load-in-4bit", action="store_true", help="weights of 4 bits (NF4)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: always the likeliest token")
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    given = parser.parse_args(arguments)
    model, tokenizer = open_chat(given.model, given.adapter, load_in_4bit=given.load_in_4bit)
    settings = {"max_new_tokens": given.max_new_tokens, "do_sample": given.temperature > 0}
    if given.temperature > 0:
        settings |= {"temperature": given.temperature, "top_p": given.top_p}
    said: list[Message] = []
    for line in _typed():
        if line == "/new" or line.startswith("/system "):
            said = [{"role": "system", "content": line.removeprefix("/system ")}] if line != "/new" else []
            continue
        said.append({"role": "user", "content": line})
        answer = ""
        for piece in stream(model, tokenizer, said, settings):
            print(piece, end="", flush=True)
            answer += piece
        print()
        said.append({"role": "assistant", "content": answer})


def open_chat(model: str, adapter: Path | None, *, load_in_4bit: bool) -> tuple[Any, Any]:
    """Model and tokenizer; UserError where the tokenizer has no chat template."""
    import torch

    from core.model.loading import load_tokenizer
    from core.model.lora import CONFIG
    from core.train.logger import quiet_libraries
    from sft.merge_adapter import base_of, open_model

    quiet_libraries()
    if adapter is None and (Path(model) / CONFIG).exists():
        model, adapter = base_of(Path(model)), Path(model)
    tokenizer = load_tokenizer(str(adapter or model))
    if not tokenizer.chat_template:
        raise UserError(f"{adapter or model}: the tokenizer has no chat template; this is not a chat model.")
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    opened = open_model(model, dtype, adapter, load_in_4bit=load_in_4bit)
    if cuda and not load_in_4bit:
        opened = opened.to("cuda")
    return opened.eval(), tokenizer


def stream(model: Any, tokenizer: Any, said: list[Message], settings: dict[str, Any]) -> Iterator[str]:
    """The answer to a conversation, piece by piece; `said` loses its oldest exchange where it is too long."""
    import torch
    from transformers import TextIteratorStreamer

    from data.chat.chat_template import prompt_ids

    context = model.config.get_text_config().max_position_embeddings
    ids = prompt_ids(tokenizer, said)
    while len(ids) + settings["max_new_tokens"] > context and len(said) > 2:
        first = 1 if said[0]["role"] == "system" else 0
        if len(said) - first <= 2:
            break
        del said[first : first + 2]
        ids = prompt_ids(tokenizer, said)
    ids = ids[-max(1, context - settings["max_new_tokens"]) :]
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    prompt = torch.tensor([ids], device=model.device)
    options = settings | {
        "input_ids": prompt, "attention_mask": torch.ones_like(prompt), "streamer": pieces,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    failures: list[BaseException] = []

    def write() -> None:
        try:
            model.generate(**options)
        except BaseException as error:
            failures.append(error)
            pieces.end()

    worker = Thread(target=write, daemon=True)
    worker.start()
    yield from pieces
    worker.join()
    if failures:
        raise failures[0]


def _typed() -> Iterator[str]:
    """The lines that a person types, until the input ends."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
