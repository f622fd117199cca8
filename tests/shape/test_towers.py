"""Towers and composites against the modules that transformers builds on the meta device, one field changed at a time.

The whole model is always compared, so a projector that moves or a head that is tied at the wrong level shows. What is not understood
must leave the text model countable and its total refused.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from oracles import build_text, build_whole, distinct_parameters, load_config, torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.llama4.modeling_llama4 import Llama4VisionModel
from transformers.models.step3p7.modeling_step3p7 import Step3p7VisionModel

from headcount.cost.parameters import parameters
from headcount.errors import ConfigError, ShapeError
from headcount.shape import ModelShape
from headcount.shape.families.composite import COMPOSITES
from headcount.shape.fields import Fields
from headcount.shape.towers import TOWERS

_QWEN = dict(
    depth=2, hidden_size=48, intermediate_size=56, num_heads=4, in_channels=3, patch_size=6, spatial_merge_size=2,
    temporal_patch_size=2, out_hidden_size=42, num_position_embeddings=36,
)
_DEEP = _QWEN | {"deepstack_visual_indexes": [0]}
_VIT = dict(
    hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_channels=3, image_size=28, patch_size=7,
)
SMALL: dict[str, dict[str, Any]] = {
    "qwen3_vl_vision": _DEEP, "qwen3_vl_moe_vision": _DEEP, "qwen3_5_vision": _QWEN, "qwen3_5_moe_vision": _QWEN,
    "kimi_k25_vision": dict(
        patch_size=7, pos_emb_height=5, pos_emb_width=5, pos_emb_time=3, num_attention_heads=4, num_hidden_layers=2, hidden_size=48,
        intermediate_size=56, merge_kernel_size=[2, 3],
    ),
    "llama4_vision_model": _VIT | dict(vision_output_dim=44, projector_input_dim=36, projector_output_dim=20),
    "gemma4_vision": dict(
        hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=20,
        patch_size=7, position_embedding_size=30, pooling_kernel_size=3,
    ),
    "gemma4_audio": dict(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, subsampling_conv_channels=[24, 10], conv_kernel_size=5,
        output_proj_dims=44,
    ),
    "step3p5_vision": _VIT | dict(mlp_ratio=3.7),
    "siglip_vision_model": _VIT, "clip_vision_model": _VIT, "pixtral": _VIT,
}
BUILDERS = {"llama4_vision_model": Llama4VisionModel, "step3p5_vision": Step3p7VisionModel}


def built_tower(model_type: str, values: dict[str, Any]) -> int:
    """Parameters of the tower that transformers builds from these fields."""
    if model_type == "step3p5_vision":
        config = CONFIG_MAPPING["step3p7"](vision_config=dict(values)).vision_config
    else:
        config = CONFIG_MAPPING[model_type](**copy.deepcopy(values))
    with torch.device("meta"):
        builder = BUILDERS.get(model_type)
        return distinct_parameters(builder(config) if builder else AutoModel.from_config(config, dtype=torch.bfloat16))


def counted_tower(model_type: str, values: dict[str, Any]) -> int:
    """Our count of the same tower; every field has to be known."""
    fields = Fields(values, model_type, nested=True)
    terms = TOWERS[model_type](fields)
    assert terms is not None
    assert not [name for name, _ in fields.unknown() if name not in PROJECTOR_FIELDS]
    return sum(n for _, n in terms)


PROJECTOR_FIELDS = {"vision_output_dim", "merge_kernel_size"}
"""Fields of a tower config that only its projector reads; the composites below cover them."""


def other_value(value: Any) -> Any:
    """A legal value that differs: switches flipped, numbers doubled so that what divided them still does."""
    return (not value) if isinstance(value, bool) else [2 * v for v in value] if isinstance(value, list) else 2 * value


def changes(model_type: str) -> list[tuple[str, Any]]:
    """Every number, list and switch that the config class declares, changed alone."""
    declared = Fields({}, model_type).defaults
    small = SMALL[model_type]
    values = {k: small.get(k, v) for k, v in declared.items() if isinstance(v, (bool, int, float, list))} | small
    return [(k, other_value(v)) for k, v in values.items()]


CASES = [(t, k, v) for t in TOWERS for k, v in changes(t)]


@pytest.mark.parametrize("model_type", TOWERS)
def test_default_towers_match_the_built_module(model_type: str) -> None:
    assert counted_tower(model_type, {}) == built_tower(model_type, {})


@pytest.mark.parametrize(("model_type", "name", "value"), CASES, ids=[f"{t}-{k}" for t, k, _ in CASES])
def test_every_tower_field_alone(model_type: str, name: str, value: Any) -> None:
    values = SMALL[model_type] | {name: value}
    assert counted_tower(model_type, values) == built_tower(model_type, values)


# -- whole models ---------------------------------------------------------------------------------------------------------------

_TEXT = dict(
    hidden_size=42, intermediate_size=72, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=8, vocab_size=90,
)
_DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10, linear_conv_kernel_dim=3)
_DELTA_MOE = _DELTA | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=14, shared_expert_intermediate_size=18)
_LATENT = dict(
    q_lora_rank=12, kv_lora_rank=10, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=9, n_routed_experts=5, num_experts_per_tok=2,
    moe_intermediate_size=14, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1,
)
_LATENT_TEXT = {k: v for k, v in _TEXT.items() if k not in ("head_dim", "num_key_value_heads")} | _LATENT
_COHERE = {k: v for k, v in _TEXT.items() if k != "head_dim"} | {"model_type": "cohere2", "hidden_size": 36}
_LLAMA = _TEXT | {"model_type": "llama"}


def small(model_type: str, text: dict[str, Any], tower: str, **top: Any) -> dict[str, Any]:
    """A composite's config.json: text and vision as small as they can be, all sizes different."""
    vision = dict(SMALL[tower]) | ({} if tower == "step3p5_vision" else {"model_type": tower})
    return {"model_type": model_type, "text_config": text, "vision_config": vision} | top


