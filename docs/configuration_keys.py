"""Write tables of docs from docstrings and the list of options: ``python docs/configuration_keys.py``."""

from pathlib import Path

from lrc_ase.training.configuration_keys import key_tables
from lrc_ase.training.options import option_table

START, END = "<!-- {}: written by docs/configuration_keys.py -->\n", "<!-- end of {} -->\n"

for page_name, subject, table in (("configuration", "keys", key_tables()), ("training", "options", option_table())):
    page = Path(__file__).with_name(f"{page_name}.md")
    start, end = START.format(subject), END.format(subject)
    before, rest = page.read_text(encoding="utf-8").split(start)
    page.write_text(before + start + table + end + rest.split(end)[1], encoding="utf-8")
