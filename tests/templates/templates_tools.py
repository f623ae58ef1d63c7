"""Projects on disk with any text in them, and what IPython makes of a `%%writefile` cell."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from kchain.phases import Chain, load_chain

NASTY = [
    "'", '"', "'''", '"""', "\\", "`", "```", "{{ x }}", "{% raw %}", "{# x #}", "{%", "}}", "\n",
    "\n# %% id=\"head\"\n",
    "# %%", "#%%", "\n%%writefile /etc/passwd\n", "%%", "\\%%", "# \\%%", "!ls", "<b>", "</script>", "<!--", "&amp;",
    "|", "$x$", "$RUNTIME", "*", "_a_", "# ", "## h\n", "---", "===\n", "- x", "1. x", "    code", "[a](b)", "![](x)",
    "\u2028", "\u202e", "\x00", "\x1b[31m", "\r", "\r\n", "\t", "é", "训练", "😀", "~~x~~", "://", "BUNDLE = \"", ">",
]  # fmt: skip


def toml(text: str) -> str:
    """Any text as a TOML string."""
    return '"' + "".join(char if char.isalnum() or char == " " else f"\\U{ord(char):08X}" for char in text) + '"'


def write_chain(root: Path, **values: str) -> Chain:
    """A chain of two phases; `values` are free texts for its second phase."""
    text = {"title": "A second phase", "description": "What it is for.", "system": "", "prompt": "p", "column": "kind"}
    text |= {"contains": "x", "equals": "y", "split": "train", "remote": "data.jsonl", "eos": "<|im_end|>"}
    text |= values
    (root / "phases").mkdir(exist_ok=True)
    (root / "data").mkdir(exist_ok=True)
    (root / "kchain.toml").write_text(
        '[chain]\nname = "demo"\nowner = "someone"\n[model]\nsource = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"\n'
        f"eos_token = {toml(text['eos'])}\n",
        encoding="utf-8",
    )
    (root / "phases" / "first.toml").write_text(
        'title = "A first phase"\ndescription = "The start."\n[data]\n'
        'sources = [{ name = "a", dataset = "a/b", file = "c.jsonl", fields = { prompt = "p", completion = "c" } }]\n',
        encoding="utf-8",
    )
    (root / "data" / "own.jsonl").write_text(values.get("jsonl", '{"p": "list", "c": "ls"}\n'), encoding="utf-8")
    (root / "phases" / "second.toml").write_text(
        f"title = {toml(text['title'])}\ndescription = {toml(text['description'])}\nafter = 'first'\n"
        f"[data]\nsystem_prompt = {toml(text['system'])}\n"
        f"[[data.sources]]\nname = 'own'\nfile = 'data/own.jsonl'\nfields = {{ prompt = 'p', completion = 'c' }}\n"
        f"[[data.sources]]\nname = 'mounted'\ndataset = 'x/y'\nfile = {toml(text['remote'])}\n"
        f"fields = {{ prompt = {toml(text['prompt'])}, completion = 'c' }}\n"
        f"where = [{{ column = {toml(text['column'])}, contains = [{toml(text['contains'])}] }},"
        f" {{ column = 'k', equals = {toml(text['equals'])} }}]\n"
        f"[[data.sources]]\nname = 'hub'\nhuggingface = 'h/f'\nsplit = {toml(text['split'])}\n"
        "fields = { prompt = 'p', completion = 'c' }\noptional = true\n",
        encoding="utf-8",
    )
    return load_chain(root)


def literals(source: str) -> dict[str, Any]:
    """The names that a cell assigns literals to."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def written(notebook: Any) -> dict[str, str]:
    """What IPython's %%writefile cells of a notebook write, by the path in their first line."""
    files = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and cell["source"].startswith("%%writefile "):
            line, body = cell["source"].split("\n", 1)
            files[line.removeprefix("%%writefile ").strip('"')] = body if body.endswith("\n") else f"{body}\n"
    return files
