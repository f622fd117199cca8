"""`headcount explain`."""

from typing import Annotated, Optional

import typer

from ..present.catalog import say
from .options import contexts, numbers, print_json


def add_to(app: typer.Typer, lang: str) -> None:
    """Adds the command, with its help in that language."""
    from ..api import DEFAULT_GPU, DEFAULT_MODEL

    def words(key: str) -> str:
        return say(lang, f"cli.{key}")

    @app.command(help=words("explain"))
    def explain(
        model: Annotated[str, typer.Argument(help=words("model"))] = DEFAULT_MODEL,
        heads: Annotated[Optional[str], typer.Option(help=words("heads"))] = None,
        context: Annotated[Optional[str], typer.Option("--context", "-c", "--max-model-len", help=words("context_list"))] = None,
        kv_heads: Annotated[Optional[int], typer.Option(help=words("kv_heads"))] = None,
        head_dim: Annotated[Optional[int], typer.Option(help=words("head_dim"))] = None,
        batch: Annotated[int, typer.Option(help=words("batch"))] = 1,
        gpu: Annotated[str, typer.Option(help=words("gpu"))] = DEFAULT_GPU,
        weight_dtype: Annotated[Optional[str], typer.Option(help=words("weight_dtype"))] = None,
        kv_dtype: Annotated[str, typer.Option("--kv-dtype", "--kv-cache-dtype", help=words("kv_dtype"))] = "bf16",
        accept_unknown: Annotated[Optional[list[str]], typer.Option(help=words("accept_unknown"))] = None,
        json_: Annotated[bool, typer.Option("--json", help=words("json"))] = False,
        language: Annotated[str, typer.Option("--lang", help=words("lang"))] = lang,
    ) -> None:
        from .. import api

        report = api.explain(
            model, heads=numbers(heads, "--heads"), contexts=contexts(context), gpu=gpu, batch=batch, kv_heads=kv_heads, head_dim=head_dim,
            weight_dtype=weight_dtype, kv_dtype=kv_dtype, accept_unknown=accept_unknown or (),
        )
        if json_:
            print_json(report.to_dict())
        else:
            from ..present.layout import print_parts

            print_parts(report.parts(language))
