"""The words of one synthetic invention, drawn from data/synthetic/lexicon.yaml.

`draw` picks a field, a product, what is new about it and the parts, ingredients or steps that belong to it,
and gives them as a `Draft`: the slots of the templates in data/synthetic/templates.yaml, in both languages.
All is drawn through `Random.random()`, the one method whose sequence Python promises to keep across versions.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from data.synthetic.inflection import Draft, Pair, article, enumeration, pair

NUMBERINGS = ((1, 1), (10, 1), (10, 10), (11, 1), (100, 10), (101, 1))
"""First reference numeral and the distance to the next."""
ALWAYS_REPEATED = ("pct", "deg")
"""Units written at both ends of a range: 5% to 10%."""


@cache
def load(name: str) -> Any:
    """One of this folder's YAML files; the result is shared and never changed."""
    return yaml.safe_load((Path(__file__).parent / name).read_text("utf-8"))


def draw(rng: Random, fields: Sequence[str] = ()) -> Draft:
    """The words of one invention in one of these fields (empty: any); the same on every machine for the same
    state of `rng`."""
    lexicon = load("lexicon.yaml")
    words = pick(rng, [lexicon["fields"][name] for name in fields or lexicon["fields"]])
    product = pick(rng, words["products"])
    topic, topic2 = sample(rng, words["topics"], 2)
    ipc = list(dict.fromkeys([product[2], topic["ipc"]]))
    draft = Draft(words["style"], ipc, pick(rng, NUMBERINGS))
    effects = sample(rng, topic["effects"], 2)
    qualities = sample(rng, words["qualities"], 2)
    draft.nouns["product"] = pair(product)
    draft.phrases |= {
        "this": pair(pick(rng, load("templates.yaml")["this"])),
        "area": pair(words["area"]),
        "use": pair(words["use"]),
        "setting": pair(pick(rng, words["settings"])),
        "quality": pair(qualities[0]),
        "quality2": pair(qualities[1]),
        "topic": pair(topic["name"]),
        "problem": pair(topic["problem"]),
        "problem2": pair(topic2["problem"]),
        "effect": pair(effects[0]),
        "effect2": pair(effects[1]),
        "effect3": pair(pick(rng, topic2["effects"])),
    }
    numbers = Numbers(rng, lexicon["units"])
    key, key2 = pick(rng, topic["keys"]), pick(rng, topic2["keys"])
    for slot, row, quantity in (("key", key, "p"), ("key2", key2, "p2")):
        draft.nouns[slot] = pair(row)
        draft.phrases[f"{slot}_does"] = pair(row[2:])
        numbers.quantity(draft.phrases, quantity, row[4:10])
    match draft.style:
        case "device":
            _draw_device(numbers, draft, words)
        case "composition":
            _draw_ingredients(numbers, draft, words, product[3:], (key, key2))
            _draw_steps(numbers, draft, words["stages"], pair(product[3:]))
            _draw_results(numbers, draft, topic["measure"])
        case "method":
            _draw_method(numbers, draft, words, product[3:])
    _draw_name(rng, draft)
    return draft


def _draw_device(numbers: "Numbers", draft: Draft, words: dict[str, Any]) -> None:
    """Body, drive, parts, sensor and controller, and how they are assembled."""
    rng = numbers.rng
    templates = load("templates.yaml")
    body, drive, sensor = (pick(rng, words[name]) for name in ("bodies", "drives", "sensors"))
    part, extra = sample(rng, words["parts"], 2)
    for slot, row in (("drive", drive), ("part", part), ("extra", extra)):
        draft.nouns[slot] = pair(row)
        draft.phrases[f"{slot}_does"] = pair(row[2:])
    draft.nouns |= {"body": pair(body), "sensor": pair(sensor)}
    draft.nouns["controller"] = pair(pick(rng, templates["controllers"]))
    draft.phrases["material"] = pair(pick(rng, words["materials"]))
    numbers.quantity(draft.phrases, "q", sensor[2:])
    draft.phrases["limit"] = draft.phrases["q_value"]
    draft.phrases["count"] = numbers.value(templates["count"])
    draft.phrases["period"] = numbers.value(templates["period"])
    draft.clauses["at_body"] = (f"{{t_body}}{body[2]}", f"{body[3]} {{t_body}}")
    draft.clauses["action"] = pair(pick(rng, templates["actions"]))
    link, link2 = sample(rng, templates["links"], 2)
    for x, y, relation in (
        ("key", "body", pick(rng, templates["places"])),
        ("drive", "key", link),
        ("part", "drive", link2),
        ("key2", "part", pick(rng, templates["links"])),
    ):
        zh, en = (text.replace("{t_x}", f"{{t_{x}}}").replace("{t_y}", f"{{t_{y}}}") for text in relation)
        draft.clauses[f"link_{x}"] = (zh, en)


