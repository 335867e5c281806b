"""Writes the pages that the registries and docstrings of nuat determine.

docs/generated/methods and docs/generated/attacks have a card for each method and each attack,
docs/generated/api a page for each package. A method or an attack that is added to nuat gets its
card by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from inspect import isclass
from pathlib import Path
from typing import Any

import nuat
from costs import attack_cost, method_cost
from docstrings import inline, split_blocks, to_rst
from nuat import attacks, methods

WITH_MEMBERS = ("EvaluationResult", "LoadedModel", "Method", "Recipe", "Run", "StepContext")


def method_classes() -> list[type]:
    """The training methods, in the order of the recipes that use them."""
    order = {type(recipe.method): None for recipe in nuat.list_recipes()}
    named = (getattr(methods, name) for name in methods.__all__)
    found = [kind for kind in named if isclass(kind) and issubclass(kind, nuat.Method)]
    return [*order, *(kind for kind in found if kind not in order and kind is not nuat.Method)]


def attack_classes() -> dict[str, type]:
    """The attacks by their registered name; AutoAttack is one."""
    kinds = {name: kind for name, kind in attacks.attack_registry.items() if isclass(kind)}
    return {"autoattack": nuat.AutoAttack, **kinds}


def first_sentence(obj: Any) -> str:
    """The first paragraph of a docstring."""
    return inline("\n".join(split_blocks(obj.__doc__ or "")[0]))


def page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"{title}\n{'=' * len(title)}", *blocks]) + "\n"


def table(title: str, widths: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in rows:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines)


def method_card(kind: type) -> str:
    """A card: what the docstring says, the cost, and the recipes with their sources."""
    rows = [("recipe", "for", "source and notes")]
    for name in recipe_names(kind):
        recipes = [r for r in nuat.list_recipes() if r.name == name and type(r.method) is kind]
        noted = dict.fromkeys(f"{r.source}: {r.note}" for r in recipes if r.note)
        notes = noted or dict.fromkeys(r.source for r in recipes)
        rows.append((f"``{name}``", ", ".join(r.data for r in recipes), inline("; ".join(notes))))
    cost = f"**Cost of a training step.** {method_cost(kind)}"
    blocks = [f".. autoclass:: nuat.{kind.__name__}", cost]
    if len(rows) > 1:
        blocks.append(table("Recipes", "18 30 52", rows))
    return page(kind.__name__, *blocks)


def recipe_names(kind: type) -> list[str]:
    names = (recipe.name for recipe in nuat.list_recipes() if type(recipe.method) is kind)
    return list(dict.fromkeys(names))


def attack_card(name: str, kind: type) -> str:
    cost = f"**Cost for an image that stays robust.** {attack_cost(kind)}"
    use = f"**On the command line.** ``--attack {example(name, kind)}``"
    return page(name, f".. autoclass:: nuat.{kind.__name__}", cost, use)


def example(name: str, kind: type) -> str:
    steps = getattr(kind, "steps", 1)
    return f"{name}-{steps}" if steps > 1 else name


def api_pages() -> dict[str, str]:
    """A page for each package, with the public names of nuat that it defines."""
    cards = {kind.__name__ for kind in [*method_classes(), *attack_classes().values()]}
    packages: dict[str, list[str]] = {}
    for name, (module, _) in nuat._PUBLIC.items():
        if module != "nuat" and name != "__version__":
            packages.setdefault(module.split(".")[1], []).append(name)
    pages = {}
    for package, names in sorted(packages.items()):
        linked = [f":class:`nuat.{name}`" for name in names if name in cards]
        blocks = [inline((getattr(nuat, package).__doc__ or "").partition("\n")[0])]
        if linked:
            blocks.append("With a card of their own: " + ", ".join(linked) + ".")
        blocks += [api_entry(name) for name in names if name not in cards]
        pages[package] = page(package, *blocks)
    return pages


def api_entry(name: str) -> str:
    if not isclass(getattr(nuat, name)):
        return f".. autofunction:: nuat.{name}"
    members = "\n   :members:" if name in WITH_MEMBERS else ""
    return f".. autoclass:: nuat.{name}{members}"


def index_page(title: str, names: Iterable[str], *blocks: str) -> str:
    toc = "\n".join([".. toctree::", "   :hidden:", "", *(f"   {name}" for name in names)])
    return page(title, *blocks, toc)


def generated_pages() -> dict[str, str]:
    """All pages by their path below docs/generated, without the ending."""
    kinds, named = method_classes(), attack_classes()
    pages = {f"methods/{kind.__name__}": method_card(kind) for kind in kinds}
    pages |= {f"attacks/{name}": attack_card(name, kind) for name, kind in named.items()}
    api = api_pages()
    pages |= {f"api/{package}": text for package, text in api.items()}
    rows = [
        (f":doc:`{k.__name__}`", ", ".join(f"``{r}``" for r in recipe_names(k)), first_sentence(k))
        for k in kinds
    ]
    pages["methods/index"] = index_page(
        "Training methods",
        [kind.__name__ for kind in kinds],
        "A card for each method, from its docstring and the recipes. The costs are counted when "
        "this page is built, in forward passes over the batch. "
        ":doc:`/docs/methods` compares the methods.",
        table("Methods", "14 26 60", [("method", "recipes", "what it does"), *rows]),
    )
    rows = [(f":doc:`{name}`", first_sentence(kind)) for name, kind in named.items()]
    pages["attacks/index"] = index_page(
        "Attacks",
        list(named),
        "A card for each attack, from its docstring. :doc:`/docs/evaluate` says how attacks are "
        "named and combined, and what counts as a success.",
        table("Attacks", "24 76", [("attack", "what it does"), *rows]),
    )
    rows = [
        (f":doc:`{p}`", inline((getattr(nuat, p).__doc__ or "").partition("\n")[0])) for p in api
    ]
    pages["api/index"] = index_page(
        "API reference",
        list(api),
        "The public names of ``import nuat``, by the package that defines them.",
        table("Packages", "24 76", [("package", "what it contains"), *rows]),
    )
    return pages


def write_pages(app: Any) -> None:
    """Write the pages that changed; an unchanged page is not built again."""
    folder = Path(app.srcdir) / "docs" / "generated"
    pages = {folder / f"{name}.rst": text for name, text in generated_pages().items()}
    if folder.exists():
        for path in folder.rglob("*.rst"):
            if path not in pages:
                path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def convert_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list) -> None:
    lines[:] = to_rst("\n".join(lines), obj)


def shorten_signature(app: Any, what: str, name: str, obj: Any, *rest: Any) -> Any:
    """The signature of a dataclass names its fields; the table of fields has their defaults."""
    if what == "class" and is_dataclass(obj):
        return f"({', '.join(field.name for field in fields(obj) if field.init)})", None
    return None


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", convert_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    return {"parallel_read_safe": True}
