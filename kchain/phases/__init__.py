"""WHAT is trained: the phase files, validated and linked into a Chain. Pure but for reading the project's files."""

from kchain.phases.chain import Chain, Phase, WrittenPhase
from kchain.phases.data import Condition, Data, Quality, Source
from kchain.phases.load import find_root, load_chain
from kchain.phases.machines import ACCELERATORS, RETIRED, TPUS, Accelerator
from kchain.phases.resolve import CHAIN_FILE, PHASE_FOLDER
from kchain.phases.schema import Gates, Lora, ModelTable, Samples, SettledTraining, TokensTable, Training
from kchain.phases.uses import Evaluating, EvaluationGates, Exporting, Generation, NoGates, Style

__all__ = [
    "ACCELERATORS",
    "CHAIN_FILE",
    "PHASE_FOLDER",
    "RETIRED",
    "TPUS",
    "Accelerator",
    "Chain",
    "Condition",
    "Data",
    "Evaluating",
    "EvaluationGates",
    "Exporting",
    "Gates",
    "Generation",
    "Lora",
    "ModelTable",
    "NoGates",
    "Phase",
    "Quality",
    "Samples",
    "SettledTraining",
    "Source",
    "Style",
    "TokensTable",
    "Training",
    "WrittenPhase",
    "find_root",
    "load_chain",
]
