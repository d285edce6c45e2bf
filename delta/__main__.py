"""Publish a tuned model as a delta: the exact difference to its base, without the base itself.

    python -m delta make   --base llama-7b --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta apply  --base llama-7b --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta verify --base llama-7b --delta patent-llama-7b-delta           check only
    python -m delta verify --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta info   patent-llama-7b-delta
    python -m delta gguf   --model RUN/model --output model.gguf                   for llama.cpp and Ollama
    python -m delta convert --input_dir LLaMA --model_size 7B --output_dir llama-7b    from Meta's files
    python -m delta apply  --rule fastchat --base llama-7b --target vicuna-7b --delta vicuna-7b-delta-v1.1
    python -m delta apply  --rule alpaca   --base llama-7b --target alpaca-7b --delta alpaca-7b-wdiff

The result appears under its name only once every hash matches. An existing folder is never overwritten;
--force replaces it once the new one is complete. --resume continues an interrupted run.
"""

import argparse
import sys
from pathlib import Path

from core.errors import UserError, printable, run_command

FOLDERS = {
    "base": "the base model",
    "target": "the tuned model",
    "delta": "the delta",
}
FORCE = "replace an existing folder once the new one is complete"


def main() -> None:
    """The command line. Each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m delta", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(
        commands, "make", "make the delta between a tuned model and its base", required=("base", "delta")
    )
    command.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA adapter, instead of --target")
    _add_run_options(command)
    command.add_argument(
        "--allow-whole",
        action="store_true",
        help="make the delta although most of it is the model itself, stored whole",
    )
    command.set_defaults(call=make)

    command = _command(
        commands, "apply", "rebuild the tuned model from its base and the delta", required=tuple(FOLDERS)
    )
    _add_run_options(command)
    command.set_defaults(call=apply)

    command = _command(commands, "verify", "check all hashes, write nothing", required=("delta",))
    command.set_defaults(call=verify)

    command = commands.add_parser("info", help="show what a delta contains and how to apply it")
    command.add_argument("delta", type=Path, metavar="DIR")
    command.set_defaults(call=info)

    command = commands.add_parser(
        "convert", help="convert Meta's original LLaMA weights to the Hugging Face layout"
    )
    command.add_argument(
        "--input_dir",
        "--input-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with consolidated.00.pth and params.json",
    )
    command.add_argument("--output_dir", "--output-dir", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--model_size", "--model-size", metavar="7B", help="check that the weights have this size"
    )
    command.add_argument(
        "--llama_version",
        "--llama-version",
        choices=("1", "2", "3", "3.1", "3.2"),
        help="if the detected version is wrong (LLaMA 1 has a context of 2048 tokens, LLaMA 2 of 4096)",
    )
    command.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="default: that of the input"
    )
    command.add_argument("--force", action="store_true", help=FORCE)
    command.set_defaults(call=convert)

    command = commands.add_parser(
        "gguf",
        help="write a model as one GGUF file, for llama.cpp and Ollama",
        description="Write a LLaMA, Mistral, Qwen 2 or Qwen 3 in the Hugging Face layout as one GGUF file,"
        " and a Modelfile for Ollama beside it. Each tensor is read back and compared before the file"
        " appears. Example: python -m delta gguf --model RUN/model --output model.gguf --type q8_0",
    )
    command.add_argument("--model", type=Path, required=True, metavar="DIR", help="the model, not an adapter")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .gguf file to write")
    command.add_argument(
        "--type",
        choices=("bf16", "f16", "f32", "q8_0"),
        help="of the matrices; vectors are f32. Default: bf16 for a model in bf16, else f16 (an fp32 model is"
        " rounded; f32 keeps it exactly)",
    )
    command.add_argument(
        "--force", action="store_true", help="replace an existing file once the new one is complete"
    )
    command.set_defaults(call=gguf)

    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def make(arguments: argparse.Namespace) -> None:
    """Make a delta from two models, or from a base and an adapter."""
    if (arguments.target is None) == (arguments.adapter is None):
        raise UserError("make: give either --target or --adapter, not both.")
    if arguments.rule and arguments.adapter:
        raise UserError(
            "make: --rule subtracts a whole model. Merge the adapter first, and give the result as --target."
        )
    _check_rule(arguments)
    tuned = arguments.target or arguments.adapter
    if arguments.dry_run:
        from core import dry_run
        from delta.dry_run import make_checks

        dry_run.report(
            make_checks(
                arguments.base,
                tuned,
                arguments.delta,
                rule=arguments.rule,
                adapter=tuned == arguments.adapter,
                force=arguments.force,
                allow_whole=arguments.allow_whole,
            )
        )
        return
    from delta import readme, safetensors_io
    from delta.make import left_out, stored_files
    from delta.make import make as make_delta

    if arguments.rule:
        _combine(arguments, tuned, arguments.delta, sign=-1)
        return
    base = safetensors_io.ModelFolder(arguments.base)
    _note_unread(arguments.base)
    target: safetensors_io.Source
    if arguments.adapter:
        from delta.lora_merge import Merged

        target = Merged(base, arguments.adapter)
        # An adapter's folder may contain a tokenizer; these two files describe the adapter, not the model.
        files = stored_files(arguments.base, arguments.adapter)
        files = {
            name: file for name, file in files.items() if name not in ("adapter_config.json", "README.md")
        }
    else:
        target = safetensors_io.ModelFolder(arguments.target)
        _note_unread(arguments.target)
        files = stored_files(arguments.target)
        if others := left_out(arguments.target, target.files, files):
            _note(f"{arguments.target}: not stored in the delta: {', '.join(others)}")
    if gone := [name for name in base.tensors if name not in target.tensors]:
        _note(f"{len(gone):,} of the base's tensors are not in the tuned model, e.g. {gone[0]}")
    delta = make_delta(
        base,
        target,
        arguments.base,
        tuned,
        arguments.delta,
        files,
        resume=arguments.resume,
        force=arguments.force,
        allow_whole=arguments.allow_whole,
    )
    _say(readme.describe(delta, str(arguments.delta)))


def apply(arguments: argparse.Namespace) -> None:
    """Rebuild the target from its base and the delta."""
    _check_rule(arguments)
    if arguments.dry_run:
        from core import dry_run
        from delta.dry_run import apply_checks

        folders = arguments.base, arguments.delta, arguments.target
        dry_run.report(apply_checks(*folders, rule=arguments.rule, force=arguments.force))
        return
    from delta.apply import apply as apply_delta

    if arguments.rule:
        _combine(arguments, arguments.delta, arguments.target, sign=1)
        return
    _note_unread(arguments.base)
    delta = apply_delta(
        arguments.base, arguments.delta, arguments.target, resume=arguments.resume, force=arguments.force
    )
    _say(f"{arguments.target}: {len(delta.tensors):,} tensors, all identical to the published model")


def _check_rule(arguments: argparse.Namespace) -> None:
    if arguments.rule and arguments.resume:
        raise UserError("--resume does not work with --rule: such deltas have no hashes. Omit --resume.")


def _combine(arguments: argparse.Namespace, other: Path, result: Path, sign: int) -> None:
    from delta import legacy_rules
    from delta.make import stored_files

    pairs = legacy_rules.combine(
        arguments.base,
        other,
        result,
        stored_files(other),
        rule=arguments.rule,
        sign=sign,
        force=arguments.force,
        allow_whole=sign < 0 and arguments.allow_whole,
    )
    for note in pairs.notes:
        _note(note)
    kind = f"the {arguments.rule} rule in {'fp32' if arguments.rule == 'alpaca' else 'fp16'}"
    _say(f"{result}: {len(pairs.tensors):,} tensors by {kind} (inexact, not verified)")


def verify(arguments: argparse.Namespace) -> None:
    """Check a delta against a base, a target, or both."""
    from delta.apply import verify_base, verify_target

    if arguments.base is None and arguments.target is None:
        raise UserError("verify: nothing to check the delta against. Give --base, --target or both.")
    if arguments.base:
        delta = verify_base(arguments.base, arguments.delta)
        _say(
            f"{arguments.delta} with {arguments.base}: all {len(delta.tensors):,} tensors are rebuilt"
            " exactly as published"
        )
    if arguments.target:
        delta = verify_target(arguments.target, arguments.delta)
        _say(f"{arguments.target}: all {len(delta.tensors):,} tensors are identical to the published model")


def info(arguments: argparse.Namespace) -> None:
    """Print what a delta contains."""
    from delta import delta_format, readme

    _say(readme.describe(delta_format.read(arguments.delta), str(arguments.delta)))


def convert(arguments: argparse.Namespace) -> None:
    """Convert Meta's files to the Hugging Face layout."""
    from delta.meta_llama.convert import convert as convert_llama

    number = convert_llama(
        arguments.input_dir,
        arguments.output_dir,
        model_size=arguments.model_size,
        version=arguments.llama_version,
        dtype=arguments.dtype,
        force=arguments.force,
    )
    _say(f"{arguments.output_dir}: {number:,} tensors in the Hugging Face layout")


