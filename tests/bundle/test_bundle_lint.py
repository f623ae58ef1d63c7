"""What goes wrong on Kaggle is found in any folder, and nothing is found where nothing is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundle_tools import METADATA, write_folder, write_project

from kchain.bundle import build, write
from kchain.bundle.lint import Finding, lint
from kchain.errors import InputError

LOAD_4BIT = (
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\nfrom peft import PeftModel\n"
    "bnb = BitsAndBytesConfig(load_in_4bit=True)\n"
    "base = AutoModelForCausalLM.from_pretrained('x', quantization_config=bnb)\n"
)


def rules(folder: Path) -> list[str]:
    return [found.rule for found in lint(folder)]


def only(folder: Path) -> Finding:
    (found,) = lint(folder)
    return found


@pytest.mark.parametrize("more", ["", 'accelerator = "cpu"\n', 'accelerator = "NvidiaL4"\n'])
@pytest.mark.parametrize("target", ["kaggle", "local"])
@pytest.mark.parametrize("phase", ["one", "three"])
def test_kchains_own_bundles_are_clean(tmp_path: Path, more: str, target: str, phase: str) -> None:
    chain = write_project(tmp_path, more)
    assert lint(write(build(chain, phase, target, {}), tmp_path)) == []


def test_a_bundle_that_installs_is_told_that_the_internet_is_off(tmp_path: Path) -> None:
    chain = write_project(tmp_path, "internet = false\n")
    found = only(write(build(chain, "one", "kaggle", {}), tmp_path))
    assert (found.rule, found.where) == ("KC302", "PARAMETERS")
    assert lint(write(build(chain, "one", "local", {}), tmp_path)) == [], "one's own machine installs nothing"


def test_a_plain_hand_written_notebook_is_clean(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        "!pip install -q bitsandbytes\nimport torch",
        "%%time\nmodel = 1 % 2\nx = [\n  3\n  % 2\n]\n!ls -la \\\n   /kaggle\nprint(f'{x!r}')\nmodel?",
        "%%bash\nif [ -f x ]; then echo y; fi",
        "tokenizer.pad_token = tokenizer.eos_token\ntrainer = Trainer(model=model)\nawait something()",
    )
    assert lint(folder) == []


@pytest.mark.parametrize(
    "rule, metadata",
    [
        ("KC101", {"title": "abc", "id": "someone/abc"}),
        ("KC101", {"title": "t" * 51, "id": f"someone/{'t' * 51}"}),
        ("KC102", {"title": "Another title"}),
        ("KC103", {"id": None}),
        ("KC103", {"id": "no-owner"}),
        ("KC105", {"language": "julia"}),
        ("KC105", {"kernel_type": "book"}),
        ("KC106", {"machine_shape": "NvidiaTeslaT5"}),
        ("KC107", {"machine_shape": "NvidiaTeslaP100"}),
        ("KC107", {"machine_shape": "TpuV38", "enable_gpu": False, "enable_tpu": True}),
        ("KC108", {"enable_gpu": False}),
        ("KC108", {"machine_shape": "TpuV5E8"}),
        ("KC108", {"enable_tpu": True}),
        ("KC109", {"dataset_sources": ["no-slash"]}),
        ("KC109", {"model_sources": ["a/b/c/d"]}),
        ("KC109", {"kernel_sources": "a/b"}),
        ("KC112", {"kernel_sources": ["someone/my-training"]}),
        ("KC109", {"dataset_sources": [3]}),
        ("KC110", {"enable_internet": "yes"}),
        ("KC111", {"is_private": False}),
    ],
)
def test_metadata_that_kaggle_would_take_wrongly_is_found(tmp_path: Path, rule: str, metadata: Any) -> None:
    assert set(rules(write_folder(tmp_path, "x = 1", **metadata))) == {rule}


def test_every_finding_has_a_place_a_reason_and_a_cure(tmp_path: Path) -> None:
    found = only(write_folder(tmp_path, "x = 1", title="Another title"))
    assert found.severity == "error"
    assert found.where == "kernel-metadata.json: id"
    assert "'another-title'" in found.message
    assert "my-training" in found.message
    assert found.reason
    assert found.cure


def test_a_missing_kernelspec_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "x = 1")
    path = folder / "notebook.ipynb"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metadata": {}}))
    assert rules(folder) == ["KC202"]


def test_the_size_is_counted_as_kaggles_client_sends_it(tmp_path: Path) -> None:
    """1 MiB of two-byte letters on disk is three times that as ASCII JSON; outputs do not count."""
    assert rules(write_folder(tmp_path / "fits", f"x = '{'a' * 1_000_000}'")) == []
    assert rules(write_folder(tmp_path / "large", f"x = '{'a' * 1_050_000}'")) == ["KC203"]
    assert rules(write_folder(tmp_path / "accents", f"x = '{'é' * 200_000}'")) == ["KC203"]
    folder = write_folder(tmp_path / "ran", "x = 1")
    notebook = json.loads((folder / "notebook.ipynb").read_text())
    notebook["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "y" * 2_000_000}]
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    assert rules(folder) == []


@pytest.mark.parametrize(
    "cell",
    ["def f(:", "x = (1", "if True:\nx = 1", "return 5", "%%time\nx = = 1", "%%writefile a.py\nclass", "\x00", "break"],
)
def test_a_cell_that_does_not_compile_is_found(tmp_path: Path, cell: str) -> None:
    found = only(write_folder(tmp_path, "x = 1", cell))
    assert found.rule == "KC204"
    assert found.where.startswith("cell 2")


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\n%load_ext autoreload",
        "files = !ls\nd = %pwd",
        "for x in y:\n    !echo {x}\n    %time f(x)",
        "%%writefile notes.txt\nnot python (",
        "%%html\n<b>",
        "%%unknown_magic\nwhatever (",
        "text = '''\n!not a command\n%nor this\n'''",
        "x = (5\n     %3)",
        "a = b \\\n  % c",
        "?print\nprint??",
        "!pip install x \\\n    y z\nx = 1",
        "%%capture out\n!pip install x",
        "",
        "# only a comment",
        "%pip install x",
        "async for x in y: pass",
    ],
)
def test_ipythons_own_syntax_is_no_error(tmp_path: Path, cell: str) -> None:
    assert lint(write_folder(tmp_path, cell)) == []


def test_a_wrong_line_is_told_by_its_number_although_a_magic_stands_above(tmp_path: Path) -> None:
    found = only(write_folder(tmp_path, "!pip install x \\\n   y\n%time f()\nx = = 1"))
    assert found.where == "cell 1, line 4"


@pytest.mark.parametrize(
    "cell",
    [
        "trainer = transformers.Trainer(model)\ntrainer.train()",
        "SFTTrainer(model=model).train()",
        "loss.backward()",
        "model.to('cuda')",
        "model.cuda()",
    ],
)
def test_training_with_the_gpu_off_is_found(tmp_path: Path, cell: str) -> None:
    assert rules(write_folder(tmp_path / "off", cell, enable_gpu=False, machine_shape=None)) == ["KC301"]
    assert rules(write_folder(tmp_path / "on", cell)) == []


@pytest.mark.parametrize(
    "cell, fetches",
    [
        ("!pip install -q bitsandbytes==0.50.2", True),
        ("%pip install peft", True),
        ("%%bash\nset -e\npip3 install peft", True),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', 'install', 'peft'], check=True)", True),
        ("import os\nos.system('apt-get install -y git')", True),
        ("!pip uninstall -y torchao", False),
        ("!pip install --no-index --find-links /kaggle/input/wheels peft", False),
        ("!pip install /kaggle/input/wheels/peft.whl", False),
        ("!echo install", False),
        ("print('pip install peft')", False),
    ],
)
def test_installing_without_internet_is_found(tmp_path: Path, cell: str, fetches: bool) -> None:
    assert rules(write_folder(tmp_path / "off", cell, enable_internet=False)) == (["KC302"] if fetches else [])
    assert rules(write_folder(tmp_path / "on", cell)) == []


@pytest.mark.parametrize(
    "cell, metadata, spread",
    [
        ("m = load(device_map='auto')", {}, True),
        ("m = load(device_map='auto')", {"machine_shape": None}, True),
        ("kwargs = {'device_map': 'balanced'}", {}, True),
        ("m = load(device_map='auto')", {"machine_shape": "NvidiaL4X1"}, False),
        ("m = load(device_map={'': 0})", {}, False),
        ("import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\nm = load(device_map='auto')", {}, False),
        ("%env CUDA_VISIBLE_DEVICES=0\nm = load(device_map='auto')", {}, False),
        ("text = 'device_map=\"auto\"'  # device_map='auto'", {}, False),
    ],
)
def test_layers_spread_over_two_gpus_are_found(tmp_path: Path, cell: str, metadata: Any, spread: bool) -> None:
    assert rules(write_folder(tmp_path, cell, **metadata)) == (["KC303"] if spread else [])


@pytest.mark.parametrize(
    "cell, guarded",
    [
        ("if tokenizer.pad_token is None:\n    tokenizer.pad_token = tokenizer.eos_token", True),
        ("if tok.pad_token == None:\n    tok.pad_token = tok.eos_token", True),
        ("if not tok.pad_token:\n    tok.add_special_tokens({'pad_token': '<pad>'})", True),
        ("if tok.pad_token_id is None:\n    tok.pad_token_id = tok.eos_token_id", True),
        ("if True and tok.pad_token is None:\n    tok.pad_token = 'x'", True),
        ("tok.pad_token = tok.pad_token or tok.eos_token", True),
        ("tok.pad_token = tok.eos_token if tok.pad_token is None else tok.pad_token", True),
        ("def load(tok):\n    if tok.pad_token is None:\n        tok.pad_token = tok.eos_token\n    return tok", True),
        ("%%writefile t.py\nif tok.pad_token is None:\n    tok.pad_token = tok.eos_token", True),
        ("tok.pad_token = tok.eos_token", False),
        ("if tok.pad_token is None:\n    raise ValueError\n", False),
        ("assert tok.pad_token is not None", False),
        ("if tok.pad_token is None:\n    tok.pad_token = 'x'\ntok.pad_token = tok.eos_token", False),
        ("if model.config.pad_token_id is None:\n    model.config.pad_token_id = 5", False),
        ("# if tok.pad_token is None: tok.pad_token = 1\nx = 'if tok.pad_token is None'", False),
    ],
)
def test_a_pad_token_that_is_guarded_and_not_forced_is_found(tmp_path: Path, cell: str, guarded: bool) -> None:
    assert rules(write_folder(tmp_path, cell)) == (["KC401"] if guarded else [])


FOUR = "M.from_pretrained('x', load_in_4bit=True)"
MERGE = "m.merge_and_unload()"
MERGES = {
    "into an adapter on it": [LOAD_4BIT, f"m = PeftModel.from_pretrained(base, 'a')\nm = {MERGE}"],
    "in one expression": [LOAD_4BIT + "PeftModel.from_pretrained(base, 'a').merge_and_unload()"],
    "without unloading": [f"m = {FOUR}", "m = PeftModel(m, c)\nm.merge_adapter()"],
    "after training": [LOAD_4BIT + f"m = get_peft_model(prepare_model_for_kbit_training(base), c)\n{MERGE}"],
    "by a dictionary": [f"kw = dict(load_in_4bit=True)\nm = M.from_pretrained('x', **kw)\n{MERGE}"],
    "by a key": [f"kw = {{}}\nkw['q'] = B(load_in_4bit=True)\nm = M.from_pretrained('x', **kw)\n{MERGE}"],
    "from a function": [f"def load():\n    return {FOUR}\nm = load()", MERGE],
    "in a function": [f"def go():\n    m = {FOUR}\n    return {MERGE}"],
    "in one branch": [f"if big:\n    m = {FOUR}\nelse:\n    m = M.from_pretrained('x')\n{MERGE}"],
    "in a try": [f"try:\n    m = {FOUR}\nexcept OSError:\n    pass\n{MERGE}"],
    "in a with": [f"with ctx():\n    m = {FOUR}\n{MERGE}"],
    "in a class": [f"class T:\n    def f(self):\n        self.m = {FOUR}\n        self.{MERGE}"],
    "moved first": [f"m = {FOUR}.to(0).eval()\n{MERGE}"],
}
FINE = {
    "loaded again in full": [
        LOAD_4BIT,
        "del base\nbase = M.from_pretrained('x')\nP.from_pretrained(base).merge_and_unload()",
    ],
    "another model": [LOAD_4BIT, "full = M.from_pretrained('x')\nP.from_pretrained(full).merge_and_unload()"],
    "switched off": [f"m = M.from_pretrained('x', load_in_4bit=False)\n{MERGE}"],
    "merged, then quantized": [f"m = M.from_pretrained('x').merge_and_unload()\nm = {FOUR}"],
    "an argument of that name": [LOAD_4BIT + "def f(base):\n    return base.merge_and_unload()"],
    "dequantized": [LOAD_4BIT + "base = base.dequantize()\nbase.merge_and_unload()"],
    "the with loaded it in full": [f"m = {FOUR}\nwith ctx():\n    m = M.from_pretrained('x')\n{MERGE}"],
}


@pytest.mark.parametrize("cells", MERGES.values(), ids=MERGES)
def test_merging_into_a_4_bit_model_is_found(tmp_path: Path, cells: list[str]) -> None:
    assert rules(write_folder(tmp_path, *cells)) == ["KC402"]


@pytest.mark.parametrize("cells", FINE.values(), ids=FINE)
def test_merging_into_another_model_is_left_alone(tmp_path: Path, cells: list[str]) -> None:
    assert lint(write_folder(tmp_path, *cells)) == []


# Written in two parts, so that no scanner takes this file for a leak.
SECRETS = [
    "hf_" + "aB3" * 11,
    "KGAT_" + "0a" * 16,
    "AKIA" + "ABCD1234EFGH5678",
    "-----BEGIN RSA PRIVATE " + "KEY-----",
    "-----BEGIN PRIVATE " + "KEY-----",
    "ghp_" + "a1B2" * 9,
    "sk-" + "a1B2" * 10,
    "aws_secret_access_key = '" + "aB/3" * 10 + "'",
    'KAGGLE_KEY"] = "' + "0f" * 16,
    '{"username":"me","key":"' + "0f" * 16 + '"}',
    "xoxb-" + "1234567890-abcdefghij",
    "WANDB_API_KEY=" + "0f" * 20,
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:8])
def test_a_secret_is_found_wherever_it_stands_and_never_repeated(tmp_path: Path, secret: str) -> None:
    for name, folder in {
        "code": write_folder(tmp_path / "code", f"x = 1\n# {secret}"),
        "text": write_folder(tmp_path / "text", "x = 1", markdown=f"token: {secret}"),
        "magic": write_folder(tmp_path / "magic", f"%%bash\nexport T={secret}"),
    }.items():
        found = lint(folder)
        assert {one.rule for one in found} == {"KC501"}, name
        assert all(secret not in str(one) for one in found)


def test_a_secret_in_the_metadata_is_found(tmp_path: Path) -> None:
    assert rules(write_folder(tmp_path, "x = 1", keywords=["hf_" + "aB3" * 11])) == ["KC501"]


@pytest.mark.parametrize(
    "harmless",
    ["hf_hub_download", "HF_TOKEN = secrets.get('HF')", f"sha256 = '{'0f' * 32}'", "task-" + "a" * 40, "KGAT_x"],
)
def test_what_only_looks_like_a_secret_is_left_alone(tmp_path: Path, harmless: str) -> None:
    assert lint(write_folder(tmp_path, f"# {harmless}")) == []


def test_a_folder_that_is_not_there_is_an_error_of_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        lint(tmp_path / "nowhere")


def test_an_empty_folder_lacks_metadata_and_notebook(tmp_path: Path) -> None:
    assert rules(tmp_path) == ["KC100", "KC201"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"cells": [{}]}', b"3"])
def test_broken_files_are_findings_and_no_traceback(tmp_path: Path, content: bytes) -> None:
    broken_notebook = write_folder(tmp_path / "a", "x = 1")
    (broken_notebook / "notebook.ipynb").write_bytes(content)
    assert rules(broken_notebook) == ["KC201"]
    broken_metadata = write_folder(tmp_path / "b", "x = 1")
    (broken_metadata / "kernel-metadata.json").write_bytes(content)
    assert "KC100" in rules(broken_metadata) or content == b'{"cells": [{}]}'


def test_metadata_that_names_another_file_is_found(tmp_path: Path) -> None:
    assert rules(write_folder(tmp_path, "x = 1", code_file="other.ipynb")) == ["KC201"]
    assert rules(write_folder(tmp_path, "x = 1", code_file="")) == ["KC104"]


def test_any_value_of_any_key_leaves_no_traceback(tmp_path: Path) -> None:
    for key in METADATA:
        for value in (0, True, "", [], [[]], {}, [None], "x" * 5000):
            found = lint(write_folder(tmp_path, "x = 1", **{key: value}))
            assert all(finding.cure for finding in found), (key, value)


def test_an_old_notebook_format_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "x = 1")
    path = folder / "notebook.ipynb"
    path.write_text(json.dumps({**json.loads(path.read_text()), "nbformat": 3}))
    assert rules(folder) == ["KC201"]


def test_a_script_kernel_is_checked_like_a_cell(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "x = 1", kernel_type="script", code_file="train.py", enable_internet=False)
    (folder / "train.py").write_text("if tok.pad_token is None:\n    tok.pad_token = tok.eos_token\n")
    assert rules(folder) == ["KC401"]
    (folder / "train.py").write_text("def (")
    assert rules(folder) == ["KC204"]


def test_an_r_notebook_is_not_read_as_python(tmp_path: Path) -> None:
    assert lint(write_folder(tmp_path, "x <- c(1, 2); function(y) {", language="r")) == []


def test_errors_come_before_warnings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "x = (", is_private=False)
    assert [(one.rule, one.severity) for one in lint(folder)] == [("KC204", "error"), ("KC111", "warning")]
