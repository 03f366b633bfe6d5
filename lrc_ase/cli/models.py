"""``lrc-ase models``: potentials that come with the package."""

from __future__ import annotations

from lrc_ase.cli.console import DebugOption, one_line_errors, say

__all__ = ["models"]


@one_line_errors
def models(debug: DebugOption = False) -> None:
    """List the potentials that come with the package, with elements, contents and the path of the card.

    Example: lrc-ase models
    """
    from lrc_ase.files.potential_file import load_potential
    from lrc_ase.files.pretrained import CARD_FILE, card_title, trained_potentials

    shipped = trained_potentials()
    width = max(map(len, shipped), default=0)
    for name, file in shipped.items():
        elements = " ".join(load_potential(file).settings.elements)
        say(f"{name:{width}}  {card_title(file)} ({elements})\n{'':{width}}  {file.with_name(CARD_FILE)}")
    if shipped:
        say(f"\nlrc-ase md {next(iter(shipped))} --temperature 300    runs the structure that comes with a potential")
    else:
        say("no potential is shipped with this installation")
