"""The steps of `make demo`: the commands that a user would type, at sizes that fit a laptop.

    synthetic patents, everyday texts ──▶ tokenizer, two packed corpora ──▶ base ──▶ continued pretraining
    ──▶ tuning on general, then domain chats ──▶ delta, made and applied ──▶ scores of all models ──▶ report
    ──▶ index, embedding ──▶ searches across languages, answers with and without sources

The recipes are those in configs/, scaled down by `key=value` overrides.
"""

import shlex

from pydantic import Field

from core.config.loader import Config
from tools.step_runner import Step


class Sizes(Config):
    """Size and output folders of the demo. Everything else is in the commands."""

    runs: str = "runs/demo"
    """Folder for models, scores, the report and the records of the steps."""
    corpora: str = "corpora/demo"
    """Folder for texts, corpora, instruction data and evaluation data."""
    fields: str = "refrigeration"
    """Technical fields of the inventions, from data/synthetic/lexicon.yaml, separated by spaces."""
    inventions: int = Field(1200, ge=1)
    """Number of synthetic inventions to train on."""
    held_out: int = Field(90, ge=1)
    """Number of synthetic inventions to evaluate on; similar texts are removed from the corpus."""
    stories: int = Field(3000, ge=1)
    """Number of everyday stories to train on, in both languages together."""
    chats: int = Field(1200, ge=1)
    """Number of general questions with answers."""
    vocabulary: int = Field(1280, ge=1)
    """Vocabulary size in tokens."""
    samples: int = Field(800, ge=1)
    """Maximum number of instruction samples per patent task."""
    searched: int = Field(100, ge=10)
    """Number of searches that are to find an invention in the other language."""
    cited: int = Field(40, ge=10)
    """Number of questions that are asked with sources and without."""
    asked: int = Field(70, ge=10)
    """Number of evaluation questions per patent task, including those used as examples."""
    width: int = Field(96, ge=16)
    """Hidden size of the model."""
    layers: int = Field(3, ge=1)
    """Number of layers of the model."""
    base_steps: int = Field(200, ge=1)
    """Optimiser steps of the base, on everyday texts with 10% patents."""
    cpt_steps: int = Field(300, ge=1)
    """Optimiser steps of continued pretraining."""
    save_every_steps: int = Field(100, ge=1)
    """Optimiser steps between checkpoints; a killed run repeats at most that many."""
    general_epochs: float = Field(1, gt=0)
    """Epochs over the general chats."""
    domain_epochs: float = Field(3, gt=0)
    """Epochs over the patent tasks."""


TASKS = {"title": "title", "extract": "extract", "zh-en": "translate-zh-en", "en-zh": "translate-en-zh"}
"""Folder of each task's evaluation data, and the task's name in `python -m data build`."""
TEXTS = ("text-general", "text-domain")
ASKED = ("title", "extraction", "claims-zh-en", "claims-en-zh")


def demo_steps(s: Sizes) -> list[Step]:
    """All steps, in order."""
    *training, without = _training(s)
    before = [*_texts(s), *_corpora(s), *_instructions(s), *training]
    return [*before, *_publishing(s), *_scores(s), without, *_beside(s), *_assistant(s)]


def _texts(s: Sizes) -> list[Step]:
    made, held_out = f"{s.corpora}/made-up", f"{s.corpora}/evaluation"

    def write(name: str, command: str, folder: str) -> Step:
        return Step(name, (f"data {command} --output {folder}",), (folder,))

    patents = f"synthesize --fields {s.fields} --inventions"
    return [
        write("patents", f"{patents} {s.inventions}", f"{made}/patents"),
        write("everyday texts", f"everyday --stories {s.stories} --chats {s.chats}", f"{made}/everyday"),
        write("held-out patents", f"{patents} {s.held_out} --seed 1", f"{held_out}/inventions"),
        write("held-out everyday texts", "everyday --stories 60 --chats 0 --seed 1", f"{held_out}/stories"),
    ]