def _draw_ingredients(
    numbers: "Numbers",
    draft: Draft,
    words: dict[str, Any],
    main: list[Any],
    keys: tuple[list[Any], list[Any]],
) -> None:
    """The ingredients of a composition, in parts by weight."""
    rng = numbers.rng
    bases = sample(rng, words["bases"], 2 + below(rng, 2))
    aids = sample(rng, words["aids"], 2)
    rows = [main, *bases, [*keys[0][:2], *keys[0][10:]], *(aid[:5] for aid in aids)]
    amounts: list[dict[str, Pair]] = [{} for _ in rows]
    for found, (zh, en, *scale) in zip(amounts, rows, strict=True):
        numbers.quantity(found, "n", [zh, en, "parts", *scale])
    for slot, form in (("amounts", "n_range"), ("inner_amounts", "n_inner"), ("values1", "n_value")):
        texts = [(each["n"][0] + each[form][0], f"{each[form][1]} of {each['n'][1]}") for each in amounts]
        draft.phrases[slot] = enumeration(texts)
    draft.phrases["names"] = enumeration([pair(row) for row in rows])
    key = amounts[1 + len(bases)]
    draft.phrases |= {"key_amount": key["n_range"], "key_value2": key["n_high"]}
    second: dict[str, Pair] = {}
    numbers.quantity(second, "n", ["", "", "parts", *keys[1][10:]])
    draft.phrases["key2_amount"] = second["n_range"]
    for slot, aid in zip(("aid", "aid2"), aids, strict=True):
        options = sample(rng, aid[5], 2 + below(rng, 2))
        draft.nouns[slot] = pair(aid)
        draft.phrases[f"{slot}_options"] = enumeration([pair(option) for option in options])
        draft.phrases[f"{slot}_option"] = pair(pick(rng, options))


def _draw_steps(numbers: "Numbers", draft: Draft, stages: list[Any], main: Pair) -> None:
    """The preparation of a composition: as claimed, with ranges, and in the examples, with values."""
    rng = numbers.rng
    claimed: list[Pair] = []
    worked: list[Pair] = []
    chosen = below(rng, len(stages))
    for i, alternatives in enumerate(stages):
        stage = pick(rng, alternatives)
        found: dict[str, Pair] = {}
        for slot, row in zip(("r1", "r2"), stage["quantities"], strict=True):
            numbers.quantity(found, slot, row)
        for texts, form in ((claimed, "range"), (worked, "value")):
            first, second = found[f"r1_{form}"], found[f"r2_{form}"]
            zh, en = (stage["text"][k].format(main=main[k], r1=first[k], r2=second[k]) for k in (0, 1))
            texts.append((f"S{i + 1}、{zh}", f"S{i + 1}: {en}"))
        if i == chosen:
            slot = pick(rng, ["r1", "r2"])
            draft.phrases |= {"step_p": found[slot], "step_inner": found[f"{slot}_inner"]}
    draft.phrases["step"] = (f"S{chosen + 1}", f"S{chosen + 1}")
    for name, texts in (("steps", claimed), ("value_steps", worked)):
        zhs, ens = zip(*texts, strict=True)
        draft.phrases[name] = ("；".join(zhs), "; ".join(ens[:-1]) + f"; and {ens[-1]}")


def _draw_results(numbers: "Numbers", draft: Draft, measure: list[Any]) -> None:
    """The test results with the key ingredient (two examples) and without it."""
    zh, en, unit, low, high, low_without, high_without, step = measure
    good = sample(numbers.rng, numbers.scale(low, high, step), 2)
    bad = pick(numbers.rng, numbers.scale(low_without, high_without, step))
    draft.phrases["measure"] = (zh, en)
    for slot, number in (("good1", good[0]), ("good2", good[1]), ("bad", bad)):
        draft.phrases[slot] = numbers.with_unit(number, unit)


