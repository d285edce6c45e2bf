"""Talk to a model in the terminal, in the chat template that it was trained with.

    python -m sft chat --model FOLDER [--adapter FOLDER] [--load-in-4bit]

Every line is a message. /new starts a new conversation, /system TEXT one with that system message, and Ctrl-D
quits. When a conversation no longer fits the model's context, its oldest exchange is dropped.
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
    """Load the model and answer line by line."""
    parser = argparse.ArgumentParser(
        prog="python -m sft chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of a model or an adapter")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter for it")
    parser.add_argument("--load-in-4bit", action="store_true", help="load the weights in 4 bits (NF4)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: always the most likely token")
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    given = parser.parse_args(arguments)
    model, tokenizer = open_chat(given.model, given.adapter, load_in_4bit=given.load_in_4bit)
    settings = {"max_new_tokens": given.max_new_tokens, "do_sample": given.temperature > 0}
    if given.temperature > 0:
        settings |= {"temperature": given.temperature, "top_p": given.top_p}
    conversation: list[Message] = []
    for line in _typed():
        if line == "/new" or line.startswith("/system "):
            system = line.removeprefix("/system ")
            conversation = [{"role": "system", "content": system}] if line != "/new" else []
            continue
        conversation.append({"role": "user", "content": line})
        answer = ""
        for piece in stream(model, tokenizer, conversation, settings):
            print(piece, end="", flush=True)
            answer += piece
        print()
        conversation.append({"role": "assistant", "content": answer})


def open_chat(model: str, adapter: Path | None, *, load_in_4bit: bool) -> tuple[Any, Any]:
    """Model and tokenizer; UserError if the tokenizer has no chat template."""
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
        raise UserError(f"{adapter or model}: not a chat model: the tokenizer has no chat template")
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    opened = open_model(model, dtype, adapter, load_in_4bit=load_in_4bit)
    if cuda and not load_in_4bit:
        opened = opened.to("cuda")
    return opened.eval(), tokenizer


def stream(
    model: Any, tokenizer: Any, conversation: list[Message], settings: dict[str, Any]
) -> Iterator[str]:
    """The answer, piece by piece; the oldest exchanges are removed from a `conversation` that is too long."""
    import torch
    from transformers import TextIteratorStreamer

    from data.chat.chat_template import prompt_ids

    context = model.config.get_text_config().max_position_embeddings
    ids = prompt_ids(tokenizer, conversation)
    while len(ids) + settings["max_new_tokens"] > context and len(conversation) > 2:
        first = 1 if conversation[0]["role"] == "system" else 0
        if len(conversation) - first <= 2:
            break
        del conversation[first : first + 2]
        ids = prompt_ids(tokenizer, conversation)
    ids = ids[-max(1, context - settings["max_new_tokens"]) :]
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    prompt = torch.tensor([ids], device=model.device)
    options = settings | {
        "input_ids": prompt, "attention_mask": torch.ones_like(prompt), "streamer": pieces,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    failures: list[BaseException] = []

    def generate() -> None:
        try:
            model.generate(**options)
        except BaseException as error:
            failures.append(error)
            pieces.end()

    worker = Thread(target=generate, daemon=True)
    worker.start()
    yield from pieces
    worker.join()
    if failures:
        raise failures[0]


def _typed() -> Iterator[str]:
    """The lines of standard input that are not empty; a prompt is shown on a terminal."""
    if sys.stdin.isatty():
        print("Type a message. /new starts over, /system TEXT sets a system message, Ctrl-D quits.")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
