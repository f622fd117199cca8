"""DeepSeek-V4: windows, compressed entries and a sparse choice among them, in parallel residual streams.

Source: `configuration_deepseek_v4.py` and `modeling_deepseek_v4.py` of transformers 5.23.0; a test builds the module and compares.
The published files speak in two dialects (`compress_ratios`, `num_hash_layers` or `layer_types`, `mlp_layer_types`); both are read here
as the config class reads them. It must not know what a cache of any runtime holds: that is `cost/kv_cache.py`.
"""

from __future__ import annotations

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape
from ..parts import Compressed, Indexer, LayerSpec, Moe, Stem
from .registry import family, runs
from .streams import stem_with_streams, with_streams

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_KIND_OF_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}
"""How the older dialect names the kinds; the tokens per entry themselves are `compress_rates`."""
_DEFAULT_HASHED_LAYERS = 3


@family("deepseek_v4")
def read_deepseek_v4(f: Fields) -> ModelShape:
    """DeepSeek-V4. Its multi-token-prediction layers have a layout of their own that is not read: `mtp` is None where there are any."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    d_model = f.count("hidden_size", minimum=1)
    n_streams = f.count("hc_mult", minimum=1)
    f.ignore(  # the model has no biases on attention, and these others choose or scale without weights
        "attention_bias", "hc_sinkhorn_iters", "hc_eps", "swiglu_limit", "compress_rope_theta", "default_compress_rates",
        "default_num_hash_layers", "default_partial_rotary_factor",
    )
    attention = _attentions(f)
    layers = []
    for kind, mlp_kind in zip(_layer_types(f, n_layers), _mlp_layer_types(f, n_layers), strict=True):
        layer = LayerSpec(mixers=(attention[kind],), ffns=(_moe(f, d_model, hashed=mlp_kind == "hash_moe"),))
        # A mixing yields one weight per stream on the way in, one on the way out, and a matrix between the streams; a scale for each.
        layers.append(with_streams(layer, n_streams=n_streams, d_model=d_model, outputs=(2 + n_streams) * n_streams, scales=3))
    stem = Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"))
    return ModelShape(
        d_model=d_model, layers=runs(layers), stem=stem_with_streams(stem, n_streams=n_streams, d_model=d_model),
        mtp=() if f.count("num_nextn_predict_layers") == 0 else None,
    )


def _attentions(f: Fields) -> dict[str, Compressed]:
    """The three kinds of attention layer in this model."""
    kv_heads = f.count("num_key_value_heads")
    if kv_heads != 1:
        raise f.refuse("num_key_value_heads", kv_heads, "1: keys and values are one vector shared by all heads")
    head_dim = f.count("head_dim", minimum=1)
    sparse_ratio, heavy_ratio = _ratios(f)
    indexer = Indexer(
        n_heads=f.count("index_n_heads", minimum=1), head_dim=f.count("index_head_dim", minimum=1), top_k=f.count("index_topk", minimum=1)
    )

    def attention(ratio: int = 0, overlap: bool = False, chosen_by: Indexer | None = None) -> Compressed:
        return Compressed(
            n_heads=f.count("num_attention_heads", minimum=1), head_dim=head_dim, rope_head_dim=_rope_head_dim(f, head_dim),
            q_lora_rank=f.count("q_lora_rank", minimum=1), o_groups=f.count("o_groups", minimum=1),
            o_lora_rank=f.count("o_lora_rank", minimum=1), window=f.count("sliding_window", minimum=1),
            ratio=ratio, overlap=overlap, indexer=chosen_by,
        )

    return {SLIDING: attention(), SPARSE: attention(sparse_ratio, True, indexer), HEAVY: attention(heavy_ratio)}


def _rope_head_dim(f: Fields, head_dim: int) -> int:
    factor = f.raw("partial_rotary_factor")
    if factor is None:
        factor = 64 / 512  # the class default, a share of head_dim
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor <= 1:
        raise f.refuse("partial_rotary_factor", factor, "a number from 0 to 1")
    return f.count("qk_rope_head_dim", int(head_dim * factor))


def _ratios(f: Fields) -> tuple[int, int]:
    """Tokens per compressed entry of the sparse and the heavy kind. The scalars of the older dialect win over the dict."""
    sparse, heavy = 4, 128
    rates = f.child("compress_rates", "")
    if rates is not None:
        sparse, heavy = rates.count(SPARSE, minimum=1), rates.count(HEAVY, minimum=1)
    return f.count("compress_rate_csa", sparse, minimum=1), f.count("compress_rate_hca", heavy, minimum=1)


def _layer_types(f: Fields, n_layers: int) -> list[str]:
    """The kind of each layer: named, or by ratio, or the class's own pattern. Entries past the last layer belong to prediction layers."""
    kinds, ratios = f.items("layer_types"), f.items("compress_ratios")
    if kinds is None and ratios is not None:
        unknown = [r for r in ratios if isinstance(r, bool) or r not in _KIND_OF_RATIO]
        if unknown:
            raise f.refuse("compress_ratios", unknown[0], "0, 4 or 128 in every place")
        kinds = [_KIND_OF_RATIO[r] for r in ratios]
    if kinds is None:
        kinds = [HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(n_layers)]
    return _cut(f, "layer_types", kinds, n_layers, (SLIDING, SPARSE, HEAVY))


def _mlp_layer_types(f: Fields, n_layers: int) -> list[str]:
    n_hashed = f.count("num_hash_layers", _DEFAULT_HASHED_LAYERS)
    kinds = f.items("mlp_layer_types")
    if kinds is None:
        kinds = ["hash_moe" if i < n_hashed else "moe" for i in range(n_layers)]
    return _cut(f, "mlp_layer_types", kinds, n_layers, ("hash_moe", "moe"))


def _cut(f: Fields, name: str, kinds: list[str], n_layers: int, known: tuple[str, ...]) -> list[str]:
    if len(kinds) < n_layers or any(kind not in known for kind in kinds[:n_layers]):
        raise f.refuse(
            name, kinds, Words("a list with one of {known} for each of the {n_layers} layers", known=", ".join(known), n_layers=n_layers)
        )
    return kinds[:n_layers]


def _moe(f: Fields, d_model: int, *, hashed: bool) -> Moe:
    """A mixture with one shared expert. In hashed layers a table of token ids picks the experts, so there is no correction bias."""
    n_shared = f.count("n_shared_experts")
    if n_shared != 1:
        raise f.refuse("n_shared_experts", n_shared, "1: transformers builds one shared expert whatever the file says")
    d_expert = f.count("moe_intermediate_size", minimum=1)
    # The bias switch reaches the shared expert only.
    bias = (("shared_bias", 2 * d_expert + d_model),) if f.flag("mlp_bias") else ()
    return Moe(
        n_experts=f.count("n_routed_experts", minimum=1), n_active=f.count("num_experts_per_tok", minimum=1), d_expert=d_expert,
        d_shared=d_expert, correction_bias=not hashed, extra=bias,
    )
