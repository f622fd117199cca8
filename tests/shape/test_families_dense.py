"""Dense decoders, new and old: their counts against the modules that transformers builds, one changed field at a time.

Each type starts from a small config whose sizes differ pairwise, with 1 < n_kv_heads < n_heads and, where the type allows it,
n_heads x head_dim != d_model. A change must be followed exactly or be refused; which refusals are right is listed, so that a reader
that refuses too much fails too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from oracles import build_text, default_config, distinct_parameters, load_config, run_text
from transformers import DynamicCache

from headcount.cost.flops import flops
from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.errors import ConfigError, HeadcountError, ShapeError
from headcount.shape.config import read_config
from headcount.shape.families import FAMILIES
from headcount.shape.families.classic import CLASSICS, read_classic
from headcount.shape.families.dense import RECIPES, read_dense
from headcount.shape.fields import CORE, NEUTRAL, class_defaults
from headcount.shape.model import ModelShape

DENSE = sorted(RECIPES)
OLD = sorted([*CLASSICS, "gpt_bigcode", "gpt_neo", "gpt_neox_japanese", "bloom", "falcon", "mpt", "opt"])

SIZES = {
    **dict.fromkeys("num_hidden_layers n_layer n_layers num_layers".split(), 5),
    **dict.fromkeys("hidden_size n_embd d_model".split(), 96),
    **dict.fromkeys("num_attention_heads n_head n_heads num_heads attention_heads".split(), 6),
    **dict.fromkeys("intermediate_size ffn_dim dff ffn_hidden_size".split(), 152),
    **dict.fromkeys("max_position_embeddings n_positions n_ctx max_seq_len".split(), 61),
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 20, "vocab_size": 331, "sliding_window": 24, "max_window_layers": 3,
    "rotary_dim": 4,
}
"""By field name; a type gets those that its config has."""
OWN_SIZES: dict[str, dict[str, Any]] = {
    "cohere2": {"head_dim": 16}, "helium": {"head_dim": 16}, "codegen": {"n_head": 8}, "falcon": {"new_decoder_architecture": True},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]], "intermediate_size": 152},
}
COMPUTED = ("layer_types", "no_rope_layers", "layer_rope_theta", "attention_layers", "id2label", "label2id")
"""Lists that a config class fills in from other fields: left out, so that our reader has to compute them too."""
NOT_CHANGED = {
    "model_type", "transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", "problem_type", "pad_token_id",
    "eos_token_id", "bos_token_id", "rope_parameters", "rope_scaling", "attn_config",
}
ELSEWHERE = {
    **dict.fromkeys("num_attention_heads n_head n_heads num_heads attention_heads".split(), 12),
    **dict.fromkeys("hidden_size n_embd d_model".split(), 144),
    "num_key_value_heads": 3, "num_kv_heads": 3, "head_dim": 28,
}
"""Another value that fits the small config; any other size is doubled."""
ORACLE_REFUSES = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, ZeroDivisionError, StrictDataclassError)
REFUSED = {
    ("gemma", "use_bidirectional_attention"), ("gemma2", "use_bidirectional_attention"), ("gemma3_text", "use_bidirectional_attention"),
    ("gemma3_text", "_sliding_window_pattern"),
    # head_dim is not the file's to choose, or not without breaking the layer.
    ("cohere2", "head_dim"), ("cohere2", "hidden_size"), ("cohere2", "num_attention_heads"),
    ("helium", "head_dim"), ("helium", "hidden_size"), ("helium", "num_attention_heads"),
    ("internlm3", "attention_bias"), ("internlm3", "mlp_bias"),
    ("ministral", "head_dim"), ("hunyuan_v1_dense", "head_dim"), ("nemotron", "num_key_value_heads"),
    ("gpt2", "add_cross_attention"), ("gpt-sw3", "add_cross_attention"), ("gpt_bigcode", "add_cross_attention"),
    ("xglm", "add_cross_attention"), ("mpt", "expansion_ratio"), ("mpt", "no_bias"), ("falcon", "new_decoder_architecture"),
}
"""(type, field) whose other value means another model, or one that could not run."""


def may_refuse(model_type: str, name: str, value: Any, error: HeadcountError) -> bool:
    """Whether a refusal is the right answer to this change."""
    if name in CORE and value is ...:
        return error.code in ("config_field_missing", "config_field_missing_default")
    if name == "sliding_window" and value is None:  # while the type's own pattern has sliding layers
        return RECIPES[model_type].pattern.startswith(("last", "first"))
    return (model_type, name) in REFUSED




def small(model_type: str, **changes: Any) -> dict[str, Any]:
    """A small config.json of that type; a change to ... takes the field out."""
    raw = {k: v for k, v in default_config(model_type).items() if k not in COMPUTED}
    declared = class_defaults()[model_type]["defaults"]
    raw.update({k: v for k, v in SIZES.items() if k in raw or k in declared})
    raw.update(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    raw.update(OWN_SIZES.get(model_type, {}))
    raw.update(changes)
    return {k: v for k, v in raw.items() if v is not ...}


def truth(raw: dict[str, Any]) -> tuple[int, list[int | None]]:
    """Parameters of the module that transformers builds, and the window of every layer of its cache."""
    config = load_config(raw)
    return distinct_parameters(build_text(config)), [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]


def ours(shape: ModelShape) -> tuple[int, list[int | None]]:
    """The same of our shape."""
    windows = [int(layer.attention.window) or None for n, layer in shape.layers for _ in range(n) if layer.attention]
    return parameters(shape).text_only, windows


def ours_or_refusal(raw: dict[str, Any]) -> tuple[int, list[int | None]] | HeadcountError:
    """Our counts, or the error in their place."""
    try:
        return ours(read_config(raw))
    except HeadcountError as error:
        return error


def changes_of(model_type: str) -> Iterator[tuple[str, Any]]:
    """Every field of the type, with other values; ... is its absence."""
    raw = small(model_type)
    for name, value in {**class_defaults()[model_type]["defaults"], **raw}.items():
        if name in NOT_CHANGED or name in COMPUTED:
            continue
        if isinstance(value, bool):
            yield name, not value
        elif isinstance(value, int):
            yield name, ELSEWHERE.get(name, value * 2)
            # The class default of KV heads need not divide our heads: test_changes_together takes it out where it does.
            if name not in NEUTRAL and name not in ("num_key_value_heads", "num_kv_heads"):
                yield name, ...
        elif value is None:
            yield name, 8
            if not name.startswith("n"):  # n_inner, num_*: numbers, and true is none
                yield name, True
        elif isinstance(value, str) and "act" in name:
            yield name, "xielu"
            yield name, "prelu"
        if name in ("sliding_window", "head_dim", "num_key_value_heads"):
            yield name, None


@pytest.mark.parametrize("model_type", [*DENSE, *OLD])
def test_default_config(model_type: str) -> None:
    """What transformers builds when only the type is chosen."""
    filled = {"nemotron": {"num_key_value_heads": 8}, "ministral": {"head_dim": 128}, "hunyuan_v1_dense": {"head_dim": 128}}
    raw = {**default_config(model_type), **filled.get(model_type, {})}
    assert ours(read_config(raw))[0] == distinct_parameters(build_text(load_config(raw)))


@pytest.mark.parametrize("model_type", [*DENSE, *OLD])
def test_each_field_alone(model_type: str) -> None:
    """Every field of the type, changed alone, is followed exactly; or it is one of those that have to be refused."""
    assert ours(read_config(small(model_type))) == truth(small(model_type))
    compared = 0
    for name, value in changes_of(model_type):
        raw = small(model_type, **{name: value})
        counted = ours_or_refusal(raw)
        if isinstance(counted, HeadcountError):
            assert may_refuse(model_type, name, value, counted), f"{name}={value}: {counted}"
            continue
        try:
            built = truth(raw)
        except ORACLE_REFUSES:
            continue
        compared += 1
        assert counted == built, f"{name}={value}"
    assert compared >= 12


FULL, LOCAL = "full_attention", "sliding_attention"
KINDS = [FULL, LOCAL, FULL, FULL, LOCAL]


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("qwen2", dict(use_sliding_window=True, sliding_window=11)),
        ("qwen2", dict(use_sliding_window=True, sliding_window=11, max_window_layers=1)),
        ("qwen2", dict(use_sliding_window=True, sliding_window=None)),
        ("qwen2", dict(use_sliding_window=True, sliding_window=..., max_window_layers=..., num_hidden_layers=30)),
        ("qwen3", dict(use_sliding_window=True, sliding_window=11, layer_types=KINDS)),
        ("gemma2", dict(layer_types=KINDS)),
        ("gemma3_text", dict(num_hidden_layers=13)),
        ("gemma3_text", dict(_sliding_window_pattern=..., sliding_window_pattern=2)),
        ("gemma3_text", dict(layer_types=KINDS, sliding_window_pattern=2)),
        ("vaultgemma", dict(layer_types=KINDS)),
        ("cohere2", dict(sliding_window_pattern=2)),
        ("cohere2", dict(sliding_window_pattern=1)),
        ("exaone4", dict(sliding_window_pattern=3)),
        ("exaone4", dict(layer_types=[FULL] * 5, sliding_window=None)),
        ("exaone4", dict(layer_types=KINDS, sliding_window_pattern="LLLG")),
        ("olmo3", dict(num_hidden_layers=9)),
        ("cwm", dict(num_hidden_layers=9, sliding_window=7)),
        ("granite_swa", dict(layer_types=KINDS)),
        ("ministral", dict(sliding_window=None)),
        ("ministral", dict(layer_types=KINDS)),
        ("smollm3", dict(use_sliding_window=True, sliding_window=11)),
        ("smollm3", dict(use_sliding_window=True, sliding_window=11, no_rope_layer_interval=2)),
        ("smollm3", dict(use_sliding_window=True, sliding_window=11, no_rope_layers=[1, 0, 1, 1, 0])),
        ("smollm3", dict(no_rope_layers=[1, 0, 1, 1, 0])),
        ("mistral", dict(sliding_window=9)),
        ("phi3", dict(sliding_window=9)),
        ("starcoder2", dict(sliding_window=9)),
        ("phi3", dict(full_attn_mod=1, interpolate_factor=1)),
        # heads
        ("qwen2", dict(head_dim=20)),
        ("olmo2", dict(head_dim=20, attention_bias=True)),
        ("cohere", dict(head_dim=20, use_qk_norm=True)),
        ("phi", dict(head_dim=20)),
        ("phi", dict(qk_layernorm=True)),
        ("stablelm", dict(qk_layernorm=True, use_qkv_bias=True, use_parallel_residual=True)),
        ("granite_swa", dict(head_dim=20, num_attention_heads=8)),
        ("exaone4", dict(head_dim=20)),
        ("internlm3", dict(attention_bias=True, mlp_bias=True)),
        ("internlm3", dict(attention_bias=..., mlp_bias=..., qkv_bias=True, bias=True)),
        ("llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
        ("starcoder2", dict(num_key_value_heads=...)),
        ("glm", dict(num_key_value_heads=...)),
        ("llama", dict(num_key_value_heads=...)),
        # old ones
        ("falcon", dict(new_decoder_architecture=False, multi_query=True)),
        ("falcon", dict(new_decoder_architecture=False, multi_query=False, num_kv_heads=None)),
        ("falcon", dict(num_kv_heads=None)),
        ("falcon", dict(num_ln_in_parallel_attn=1, bias=True)),
        ("falcon", dict(new_decoder_architecture=False, num_ln_in_parallel_attn=2)),
        ("falcon", dict(parallel_attn=False)),
        ("falcon", dict(n_embed=144)),
        ("bloom", dict(n_embed=144)),
        ("bloom", dict(hidden_size=..., n_embed=144, num_attention_heads=6, n_head=...)),
        ("gpt2", dict(hidden_size=144, n_embd=...)),
        ("gpt2", dict(n_inner=200)),
        ("gpt_bigcode", dict(multi_query=False)),
        ("gpt_neo", dict(intermediate_size=None)),
        ("opt", dict(word_embed_proj_dim=40)),
        ("opt", dict(word_embed_proj_dim=40, tie_word_embeddings=False, do_layer_norm_before=False)),
        ("opt", dict(layer_norm_elementwise_affine=False, enable_bias=False)),
        ("mpt", dict(attn_config=None)),
        ("mpt", dict(attn_config=dict(clip_qkv=8.0, prefix_lm=True))),
    ],
)
def test_changes_together(model_type: str, changes: dict[str, Any]) -> None:
    """Fields that only mean something together."""
    raw = small(model_type, **changes)
    assert ours(read_config(raw)) == truth(raw)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("qwen2", dict(layer_types=KINDS), "use_sliding_window .* must be true"),
        ("smollm3", dict(layer_types=KINDS, sliding_window=11), "use_sliding_window .* must be true"),
        ("phi3", dict(full_attn_mod=2), "full_attn_mod .* must be 1"),
        ("gemma2", dict(sliding_window=None), "sliding_window .* must be a whole number from 1"),
        ("cwm", dict(sliding_window=0), "sliding_window .* must be a whole number from 1"),
        ("mistral", dict(sliding_window=0), "sliding_window .* must be null or a whole number"),
        ("mistral", dict(layer_types=KINDS), "does not know .* layer_types"),
        ("gemma2", dict(sliding_window_pattern=3), "does not know .* sliding_window_pattern"),
        ("gemma3_text", dict(_sliding_window_pattern=4), "must be the 6 that transformers takes"),
        ("qwen3", dict(layer_types=["chunked_attention"] * 5), "full_attention or sliding_attention"),
        ("qwen3", dict(layer_types=[FULL] * 4), "a list of 5 items"),
        ("gemma", dict(use_bidirectional_attention=True), "looks? backwards only"),
        ("phi", dict(qk_layernorm=True, head_dim=20), "must be hidden_size / num_attention_heads"),
        ("bitnet", dict(head_dim=20), "must be hidden_size / num_attention_heads"),
        ("stablelm", dict(head_dim=20), "which has no other"),
        ("persimmon", dict(num_key_value_heads=2), "does not know .* num_key_value_heads"),
        ("internlm3", dict(attention_bias=True), "equal to mlp_bias"),
        ("nemotron", dict(num_key_value_heads=None), "must state num_key_value_heads"),
        ("hunyuan_v1_dense", dict(head_dim=None), "must state head_dim"),
        ("gpt2", dict(add_cross_attention=True), "does not know .* add_cross_attention"),
        ("gpt2", dict(head_dim=20), "does not know .* head_dim"),
        ("xglm", dict(attention_heads=...), "must state attention_heads"),
        ("falcon", dict(new_decoder_architecture=False, multi_query=False, num_kv_heads=2), "equal to num_attention_heads"),
        ("mpt", dict(attn_config=dict(attn_type="multiquery_attention")), "only value that transformers builds"),
        ("mpt", dict(attn_config=dict(kv_n_heads=2)), "does not know .* attn_config.kv_n_heads"),
        ("llama", dict(per_layer_config={"1": {"num_key_value_heads": 3}}), "does not know .* per_layer_config"),
    ],
)
def test_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    """What would be another model is refused by name."""
    with pytest.raises(ConfigError, match=message):
        read_config(small(model_type, **changes))


@pytest.mark.parametrize("model_type", [t for t in [*DENSE, *OLD] if t != "openai-gpt"])
def test_cache_and_work(model_type: str) -> None:
    """The cache that the real module fills, and the FLOPs that torch counts, longer than the window."""
    raw = small(model_type, **({"head_dim": 16} if model_type == "bitnet" else {}))
    shape = read_config(raw)
    held, work = run_text(load_config(raw), 40)
    assert kv_cache_bytes(shape, context=40, runtime="transformers").total == 2 * held
    assert flops(shape, phase="prefill", context=40, causal="full", logits="all").terms.total == work


def test_grouped_falcon_repeats_its_cache_in_transformers_only() -> None:
    """Compared with a filled cache above; other runtimes keep the KV heads."""
    shape = read_config(small("falcon"))
    repeated, kept = (kv_cache_bytes(shape, context=40, runtime=runtime).total for runtime in ("transformers", "vllm"))
    assert repeated * shape.n_kv_heads == kept * shape.n_heads


@pytest.mark.parametrize("model_type", [t for t in DENSE if RECIPES[t].heads == "usual" and not RECIPES[t].square == "yes"])
def test_other_heads(model_type: str) -> None:
    """with_heads gives the same model as a config that states those heads, in every family that can state head_dim."""
    shape = read_config(small(model_type, head_dim=20))
    changed = small(model_type, head_dim=28, num_attention_heads=12, num_key_value_heads=3)
    assert ours(shape.with_heads(n_heads=12, n_kv_heads=3, head_dim=28)) == truth(changed)


def test_bitnet_heads_are_entangled() -> None:
    """The norm before the output projection is as wide as all heads: no other number of heads is offered."""
    with pytest.raises(ShapeError, match="sub_norm depend"):
        read_config(small("bitnet")).with_heads(n_heads=12)


def test_emu3() -> None:
    """The text model of Emu3 is counted; its image tokeniser is named, and the total refused."""
    raw = default_config("emu3")
    raw["text_config"].update({k: v for k, v in SIZES.items() if k in raw["text_config"]}, attention_bias=True, mlp_bias=True, head_dim=20)
    raw["text_config"].update(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    shape = read_config(raw)
    assert ours(shape) == truth(raw)
    with pytest.raises(ShapeError, match="image_tokenizer tower is not understood"):
        _ = parameters(shape).total
    with pytest.raises(ConfigError, match="equal to text_config.tie_word_embeddings"):
        read_config({**raw, "tie_word_embeddings": True})


def test_types_are_read_here() -> None:
    """No other module has taken one of these types over."""
    assert {t for t in DENSE if FAMILIES[t] is not read_dense} == set()
    assert {t for t in CLASSICS if FAMILIES[t] is not read_classic} == set()
    assert len(DENSE) + len(OLD) >= 55
