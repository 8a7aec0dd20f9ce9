"""Which modules of a model travel as one: the transformer blocks, found from its structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from runtime.errors import BadInput


def find_blocks(model: nn.Module, classes: Sequence[type[nn.Module]] = ()) -> list[nn.Module]:
    """The modules that are sharded, checkpointed and compiled as units, in the model's order.

    By `classes` where given; else by the class names in the model's `_no_split_modules` (Hugging Face models
    state them); else the children of every outermost ModuleList whose children are of one class.

    Raises:
        BadInput: classes were given and the model has no module of them.
    """
    if classes:
        found = [module for module in model.modules() if isinstance(module, tuple(classes))]
        if not found:
            names = ", ".join(c.__name__ for c in classes)
            raise BadInput(
                f"shard the model by its {names}",
                found=f"{type(model).__name__} has no such module",
                fix="Name the class of the model's transformer block, or let the blocks be found.",
            )
        return found
    stated = set(getattr(model, "_no_split_modules", None) or ())
    named = [module for module in model.modules() if type(module).__name__ in stated]
    return named or list(_repeated(model))


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList) and _is_stack(child):
            yield from child
        else:
            yield from _repeated(child)


def _is_stack(stack: nn.ModuleList) -> bool:
    kinds = {type(child) for child in stack}
    return len(kinds) == 1 and all(any(True for _ in child.parameters()) for child in stack)
