"""Exact deltas compared with FastChat's, on synthetic pairs of models.

    python -m benchmarks.delta --quick       0.3B
    python -m benchmarks.delta               1.1B

Ours is timed as a user runs it, from `python -m delta` to exit, including SHA-256 of base and target. The
peer is FastChat's algorithm, reimplemented from its description with transformers (load both models in fp16,
add or subtract each tensor of the state, save_pretrained) and timed without its imports and without syncing
its files to disk, which ours does; both favour the peer. `_cpu_ratio` compares CPU seconds, which a busy
machine distorts less. TMPDIR sets where the models are stored (/dev/shm excludes the disk). Peaks are the
processes' VmHWM. A relative change is relative to the tensor's standard deviation.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import print_result

PACKAGES = ("numpy", "zstandard", "torch", "transformers", "safetensors")
SIZES = {"0.3B": (1024, 2816, 16), "1.1B": (2048, 5632, 24)}
"""Hidden size, intermediate size, number of layers; the vocabulary size is 32,000."""
PIECE = 1 << 22
PEER = """
import sys, time, torch
from transformers import AutoModelForCausalLM
base, target, delta, sign = sys.argv[1:]
sign = int(sign)
one, two = (delta, target) if sign > 0 else (target, delta)
start, cpu = time.perf_counter(), time.process_time()
load = dict(dtype=torch.float16, low_cpu_mem_usage=True)
changed = AutoModelForCausalLM.from_pretrained(one, **load)
bases = AutoModelForCausalLM.from_pretrained(base, **load).state_dict()
for name, parameter in changed.state_dict().items():
    parameter.data += sign * bases[name]
changed.save_pretrained(two)
print(time.perf_counter() - start, time.process_time() - cpu)
"""
TRAIN = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0); torch.set_num_threads(1)
config = LlamaConfig(vocab_size=2048, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
                     num_attention_heads=4, tie_word_embeddings=False)
model = LlamaForCausalLM(config)
rows = torch.randint(0, 2048, (2048, 4))
def train(steps, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        text = [torch.randint(0, 2048, (4,))]
        for _ in range(63):
            text.append(rows[text[-1], torch.randint(0, 4, (4,))])
        ids = torch.stack(text, 1)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward(); optimizer.step(); optimizer.zero_grad()
    return loss.item()
def save(place):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(place)
    model.float().load_state_dict(weights)
train(40, 1e-3); save(sys.argv[1]); train(40, 2e-5); save(sys.argv[2])
"""