COMPOSED: dict[str, dict[str, Any]] = {
    "qwen3_vl": small("qwen3_vl", _TEXT, "qwen3_vl_vision"),
    "qwen3_vl_moe": small(
        "qwen3_vl_moe", _TEXT | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=14), "qwen3_vl_moe_vision",
    ),
    "qwen3_5": small("qwen3_5", _TEXT | _DELTA, "qwen3_5_vision"),
    "qwen3_5_moe": small("qwen3_5_moe", _TEXT | _DELTA_MOE, "qwen3_5_moe_vision"),
    "kimi_k25": small("kimi_k25", _LATENT_TEXT | {"model_type": "deepseek_v3"}, "kimi_k25_vision", tie_word_embeddings=False),
    "llama4": small("llama4", _TEXT | dict(num_local_experts=5, intermediate_size_mlp=68), "llama4_vision_model"),
    "gemma4": small("gemma4", _TEXT | dict(hidden_size_per_layer_input=0, global_head_dim=12), "gemma4_vision") | {
        "audio_config": SMALL["gemma4_audio"] | {"model_type": "gemma4_audio"},
    },
    "step3p7": small(
        "step3p7",
        _TEXT | dict(num_hidden_layers=4, n_routed_experts=5, num_experts_per_tok=2, moe_intermediate_size=14, share_expert_dim=18),
        "step3p5_vision",
    ),
    "gemma3": small("gemma3", _TEXT, "siglip_vision_model", mm_tokens_per_image=4),
    "llava": small("llava", _LLAMA, "clip_vision_model"),
    "llava_next": small("llava_next", _LLAMA, "clip_vision_model"),
    "llava_onevision": small("llava_onevision", _TEXT | {"model_type": "qwen2"}, "siglip_vision_model"),
    "aya_vision": small("aya_vision", _COHERE, "siglip_vision_model"),
    "cohere2_vision": small("cohere2_vision", _COHERE, "siglip_vision_model", alignment_intermediate_size=34),
    "mistral3": small("mistral3", _TEXT | {"model_type": "mistral"}, "pixtral"),
}


def language_parameters(model: Any) -> int:
    """Distinct parameters of the language model and its head inside a whole model."""
    return sum({id(p): p.numel() for n, p in model.named_parameters() if "language_model" in n or n.startswith("lm_head")}.values())


