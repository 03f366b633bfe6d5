"""Write the tables of docs/configuration.md from docstrings: ``python docs/configuration_keys.py``."""

from pathlib import Path

from lrc_ase.training.configuration_keys import key_tables

PAGE = Path(__file__).with_name("configuration.md")
START, END = "<!-- keys: written by docs/configuration_keys.py -->\n", "<!-- end of keys -->\n"

before, rest = PAGE.read_text(encoding="utf-8").split(START)
PAGE.write_text(before + START + key_tables() + END + rest.split(END)[1], encoding="utf-8")