def _draw_method(numbers: "Numbers", draft: Draft, words: dict[str, Any], data: list[str]) -> None:
    """Data, their source and processing, and the modules that process them."""
    rng, templates = numbers.rng, load("templates.yaml")
    prep = pick(rng, words["preps"])
    draft.nouns |= {
        "input": pair(data),
        "result": pair(data[2:]),
        "source": pair(pick(rng, words["sources"])),
        "feature": pair(prep[2:]),
    }
    for i, module in enumerate(pick(rng, templates["modules"]), start=1):
        draft.nouns[f"module{i}"] = pair(module)
    draft.clauses |= {
        "prep": pair(prep),
        "final": pair(data[4:]),
        "clean": pair(pick(rng, words["cleans"])),
        "post": pair(pick(rng, words["posts"])),
    }
    numbers.quantity(draft.phrases, "q", pick(rng, words["metrics"]))
    draft.phrases["limit"] = draft.phrases["q_value"]
    draft.phrases["period"] = numbers.value(words["period"])
    draft.phrases["memory"] = numbers.value(templates["memory"])


def _draw_name(rng: Random, draft: Draft) -> None:
    """The invention's name: the title without 一种, and what dependent claims refer to."""
    zh, en = pick(rng, load("templates.yaml")[draft.style]["names"])
    slots = draft.phrases | draft.nouns
    chinese = {slot: text[0] for slot, text in slots.items()}
    english = {slot: text[1] for slot, text in slots.items()} | {"a_key": article(draft.nouns["key"][1])}
    draft.nouns["name"] = (zh.format_map(chinese), en.format_map(english))


class Numbers:
    """Draws quantities. A document writes all its ranges in one style: 5-10mm, or 5mm至10mm."""

    def __init__(self, rng: Random, units: dict[str, list[str]]) -> None:
        self.rng, self.units = rng, units
        self.repeat = rng.random() < 0.5

    def quantity(self, slots: dict[str, Pair], slot: str, row: list[Any]) -> None:
        """Fill SLOT (its name), SLOT_range, SLOT_high (its end), SLOT_inner (narrower), SLOT_value (within).

        `row` is [Chinese, English, unit, low, high, step], of four numbers at least.
        """
        zh, en, unit, low, high, step = row
        scale = self.scale(low, high, step)
        slack = max(1, (len(scale) - 2) // 2)
        first, last = below(self.rng, slack), len(scale) - 1 - below(self.rng, slack)
        slots[slot] = (zh, en)
        slots[f"{slot}_range"] = self.between(scale[first], scale[last], unit)
        slots[f"{slot}_inner"] = self.between(scale[first + 1], scale[last - 1], unit)
        slots[f"{slot}_value"] = self.with_unit(scale[first + 1 + below(self.rng, last - first - 1)], unit)
        slots[f"{slot}_high"] = self.with_unit(scale[last], unit)

    def value(self, row: list[Any]) -> Pair:
        """One value of a row [unit, low, high, step]."""
        unit, *scale = row
        return self.with_unit(pick(self.rng, self.scale(*scale)), unit)

    @staticmethod
    @cache
    def scale(low: float, high: float, step: float) -> list[str]:
        """The numbers from low to high in steps, as strings."""
        digits = len(str(step).partition(".")[2])
        return [f"{round(low + i * step, digits):g}" for i in range(int((high - low) / step + 0.5) + 1)]

    def between(self, low: str, high: str, unit: str) -> Pair:
        """A range, in the document's style."""
        zh, en = self.with_unit(high, unit)
        if self.repeat or unit in ALWAYS_REPEATED:
            low_zh, low_en = self.with_unit(low, unit)
            return f"{low_zh}{'-' if unit in ALWAYS_REPEATED else '至'}{zh}", f"{low_en} to {en}"
        return f"{low}{'至' if low.startswith('-') else '-'}{zh}", f"{low} to {en}"

    def with_unit(self, number: str, unit: str) -> Pair:
        """A number and its unit; English spelt-out units are singular after 1."""
        zh, en = self.units[unit]
        return f"{number}{zh}", f"{number}{en.removesuffix('s') if number == '1' and len(en) > 3 else en}"


def below(rng: Random, n: int) -> int:
    return int(rng.random() * n)


def pick(rng: Random, choices: Any) -> Any:
    return choices[int(rng.random() * len(choices))]


def sample(rng: Random, choices: list[Any], n: int) -> list[Any]:
    """`n` different entries, in random order."""
    left = list(choices)
    return [left.pop(int(rng.random() * len(left))) for _ in range(n)]
