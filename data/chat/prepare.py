"""Files of chats to a folder that training memory-maps, made before the launch, on all cores.

    sources ──shard by shard──▶ parts ──merge──▶ train.bin, .idx, .trained.bin, .sources.npy; validation.…

`NAME.bin` and `.idx` are Megatron's indexed dataset (data/packing/indexed_dataset.py), one document per chat;
`NAME.trained.bin` has a byte per token, 1 if it is trained on; `NAME.sources.npy` has the number of each
chat's source in the configuration (uint16). `tokenizer/` is the tokenizer with its template; `dropped.jsonl`
lists every record and chat that was left out, with the reason. A killed run loses one shard; a finished
folder is never overwritten.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from core.provenance import manifest
from data.chat.chat_template import TEMPLATES, install, joined_begins, teaches_to_stop
from data.chat.config import ChatDataConfig
from data.chat.merge_shards import ChatRows, merge
from data.chat.tokenize_shard import Todo, encode_shard
from data.executor import forget_shards, join_parts, map_shards, open_executor, sum_rows
from data.packing.bin_packing import Array, Packing
from data.packing.indexed_dataset import Documents, with_ending
from data.packing.packed_dataset import Blocks
from data.packing.train_val_split import SPLITS
from data.readers.column_mapping import Options
from data.readers.file_splits import parts
from data.readers.source_files import list_files

SHARD_BYTES = 16 << 20
"""Size of a shard, if the file can be split: a worker's unit of work."""
ERRORS = 100
TOO_LONG = ("over-long", "answer-too-long")
"""Reasons that are not errors in the data."""
ADVICE = "Nothing was overwritten. Set another output_dir, or run with --force to overwrite this one."


@dataclass(frozen=True)
class ChatSet:
    """A finished folder of tokenised chats."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer that made it, with its template."""
        return self.folder / "tokenizer"

    @property
    def counts(self) -> dict[str, Any]:
        """The manifest's counts."""
        counts: dict[str, Any] = manifest.read(self.folder)["counts"]
        return counts

    def split(self, name: str) -> Path:
        """The path of `train` or `validation` without suffix."""
        assert name in SPLITS
        return self.folder / name

    def trained(self, name: str) -> npt.NDArray[np.uint8]:
        """The mask of a split, memory-mapped: (tokens,), 1 if a token is trained on."""
        file = with_ending(self.split(name), ".trained.bin")
        return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)

    def blocks(
        self,
        name: str,
        sequence_length: int,
        *,
        packing: Packing,
        padding_id: int,
        chosen: Array | None = None,
    ) -> Blocks:
        """A split as training blocks; UserError if it is empty."""
        return Blocks(
            Documents(self.split(name)),
            sequence_length,
            packing=packing,
            padding_id=padding_id,
            chosen=chosen,
            trained=self.trained(name),
            sources=(np.load(with_ending(self.split(name), ".sources.npy")), list(self.counts["sources"])),
        )


def find_chats(config: ChatDataConfig) -> ChatSet | None:
    """The finished folder that `config` describes, or None; UserError if the folder is another one."""
    folder = Path(config.output_dir)
    made = manifest.up_to_date(folder, config=_identity(config), inputs=None, advice=ADVICE)
    return ChatSet(folder) if made else None