def _corpora(s: Sizes) -> list[Step]:
    tokenizer = f"{s.corpora}/tokenizer"
    records = f"{s.corpora}/evaluation/records"
    words = f"--vocabulary-size {s.vocabulary} --output {tokenizer}"
    held_out = shlex.join([f"sources=[{_source(f'{s.corpora}/evaluation/inventions/records.jsonl')}]"])
    return [
        Step("tokenizer", (f"data tokenizer {words} {_patents(s)} {_stories(s)}",), (tokenizer,)),
        Step(
            "general corpus",
            (f"data run {_corpus(s, 'general')}",),
            (f"{s.corpora}/general/pack",),
            (f"{s.corpora}/general",),
            resumable=True,
        ),
        Step(
            "patent corpus",
            (f"data run {_corpus(s, 'patents')}",),
            (f"{s.corpora}/patents/pack",),
            (f"{s.corpora}/patents",),
            resumable=True,
        ),
        Step(
            "held-out records",
            (f"data run --until clean output_dir={records} {held_out}",),
            (f"{records}/clean",),
            (records,),
            resumable=True,
        ),
    ]


def _corpus(s: Sizes, name: str, prefix: str = "") -> str:
    """Overrides of configs/data/tiny.yaml that define a corpus, each with `prefix` before its key."""
    keys = [f"output_dir={s.corpora}/{name}", f"tokenizer={{path: {s.corpora}/tokenizer}}"]
    if name == "general":
        keys += [f"sources=[{_source(_stories(s))}]", "clean.min_characters=50"]  # stories are short
    else:
        held_out = f"{s.corpora}/evaluation/inventions/records.jsonl"
        asked = f"{{path: {held_out}, text_fields: [title, abstract, claims]}}"
        keys += [
            f"sources=[{_source(_patents(s))}]",
            "pack.parts=[title, abstract, claims]",
            f"decontaminate.sets=[{asked}]",
            "decontaminate.least_share=0.5",  # all are made from the same templates
        ]
    return shlex.join(prefix + key for key in keys)


def _source(path: str) -> str:
    return f"{{path: {path}, licence: made by this program, use: any}}"


def _patents(s: Sizes) -> str:
    return f"{s.corpora}/made-up/patents/records.jsonl"


def _stories(s: Sizes) -> str:
    return f"{s.corpora}/made-up/everyday/texts.jsonl"


def _chats(s: Sizes) -> str:
    return f"{s.corpora}/made-up/everyday/chats.jsonl"


def _instructions(s: Sizes) -> list[Step]:
    held_out = f"{s.corpora}/evaluation"

    def build(name: str, corpus: str, truth: str, split: str, samples: str, folder: str) -> Step:
        keys = [
            f"corpus={corpus}",
            f"labels={truth}/truth.jsonl",
            *split.split(),
            f"samples={{{samples}}}",
            "max_characters=700",
            f"output_dir={folder}",
        ]
        return Step(name, (f"data build {shlex.join(keys)}",), (folder,))

    every = ", ".join(f"{name}: {s.samples}" for name in TASKS.values())
    made, asked = f"{s.corpora}/made-up/patents", "validation_share=0.8 near_share=1"
    return [
        build(
            "instructions",
            f"{s.corpora}/patents/decontaminate",
            made,
            "validation_share=0.02",
            every,
            f"{s.corpora}/instructions",
        ),
        *(
            build(
                f"questions: {name}",
                f"{held_out}/records/clean",
                f"{held_out}/inventions",
                asked,
                f"{task}: {s.asked}",
                f"{held_out}/{name}",
            )
            for name, task in TASKS.items()
        ),
    ]


SMALL = (
    "training.global_batch_size=4 training.micro_batch_size=4"
    " training.validate_every_steps=100 deepspeed.zero_stage=0 schedule.warmup_share=0.05"
    " schedule.kind=cosine schedule.final_share=0.1"
    " logging.every_steps=20"
)
"""Overrides that fit a recipe for many GPUs to a laptop."""