def assert_same(raw: dict[str, Any]) -> None:
    """Total and text-only count equal what transformers builds."""
    model = build_whole(load_config(raw))
    counted = parameters(ModelShape.from_config(raw))
    assert counted.total == distinct_parameters(model)
    assert counted.text_only == language_parameters(model)


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The config with one field set; "-" removes it."""
    raw = copy.deepcopy(raw)
    *outer, name = path.split(".")
    target = raw[outer[0]] if outer else raw
    if value == "-":
        del target[name]
    else:
        target[name] = value
    return raw


def test_every_composite_is_tested() -> None:
    assert set(COMPOSED) | {"gemma3n"} == set(COMPOSITES)  # gemma3n has a test of its own: transformers needs timm to build it


@pytest.mark.parametrize("model_type", COMPOSED)
def test_small_composites_match_the_built_model(model_type: str) -> None:
    assert_same(COMPOSED[model_type])


@pytest.mark.parametrize("top", [True, False, "-"])
@pytest.mark.parametrize("text", [True, False, "-"])
@pytest.mark.parametrize("model_type", COMPOSED)
def test_tied_embeddings_follow_the_level_that_transformers_follows(model_type: str, top: Any, text: Any) -> None:
    raw = COMPOSED[model_type] | {"tie_word_embeddings": True}
    raw = changed(raw, "tie_word_embeddings", top)
    assert_same(raw if text == "-" else changed(raw, "text_config.tie_word_embeddings", text))


WHOLE_CASES = [
    *((t, "text_config.hidden_size", 84) for t in COMPOSED),
    *((t, "vision_config", "-") for t in COMPOSED if t != "aya_vision"),  # its default tower, 14 heads in 1152, cannot be built
    ("qwen3_vl", "vision_config.model_type", "qwen3_vl"),
    ("qwen3_5", "vision_config.model_type", "qwen3_5"),
    ("qwen3_vl", "vision_config.deepstack_visual_indexes", [0, 1]),
    ("qwen3_vl", "vision_config.deepstack_visual_indexes", []),
    ("kimi_k25", "projection_hidden_size", 34),
    ("kimi_k25", "vision_config.merge_kernel_size", [3, 4]),
    ("kimi_k25", "text_config.model_type", "-"),
    ("llama4", "vision_config.vision_output_dim", 88),
    ("llama4", "vision_config.multi_modal_projector_bias", True),
    ("gemma4", "vision_config", None),
    ("gemma4", "audio_config", None),
    ("gemma4", "audio_config", "-"),
    ("gemma4", "audio_config.output_proj_dims", 22),
    ("step3p7", "projector_bias", True),
    ("step3p7", "vision_config.width", 96),
    ("step3p7", "vision_config.layers", 3),
    ("step3p7", "vision_config.model_type", "perception_encoder"),
    ("gemma3", "mm_tokens_per_image", 1),
    ("llava", "vision_feature_layer", [0, 1]),
    ("llava", "multimodal_projector_bias", False),
    ("llava", "vision_config", SMALL["siglip_vision_model"] | {"model_type": "siglip_vision_model"}),
    ("llava_next", "multimodal_projector_bias", False),
    ("llava_onevision", "vision_feature_layer", [0, 1]),
    ("aya_vision", "downsample_factor", 1),
    ("aya_vision", "alignment_intermediate_size", 38),
    ("aya_vision", "vision_feature_layer", 0),
    ("cohere2_vision", "alignment_intermediate_size", 38),
    ("mistral3", "spatial_merge_size", 3),
    ("mistral3", "multimodal_projector_bias", True),
    ("mistral3", "vision_feature_layer", [0, 1]),
]


@pytest.mark.parametrize(("model_type", "path", "value"), WHOLE_CASES)
def test_every_joint_field_alone(model_type: str, path: str, value: Any) -> None:
    assert_same(changed(COMPOSED[model_type], path, value))


def test_flat_step_config_is_counted_as_transformers_builds_it_and_says_so() -> None:
    raw = {"model_type": "step3p7", "vocab_size": 128896, "hidden_size": 4096, "num_experts": 288}
    assert_same(raw)
    notes = " ".join(ModelShape.from_config(raw).notes)
    assert "vocab_size 128896 (taken: 128815)" in notes
    assert "hidden_size 4096 (" not in notes


# -- what is not understood -----------------------------------------------------------------------------------------------------

NOT_UNDERSTOOD = [
    ("llava", "vision_config.model_type", "some_new_vision"),
    ("qwen3_vl", "vision_config.model_type", "siglip_vision_model"),
    ("llava", "vision_config.model_type", ["clip_vision_model"]),
    ("gemma4", "audio_config.model_type", "some_new_audio"),
    ("kimi_k25", "vision_config.vt_hidden_size", 96),
    ("kimi_k25", "vision_config.mm_projector_type", "mlp"),
    ("kimi_k25", "vision_config.text_hidden_size", 41),
    ("qwen3_5", "vision_config.deepstack_visual_indexes", [0]),
]


@pytest.mark.parametrize(("model_type", "path", "value"), NOT_UNDERSTOOD)
def test_a_tower_not_understood_leaves_the_text_and_refuses_the_total(model_type: str, path: str, value: Any) -> None:
    known = parameters(ModelShape.from_config(COMPOSED[model_type]))
    raw = changed(changed(COMPOSED[model_type], path, value), path.partition(".")[0] + ".new_field", 7)
    counted = parameters(ModelShape.from_config(raw))
    assert counted.text_only == known.text_only
    with pytest.raises(ShapeError, match=path.partition("_")[0] + " tower is not understood") as caught:
        int(counted)
    assert caught.value.code == "tower_not_understood"


def test_gemma3n_counts_its_text_and_refuses_its_towers() -> None:
    text = _TEXT | dict(num_hidden_layers=6, num_kv_shared_layers=0, vocab_size_per_layer_input=70, hidden_size_per_layer_input=10)
    raw = {"model_type": "gemma3n", "text_config": text, "tie_word_embeddings": True}
    counted = parameters(ModelShape.from_config(raw))
    assert counted.text_only == distinct_parameters(build_text(load_config(raw).text_config))
    assert counted.unknown_towers == ("vision", "audio")
    with pytest.raises(ShapeError, match="vision and audio tower is not understood"):
        int(counted)


@pytest.mark.parametrize("model_type", COMPOSED)
def test_an_unknown_field_of_a_known_tower_is_refused_by_name(model_type: str) -> None:
    raw = changed(COMPOSED[model_type], "vision_config.n_new_things", 7)
    with pytest.raises(ConfigError, match=r"vision_config\.n_new_things") as caught:
        ModelShape.from_config(raw)
    assert caught.value.code == "unknown_config_fields"
    accepted = ModelShape.from_config(raw, accept_unknown=("vision_config.n_new_things",))
    assert parameters(accepted).total == parameters(ModelShape.from_config(COMPOSED[model_type])).total


@pytest.mark.parametrize(
    ("model_type", "path", "value", "code"),
    [
        ("llava", "text_config.model_type", "some_new_text", "unknown_text_type"),
        ("llava", "text_config.model_type", "llava", "unknown_text_type"),
        ("llava", "vision_feature_layer", "last", "config_field_bad"),
        ("qwen3_vl", "text_config.model_type", "llama", "config_field_bad"),
        ("gemma3", "text_config", None, "config_field_bad"),
        ("gemma3", "vision_config", 7, "config_field_bad"),
        ("aya_vision", "vision_config", None, "config_field_bad"),
        ("kimi_k25", "vision_config.patch_size", [7, 7, 7], "config_field_bad"),
        ("kimi_k25", "vision_config.patch_size", True, "config_field_bad"),
        ("step3p7", "vision_config.mlp_ratio", float("nan"), "config_field_bad"),
        ("step3p7", "vision_config.mlp_ratio", "4", "config_field_bad"),
        ("qwen3_vl", "vision_config.hidden_size", -48, "config_field_bad"),
        ("qwen3_vl", "vision_config.num_heads", 5, "config_field_bad"),
        ("llava", "vision_config.num_attention_heads", 5, "config_field_bad"),
        ("gemma3", "vision_config.num_attention_heads", 5, "config_field_bad"),
        ("mistral3", "vision_config.num_attention_heads", 5, "config_field_bad"),
    ],
)
def test_bad_composites_are_refused_with_the_field(model_type: str, path: str, value: Any, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelShape.from_config(changed(COMPOSED[model_type], path, value))
    assert caught.value.code == code
    assert (path if code == "config_field_bad" else str(value)) in str(caught.value)
