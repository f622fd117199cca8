"""`headcount count`."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import SourceError
from ..present.catalog import say
from .options import contexts, described, one_of, print_json


def add_to(app: typer.Typer, lang: str) -> None:
    """Adds the command, with its help in that language."""

    def words(key: str) -> str:
        return say(lang, f"cli.{key}")

    @app.command(help=words("count"))
    def count(
        model: Annotated[Optional[str], typer.Argument(help=words("model"))] = None,
        layers: Annotated[Optional[int], typer.Option(help=words("layers"))] = None,
        width: Annotated[Optional[int], typer.Option(help=words("width"))] = None,
        heads: Annotated[Optional[int], typer.Option(help=words("n_heads"))] = None,
        kv_heads: Annotated[Optional[int], typer.Option(help=words("kv_heads"))] = None,
        head_dim: Annotated[Optional[int], typer.Option(help=words("head_dim"))] = None,
        ffn: Annotated[Optional[int], typer.Option(help=words("ffn"))] = None,
        vocab: Annotated[Optional[int], typer.Option(help=words("vocab"))] = None,
        context: Annotated[str, typer.Option("--context", "-c", "--max-model-len", help=words("context_list"))] = "8k,128k",
        batch: Annotated[int, typer.Option(help=words("batch"))] = 1,
        kv_dtype: Annotated[str, typer.Option("--kv-dtype", "--kv-cache-dtype", help=words("kv_dtype"))] = "bf16",
        accept_unknown: Annotated[Optional[list[str]], typer.Option(help=words("accept_unknown"))] = None,
        write_config: Annotated[Optional[Path], typer.Option(help=words("write_config"))] = None,
        json_: Annotated[bool, typer.Option("--json", help=words("json"))] = False,
        language: Annotated[str, typer.Option("--lang", help=words("lang"))] = lang,
    ) -> None:
        from .. import api

        fields = described(dict(
            n_layers=layers, d_model=width, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim, d_ff=ffn, vocab_size=vocab
        ))
        chosen = one_of(model, fields)
        asked: dict[str, Any] = dict(contexts=contexts(context) or (), batch=batch, kv_dtype=kv_dtype, accept_unknown=accept_unknown or ())
        model_or_shape = _from_fields(chosen) if isinstance(chosen, dict) else chosen
        counted = api.count(model_or_shape, **asked)
        if write_config is not None:
            _write(write_config, api.model_shape(model_or_shape, accept_unknown or ()).to_config(), language)
        if json_:
            print_json(counted.to_dict())
        else:
            from ..present.layout import print_parts

            print_parts(counted.parts(language))


def _from_fields(fields: dict[str, Any]) -> Any:
    from ..api import ModelShape
    from ..shape.model import given

    return ModelShape(**{"d_model": given(fields.get("d_model"), "d_model"), **fields})


def _write(path: Path, config: dict[str, Any], language: str) -> None:
    import json

    try:
        with path.open("x", encoding="utf-8") as file:  # "x": nothing of the user's is overwritten
            json.dump(config, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise SourceError(
            "unwritable", "{path} cannot be written: {reason}; name a new file", path=str(path), reason=error.strerror or ""
        ) from None
    typer.echo(say(language, "cli.wrote", path=path), err=True)
