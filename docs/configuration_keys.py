"""Write tables of docs from docstrings and the list of options: ``python docs/configuration_keys.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))
from generated_tables import key_tables, option_table

START, END = "<!-- {}: written by docs/configuration_keys.py -->\n", "<!-- end of {} -->\n"

TABLES = (("reference/configuration.md", "keys", key_tables()), ("how-to/training.md", "options", option_table()))
for page_name, subject, table in TABLES:
    page = Path(__file__).parent / page_name
    start, end = START.format(subject), END.format(subject)
    before, rest = page.read_text(encoding="utf-8").split(start)
    page.write_text(before + start + table + end + rest.split(end)[1], encoding="utf-8")
