"""nuat export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuat.checkpoints import load_model
from nuat.cli.options import Use, load_own
from nuat.cli.terminal import say
from nuat.errors import InputError
from nuat.export import push_to_hub, save_pretrained, save_state_dict, to_onnx


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    out: Annotated[Path | None, typer.Option(help="A new folder: weights and card.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An ONNX file (extra: export).")] = None,
    state_dict: Annotated[
        Path | None, typer.Option(help="A plain state dict of torch, such as net.pt.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(help="A repository of the Hub, user/name (extra: hub).")
    ] = None,
    public: Annotated[bool, typer.Option(help="Make a new repository public.")] = False,
    license: Annotated[str, typer.Option(help="For the card, such as mit.")] = "unknown",
    model: Annotated[str | None, typer.Option(help="For weights that do not say.")] = None,
    classes: Annotated[int | None, typer.Option(help="For weights that do not say.")] = None,
    channels: Annotated[int | None, typer.Option(help="For weights that do not say.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images, for weights that do not say.")
    ] = None,
    use: Use = None,
) -> None:
    """Take a trained network away: a folder with its card, ONNX, a state dict, the Hub."""
    load_own(use)
    if not any((out, onnx, state_dict, hub)):
        raise InputError("say what to make: --out FOLDER, --onnx FILE, --state-dict FILE or --hub")
    for option, file in (("--onnx", onnx), ("--state-dict", state_dict)):
        if file is not None and not file.parent.is_dir():
            raise InputError(f"{option} {file}: there is no folder {file.parent}")
    network = load_model(source, model, classes=classes, channels=channels)
    if out is not None:
        say(f"weights and card: {save_pretrained(network, out, license=license)}")
    if state_dict is not None:
        save_state_dict(network, state_dict)
        say(f"state dict: {state_dict}")
    if onnx is not None:
        off = to_onnx(network, onnx, (size, size) if size else None)
        say(f"ONNX: {onnx}; in onnxruntime logits differ by {off:.1e} at most")
    if hub is not None:
        say(f"on the Hub: {push_to_hub(network, hub, license=license, private=not public)}")