def gguf(arguments: argparse.Namespace) -> None:
    """Write a model as a GGUF file."""
    from delta.gguf_export.export import export

    made = export(arguments.model, arguments.output, kind=arguments.type, force=arguments.force)
    _note_unread(arguments.model)
    for note in made.notes:
        _note(note)
    kinds = ", ".join(f"{count:,} in {kind}" for kind, count in made.kinds.items())
    _say(
        f"{arguments.output}: {made.tensors:,} tensors ({kinds}), {made.bytes / 1e6:,.1f} MB, compared with"
        f" {arguments.model}; {made.modelfile}: for `ollama create NAME -f {made.modelfile}`"
    )


def _note_unread(model: Path) -> None:
    """Say which weight files beside a model's own are not read."""
    from core.model import weight_files

    if note := weight_files.find(model).note:
        _note(note)


def _note(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)


def _say(text: str) -> None:
    print(printable(text))


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    required: tuple[str, ...],
) -> argparse.ArgumentParser:
    """A command with its folders. FastChat's names for these options work too."""
    command = commands.add_parser(name, help=summary)
    for folder, meaning in FOLDERS.items():
        command.add_argument(
            f"--{folder}",
            f"--{folder}-model-path",
            f"--{folder}-path",
            type=Path,
            metavar="DIR",
            required=folder in required,
            help=meaning,
            dest=folder,
        )
    return command


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rule",
        choices=("fastchat", "patent-llama", "alpaca"),
        help="an additive delta as made by these projects' scripts: inexact, not verified",
    )
    command.add_argument("--resume", action="store_true", help="continue an interrupted run")
    command.add_argument("--force", action="store_true", help=FORCE)
    command.add_argument(
        "--dry-run", action="store_true", help="check everything except the tensors, and stop"
    )


if __name__ == "__main__":
    main()
