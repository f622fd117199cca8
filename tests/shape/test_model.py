"""ModelShape: made, refused, changed, written and read again."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import oracles
import pytest
from hypothesis import given, settings
from strategies import shapes

from headcount.cost.parameters import parameters
from headcount.errors import ExactnessError, HeadcountError, ShapeError, UnknownNameError
from headcount.shape import Attention, Dense, LayerSpec, ModelShape, Stem
from headcount.shape.presets import preset_names, preset_source, read_preset
from headcount.shape.table import ShapeTable
from headcount.shape.writer import DRAFTS

FLAT = dict(n_layers=5, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=130, vocab_size=101)


def test_head_dim_is_kept_when_the_heads_do_not_divide_the_width() -> None:
    shape = ModelShape(**(FLAT | dict(d_model=4096, n_heads=24, n_kv_heads=8, head_dim=96)))
    assert (shape.n_heads * shape.head_dim, shape.d_model, shape.head_dim) == (2304, 4096, 96)
    assert shape.with_heads(n_heads=32).head_dim == 96


def test_head_dim_defaults_only_where_the_width_divides() -> None:
    assert ModelShape(n_layers=2, d_model=96, n_heads=6, d_ff=10, vocab_size=7).head_dim == 16
    with pytest.raises(ShapeError, match="head_dim must be given when d_model is not a multiple of n_heads.*d_model=77, n_heads=9"):
        ModelShape(n_layers=2, d_model=77, n_heads=9, d_ff=10, vocab_size=7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_heads=0), "n_heads must be at least 1, but got 0"),
        (dict(n_heads=-24), "n_heads must be at least 1, but got -24"),
        (dict(n_heads=24.0), "n_heads must be a whole number, but got 24.0"),
        (dict(n_heads="24"), "whole number, but got '24'"),
        (dict(n_heads=float("nan")), "whole number, but got nan"),
        (dict(head_dim=2.5), "head_dim must be a whole number"),
        (dict(n_layers=10**30), "n_layers must be at most"),
        (dict(n_layers=10**9999), "n_layers must be at most"),
        (dict(n_kv_heads=4), "nearest that work: n_kv_heads 3 .* 9"),
        (dict(n_kv_heads=18), "n_kv_heads must divide n_heads"),
        (dict(vocab_size=None), "vocab_size must be given"),
        (dict(d_ff=None), "d_ff must be given"),
        (dict(d_ff=True), "whole number, but got True"),
        (dict(colour="red"), "unexpected keyword argument 'colour'"),
        (dict(window=0), "needs a window of at least 1 token"),
        (dict(n_experts=4, n_active_experts=5), "n_active_experts must be at most n_experts"),
        (dict(n_experts=4), "n_active_experts"),
        (dict(weight_dtype="bf61"), "nearest: bf16"),
    ],
    ids=lambda v: str(v)[:50] if isinstance(v, str) else "",
)
def test_what_cannot_exist_is_refused_with_rule_and_values(changes: dict, message: str) -> None:
    with pytest.raises(HeadcountError, match=message):
        ModelShape(**(FLAT | changes))


def test_layers_and_flat_fields_exclude_each_other() -> None:
    layer = LayerSpec(mixers=(Attention(n_heads=9, n_kv_heads=3, head_dim=10, v_head_dim=10),), ffns=(Dense(d_ff=130),))
    with pytest.raises(ShapeError, match="exclude each other"):
        ModelShape(d_model=77, stem=Stem(vocab_size=101), layers=((5, layer),), d_ff=3)
    assert ModelShape(d_model=77, stem=Stem(vocab_size=101), layers=((2, layer), (0, LayerSpec()), (3, layer))) == ModelShape(**FLAT)


def test_shapes_are_values() -> None:
    shape = ModelShape(**FLAT)
    assert hash(shape) == hash(ModelShape(**FLAT, name="another name"))
    assert pickle.loads(pickle.dumps(shape)) == shape
    with pytest.raises(AttributeError):
        shape.d_model = 5  # type: ignore[misc]


def test_errors_survive_a_process_boundary_with_code_and_parameters() -> None:
    error = ExactnessError("not_exact", "{what} of a table", what="parameters")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code, again.parameters) == (
        ExactnessError,
        "parameters of a table",
        "not_exact",
        {"what": "parameters"},
    )


def test_questions_without_one_answer_say_so() -> None:
    with pytest.raises(ShapeError, match="head_dim has no single value in this model: 256, 512"):
        _ = read_preset("gemma-4-31b-it-nvfp4").head_dim
    with pytest.raises(ShapeError, match="latent attention"):
        _ = read_preset("deepseek-v3").n_kv_heads


# -- presets ------------------------------------------------------------------------------------------------------------------------


def test_there_are_at_least_forty_presets_with_sources() -> None:
    assert len(preset_names()) >= 40
    assert all("aiconfigurator-core 0.12.0" in preset_source(n) and "sha256" in preset_source(n) for n in preset_names())


@pytest.mark.parametrize("spelling", ["qwen3-32b", "Qwen3-32B", "Qwen/Qwen3-32B", "qwen3 32b"])
def test_presets_are_found_as_people_write_them(spelling: str) -> None:
    assert read_preset(spelling).name == "qwen3-32b"


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no preset is called 'qwen3-33b'; nearest: qwen3-32b"):
        read_preset("qwen3-33b")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_gives_its_config_back(name: str) -> None:
    shape = read_preset(name)
    assert ModelShape.from_config(shape.to_config()) == shape


def test_the_preset_file_is_what_its_script_writes(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, root / "scripts/presets.py", tmp_path / "p.json"], check=True, capture_output=True)
    assert (tmp_path / "p.json").read_text() == (root / "src/headcount/shape/data/presets.json").read_text()


def test_the_class_defaults_are_what_their_script_writes(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, root / "scripts/class_defaults.py", tmp_path / "c.json"], check=True, capture_output=True)
    assert (tmp_path / "c.json").read_text() == (root / "src/headcount/shape/data/class_defaults.json").read_text()


# -- writing ------------------------------------------------------------------------------------------------------------------------

WRITABLE = {
    "llama": dict(d_model=99),
    "mistral": dict(),
    "qwen2": dict(attention_bias="qkv"),
    "qwen3": dict(qk_norm="head"),
    "mixtral": dict(n_experts=5, n_active_experts=2, d_expert=44),
    "qwen3_moe": dict(n_experts=5, n_active_experts=2, d_expert=44, qk_norm="head"),
}


@pytest.mark.parametrize("model_type", sorted(WRITABLE))
def test_a_written_config_is_read_back_and_built_by_transformers(model_type: str) -> None:
    shape = ModelShape(**(FLAT | WRITABLE[model_type]))
    config = json.loads(json.dumps(shape.to_config()))
    assert config["model_type"] == model_type
    assert ModelShape.from_config(config) == shape
    assert oracles.distinct_parameters(oracles.build_text(oracles.load_config(config))) == parameters(shape).total


def test_llama_is_not_chosen_where_it_refuses_the_shape() -> None:
    assert ModelShape(**FLAT).to_config()["model_type"] == "mistral"
    assert ModelShape(**(FLAT | dict(window=16))).to_config()["sliding_window"] == 16


def test_rehead_drafts_follow_the_changed_heads() -> None:
    config = read_preset("qwen3-32b").with_heads(n_heads=24, n_kv_heads=8, head_dim=96).to_config()
    assert (config["model_type"], config["num_attention_heads"], config["head_dim"]) == ("qwen3", 24, 96)


def test_a_shape_that_no_family_holds_is_refused_with_the_list() -> None:
    layer = LayerSpec(mixers=(Attention(n_heads=9, n_kv_heads=3, head_dim=10, v_head_dim=11),), ffns=(Dense(d_ff=5, gated=False),))
    with pytest.raises(ShapeError, match=f"{', '.join(DRAFTS)}.*exists in none of them"):
        ModelShape(d_model=77, stem=Stem(vocab_size=9), layers=((2, layer),)).to_config()


@settings(max_examples=60)
@given(shape=shapes)
def test_whatever_is_written_reads_back_as_the_same_shape(shape: ModelShape) -> None:
    try:
        config = shape.to_config()
    except ShapeError as error:
        if error.code != "no_family_holds_it":
            raise
        return
    assert ModelShape.from_config(json.loads(json.dumps(config))) == shape


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qk_norm": "heads"}, "qk_norm must be one of none, head, width, but got 'heads'"),
        ({"attention_bias": "qx"}, "bias must be one of the letters q, k, v, o, g in any choice, but got 'qx'"),
        ({"attention_bias": True}, "bias must be one of"),
        ({"n_active_experts": 2}, "n_active_experts would change nothing"),
        ({"d_shared": 7}, "d_shared would change nothing"),
    ],
)
def test_no_field_is_taken_and_then_ignored(fields: dict, message: str) -> None:
    flat = dict(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211) | fields
    for make in (ModelShape, ShapeTable.from_columns):
        with pytest.raises(ShapeError, match=message):
            make(**flat)


def test_layers_and_stem_exclude_the_flat_fields_they_replace() -> None:
    body = ModelShape(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211)
    for name in ("n_layers", "n_kv_heads", "head_dim"):
        with pytest.raises(ShapeError, match=f"layers= together with {name}"):
            ModelShape(d_model=77, stem=body.stem, layers=body.layers, **{name: 3})
    with pytest.raises(ShapeError, match="vocab_size, tied_embeddings would change nothing"):
        ModelShape(d_model=77, stem=body.stem, layers=body.layers, vocab_size=5)


def test_a_table_masks_what_a_model_refuses_and_its_grid_refuses_latent_attention() -> None:
    flat = dict(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211)
    for name in ("d_model", "n_layers"):
        table = ShapeTable.from_columns(**(flat | {name: [77, 2**41]}))
        assert [table.why(0), table.why(1)] == [[], ["count_too_large"]]
    assert len(table.rows([])) == 0
    with pytest.raises(ShapeError, match="no layer has grouped softmax attention"):
        ShapeTable.grid(ModelShape.from_preset("deepseek-v3"), n_heads=[8, 16])


def test_layers_for_multi_token_prediction_get_the_new_heads_too() -> None:
    body = ModelShape(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211)
    changed = body.replaced(mtp=((1, body.layers[0][1]),)).with_heads(n_heads=12)
    assert parameters(changed).mtp - parameters(body.replaced(mtp=((1, body.layers[0][1]),))).mtp == 2 * 3 * 10 * 77