def main() -> None:
    """Make the pairs, run both sides alternately, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delta", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a 0.3B pair, within minutes")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), "0.3B" if arguments.quick else "1.1B", arguments.repeats)
    print_result("delta", PACKAGES, results, table=True)


def measure(place: Path, size: str, repeats: int) -> dict[str, float]:
    """All results for one model size."""
    make_pairs(place, size)
    results: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    base, target = place / "base", place / "1e-2"
    for _ in range(repeats):
        for name in ("delta", "again", "fc-delta", "fc-again", "added"):
            shutil.rmtree(place / name, ignore_errors=True)
        ours = ["-m", "delta"]
        runs: dict[str, list[str | Path]] = {
            "peer_make": ["-c", PEER, base, target, place / "fc-delta", "-1"],
            "make": [*ours, "make", "--base", base, "--target", target, "--delta", place / "delta"],
            "peer_apply": ["-c", PEER, base, place / "fc-again", place / "fc-delta", "1"],
            "apply": [*ours, "apply", "--base", base, "--target", place / "again", "--delta",
                      place / "delta"],
            "additive": [
                *ours, "apply", "--rule", "fastchat", "--base", base, "--target", place / "added",
                "--delta", place / "fc-delta",
            ],
        }  # fmt: skip
        for name, command in runs.items():
            wall, peak, cpu = timed(command, own_clock=name.startswith("peer"))
            times.setdefault(name, []).append(wall)
            cpus.setdefault(name, []).append(cpu)
            peaks[name] = max(peaks.get(name, 0), peak)
            print(f"{size}  {name:12}{wall:8.2f} s{cpu:8.2f} CPU s{peak:9.0f} MiB", flush=True)
    for name, peer in (("apply", "peer_apply"), ("make", "peer_make"), ("additive", "peer_apply")):
        ratios = [a / b for a, b in zip(times[name], times[peer], strict=True)]
        results[f"{name}_wall_ratio"] = statistics.median(ratios)
        cpu_ratios = [a / b for a, b in zip(cpus[name], cpus[peer], strict=True)]
        results[f"{name}_cpu_ratio"] = statistics.median(cpu_ratios)
        results[f"{name}_wall_s"] = statistics.median(times[name])
    results |= {f"{name}_peak_mib": peak for name, peak in peaks.items()}
    results["additive_equal_share"] = equal_share(place / "fc-again", place / "added", ".safetensors")
    results["identical_files_share"] = equal_share(target, place / "again", "")
    results["compression_1e2"] = compression(place / "delta")
    results["compression_1e3"] = compression(made(place, base, place / "1e-3", "delta3"))
    timed(["-c", TRAIN, place / "trained-base", place / "trained"])
    trained = made(place, place / "trained-base", place / "trained", "delta-trained")
    results["compression_trained"] = compression(trained)
    return results


def made(place: Path, base: Path, target: Path, name: str) -> Path:
    """Make a delta with our code."""
    timed(["-m", "delta", "make", "--base", base, "--target", target, "--delta", place / name])
    return place / name


def timed(command: list[str | Path], own_clock: bool = False) -> tuple[float, float, float]:
    """Wall seconds, peak memory in MiB and CPU seconds; times as the process prints them if `own_clock`."""
    start, before = time.perf_counter(), os.times()
    quiet = {**os.environ, "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, env=quiet
    )
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)])
        time.sleep(0.01)
    printed = process.communicate()[0]
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"failed: {command[:4]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if own_clock:
        wall, cpu = map(float, printed.split()[-2:])
    return wall, peak / 1024, cpu


def compression(folder: Path) -> float:
    """Target bytes per payload byte."""
    plan = json.loads((folder / "manifest.json").read_text())["counts"]
    return float(plan["target_bytes"] / sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def equal_share(one: Path, two: Path, suffix: str) -> float:
    """Share of the files in `one` that are byte-identical in `two`; with a suffix, share of the tensors."""
    from delta.safetensors_io import ModelFolder

    if suffix:
        a, b = ModelFolder(one), ModelFolder(two)
        same = [b"".join(a.read(name, PIECE)) == b"".join(b.read(name, PIECE)) for name in a.tensors]
    else:
        files = [file for file in one.iterdir() if file.is_file()]
        same = [subprocess.call(["cmp", "-s", file, two / file.name]) == 0 for file in files]
    return sum(same) / len(same)


def make_pairs(place: Path, size: str) -> None:
    """A base with normally distributed weights, and a target per relative change, streamed to disk."""
    import numpy as np

    from delta.lora_merge import from_float32

    hidden, inner, layers = SIZES[size]
    names: list[tuple[str, tuple[int, ...]]]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32000, hidden)}
    for layer in range(layers):
        names = [(f"self_attn.{n}_proj", (hidden, hidden)) for n in "qkvo"]
        names += [("mlp.gate_proj", (inner, hidden)), ("mlp.up_proj", (inner, hidden))]
        names += [("mlp.down_proj", (hidden, inner)), ("input_layernorm", (hidden,))]
        names += [("post_attention_layernorm", (hidden,))]
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in names}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (32000, hidden)}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
        "vocab_size": 32000, "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    changes = {"base": 0.0, "1e-2": 1e-2, "1e-3": 1e-3}
    for name in changes:
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    files = {name: (place / name / "model.safetensors").open("wb") for name in changes}
    for file in files.values():
        file.write(len(text).to_bytes(8, "little") + text)
    for shape in shapes.values():
        left = int(np.prod(shape))
        while left:
            values = np.float32(0.02) * rng.standard_normal(min(left, PIECE), np.float32)
            base = np.frombuffer(from_float32(values, "BF16"), "<u2").astype(np.uint32) << 16
            noise = np.float32(0.02) * rng.standard_normal(len(values), np.float32)
            for name, change in changes.items():
                files[name].write(from_float32(base.view(np.float32) + np.float32(change) * noise, "BF16"))
            left -= len(values)
    for file in files.values():
        file.close()


if __name__ == "__main__":
    main()
