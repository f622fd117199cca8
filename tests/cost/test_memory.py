"""Whether it fits: sums, limits that are never off by one, offload, training, and tables beside single models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import shapes

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.memory import NOT_MODELLED, Offload, Training, largest_batch, largest_context, memory, weight_bytes
from headcount.cost.parameters import parameters
from headcount.cost.training import Lora
from headcount.errors import HeadcountError
from headcount.shape import Compressed, LayerSpec, Mamba2, ModelShape, Stem
from headcount.shape.table import ShapeTable
from headcount.units import MAX_TOKENS

SHAPE = ModelShape(n_layers=6, d_model=320, n_heads=24, n_kv_heads=4, head_dim=40, d_ff=960, vocab_size=1000)


def test_a_total_is_the_sum_of_its_terms_and_says_what_is_not_modelled() -> None:
    found = memory(SHAPE, context=1000, batch=3, page=16, reserve_bytes=123, card_bytes=10**8, usable_share=0.9)
    parts = found.weights_bytes + found.kv_cache_bytes + found.activations_bytes + 123
    assert found.total_bytes == parts == sum(found.terms.values())
    assert found.weights_bytes == weight_bytes(SHAPE).total
    assert found.usable_bytes == 90_000_000
    assert found.fits is True
    assert memory(SHAPE, context=1000).fits is None
    assert found.not_modelled == NOT_MODELLED == ("prefix_caching", "speculative_decoding")


def test_pages_round_up_every_layer_of_every_sequence() -> None:
    plain, paged = kv_cache_bytes(SHAPE, 1001, 3), kv_cache_bytes(SHAPE, 1001, 3, page=16)
    assert paged.total == kv_cache_bytes(SHAPE, 1008, 3).total
    assert paged.terms["kv.page_rounding"] == paged.total - plain.total
    assert kv_cache_bytes(SHAPE, 1008, 3, page=16).total == kv_cache_bytes(SHAPE, 1008, 3).total
    recurrent = Mamba2(n_heads=3, head_dim=5, n_groups=1, d_state=7, conv_kernel=4)
    state = ModelShape(d_model=64, stem=Stem(vocab_size=9), layers=((2, LayerSpec(mixers=(recurrent,))),))
    assert kv_cache_bytes(state, 5, page=16).total == kv_cache_bytes(state, 5).total


cards = st.integers(1, 4 * 10**9)


@settings(max_examples=60)
@given(
    model=shapes, card=cards, batch=st.integers(1, 40), page=st.sampled_from([1, 16, 100]), share=st.floats(0.01, 1.0),
    phase=st.sampled_from(["decode", "prefill", "train"]), chunk=st.none() | st.integers(1, 9000),
    execution=st.sampled_from(["engine", "eager", "fused"]),
)
def test_the_longest_context_fits_and_one_more_token_does_not(
    model: ModelShape, card: int, batch: int, page: int, share: float, phase: str, chunk: int | None, execution: str
) -> None:
    setting = dict(
        card_bytes=card, usable_share=share, page=page, phase=phase, runtime="logical", execution=execution, max_batched_tokens=chunk
    )
    longest = largest_context(model, batch=batch, **setting)
    if longest:
        assert memory(model, context=longest, batch=batch, **setting).fits
    if longest < MAX_TOKENS:
        assert not memory(model, context=longest + 1, batch=batch, **setting).fits
    rng = np.random.default_rng(card)
    for shorter in rng.integers(1, longest + 1, 5) if longest else ():
        assert memory(model, context=int(shorter), batch=batch, **setting).fits


@settings(max_examples=60)
@given(model=shapes, card=cards, context=st.integers(1, 5000), phase=st.sampled_from(["decode", "prefill", "train"]))
def test_the_largest_batch_fits_and_one_more_sequence_does_not(model: ModelShape, card: int, context: int, phase: str) -> None:
    setting = dict(card_bytes=card, phase=phase, runtime="logical", page=16)
    most = largest_batch(model, context=context, **setting)
    if most:
        assert memory(model, context=context, batch=most, **setting).fits
    if most < MAX_TOKENS:
        assert not memory(model, context=context, batch=most + 1, **setting).fits


@settings(max_examples=80)
@given(models=st.lists(shapes, min_size=1, max_size=3), data=st.data())
def test_a_row_of_a_table_holds_what_it_holds_alone(models: list, data: st.DataObject) -> None:
    context = [data.draw(st.integers(1, 9000)) for _ in models]
    batch = [data.draw(st.integers(1, 64)) for _ in models]
    setting = dict(
        phase=data.draw(st.sampled_from(["decode", "prefill", "train"])), runtime="logical", page=data.draw(st.sampled_from([1, 16])),
        execution=data.draw(st.sampled_from(["engine", "eager", "fused"])),
        weight_dtype=data.draw(st.sampled_from(["bf16", "nvfp4", "q4_k_m"])),
        max_batched_tokens=data.draw(st.none() | st.integers(1, 4000)), attention_map=data.draw(st.booleans()),
    )
    # Learned positions decide a switch of the whole table.
    models = [m.replaced(stem=m.stem.__class__(**{**vars(m.stem), "positions": 0})) for m in models]
    table = memory(ShapeTable.from_shapes(models), context=np.array(context, float), batch=np.array(batch, float), **setting)
    for i, model in enumerate(models):
        alone = memory(model, context=context[i], batch=batch[i], **setting)
        row = table.terms.row(i)
        assert row.total == pytest.approx(alone.total_bytes, rel=1e-12)
        for name, value in alone.terms.items():
            assert row.get(name, 0) == pytest.approx(value, rel=1e-12), name


def test_training_states_of_adamw_are_16_bytes_per_parameter() -> None:
    n = parameters(SHAPE).total
    found = memory(SHAPE, context=128, phase="train", towers=False)
    states = found.weights_bytes + found.terms["gradients"] + found.terms.group("optimizer.")
    assert states == 16 * n
    sgd = memory(SHAPE, context=128, phase="train", training=Training(optimizer="sgd", master=False))
    assert sgd.terms.group("optimizer.") == 0
    eight = memory(SHAPE, context=128, phase="train", training=Training(optimizer="adamw-8bit"))
    assert eight.terms.group("optimizer.") - 4 * n == pytest.approx(2 * n * (1 + 4 / 256), rel=1e-4)
    lora = memory(SHAPE, context=128, phase="train", weight_dtype="nf4", training=Training(lora=Lora(rank=4)))
    assert lora.terms["gradients"] < 0.02 * found.terms["gradients"]
    assert lora.weights_bytes < 0.5 * found.weights_bytes
    less = memory(SHAPE, context=128, phase="train", training=Training(checkpointing=True))
    assert less.activations_bytes < found.activations_bytes


def test_offload_splits_every_byte_between_card_and_memory() -> None:
    whole = memory(SHAPE, context=512, runtime="llama.cpp")
    for layers in range(9):
        part = memory(SHAPE, context=512, runtime="llama.cpp", offload=Offload(layers))
        here = part.weights_bytes + part.kv_cache_bytes
        assert here + part.host_ram_bytes == whole.weights_bytes + whole.kv_cache_bytes
        assert part.terms.get("weights.ffn.up", 0) * 6 == whole.terms["weights.ffn.up"] * min(max(layers - 1, 0), 6)
    full = memory(SHAPE, context=512, runtime="llama.cpp", offload=Offload())
    assert full.host_ram_bytes == whole.terms["weights.embedding.tokens"]  # the input embedding stays in memory


def test_experts_may_stay_in_memory() -> None:
    shape = ModelShape.from_preset("gpt-oss-20b")
    whole = memory(shape, context=512, runtime="llama.cpp")
    part = memory(shape, context=512, runtime="llama.cpp", offload=Offload(experts_in_ram=shape.n_layers))
    assert "weights.moe.up" not in part.terms
    assert part.host_terms["weights.moe.up"] == whole.terms["weights.moe.up"]
    assert part.terms["weights.attention.q"] == whole.terms["weights.attention.q"]
    half = memory(shape, context=512, runtime="llama.cpp", offload=Offload(experts_in_ram=shape.n_layers // 2))
    assert half.terms["weights.moe.up"] * 2 == whole.terms["weights.moe.up"]


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ({"usable_share": 1.2}, "bad_share"), ({"usable_share": 0.0}, "bad_share"), ({"reserve_bytes": -1}, "negative_bytes"),
        ({"card_bytes": 0}, "negative_bytes"), ({"phase": "sleep"}, "unknown_choice"), ({"colour": 1}, "unknown_argument"),
        ({"execution": "magic"}, "unknown_choice"), ({"tp": 0}, "not_positive"), ({"page": 0}, "not_positive"),
        ({"training": Training()}, "training_without_train"), ({"offload": Offload(3), "tp": 2}, "offload_and_plan"),
        ({"weight_dtype": "int3"}, "unknown_dtype"),
    ],
)
def test_arguments_out_of_range_are_refused(setting: dict, code: str) -> None:
    with pytest.raises(HeadcountError, match=r".") as caught:
        memory(SHAPE, context=10, **setting)
    assert caught.value.code == code


def test_asking_what_fits_needs_a_card() -> None:
    with pytest.raises(HeadcountError, match="card_bytes must be given"):
        largest_context(SHAPE)
    with pytest.raises(HeadcountError, match="card_bytes must be given"):
        largest_batch(SHAPE, context=3)
    with pytest.raises(HeadcountError, match="optimizer must be one of adamw"):
        Training(optimizer="lion")
    assert largest_context(SHAPE, card_bytes=1000) == 0


def test_each_argument_changes_the_answer() -> None:
    base = dict(context=1000, batch=4, card_bytes=10**9)
    shape = SHAPE.replaced(stem=Stem(vocab_size=50_000))  # so many words that their logits can be the peak
    first = memory(shape, phase="prefill", **base)
    for change in (
        {"context": 2000}, {"batch": 5}, {"weight_dtype": "fp8"}, {"kv_dtype": "fp8"}, {"page": 64}, {"tp": 2}, {"pp": 2},
        {"execution": "eager"}, {"max_batched_tokens": 100}, {"logits": "all"}, {"attention_map": True}, {"reserve_bytes": 5},
        {"phase": "decode"}, {"offload": Offload(3)},
    ):
        assert memory(shape, **{"phase": "prefill", **base, **change}).terms != first.terms, change


def test_a_compressed_cache_is_not_monotone_and_is_still_answered_exactly() -> None:
    layer = Compressed(
        n_heads=4, head_dim=64, rope_head_dim=8, q_lora_rank=32, o_groups=2, o_lora_rank=16, window=8, ratio=128,
    )
    shape = ModelShape(d_model=64, stem=Stem(vocab_size=100), layers=((2, LayerSpec(mixers=(layer,))),))
    for card in range(210_000, 330_000, 3777):
        setting = dict(card_bytes=card, runtime="logical", max_batched_tokens=1)
        longest = largest_context(shape, **setting)
        fits = [bool(memory(shape, context=c, **setting).fits) for c in range(1, min(longest + 200, 1500))]
        expected = fits.index(False) if False in fits else len(fits)
        assert longest == expected or longest > 1300
