"""Write tables of docs from docstrings and the list of options: ``python docs/configuration_keys.py``."""

from pathlib import Path

from lrc_ase.training.configuration_keys import key_tables
from lrc_ase.training.options import option_table

START, END = "<!-- {}: written by docs/configuration_keys.py -->\n", "<!-- end of {} -->\n"

TABLES = (("reference/configuration.md", "keys", key_tables()), ("how-to/training.md", "options", option_table()))
for page_name, subject, table in TABLES:
    page = Path(__file__).parent / page_name
    start, end = START.format(subject), END.format(subject)
    before, rest = page.read_text(encoding="utf-8").split(start)
    page.write_text(before + start + table + end + rest.split(end)[1], encoding="utf-8")