def prepare(
    config: ChatDataConfig,
    tokenizer_path: str | Path,
    *,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> ChatSet:
    """Make the folder unless it is up to date; `say` gets the report. `tokenizer_path` is a folder or hub
    id."""
    from core.model.loading import load_tokenizer

    target, identity = Path(config.output_dir), _identity(config)
    tokenizer = load_tokenizer(str(tokenizer_path))
    install(tokenizer, config.template)
    todo = plan(config)
    files = sorted({each.path for each in todo if each.path is not None})
    inputs = manifest.hash_files(files) | {"tokenizer": hash_tokenizer(tokenizer)}
    done = not force and manifest.up_to_date(target, config=identity, inputs=inputs, advice=ADVICE)
    if not done:
        code = manifest.hash_code(Path(__file__).parent)
        with manifest.build_in_parts(
            target, step="chats", config=identity, inputs=inputs, code=code, force=force
        ) as built:
            built.counts = _make(config, tokenizer, todo, built.path)
            built.sources = {s.title: {"licence": s.licence, "use": s.use} for s in config.sources}
    made = ChatSet(target)
    say(f"{'up to date' if done else 'done'}: {target}\n{report(made.counts)}")
    if not teaches_to_stop(tokenizer):
        say(
            f"warning: the template does not put the end token {tokenizer.eos_token} behind an answer: the"
            " model does not learn to stop. Put the end token behind answers in the tokenizer's chat"
            f" template, or choose another `template`: {', '.join(TEMPLATES)}."
        )
    if begins := joined_begins(tokenizer):
        listed = ", ".join(map(repr, begins))
        say(
            f"warning: the tokenizer merges the end of the template's prompt with answers that begin with"
            f" {listed}: the model is prompted with different tokens than in training, and the first words"
            " get worse. Remove the space at the end of the prompt, or choose another `template`:"
            f" {', '.join(TEMPLATES)}."
        )
    return made


def plan(config: ChatDataConfig) -> list[Todo]:
    """The shards of all sources; UserError if a source is missing or empty."""
    todo: list[Todo] = []
    for number, source in enumerate(config.sources):
        if source.path is None:
            todo.append(Todo(number, None, None))
            continue
        for path in list_files(Path(source.path)):
            todo += [Todo(number, path, part) for part in parts(path, Options(), SHARD_BYTES)]
    return todo


def _make(config: ChatDataConfig, tokenizer: Any, todo: list[Todo], folder: Path) -> dict[str, Any]:
    """Make everything in `folder`; returns the counts."""
    tokenizer.save_pretrained(folder / "tokenizer")
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    work = partial(encode_shard, config, folder / "tokenizer", vocabulary)
    with open_executor(config.engine) as executor:
        counts = sum_rows(map_shards(work, todo, folder, executor, title="tokenise"))
    join_parts(folder, "dropped.jsonl")
    _check_errors(config, counts, folder)
    merged: dict[str, ChatRows] = {}
    for split in SPLITS:
        names = [file.with_suffix("") for file in sorted(folder.glob(f"shard-*.*.{split}.idx"))]
        merged[split] = merge(config, names, folder / split, split, vocabulary)
    if not len(merged["train"]):
        raise UserError(f"no chat is left to train on. {folder / 'dropped.jsonl'} lists the reasons.")
    forget_shards(folder)
    for file in folder.glob("shard-*"):
        file.unlink()
    return _summary(config, counts, merged, {split: Documents(folder / split) for split in SPLITS})


def _check_errors(config: ChatDataConfig, counts: Mapping[tuple[str, ...], int], folder: Path) -> None:
    records = sum(n for key, n in counts.items() if key[0] == "records")
    dropped = {key: n for key, n in counts.items() if key[0] == "dropped"}
    bad = sum(n for key, n in dropped.items() if key[2] not in TOO_LONG)
    if config.error_budget is not None and bad > max(ERRORS, config.error_budget * records):
        raise UserError(
            f"{bad:,} of {records:,} records have no usable chat, more than error_budget="
            f"{config.error_budget} allows. {folder / 'dropped.jsonl'} lists each with its reason."
            " Fix them, or raise error_budget."
        )
    # A split of few records may leave the validation side without any.
    may_be_empty = {source.title for source in config.sources if source.side == "validation"}
    lost = {key[1] for key in dropped if key[2] != "empty-file" or key[1] not in may_be_empty}
    lost -= {key[1] for key in counts if key[0] == "chats"}
    if config.error_budget is not None and lost:
        raise UserError(
            f"source {min(lost)}: no record has a usable chat. {folder / 'dropped.jsonl'} lists each with its"
            " reason. Fix the source (raise max_tokens if its chats are too long) or leave it out;"
            " error_budget=null keeps it."
        )


def _summary(
    config: ChatDataConfig,
    counts: Mapping[tuple[str, ...], int],
    merged: Mapping[str, ChatRows],
    documents: Mapping[str, Documents],
) -> dict[str, Any]:
    """The counts for the manifest."""

    def of(kind: str, title: str) -> dict[str, int]:
        return {key[2]: n for key, n in sorted(counts.items()) if key[:2] == (kind, title)}

    splits = {}
    sources: dict[str, Any] = {}
    for split, rows in merged.items():
        trained = rows["trained"].astype(np.int64)
        splits[split] = {
            "chats": len(rows),
            "tokens": int(documents[split].lengths.sum(dtype=np.int64)),
            "trained_tokens": int(trained.sum()),
        }
    for number, source in enumerate(config.sources):
        each: dict[str, Any] = {
            "records": counts.get(("records", source.title), 0),
            "layouts": of("layout", source.title),
            "cut": counts.get(("cut", source.title), 0),
            "answers_left_out": counts.get(("answers left out", source.title), 0),
            "dropped": of("dropped", source.title),
        }
        for split, rows in merged.items():
            mine = rows["source"] == number
            each[split] = {
                "chats": int(mine.sum()),
                "trained_tokens": int(rows["trained"][mine].sum(dtype=np.int64)),
            }
        each["trained_share"] = each["train"]["trained_tokens"] / max(1, splits["train"]["trained_tokens"])
        sources[source.title] = each
    dropped: Counter[str] = Counter()
    for source_counts in sources.values():
        dropped.update(source_counts["dropped"])
    return {**splits, "sources": sources, "dropped": dict(dropped), "over_long": config.over_long}


def report(counts: Mapping[str, Any]) -> str:
    """A table by source, then the totals."""
    from core.html_report import text_table

    rows = [
        (
            name,
            ", ".join(each["layouts"]) or "none",
            f"{each['records']:,}",
            f"{each['train']['chats']:,}",
            f"{each['validation']['chats']:,}",
            f"{each['train']['trained_tokens']:,}",
            f"{each['trained_share']:.1%}",
            f"{each['cut']:,}",
            ", ".join(f"{reason} {n:,}" for reason, n in each["dropped"].items()) or "0",
        )
        for name, each in counts["sources"].items()
    ]
    header = (
        "source",
        "layout",
        "records",
        "train",
        "validation",
        "trained tokens",
        "share",
        "cut",
        "dropped",
    )
    train = counts["train"]
    lines = [
        f"{name}: {n:,} answers at the end of chats are too long and left out"
        for name, each in counts["sources"].items()
        if (n := each.get("answers_left_out"))
    ]
    lines.append(
        f"{train['chats']:,} chats, {train['tokens']:,} tokens, {train['trained_tokens']:,} of them trained"
    )
    return "\n".join([text_table(header, rows), *lines])


def _identity(config: ChatDataConfig) -> dict[str, Any]:
    """The configuration that determines the result."""
    return config.model_dump(mode="json", exclude={"engine", "output_dir", "error_budget"})


def hash_tokenizer(tokenizer: Any) -> str:
    """A hash of the tokenizer's behaviour, independent of its files."""
    import hashlib

    behaviour = (tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map)
    return f"behaviour:{hashlib.sha256(repr(behaviour).encode()).hexdigest()}"
