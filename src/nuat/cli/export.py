"""The command `nuat export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuat.cli.options import Imports, apply_common_options, check_output_file
from nuat.cli.terminal import print_line
from nuat.errors import InputError

OptionalInt = Annotated[int | None, typer.Option(help="For weights without metadata.")]


def export_command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the weights and a model card.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="ONNX file (needs the extra export).")] = None,
    state_dict: Annotated[
        Path | None, typer.Option(help="File for torch's state dict, such as model.pt.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(help="Hugging Face repository user/name (needs the extra hub).")
    ] = None,
    public: Annotated[bool, typer.Option(help="Make a new repository public.")] = False,
    license: Annotated[str, typer.Option(help="License in the card, such as mit.")] = "unknown",
    model: Annotated[str | None, typer.Option(help="For weights without metadata.")] = None,
    classes: OptionalInt = None,
    channels: OptionalInt = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images, for weights without metadata.")
    ] = None,
    imports: Imports = None,
) -> None:
    """Export a trained model: a folder with a card, ONNX, a state dict, the Hugging Face Hub."""
    apply_common_options(imports)
    from nuat.checkpoints import load_model
    from nuat.export import push_to_hub, save_pretrained, save_state_dict, to_onnx

    if not any((out, onnx, state_dict, hub)):
        raise InputError(
            "there is nothing to export to: give --out FOLDER, --onnx FILE, --state-dict FILE or "
            "--hub USER/NAME"
        )
    for option, file in (("--onnx", onnx), ("--state-dict", state_dict)):
        if file is not None:
            check_output_file(option, file)
    loaded = load_model(source, model, classes=classes, channels=channels)
    if out is not None:
        print_line(f"weights and card: {save_pretrained(loaded, out, license=license)}")
    if state_dict is not None:
        save_state_dict(loaded, state_dict)
        print_line(f"state dict: {state_dict}")
    if onnx is not None:
        difference = to_onnx(loaded, onnx, (size, size) if size else None)
        print_line(f"ONNX: {onnx}; logits of onnxruntime differ by at most {difference:.1e}")
    if hub is not None:
        url = push_to_hub(loaded, hub, license=license, private=not public)
        print_line(f"Hugging Face Hub: {url}")
