"""FLOPs against torch's own counter, and the pair counts of every mask against a mask drawn and summed."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from headcount.cost.flops import Work, attended_entries, attended_pairs, flops
from headcount.cost.numbers import smaller
from headcount.errors import HeadcountError
from headcount.shape import ModelShape

TOKENS = 48
SIZES = dict(
    vocab_size=131,
    hidden_size=112,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=20,
    intermediate_size=152,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
MLA = SIZES | dict(
    num_key_value_heads=6,
    q_lora_rank=36,
    kv_lora_rank=28,
    qk_nope_head_dim=18,
    qk_rope_head_dim=10,
    v_head_dim=14,
    first_k_dense_replace=3,
    n_routed_experts=4,
    n_group=1,
    topk_group=1,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    n_shared_experts=1,
)
LLAMA = SIZES | dict(hidden_size=114)  # Llama insists that heads divide the width; 6 x 20 is still not 114
MLA.pop("head_dim")

DENSE = {
    "llama": LLAMA,
    "qwen2": SIZES,
    "qwen3": SIZES,
    "mistral": SIZES | dict(sliding_window=None),
    "gemma": SIZES,
    "olmo2": SIZES,
    "phi3": SIZES,
    "glm": SIZES,
    "gemma2": SIZES | dict(hidden_size=114),
    "deepseek_v3": MLA,
    "deepseek_v2": MLA | dict(hidden_size=114),
}


def counted_on_meta(raw: dict, batch: int, tokens: int) -> int:
    """torch's count of one forward pass over the full square; a 4-D mask is given, or mask building would ask meta tensors for values."""
    model = oracles.build_text(oracles.load_config(raw))
    ids = torch.zeros((batch, tokens), dtype=torch.long, device="meta")
    mask = torch.zeros((batch, 1, tokens, tokens), device="meta", dtype=torch.bfloat16)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("model_type", sorted(DENSE))
def test_prefill_flops_equal_torch_counter(model_type: str) -> None:
    raw = {"model_type": model_type, **DENSE[model_type]}
    truth = counted_on_meta(raw, batch=2, tokens=TOKENS)
    ours = flops(ModelShape.from_config(raw), "prefill", TOKENS, batch=2, causal="full", logits="all").total
    assert ours == pytest.approx(truth, rel=1e-3)
    assert truth > 0


MOE = {
    "mixtral": SIZES | dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=None),
    "qwen3_moe": SIZES | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=72, decoder_sparse_step=1, mlp_only_layers=[]),
    "qwen2_moe": SIZES | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=72, shared_expert_intermediate_size=56),
}


@pytest.mark.parametrize("model_type", sorted(MOE))
def test_moe_flops_equal_torch_counter_in_eager_mode(model_type: str) -> None:
    """On real CPU tensors the counter sees no fused attention, so eager attention and the plain expert loop are asked for."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    raw = {"model_type": model_type, **MOE[model_type]}
    config = oracles.load_config(raw)
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.arange(TOKENS)[None] % 131, use_cache=False)
    shape = ModelShape.from_config(raw)
    ours = flops(shape, "prefill", TOKENS, causal="full", logits="all").total
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_decode_flops_equal_torch_counter_with_a_filled_cache() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    raw = {"model_type": "qwen3", **SIZES}
    model = AutoModelForCausalLM.from_config(oracles.load_config(raw), attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.arange(TOKENS - 1)[None], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True)
    ours = flops(ModelShape.from_config(raw), "decode", TOKENS).total
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_train_flops_equal_torch_counter_forward_and_backward() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    raw = {"model_type": "qwen3", **SIZES}
    model = AutoModelForCausalLM.from_config(oracles.load_config(raw), attn_implementation="eager", dtype=torch.float32)
    ids = torch.arange(TOKENS)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    ours = flops(ModelShape.from_config(raw), "train", TOKENS, causal="full").total
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-3)


def mask(tokens: int, window: int | None, chunked: bool) -> np.ndarray:
    """(query, key) True where the query may look."""
    query, key = np.arange(tokens)[:, None], np.arange(tokens)[None, :]
    seen = key <= query
    if window is not None:
        seen &= (query // window == key // window) if chunked else (query - key < window)
    return seen


@pytest.mark.parametrize("window", [None, 1, 5, 12, 13, 40])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 12, 25, 39])
def test_pairs_equal_the_mask_summed(tokens: int, window: int | None, chunked: bool) -> None:
    seen = mask(tokens, window, chunked)
    assert attended_pairs(Work("prefill", tokens, tokens, "half"), window, chunked) == seen.sum()
    assert attended_pairs(Work("decode", tokens, 1, "half"), window, chunked) == seen[-1].sum()
    assert attended_pairs(Work("prefill", tokens, tokens, "full"), window, chunked) == tokens * tokens


@pytest.mark.parametrize("top_k", [None, 1, 3, 100])
@pytest.mark.parametrize("tokens", [1, 5, 12, 25, 39])
def test_compressed_entries_equal_the_count_token_by_token(tokens: int, top_k: int | None) -> None:
    ratio = 4
    visible = [min(t // ratio, tokens if top_k is None else top_k) for t in range(1, tokens + 1)]
    assert attended_entries(Work("prefill", tokens, tokens, "half"), ratio, top_k) == sum(visible)
    assert attended_entries(Work("decode", tokens, 1, "half"), ratio, top_k) == visible[-1]


def test_unknown_phase_names_the_known_ones() -> None:
    shape = ModelShape(n_layers=2, d_model=77, n_heads=6, n_kv_heads=3, head_dim=10, d_ff=50, vocab_size=101)
    with pytest.raises(HeadcountError, match="prefill, decode, train"):
        flops(shape, "prefil")


def test_smaller_keeps_python_ints() -> None:
    assert type(smaller(2**60 + 1, 2**61)) is int
