"""The corpus pipeline: reading XML, raw files to packed ids, and deduplication compared with its peers.

    python -m benchmarks.corpus [--quick] [--real DIR] [--without-peers] [--only deduplication]

    reading        XML of the Chinese office and the USPTO to Parquet shards of records: synthetic patents
                   or, with --real, copies of the offices' files in a folder (`cn/xml`, `uspto`)
                   and its time compared with lxml's parse of the same documents
    raw to packed  the whole pipeline over synthetic Chinese XML in ZIP archives and a weekly file of the
                   USPTO with a given tokenizer, the share of each step, and its time compared with the
                   floor: lxml's parse of the same documents and SentencePiece's encoding of the same texts
    deduplication  our code, datatrove and text-dedup read the same Parquet shards, drop duplicates and write
                   the rest, alternately after a warm-up on a small corpus; the peers in environments of
                   their own (benchmarks/peer.py), configured for Chinese (benchmarks/peers)

All on one core. Rates are per CPU second, medians over the rounds; for XML with markup, for texts without.
The last line is one JSON object.
"""

import argparse
import gc
import json
import shutil
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
from lxml import etree

from benchmarks.offices import american, chinese, write_files, write_weekly, write_zips
from benchmarks.peer import WITHOUT, Peer, environment, versions_of
from benchmarks.planted import Planted, Score, character_grams, plant, score, synthetic_records
from benchmarks.result import print_result
from data.record import Record

PACKAGES = ("numba", "numpy", "pyarrow", "xxhash", "opencc", "lxml", "sentencepiece")
PEERS = {
    "datatrove_cmn": ("datatrove", "datatrove.py"),
    "text_dedup": ("text-dedup", "text_dedup.py"),
    "text_dedup_characters": ("text-dedup", "text_dedup.py", "--characters"),
}
"""Environment, script and arguments of each peer."""
ROUNDS = 3


class Run(NamedTuple):
    """What a tool did with the planted corpus."""

    seconds: float
    """CPU time, reading and writing included."""
    kept: set[str]
    kept_for: dict[str, str]
    """The id that each dropped id duplicates, if the tool reports it."""


Tool = Callable[[Planted, Path], Run]


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller corpus: under 4 minutes on 2 cores")
    parser.add_argument("--real", type=Path, metavar="DIR", help="a folder with real files of the offices")
    parser.add_argument(WITHOUT, action="store_true", help="our code alone, and no peers are installed")
    parser.add_argument("--only", choices=["reading", "pipeline", "deduplication"], help="one of the parts")
    arguments = parser.parse_args()
    parts = [arguments.only] if arguments.only else ["reading", "pipeline", "deduplication"]
    with_peers = not arguments.without_peers and "deduplication" in parts
    names = sorted({command[0] for command in PEERS.values()} if with_peers else ())
    for name in names:
        environment(name)  # before anything is measured
    results: dict[str, float] = {}
    size = 2 if arguments.quick else 5
    with tempfile.TemporaryDirectory() as scratch:
        made = fresh(Path(scratch) / "made")
        if "reading" in parts or "pipeline" in parts:
            zh, en = (long_records(made, 2000 * size, language) for language in ("zh", "en"))
        if "reading" in parts:
            results |= measure_reading(fresh(Path(scratch) / "reading"), zh, en, arguments.real)
        if "pipeline" in parts:
            for office, made_records in (("zh", zh), ("us", en)):
                results |= measure_pipeline(fresh(Path(scratch) / "pipeline"), office, made_records)
        if "deduplication" in parts:
            results |= compare_dedup(fresh(Path(scratch) / "dedup"), 2000 * size, with_peers=with_peers)
    peers = {package: version for name in names for package, version in versions_of(name).items()}
    print_result("corpus", PACKAGES, results, peers)


def long_records(
    folder: Path, inventions: int, language: str, together: int = 5, seed: int = 0
) -> list[Record]:
    """Synthetic patents as long as real ones: each joins the descriptions of several."""
    made = synthetic_records(folder, inventions, language, seed)
    groups = (made[start : start + together] for start in range(0, len(made), together))
    return [
        {**group[0], "description": "\n".join(each["description"] or "" for each in group)}
        for group in groups
    ]


