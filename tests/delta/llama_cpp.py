"""llama.cpp with a GGUF file, through the wheel xllamacpp, and tiny models and tokenizers to export."""

import json
import random
import shutil
import unicodedata
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TEXTS = [
    "Hello world",
    "hello  world",
    "an unmerged word",
    "a",
    "The claims of patent no. 12,345,678 B2 (2021-03-04).",
    "it's we've I'll DON'T they're",
    "an apple\n\na day\n",
    "\n",
    "\n\n\n",
    "tab\there",
    "\ttab",
    "x  \n  y",
    "权利要求1所述的新能源汽车",
    "本发明涉及一种锂离子电池。",
    "特許請求の範囲に記載の装置。カタカナ",
    "ｆｕｌｌ width ＡＢＣ １２３",
    "청구항 1에 있어서, 상기 배터리는",
    "한국어 특허 문서",
    "def f(x):\n    return x**2  # square\n",
    "if (a && b) { c->d[0] += 1; }",
    "1",
    "12",
    "123",
    "1234",
    "12345678901234567890",
    "3.14159e-10",
    "🚗🔋 emoji 👨‍👩‍👧‍👦 🇰🇷",
    "naïve café über",
    "Ünïcödé ß ﬁ",
    "𝒜𝓁𝑔 𠀀𠮷",
    "Привет, мир",
    "שלום عالم",
    "ไทย हिन्दी",
    "©®™ ½ ² ① Ⅳ",
    "a\u00a0b\u3000c\u2028d",
    "\u200bzero\ufeff",
    "\x07bell\x00nul",
    "%$#@!~`^&*()_+-={}[]|\\:;\"'<>,.?/",
    "http://a.b/c?d=e&f=g#h",
    "CamelCaseAndsnake_case_words",
    "…—–“quoted”‘x’",
    " leading",
    "   leading",
    " 汉字",
    "trailing space ",
    "trailing  ",
    "many     spaces     inside",
    "a\r\nb\rc",
    "ＣＯ₂ H₂O µm Å",
    "<not_special> </x>",
    "▁ literal ▁▁",
]
CHARACTERS = [
    *"'’ſsSLl.-_/#\r\n\t\x0b\x0c\x85\x1c\x1f   aZéKÅǅªʰ中文々ー한국🚗\u0301\u0bcdा19½²٣१ⅷ〇㊿𝟘𐐀\u200b\u200d",
    *"\u00a0\u1680\u180e\u2003\u2028\u202f\u3000\ufe0f\ufeff\ufffd\ue000\u0378\U000e0001",
    "'s", "'LL", "  ", "   ", "\n\n", "123", "don't",
]  # fmt: skip
SPECIAL = [
    "{bos}hi{eos}",
    "a{eos}b",
    "{bos}[INST] hello [/INST] yes {eos}{bos}[INST] more [/INST]",
    "x {eos} y",
]
LATIN = (
    "the claim of a patent, wherein the battery comprises an electrode and it's 12 or 345 cells; we've shown"
)
CORPUS = [
    LATIN,
    "根据权利要求1所述的电池，其特征在于，所述电极包括活性材料。",
    "청구항 1에 있어서, 상기 배터리는 전극을 포함하는 장치.",
    "請求項１に記載の装置であって、電池を備える。",
    "def f(x):\n    return x + 1\n\nfor i in range(10):\n    print(f(i))\n",
]


def texts(bos: str | None = None, eos: str | None = None) -> list[str]:
    """About 200 varied texts; with control tokens in some if their names are given."""
    draw = random.Random(0)
    found = list(TEXTS)
    while len(found) < 180:
        parts = [draw.choice(TEXTS + CORPUS) for _ in range(draw.randint(2, 4))]
        found.append(draw.choice([" ", "", "\n", "  "]).join(part[: draw.randint(1, 30)] for part in parts))
    for _ in range(20):
        points = [
            draw.choice([draw.randrange(32, 0x3000), draw.randrange(0x3000, 0xD7FF)]) for _ in range(12)
        ]
        found.append("".join(map(chr, points)))
    if bos and eos:
        found += [text.format(bos=bos, eos=eos) for text in SPECIAL]
    return found


def mixed(count: int, seed: int) -> list[str]:
    """Short texts of characters at which ways to divide text into words differ."""
    draw = random.Random(seed)
    parts = [draw.choices(CHARACTERS, k=draw.randint(1, 8)) for _ in range(count)]
    return [unicodedata.normalize("NFC", "".join(part)) for part in parts]


