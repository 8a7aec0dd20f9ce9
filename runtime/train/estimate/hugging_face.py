"""Parameters and activations of the llama, qwen2 and gpt2 families from the fields of their config.json.

Parameters are exact. Activations follow transformers' own modules with scaled_dot_product_attention, for each
token of a sample, with c bytes in the compute type:

  llama, mistral, qwen2   c (4 hidden + 3 queries + 2 keys + 4 intermediate) + 8 hidden + 4 heads, a block
  gpt2                    c (9 hidden + 5 intermediate) + 2 hidden + 4 heads, a block
  outside of blocks       8 vocabulary + 2 c hidden, and 4 hidden more but for gpt2

The 8 hidden are what two RMSNorms keep in fp32, 8 vocabulary the log-softmax of the logits and its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import BadInput
from runtime.train.estimate.states import Activations, Model
from runtime.untrusted.documents import LIMIT_BYTES, mapping, parse, whole
from runtime.untrusted.files import read_plain

_LLAMA_LIKE = ("llama", "mistral", "qwen2")
FAMILIES = (*_LLAMA_LIKE, "gpt2")
_COMPUTE_BYTES = (2, 4)
_COUNTS = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("num_hidden_layers", "vocab_size", "n_embd", "n_inner", "n_head", "n_positions", "n_layer"),
)


def read_model(path: Path, seq_length: int) -> Model:
    """The model that a config.json describes; every parameter is trained.

    Raises:
        BadInput: it cannot be read, is of another family, or lacks a field.
    """
    fields = read_fields(path)
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise BadInput(
            f"estimate {path}",
            found=f"model_type {repr(family)[:80]}; parameters are known for {', '.join(FAMILIES)}",
            fix="Pass FILE.py:FUNCTION, which builds the model (see `python -m runtime estimate --help`).",
        )
    try:
        return (_gpt2 if family == "gpt2" else _llama)(fields, str(path), seq_length)
    except KeyError as e:
        raise BadInput(
            f"estimate {path}", found=f"no field {e.args[0]!r}", fix="Take the model's own config.json."
        ) from e


def read_fields(path: Path) -> Mapping[str, Any]:
    """The fields of a config.json that are set; sizes are numbers of at least 1.

    Raises:
        BadInput: it cannot be read, or a size is none.
    """
    try:
        # A model of a Hugging Face cache is all links.
        given = mapping(parse(read_plain(path.resolve(), LIMIT_BYTES), encoding="utf-8"), "it")
        fields = {name: value for name, value in given.items() if value is not None}
        for name in (name for name in _COUNTS if name in fields):
            whole(fields[name], name, low=1, high=2**40)
        return fields
    except (OSError, ValueError) as e:
        raise BadInput(f"read the model {path}", found=str(e), fix="Pass a model's config.json.") from e


def _llama(fields: Mapping[str, Any], name: str, seq_length: int) -> Model:
    hidden, middle, vocabulary = (
        fields["hidden_size"],
        fields["intermediate_size"],
        fields["vocab_size"],
    )
    heads = fields["num_attention_heads"]
    head = fields.get("head_dim") or hidden // heads
    queries = heads * head
    keys = (fields.get("num_key_value_heads") or heads) * head
    bias = fields.get("attention_bias", False)
    biases = queries + 2 * keys if fields["model_type"] == "qwen2" or bias else 0
    biases += hidden if bias and fields["model_type"] == "llama" else 0
    biases += 2 * middle + hidden if fields.get("mlp_bias") else 0
    block = 2 * hidden * (queries + keys) + 3 * hidden * middle + 2 * hidden + biases
    tables = 1 if fields.get("tie_word_embeddings", False) else 2
    kept = {
        c: c * (4 * hidden + 3 * queries + 2 * keys + 4 * middle) + 8 * hidden + 4 * heads
        for c in _COMPUTE_BYTES
    }
    root = tables * vocabulary * hidden + hidden
    ends = {c: 8 * vocabulary + 2 * c * hidden + 4 * hidden for c in _COMPUTE_BYTES}
    return _model(name, fields["num_hidden_layers"], block, root, hidden, kept, ends, seq_length)


def _gpt2(fields: Mapping[str, Any], name: str, seq_length: int) -> Model:
    hidden, vocabulary = fields["n_embd"], fields["vocab_size"]
    middle = fields.get("n_inner") or 4 * hidden
    block = 4 * hidden * hidden + 4 * hidden + 2 * hidden * middle + middle + hidden + 4 * hidden
    tables = 1 if fields.get("tie_word_embeddings", True) else 2
    kept = {c: c * (9 * hidden + 5 * middle) + 2 * hidden + 4 * fields["n_head"] for c in _COMPUTE_BYTES}
    root = (tables * vocabulary + fields["n_positions"]) * hidden + 2 * hidden
    ends = {c: 8 * vocabulary + 2 * c * hidden for c in _COMPUTE_BYTES}
    return _model(name, fields["n_layer"], block, root, hidden, kept, ends, seq_length)


def _model(
    name: str,
    blocks: int,
    block: int,
    root: int,
    hidden: int,
    kept: Mapping[int, int],
    ends: Mapping[int, int],
    seq_length: int,
) -> Model:
    return Model(
        name=name,
        trained=blocks * block + root,
        frozen=0,
        blocks=blocks,
        block=block,
        block_trained=block,
        root=root,
        buffer_bytes=0,
        activations={
            c: Activations(
                block=seq_length * kept[c],
                block_input=seq_length * c * hidden,
                outside=seq_length * ends[c],
            )
            for c in _COMPUTE_BYTES
        },
        activations_from=f"the family's formula, {seq_length} tokens a sample",
    )