def measure_reading(
    scratch: Path, zh: Sequence[Record], en: Sequence[Record], real: Path | None
) -> dict[str, float]:
    """XML to records, and to shards of records on disk, in MB of XML per CPU second."""
    from data.readers import formats
    from data.readers.ingest import ingest
    from data.readers.source import Source

    (scratch / "zh").mkdir()
    (scratch / "us").mkdir()
    sizes = {
        "zh": write_files([chinese(record) for record in zh], scratch / "zh"),
        "us": write_weekly(map(american, en), scratch / "us" / "weekly.xml"),
    }
    if real:
        names = {"zh": sorted(real.glob("cn/xml/*.xml")), "us": sorted(real.glob("uspto/xml*/*.xml"))}
        for office, files in names.items():
            documents = [file.read_bytes() for file in files]
            copies = max(1, sizes[office] // sum(map(len, documents)))
            sizes[office] = write_files(documents * copies, fresh(scratch / office))
    results: dict[str, float] = {}
    print(
        f"{'real' if real else 'synthetic'} XML, MB/s per core{'MB':>10}{'lxml':>12}{'to records':>12}"
        f"{'to shards':>12}{'to records / lxml':>20}"
    )
    gc.freeze()  # keep the synthetic records out of the garbage collections that the readers cause
    for office, size in sizes.items():

        def read(folder: Path = scratch / office) -> None:
            for path in sorted(folder.iterdir()):
                assert all(isinstance(outcome, list) for outcome in formats.read(path))

        def to_shards(folder: Path = scratch / office) -> None:
            ingest([Source(path=str(folder))], fresh(scratch / "out"), None)

        documents = documents_of(scratch / office)
        times: dict[str, list[float]] = {"lxml": [], "xml": [], "ingest": []}
        for _ in range(ROUNDS + 1):
            for what, work in (("lxml", partial(parse, documents)), ("xml", read), ("ingest", to_shards)):
                times[what].append(cpu_seconds(work))
        speeds = {what: size / 1e6 / statistics.median(some[1:]) for what, some in times.items()}
        pairs = zip(times["xml"][1:], times["lxml"][1:], strict=True)
        ratio = statistics.median(ours / lxml for ours, lxml in pairs)
        columns = "".join(f"{speed:12.1f}" for speed in speeds.values())
        print(f"{office:30}{size / 1e6:10.0f}{columns}{ratio:20.1f}")
        results |= {f"{what}_{office}_mb_per_core_s": round(speed, 1) for what, speed in speeds.items()}
        results[f"xml_{office}_vs_lxml_ratio"] = round(ratio, 2)
    return results


def measure_pipeline(scratch: Path, office: str, records: Sequence[Record]) -> dict[str, float]:
    """The whole pipeline on an office's XML, in MB of XML per CPU second and compared with the floor, and
    each step's share of the time."""
    from data.packing.document_text import LayoutConfig, layout
    from data.pipeline import DataConfig, run
    from data.record_store import read_records

    sizes = {}
    for name, some in (("warm-up", records[: len(records) // 10]), ("corpus", records)):
        (scratch / name).mkdir()
        if office == "zh":
            sizes[name] = write_zips([chinese(record) for record in some], scratch / name)
        else:
            sizes[name] = write_weekly(map(american, some), scratch / name / "weekly.xml")
    steps: dict[str, list[float]] = {}
    ratios: list[float] = []
    config = DataConfig.model_validate(
        {
            "output_dir": str(scratch / "first"),
            "sources": [str(scratch / "warm-up")],
            "tokenizer": {"vocabulary_size": 4000},
            "engine": {"workers": 1},
        }
    )
    run(config, say=lambda _: None)
    tokenizer = scratch / "first" / "tokenizer"
    documents = documents_of(scratch / "corpus")
    for _ in range(ROUNDS):
        made = {"output_dir": str(fresh(scratch / "out")), "sources": [str(scratch / "corpus")]}
        start = began = time.process_time()

        def note(line: str) -> None:
            nonlocal start
            now = time.process_time()
            steps.setdefault(line.split(maxsplit=1)[0] if line.strip() else "report", []).append(now - start)
            start = now

        given = {"tokenizer": {"path": str(tokenizer)}}
        run(DataConfig.model_validate(config.model_dump() | given | made), say=note)
        ours = time.process_time() - began
        texts = [layout(record, LayoutConfig()) for record in read_records(scratch / "out" / "decontaminate")]
        floor = cpu_seconds(partial(parse, documents)) + cpu_seconds(partial(encode, texts, tokenizer))
        ratios.append(ours / floor)
    medians = {name: statistics.median(times) for name, times in steps.items()}
    total = sum(medians.values())
    speed = sizes["corpus"] / 1e6 / total
    print(
        f"raw to packed, {office}: {sizes['corpus'] / 1e6:.0f} MB of XML, {speed:.1f} MB/s per core,"
        f" {', '.join(f'{ratio:.2f}' for ratio in ratios)} times the floor; by step:"
    )
    print("".join(f"  {name} {seconds / total:.0%}" for name, seconds in medians.items()))
    shares = {f"share_{office}_{name}_ratio": round(part / total, 3) for name, part in medians.items()}
    return {
        f"raw_to_packed_{office}_mb_per_core_s": round(speed, 1),
        f"raw_to_packed_{office}_vs_floor_ratio": round(statistics.median(ratios), 2),
        **shares,
    }


def documents_of(folder: Path) -> list[bytes]:
    """The XML documents of a folder, of its ZIP archives and weekly files."""
    found: list[bytes] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                found += [archive.read(name) for name in archive.namelist()]
        else:
            start, *rest = path.read_bytes().split(b"<?xml ")
            found += [b"<?xml " + document for document in rest] or [start]
    return found


def parse(documents: Sequence[bytes]) -> None:
    """lxml's trees of the documents, which may have undeclared entities."""
    for document in documents:
        etree.fromstring(document, etree.XMLParser(no_network=True, load_dtd=False, recover=True))


def encode(texts: Sequence[str], tokenizer: Path) -> None:
    """SentencePiece's ids of the texts."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    for text in texts:
        model.encode(text)


def cpu_seconds(work: Callable[[], None]) -> float:
    """The time that this process computes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare_dedup(scratch: Path, inventions: int, *, with_peers: bool) -> dict[str, float]:
    """Deduplication of a planted Chinese corpus by our code and by the peers."""
    corpora = {}
    for name, size in (("warm-up", 60), ("corpus", inventions)):
        (scratch / name).mkdir()
        records = synthetic_records(scratch / name / "source", size, "zh")
        corpora[name] = plant(records, scratch / name, character_grams)
    planted = corpora["corpus"]
    peers = {name: Peer(*command) for name, command in PEERS.items()} if with_peers else {}
    tools: dict[str, Tool] = {"ours": run_ours, **{name: partial(run_peer, peers[name]) for name in peers}}
    for tool in tools.values():
        tool(corpora["warm-up"], fresh(scratch / "out"))
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    scores: dict[str, Score] = {}
    for number in range(ROUNDS):
        for name, tool in tools.items():
            # Ours is so fast that a single run is mostly noise.
            for _ in range(5 if name == "ours" else 1):
                run = tool(planted, fresh(scratch / "out"))
                seconds[name].append(run.seconds)
            scores[name] = score(planted, run.kept, run.kept_for)
        own = statistics.median(seconds["ours"][-5:])
        ratios = (f"{name} {seconds[name][-1] / own:.0f}x" for name in peers)
        print(f"round {number + 1}, CPU seconds / ours: {', '.join(ratios) or 'no peers'}")
    for peer in peers.values():
        peer.close()
    megabytes = planted.text_bytes / 1e6
    print(
        f"{megabytes:.0f} MB of Chinese text, {len(planted.family):,} records, {len(planted.pairs):,} copies"
    )
    print(
        f"{'':23}{'MB/s per core':>14}{'recall J>=0.6':>15}{'0.5<=J<0.6':>12}{'precision':>11}{'dropped':>9}"
    )
    speeds = {name: megabytes / statistics.median(times) for name, times in seconds.items()}
    results: dict[str, float] = {}
    for name, found in scores.items():
        high, low = (hits / max(1, pairs) for hits, pairs in found.recall.values())
        print(
            f"{name:23}{speeds[name]:14.2f}{high:15.4f}{low:12.4f}{found.precision:11.4f}{found.dropped:9,}"
        )
        key = "" if name == "ours" else f"_{name}"
        results |= {
            f"dedup{key}_zh_mb_per_core_s": round(speeds[name], 2),
            f"dedup{key}_recall_j60": round(high, 4),
            f"dedup{key}_precision": round(found.precision, 4),
        }
    for name in peers:
        results[f"dedup_vs_{name}_cpu_ratio"] = round(speeds["ours"] / speeds[name], 1)
    return results


def run_ours(planted: Planted, folder: Path) -> Run:
    """`data.dedup` with its default settings."""
    from data.dedup.dedup import DedupConfig, dedup

    start = time.process_time()
    dedup(DedupConfig(), planted.shards, folder)
    seconds = time.process_time() - start
    lines = map(json.loads, (folder / "duplicates.jsonl").read_text("utf-8").splitlines())
    return Run(seconds, kept_ids(folder), {line["id"]: line["kept"] for line in lines})


def run_peer(peer: Peer, planted: Planted, folder: Path) -> Run:
    """A peer's script, which says what it kept, but not for what the others were dropped."""
    found = peer.ask({"shards": str(planted.shards[0].parent), "folder": str(folder)})
    return Run(found["seconds"], set(found["kept"]), {})


def kept_ids(folder: Path) -> set[str]:
    """The ids of the records in a folder's shards."""
    tables = [pq.read_table(file, columns=["id"]) for file in folder.glob("*.parquet")]
    return set(pa.concat_tables(tables)["id"].to_pylist())


def fresh(folder: Path) -> Path:
    """Empty the folder, or create it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
