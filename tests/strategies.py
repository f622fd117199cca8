"""Random models for property tests: every kind of layer, sizes pairwise different more often than not."""

from __future__ import annotations

from hypothesis import strategies as st

from headcount.shape import (
    Attention,
    Compressed,
    Dense,
    GatedDelta,
    Indexer,
    LayerSpec,
    Mamba1,
    Mamba2,
    Mla,
    ModelShape,
    Moe,
    Recurrent,
    Stem,
    Tower,
)

size = st.integers(1, 512)
small = st.integers(1, 9)


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    n_kv_heads = draw(small)
    reach = draw(st.sampled_from(["full", "full", "sliding", "chunked"]))
    head_dim = draw(size)
    return Attention(
        n_heads=n_kv_heads * draw(small),
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        v_head_dim=draw(st.sampled_from([head_dim, head_dim + 3])),
        reach=reach,
        window=draw(st.integers(2, 300)) if reach != "full" else 0,
        bias=draw(st.sampled_from(["", "q", "qkv", "qkvo", "o"])),
        qk_norm=draw(st.sampled_from(["none", "head", "width"])),
        sinks=draw(st.booleans()),
        gate=draw(st.sampled_from(["none", "channel", "head"])),
        shares_cache=draw(st.booleans()),
    )


@st.composite
def mlas(draw: st.DrawFn) -> Mla:
    indexer = draw(st.none() | st.builds(Indexer, n_heads=small, head_dim=size, top_k=size))
    return Mla(
        n_heads=draw(small),
        q_lora_rank=draw(st.integers(0, 300)),
        kv_lora_rank=draw(size),
        qk_nope_head_dim=draw(size),
        qk_rope_head_dim=draw(size),
        v_head_dim=draw(size),
        bias=draw(st.booleans()),
        indexer=indexer,
    )


@st.composite
def compresseds(draw: st.DrawFn) -> Compressed:
    groups, ratio = draw(small), draw(st.sampled_from([0, 4, 128]))
    indexer = draw(st.builds(Indexer, n_heads=small, head_dim=size, top_k=size)) if ratio == 4 else None
    return Compressed(
        n_heads=groups * draw(small),
        head_dim=draw(size),
        rope_head_dim=draw(small),
        q_lora_rank=draw(size),
        o_groups=groups,
        o_lora_rank=draw(size),
        window=draw(st.integers(2, 300)),
        ratio=ratio,
        overlap=ratio == 4,
        indexer=indexer,
    )


@st.composite
def deltas(draw: st.DrawFn) -> GatedDelta:
    n_k_heads = draw(small)
    return GatedDelta(
        n_k_heads=n_k_heads, n_v_heads=n_k_heads * draw(small), k_head_dim=draw(size), v_head_dim=draw(size), conv_kernel=draw(small)
    )


mamba2s = st.builds(
    Mamba2,
    n_heads=small,
    head_dim=size,
    n_groups=small,
    d_state=size,
    conv_kernel=small,
    conv_bias=st.booleans(),
    bias=st.sampled_from(["", "o", "io"]),
    norm=st.booleans(),
)
mamba1s = st.builds(Mamba1, d_inner=size, d_state=size, dt_rank=size, conv_kernel=small, inner_norms=st.booleans())
recurrents = st.builds(
    Recurrent,
    kind=st.just("conv"),
    projections=st.tuples(st.tuples(st.just("in"), size, size)),
    state=size,
    conv_state=size.map(lambda n: 4 * n),
    conv_kernel=st.sampled_from([0, 4]),
    flops_per_token=size,
)
denses = st.builds(Dense, d_ff=size, gated=st.booleans(), bias=st.booleans())


@st.composite
def moes(draw: st.DrawFn) -> Moe:
    n_experts = draw(st.integers(1, 64))
    return Moe(
        n_experts=n_experts,
        n_active=draw(st.integers(1, n_experts)),
        d_expert=draw(size),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        router_bias=draw(st.booleans()),
        d_shared=draw(st.integers(0, 99)),
        shared_gate=draw(st.booleans()),
        d_latent=draw(st.integers(0, 99)),
    )


layers = st.builds(
    LayerSpec,
    mixers=st.lists(attentions() | mlas() | deltas() | mamba2s | mamba1s | recurrents | compresseds(), max_size=2).map(tuple),
    ffns=st.lists(denses | moes(), max_size=2).map(tuple),
    norms=st.integers(0, 4),
    norm_affine=st.integers(0, 2),
)
stems = st.builds(
    Stem,
    vocab_size=size,
    tied=st.booleans(),
    d_embedding=st.none() | size,
    positions=st.integers(0, 99),
    final_norm=st.integers(0, 2),
    head_bias=st.booleans(),
    has_head=st.booleans(),
)
towers = st.lists(st.builds(Tower, name=st.just("vision"), kind=st.just("vision"), terms=st.just((("all", 1234567),))), max_size=1).map(
    tuple
)
shapes = st.builds(
    ModelShape,
    d_model=size,
    stem=stems,
    layers=st.lists(st.tuples(st.integers(1, 40), layers), min_size=1, max_size=4).map(tuple),
    towers=towers,
)
