"""Plugin of ASE: its plugin system loads this module by the entry-point group ``ase.plugins``.

The plugin system is experimental, and older supported releases of ASE lack it; the module then lists nothing.
"""

from __future__ import annotations

from typing import Any

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    __ase_plugins__: set[Any] = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="lrc",
            citation="Peng, Lin, Ying and Zepeda-Nunez, arXiv:2010.05295",
            implementation="lrc_ase.calculator.LRCCalculator",
        )
    }
