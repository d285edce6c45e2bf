"""Publish a tuned model without its base, bit for bit.

    python -m delta make   --base llama-7b --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta apply  --base llama-7b --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta verify --base llama-7b --delta patent-llama-7b-delta      writes nothing
    python -m delta verify --target patent-llama-7b --delta patent-llama-7b-delta
    python -m delta info   patent-llama-7b-delta
    python -m delta convert --input_dir LLaMA --model_size 7B --output_dir llama-7b   of Meta's files
    python -m delta apply  --rule fastchat --base llama-7b --target vicuna-7b --delta vicuna-7b-delta-v1.1

Nothing appears under the name of the result before every hash holds, and an existing folder is never written
over without --force, which replaces it at the very end. --resume goes on with what an interrupted run left.
"""

import argparse
from pathlib import Path

from core.errors import UserError, run_command

FOLDERS = {
    "base": "the base model",
    "target": "the tuned model",
    "delta": "the delta",
}


def main() -> None:
    """The command line; each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m delta", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(commands, "make", "the delta of a tuned model to its base", required=("base", "delta"))
    command.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA adapter, in place of --target")
    _add_care(command)
    command.set_defaults(call=make)

    command = _command(commands, "apply", "the tuned model from base and delta", required=tuple(FOLDERS))
    _add_care(command)
    command.set_defaults(call=apply)

    command = _command(commands, "verify", "check all hashes, write nothing", required=("delta",))
    command.set_defaults(call=verify)

    command = commands.add_parser("info", help="what a delta holds, and how to apply it")
    command.add_argument("delta", type=Path, metavar="DIR")
    command.set_defaults(call=info)

    command = commands.add_parser("convert", help="Meta's original LLaMA weights to the Hugging Face layout")
    command.add_argument("--input_dir", "--input-dir", type=Path, required=True, metavar="DIR",
                         help="where consolidated.00.pth and params.json are")  # fmt: skip
    command.add_argument("--output_dir", "--output-dir", type=Path, required=True, metavar="DIR")
    command.add_argument("--model_size", "--model-size", metavar="7B", help="checked, if given")
    command.add_argument("--llama_version", "--llama-version", choices=("1", "2", "3", "3.1", "3.2"),
                         help="where sizes leave it open: 1 reads 2048 tokens, 2 reads 4096")  # fmt: skip
    command.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as it is")
    command.add_argument("--force", action="store_true", help="replace an existing folder, after success")
    command.set_defaults(call=convert)

    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def make(arguments: argparse.Namespace) -> None:
    """A delta from two models, or from a base and an adapter."""
    if arguments.dry_run:
        from core import dry_run
        from delta.dry_run import looks

        dry_run.report(looks(arguments.base, arguments.target, arguments.adapter, arguments.delta))
        return
    from delta import readme, safetensors_io
    from delta.make import make as make_delta
    from delta.make import stored_files

    if arguments.rule and arguments.target:
        _combine(arguments, arguments.target, arguments.delta, sign=-1)
        return
    if (arguments.target is None) == (arguments.adapter is None):
        raise UserError("make: give either --target or --adapter.")
    base = safetensors_io.Folder(arguments.base)
    target: safetensors_io.Source
    if arguments.adapter:
        from delta.lora_merge import Merged

        target = Merged(base, arguments.adapter)
        # The tokenizer may have come with the adapter; the rest of its folder is not the model's.
        files = stored_files(arguments.base, arguments.adapter)
        files = [file for file in files if file.name not in ("adapter_config.json", "README.md")]
    else:
        target = safetensors_io.Folder(arguments.target)
        files = stored_files(arguments.target)
    place = arguments.target or arguments.adapter
    care = {"resume": arguments.resume, "force": arguments.force}
    delta = make_delta(base, target, arguments.base, place, arguments.delta, files, **care)
    print(readme.describe(delta, str(arguments.delta)))


def apply(arguments: argparse.Namespace) -> None:
    """The target from base and delta."""
    if arguments.dry_run:
        from core import dry_run
        from delta.dry_run import apply_looks

        dry_run.report(apply_looks(arguments.base, arguments.delta, arguments.target))
        return
    from delta.apply import apply as apply_delta

    if arguments.rule:
        _combine(arguments, arguments.delta, arguments.target, sign=1)
        return
    delta = apply_delta(
        arguments.base, arguments.delta, arguments.target, resume=arguments.resume, force=arguments.force
    )
    print(f"{arguments.target}: {len(delta.tensors):,} tensors, each exactly as published")


def _combine(arguments: argparse.Namespace, other: Path, result: Path, sign: int) -> None:
    from delta import legacy_fp16
    from delta.make import stored_files

    if arguments.resume:
        raise UserError("--resume: deltas by --rule carry no hashes to go on from; leave it out.")
    number = legacy_fp16.combine(
        arguments.base, other, result, stored_files(other),
        rule=arguments.rule, sign=sign, force=arguments.force,
    )  # fmt: skip
    print(f"{result}: {number:,} tensors by {arguments.rule}'s rule in fp16: inexact, not checked")


def verify(arguments: argparse.Namespace) -> None:
    """Check the delta against a base, a target, or both."""
    from delta.apply import verify_base, verify_target

    if arguments.base is None and arguments.target is None:
        raise UserError("verify: give --base, --target or both, to check the delta against.")
    if arguments.base:
        delta = verify_base(arguments.base, arguments.delta)
        print(f"{arguments.delta} and {arguments.base} make all {len(delta.tensors):,} tensors as published")
    if arguments.target:
        delta = verify_target(arguments.target, arguments.delta)
        print(f"{arguments.target}: all {len(delta.tensors):,} tensors are as published")


def info(arguments: argparse.Namespace) -> None:
    """Print what a delta holds."""
    from delta import delta_format, readme

    print(readme.describe(delta_format.read(arguments.delta), str(arguments.delta)))


def convert(arguments: argparse.Namespace) -> None:
    """Meta's files to the Hugging Face layout."""
    from delta.meta_llama.convert import convert as convert_llama

    number = convert_llama(
        arguments.input_dir, arguments.output_dir, model_size=arguments.model_size,
        version=arguments.llama_version, dtype=arguments.dtype, force=arguments.force,
    )  # fmt: skip
    print(f"{arguments.output_dir}: {number:,} tensors in the Hugging Face layout")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    words: str,
    required: tuple[str, ...],
) -> argparse.ArgumentParser:
    """A command with its folders; FastChat's spelling of them works too."""
    command = commands.add_parser(name, help=words)
    for folder, meaning in FOLDERS.items():
        command.add_argument(
            f"--{folder}", f"--{folder}-model-path", f"--{folder}-path", type=Path, metavar="DIR",
            required=folder in required, help=meaning, dest=folder,
        )  # fmt: skip
    return command


def _add_care(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rule",
        choices=("fastchat", "patent-llama"),
        help="an additive fp16 delta as these projects' scripts have it: inexact, unchecked",
    )
    command.add_argument("--resume", action="store_true", help="go on with what an interrupted run left")
    command.add_argument("--force", action="store_true", help="replace an existing folder, after success")
    command.add_argument(
        "--dry-run", action="store_true", help="look at everything but the tensors, and stop"
    )


if __name__ == "__main__":
    main()
