"""The same questions, asked from the nodes of a Ray cluster: one machine's processor is the bound
where a gateway, or several behind one address, answers hundreds of cases in a second.

What is open lies in OUT/open.parquet; a Ray Data job hands it out in batches, and the nodes ask
them with the same code. What comes back is written down here, by the one process that ever writes
verdicts.jsonl, so a run goes on where it was, with Ray or without. A batch whose node dies is asked
again by another: whatever of it had not come back.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from pydantic import TypeAdapter
from ray.exceptions import RayError, RayTaskError

from consilium.errors import GatewayError
from consilium.patience import Patience
from gateway.contract import Verdict
from gateway.refusals import Problem
from models.data.example import Example
from services.evaluation.asking.over_rest import Asking, Pace, ask_each, open_ones, progress
from services.evaluation.stored_run import EvaluationError, Verdicts
from services.running.deploying.room import ClusterError, check_address, comes_free

OPEN = "open.parquet"
# Of each call at a time: a batch is over with its slowest, and the next takes a while to come; but
# whoever dies, a node or the command itself, loses this much. Rows that came back one by one would
# lose less; but a batch that is asked again answers in another order, and Ray takes what a stream
# yields again for the same.
TURNS = 16
EXAMPLE = TypeAdapter(Example)
SCHEMA = pa.schema(
    {"id": pa.string(), "said": pa.string(), "refused": pa.bool_(), "failed": pa.string()}
)


def ask_all_from(
    address: str, examples: Sequence[Example], asking: Asking, outcomes: Verdicts, out: Path
) -> None:
    """What `ask_all` does, from every node of the cluster at `address`, each with so many calls at
    a time. Images, and `out`, lie where every node sees them.

    Raises:
        EvaluationError: as there; or no cluster answers, or none of its CPUs is free.
    """
    left = open_ones(examples, outcomes)
    if not left:
        return
    try:
        check_address(address)
        ray.init(address, log_to_driver=False, logging_level="warning")
    except (ClusterError, RuntimeError) as error:  # the second: of another Ray, or Python
        raise EvaluationError(str(error)) from error
    except ConnectionError as error:  # one that auto found, and that has gone
        raise EvaluationError(
            f"No Ray cluster answers at {address}; ray start makes one."
        ) from error
    for chatty in ("ray.data", "ray.data.dataset"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours is shown
    try:
        nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
        if not comes_free(lambda: ray.available_resources().get("CPU", 0) >= 1):
            raise EvaluationError(
                f"No CPU of the cluster at {address} is free: engines and gateways hold them all. "
                "Add a node, or ask without --ray."
            )
        most = asking.concurrency * nodes  # how many it is now only the nodes know
        with progress(examples, asking.run, outcomes, lambda: most) as (keep, _):
            by_id = {example.id: example for example in left}
            job = _job(left, asking, nodes, out / OPEN)
            # Not iter_rows: it holds a batch back until the next is there, too.
            for batch in job.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in batch.to_pylist():
                    if row["failed"]:
                        raise GatewayError(row["failed"])
                    said = Problem if row["refused"] else Verdict
                    keep(by_id[row["id"]], said.model_validate_json(row["said"]))
    except RayTaskError as error:
        last = str(error).strip().split("\n")[-1]
        raise EvaluationError(
            f"A node of the cluster at {address} cannot ask ({last}): each needs consilium of this "
            "version, and the data set and --out at the same places as here."
        ) from error
    except RayError as error:
        raise EvaluationError(
            f"The cluster at {address} gave up; its logs say why. Run the same command again to "
            "go on from here."
        ) from error
    finally:
        ray.shutdown()


def _job(left: Sequence[Example], asking: Asking, nodes: int, path: Path) -> ray.data.Dataset:
    """Its rows say what came of each case, in the order in which batches are done."""
    pq.write_table(pa.table({"example": [EXAMPLE.dump_json(each) for each in left]}), path)
    batch = min(TURNS * asking.concurrency, math.ceil(len(left) / nodes))
    return (
        ray.data.read_parquet(str(path))
        .repartition(math.ceil(len(left) / batch))
        .map_batches(
            _ask_batch,
            batch_size=None,
            batch_format="pyarrow",
            fn_args=(asking,),
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(nodes),
        )
    )


def _ask_batch(batch: pa.Table, asking: Asking) -> pa.Table:
    """Run on a node. What was said before a failure is told with it."""
    rows: list[dict[str, Any]] = []

    def keep(example: Example, said: Verdict | Problem) -> None:
        refused = isinstance(said, Problem)
        rows.append({"id": example.id, "said": said.model_dump_json(), "refused": refused})

    examples = [EXAMPLE.validate_json(text) for text in batch["example"].to_pylist()]
    runner, patience, pace = _kept(asking.patience_s, asking.concurrency)
    try:
        runner.run(ask_each(examples, asking, patience, pace, keep))
    except (GatewayError, OSError) as error:
        rows.append({"failed": str(error)})
    return pa.Table.from_pylist(rows, SCHEMA)


@cache
def _kept(patience_s: float, concurrency: int) -> tuple[asyncio.Runner, Patience, Pace]:
    """One for all batches of this process, of which Ray gives it many: who was told to slow down
    begins the next one as slowly. A pace belongs to one loop, so that is kept too."""
    return asyncio.Runner(), Patience(patience_s), Pace(concurrency)
