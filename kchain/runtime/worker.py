"""One of the processes that train: `python -m kchain_runtime.worker FOLDER`, alone or started by torch's launcher.

The first process (rank 0) prints, and writes the adapter. The others print nothing but their failure, and write nothing
but that and, into a checkpoint on scratch, the state of their random generators.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path

from . import handover
from .failure import OutOfMemory, Stop
from .files import write_json

# Seconds after which loading the model hangs.
LOADING_SECONDS = 1800.0


def main() -> None:
    """Trains what the folder on the command line says; status 1 and a failure file when that fails."""
    folder, rank = Path(sys.argv[1]), int(os.environ.get("RANK", "0"))
    # What is printed from here on goes to the notebook; the launcher's own words go to its log.
    os.dup2(1, 2)
    if rank > 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_the_notebook, daemon=True).start()
    try:
        work(folder, rank)
    except BaseException as error:
        handover.write_failure(folder, rank, error)
        if not isinstance(error, Stop | OutOfMemory):
            traceback.print_exc()
        _leave(1)
    _leave(0)


def work(folder: Path, rank: int) -> None:
    """Loads the base model, trains the adapter, and writes both adapter and outcome.

    Raises:
        Stop: training cannot go on.
        OutOfMemory: a step does not fit.
    """
    import torch

    from . import model, save, tokenizer, train, watch

    watch.mind_hanging(folder, rank, LOADING_SECONDS)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    job = handover.read_job(folder)
    parameters, training = job.parameters, job.parameters["training"]
    base = model.load_base(Path(job.base), training["precision"], training["quantization"])
    tokenizer.force_on_model(base, parameters["pad"])
    collate = train.prepare(base, parameters["pad"]["id"], tell=True)
    adapted = model.adapt(base, parameters, job.continued, job.rows)
    examples = handover.read_examples(folder)
    outcome = train.train(adapted, examples, collate, job, folder, rank)
    if rank == 0:
        save.save_weights(adapted, folder / handover.ADAPTER)
        write_json(folder / handover.OUTCOME, asdict(outcome))
    if job.processes > 1:
        torch.distributed.destroy_process_group()


def _end_with_the_notebook() -> None:
    """The notebook holds the other end of this pipe and says nothing: it is closed when that dies or ends us."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            continue
    os._exit(1)


def _leave(status: int) -> None:
    """Ends at once: after a failure, a group that waits for other processes would keep this one."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
