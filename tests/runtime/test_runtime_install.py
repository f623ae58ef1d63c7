"""What the notebook installs and removes before it begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import parameters, read_result

from kchain.runtime import session, stages
from kchain.runtime.failure import Stop


def test_nothing_is_installed_when_nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: called.append(args))
    stages.prepare([], [])
    assert called == []


def test_an_install_that_fails_stops_the_session(kaggle: Path) -> None:
    absent = str(kaggle / "no-such-package-1.0-py3-none-any.whl")
    run = session.start(parameters(environment={"install": [absent], "uninstall": []}), "b" * 64)
    with pytest.raises(Stop, match="failed with status 1") as caught:
        run.install()
    assert "internet" in caught.value.cure
    assert read_result(kaggle)["status"] == "failed"


def test_packages_are_removed_and_added_in_the_notebooks_own_python(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "kchain-probe"\nversion = "1"\n'
    )
    (project / "backend.py").write_text(BACKEND)
    code = (
        "import importlib.metadata as m, sys; sys.path.insert(0, sys.argv[1]); from kchain.runtime import stages;"
        "stages.prepare([sys.argv[2]], []); print(m.version('kchain-probe'));"
        "stages.prepare([], ['kchain-probe', 'never-was-there']); "
        "print('kchain-probe' in {d.name for d in m.distributions()})"
    )
    python = tmp_path / "venv" / "bin" / "python"
    root = Path(session.__file__).parents[2]
    done = subprocess.run([python, "-c", code, root, project], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "False"], done.stderr


BACKEND = """
import zipfile

def build_wheel(folder, config=None, metadata=None):
    name = "kchain_probe-1-py3-none-any.whl"
    info = "kchain_probe-1.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: kchain-probe\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
