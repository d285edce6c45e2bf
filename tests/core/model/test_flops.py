"""Operations of a token as PaLM counts them."""

import pytest
import torch

from core.model.flops import PEAK_TFLOPS, flops_per_token, timed_product


@pytest.mark.parametrize("tied", [False, True])
def test_a_token_of_llama_7b_costs_46_billion_operations(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, tie_word_embeddings=tied))
    # 6 (6.738e9 - 0.131e9) + 12 x 32 layers x 32 heads x 128 x 4096; a tied matrix works as output layer.
    assert flops_per_token(model, 4096) == pytest.approx(46.1e9, rel=1e-3)


def test_cards_and_a_timed_product_are_of_a_sane_size() -> None:
    assert PEAK_TFLOPS["H200"] == PEAK_TFLOPS["H100"] > PEAK_TFLOPS["A100"]
    assert 1e8 < timed_product(torch.device("cpu"), repeats=1) < 1e14