class LlamaCpp:
    """A model in llama.cpp."""

    def __init__(self, file: Path, context: int = 512) -> None:
        import xllamacpp

        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(file)
        wanted.n_ctx = context
        wanted.n_parallel = 1
        wanted.cpuparams.n_threads = 1
        wanted.warmup = False
        wanted.port = 0
        wanted.verbosity = -1
        wanted.fit_params = False
        wanted.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        wanted.cache_type_k = wanted.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(wanted)

    def post(self, path: str, **body: Any) -> Any:
        """An answer of its HTTP interface."""
        request = urllib.request.Request(
            self.server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def ids(self, text: str) -> list[int]:
        """The text's tokens, with those added before and behind it."""
        found = self.post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        return [int(number) for number in found]

    def greedy(self, ids: list[int], length: int) -> tuple[list[int], dict[int, float]]:
        """The most likely tokens after `ids`, and log-probabilities for the first of them."""
        told = self.post(
            "/completion", prompt=ids, n_predict=length, temperature=0, return_tokens=True, n_probs=10,
            cache_prompt=False, ignore_eos=False,
        )  # fmt: skip
        first = (told.get("completion_probabilities") or [{}])[0]
        if first.get("id") != told["tokens"][0]:  # a part of a character, whose probabilities it leaves out
            return told["tokens"], {}
        return told["tokens"], {each["id"]: each["logprob"] for each in first["top_logprobs"]}


@dataclass(frozen=True)
class Tokenizers:
    """Small tokenizers by kind, in folders of their own."""

    folder: Path

    def tokenizer(self, kind: str) -> Any:
        """As transformers loads it; made when it is first asked for."""
        from transformers import AutoTokenizer

        place = self.folder / kind
        return AutoTokenizer.from_pretrained(place) if place.exists() else tokenizer(kind, place)


def tokenizer(kind: str, folder: Path) -> Any:
    """A small tokenizer of a kind, as transformers loads it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    if kind.startswith("pieces"):
        _save_pieces(folder / "tokenizer.model")
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        config = {"tokenizer_class": "LlamaTokenizer", **names, "add_bos_token": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        made = AutoTokenizer.from_pretrained(folder)
        if kind != "pieces-first":
            made = _older(made, kind)
        shutil.rmtree(folder)
        made.save_pretrained(folder)
    else:
        made = PreTrainedTokenizerFast(
            tokenizer_object=_of_bytes(kind), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
        made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _save_pieces(file: Path) -> None:
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 5), model_writer=made, vocab_size=520, model_type="bpe",
        byte_fallback=True, minloglevel=2, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.98,
    )  # fmt: skip
    file.write_bytes(made.getvalue())


def _older(made: Any, kind: str) -> Any:
    """The same pieces with the spaces of LLaMA 2's first tokenizer.json, of a Metaspace, or none."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    spec = json.loads(made.backend_tokenizer.to_str())
    if kind == "pieces-prepend":
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        prepend = {"type": "Prepend", "prepend": "▁"}
        spec["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
        spec["pre_tokenizer"] = None
    else:
        spec["pre_tokenizer"]["prepend_scheme"] = kind.removeprefix("pieces-")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = {name: AddedToken(text, normalized=False, special=True) for name, text in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)), **tokens)


def _of_bytes(kind: str) -> Any:
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    from delta.gguf_export.tokenizer import LLAMA3, QWEN2

    made = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = {
        "gpt2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
        "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), plain]),
        "llama3-merges": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), plain]),
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), plain]),
    }[kind]
    if kind == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    more = ["<|endoftext|>"] if kind == "qwen2" else []  # Qwen2Tokenizer would add it
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<s>", "</s>", "<pad>", "<|turn|>", "<|stop|>", *more],
        show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    words_of, made.pre_tokenizer = made.pre_tokenizer, plain
    made.train_from_iterator(CORPUS * 5 + mixed(3000, seed=1), trainer)
    made.pre_tokenizer = words_of  # merges were learnt across words: another division shows in the ids
    spec = json.loads(made.to_str())
    spec["model"]["vocab"]["Ġunmerged"] = len(spec["model"]["vocab"])  # only ignore_merges gives it
    made = Tokenizer.from_str(json.dumps(spec))
    made.add_tokens(["<section>"])  # not special: user-defined
    if kind.startswith("llama3"):
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def model(
    family: str, words: Any, folder: Path, *, seed: int = 0, dtype: str = "float32", **more: Any
) -> Any:
    """A tiny model whose weights are so large that it does not repeat one token, in a folder with its
    tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.25,
        "vocab_size": len(words) + 3, "tie_word_embeddings": False, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": None,
    }  # fmt: skip
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **more}))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.endswith("bias") or "norm" in name:
                value.add_(0.1 * torch.randn_like(value))
    made = made.to(getattr(torch, dtype)).eval()
    known = words.get_vocab()
    # llama.cpp ends an answer at the second of these, too, whatever the model's settings say.
    made.generation_config.eos_token_id = [known[end] for end in ("</s>", "<|endoftext|>") if end in known]
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return made


def expected(made: Any, ids: list[int], length: int) -> tuple[list[int], torch.Tensor]:
    """transformers' greedy tokens after `ids`, and the log-probabilities of the first of them."""
    found = made.float().generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=length, do_sample=False,
        output_scores=True, return_dict_in_generate=True, pad_token_id=0,
    )  # fmt: skip
    return found.sequences[0, len(ids) :].tolist(), found.scores[0][0].log_softmax(-1)