def _training(s: Sizes) -> list[Step]:
    saved = f"training.save_every_steps={s.save_every_steps}"

    def pretrain(name: str, recipe: str, run: str, keys: str) -> Step:
        config = f"--config configs/{recipe}.yaml run_dir={run} sequence_length=512"
        command = f"pretrain {config} {SMALL} {saved} {keys}"
        return Step(name, (f"{command} --prepare", command), (f"{run}/model",), (run,), resumable=True)

    def share(name: str, share: float) -> str:
        return shlex.join([f"mixture=[{{name: {name}, output_dir: {s.corpora}/{name}, share: {share}}}]"])

    size = {"hidden_size": s.width, "intermediate_size": s.width * 11 // 4, "num_hidden_layers": s.layers}
    random = " ".join(f"model.architecture.{key}={value}" for key, value in size.items())
    rate = "optimizer.learning_rate=3e-3"
    base, cpt = f"{s.runs}/base", f"{s.runs}/cpt"
    tune = f"sft --config configs/patent-llama/general.yaml {SMALL} {saved} {_stages(s)}"

    def tuned(name: str, model: str, run: str, chats: tuple[str, ...] = ()) -> Step:
        command = f"{tune} model.path={model}/model run_dir={run}"
        commands = (f"{command} --prepare", command) if chats else (command,)
        models = f"{run}/general/model", f"{run}/domain/model"
        return Step(name, commands, (*models, *chats), (run,), resumable=True)

    return [
        pretrain(
            "base",
            "pretrain/tiny",
            base,
            f"{random} {_corpus(s, 'general', 'data.')} {share('patents', 0.1)} {rate}"
            f" training.steps={s.base_steps}",
        ),
        pretrain(
            "continued pretraining",
            "patent-llama/pretrain",
            cpt,
            f"model.path={base}/model model.attention=documents"
            f" data=configs/data/tiny.yaml {_corpus(s, 'patents', 'data.')} {share('general', 0.2)}"
            f" general_dir={s.corpora}/general {rate} training.steps={s.cpt_steps}",
        ),
        tuned(
            "general and domain tuning",
            cpt,
            f"{s.runs}/tuned",
            (f"{s.corpora}/chats-general", f"{s.corpora}/chats-domain"),
        ),
        tuned("the same without continued pretraining", base, f"{s.runs}/tuned-without"),
    ]


def _stages(s: Sizes) -> str:
    """General chats, then the patent tasks mixed with a share of general chats."""
    instructions = f"{s.corpora}/instructions"
    sources = (
        f"{{name: patents, path: {instructions}/train.jsonl, side: train}},"
        f" {{name: held out, path: {instructions}/validation.jsonl, side: validation}},"
        f" {{name: everyday, path: {_chats(s)}, replay: true}}"
    )
    data = f"{{output_dir: {s.corpora}/chats-domain, replay_share: 0.1, sources: [{sources}]}}"
    domain = f"{{name: domain, training: {{epochs: {s.domain_epochs}}}, data: {data}}}"
    keys = [
        f"data.output_dir={s.corpora}/chats-general",
        f"data.sources=[{{name: everyday, path: {_chats(s)}}}]",
        "data.validation_share=0.02",
        "data.max_tokens=384",
        "model.activation_checkpointing=none",
        "optimizer.learning_rate=3e-3",
        f"training.epochs={s.general_epochs}",
        f"stages=[{{name: general}}, {domain}]",
    ]
    return shlex.join(keys)


def _publishing(s: Sizes) -> list[Step]:
    delta, again = f"{s.runs}/published", f"{s.runs}/applied"
    base = f"--base {s.runs}/base/model"
    tuned = f"{s.runs}/tuned/domain/model"
    return [
        Step("delta", (f"delta make {base} --target {tuned} --delta {delta}",), (delta,)),
        Step("delta applied", (f"delta apply {base} --target {again} --delta {delta}",), (again,)),
        Step("delta verified", (f"delta verify {base} --target {again} --delta {delta}",)),
    ]


def _scores(s: Sizes) -> list[Step]:
    runs = f"{s.runs}/scores"
    return [
        _score(s, "base", "few-shot", f"--model {s.runs}/base/model"),
        _score(s, "domain", "asked", f"--model {s.runs}/applied --chat"),
        _compare(runs, "base", "domain"),
        _score(s, "copy", "asked", "--copy", ()),
        _score(s, "cpt", "few-shot", f"--model {s.runs}/cpt/model"),
        _score(s, "general", "asked", f"--model {s.runs}/tuned/general/model --chat"),
        # Writes the report of these scores again, with the base for comparison.
        Step("report", (f"eval report {runs}/domain --base {runs}/base",)),
    ]


def _beside(s: Sizes) -> list[Step]:
    return [
        _score(s, "without-cpt", "asked", f"--model {s.runs}/tuned-without/domain/model --chat"),
        _compare(f"{s.runs}/scores", "without-cpt", "domain"),
    ]


def _assistant(s: Sizes) -> list[Step]:
    """What the assistant finds, by terms alone and with vectors; what the domain model does with sources."""
    held_out, place = f"{s.corpora}/evaluation", f"{s.runs}/assistant"
    both = f"--corpus {held_out}/records/clean"  # the patents of training have the same made-up numbers
    terms, vectors, embedding = (f"{s.corpora}/{name}" for name in ("index", "index-vectors", "embedding"))
    questions, grounded = f"{place}/questions.jsonl", f"{s.corpora}/assistant/grounded"
    families = f"--kind families --corpus {held_out}/records/clean --index {terms} --number {s.searched}"
    trained = f"--corpus {s.corpora}/patents/decontaminate --epochs 10"

    def found(name: str, index: str) -> Step:
        file = f"{place}/{name}.jsonl"
        command = f"serve search {index} --queries {questions} --hits 10 --output {file}"
        return Step(f"searches: {name}", (command,), (file,))

    def answers(name: str, folder: str) -> Step:
        output = f"{s.runs}/scores/{name}"
        task = f"--tasks configs/eval/{folder}grounded.yaml --data {s.corpora}/assistant --limit {s.cited}"
        command = f"eval run --model {s.runs}/applied --chat {task} --output {output}"
        return Step(f"scores: {name}", (command,), (output,), resumable=True)

    ranking = f"eval ranking {place}/terms.jsonl {place}/vectors.jsonl --output {place}/ranking.json"
    return [
        Step("index", (f"serve index {both} --output {terms}",), (terms,)),
        Step("embedding", (f"serve embed {trained} --output {embedding}",), (embedding,)),
        Step(
            "index with vectors",
            (f"serve index {both} --embedding {embedding} --output {vectors}",),
            (vectors,),
        ),
        Step("questions across languages", (f"serve queries {families} --output {questions}",), (questions,)),
        found("terms", terms),
        found("vectors", vectors),
        Step("searches compared", (ranking,), (f"{place}/ranking.json",)),
        Step(
            "questions with sources",
            (
                f"serve ground --corpus {held_out}/records/clean --index {terms} --sources 2"
                f" --validation-share 0.9 --number {s.cited} --output {grounded}",
            ),
            (grounded,),
        ),
        answers("with-sources", ""),
        answers("without-sources", "without-sources/"),
        _compare(f"{s.runs}/scores", "without-sources", "with-sources"),
    ]


def _score(s: Sizes, name: str, how: str, model: str, texts: tuple[str, ...] = TEXTS) -> Step:
    """Evaluate a model on the patent tasks (`how`: few-shot or asked) and on plain texts."""
    files = [*(f"{how}/{task}" for task in ASKED), *texts]
    tasks = ",".join(f"configs/demo/{file}.yaml" for file in files)
    output = f"{s.runs}/scores/{name}"
    command = f"eval run {model} --tasks {tasks} --data {s.corpora}/evaluation --output {output}"
    return Step(f"scores: {name}", (command,), (output,), resumable=True)


def _compare(runs: str, a: str, b: str) -> Step:
    file = f"{runs}/{b}-against-{a}.json"
    return Step(f"{b} against {a}", (f"eval compare {runs}/{a} {runs}/{b} --output {file}",), (file,))
