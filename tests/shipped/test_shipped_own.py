"""The shipped chains for one's own machines: each is the configuration it is named after, renders, plans and lints."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from kchain.bundle.bundle import build
from kchain.bundle.folder import write
from kchain.bundle.lint import lint
from kchain.errors import InputError
from kchain.phases import Chain, Phase, load_chain
from kchain.phases.init import make_project
from kchain.phases.plan import TrainingPlan, training_plan
from kchain.units import GIB

SHIPPED = Path(str(files("kchain.phases"))) / "shipped"
NAMES = ("golden-14b-a10g", "vision-8b-24gb", "coder-7b-cpu")


def only_phase(name: str) -> tuple[Phase, TrainingPlan]:
    chain = load_chain(SHIPPED / name)
    (phase,) = chain.phases
    return phase, training_plan(chain, phase.name)


@pytest.fixture(params=NAMES)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    make_project(tmp_path, request.param, "ann")
    return load_chain(tmp_path)


def test_it_renders_fits_its_machine_and_lints_without_a_finding(own: Chain) -> None:
    planned = training_plan(own, "phase1")
    assert planned.warnings == ()
    assert planned.memory is not None, "the model's shape is known"
    folder = write(build(own, "phase1", "local", {}), own.root)
    assert lint(folder) == []


def test_kaggle_is_not_asked_for_a_machine_that_it_has_not_got(own: Chain) -> None:
    with pytest.raises(InputError, match="Kaggle has no"):
        build(own, "phase1", "kaggle", {})
    path = own.root / "kchain.toml"
    path.write_text(path.read_text().replace('target = "local" ', 'target = "kaggle"'))
    with pytest.raises(InputError, match="kchain.toml: accelerator: Kaggle has no"):
        load_chain(own.root)


def test_the_address_that_a_comment_promises_is_the_real_one(own: Chain) -> None:
    (phase,) = own.phases
    title = (own.root / phase.file).read_text(encoding="utf-8").split("title = ")[1]
    assert phase.slug in title.splitlines()[0].split(" # ")[1]


def test_what_could_not_be_checked_is_said(own: Chain) -> None:
    text = (own.root / "kchain.toml").read_text() + (own.root / own.phases[0].file).read_text()
    assert "not checked by running" in text
    assert "data of your own" in text


def test_the_golden_configuration_is_the_field_s() -> None:
    phase, planned = only_phase("golden-14b-a10g")
    training, lora = phase.training, phase.lora
    assert (training.quantization, phase.precision, training.optimizer) == ("nf4", "bf16", "adamw_torch")
    assert (training.batch, training.accumulation, training.epochs) == (1, 16, 2)
    assert (training.scheduler, training.warmup, training.learning_rate) == ("cosine", 0.03, 2e-4)
    assert (training.max_length, lora.targets) == (1024, ("all-linear",))
    assert (phase.data.recipe, phase.accelerator.name) == ("prompt_completion", "NvidiaA10G")
    assert 380 <= planned.steps <= 400
    assert round((planned.adapter_bytes or 0) / 4 / 1e6) == 64


def test_the_plan_of_the_golden_configuration_is_near_what_it_took() -> None:
    """Between 9.7 and 14.1 GB in training; the weights alone are what the lower figure is made of."""
    _, planned = only_phase("golden-14b-a10g")
    assert planned.memory is not None
    assert 9.7e9 <= planned.memory.weights <= 10.2e9
    assert 9.7e9 <= planned.memory.total <= 14.1e9
    assert planned.memory.total < planned.gpu_memory - 8 * GIB


def test_the_vision_configuration_is_the_field_s_and_its_vision_part_is_not_trained() -> None:
    phase, planned = only_phase("vision-8b-24gb")
    training, lora = phase.training, phase.lora
    assert (training.batch, training.accumulation, training.max_length) == (1, 8, 2048)
    assert (lora.r, lora.alpha, training.quantization, phase.precision) == (32, 32, "nf4", "bf16")
    assert phase.data.recipe == "conversation"
    assert round((planned.adapter_bytes or 0) / 4 / 1e6) == 87
    assert 1.5 < planned.seconds < 6.6, "the field took 3.3 s a step"


def test_the_coder_configuration_is_the_field_s() -> None:
    phase, planned = only_phase("coder-7b-cpu")
    training, lora = phase.training, phase.lora
    assert (lora.r, lora.alpha, lora.dropout, training.weight_decay) == (8, 32, 0.1, 0.01)
    assert (training.batch, training.accumulation, training.max_length) == (2, 8, 2048)
    assert (phase.precision, training.quantization, phase.accelerator.gpus) == ("fp32", "none", 0)
    assert planned.examples == 298
    assert training.step_seconds >= 2 * planned.seconds, "a slow machine's run does not stop itself"
