"""The epochs of a fine-tuning, as a table and for TensorBoard. Nothing here needs TensorFlow.

FOLDER/epochs.csv      one line per epoch
FOLDER/tensorboard/    the same as scalars; `tensorboard --logdir RUN` shows all seeds of a run
"""

import csv
import io
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from training import durable

EPOCHS: Final = "epochs.csv"
TENSORBOARD: Final = "tensorboard"

Row = dict[str, float]  # "epoch", counted from 1, and what was measured


class Curves:
    """Both files, which begin with `history`: what a killed run wrote after its last saved epoch is gone."""

    def __init__(self, folder: Path, history: Sequence[Row]) -> None:
        self._path, self._rows = folder / EPOCHS, []  # type: Path, list[Row]
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        self._scalars = EventFileWriter(str(folder / TENSORBOARD))
        for row in history:
            self.add(row)

    def add(self, row: Row) -> None:
        """One more epoch."""
        self._rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row))
        writer.writeheader()
        writer.writerows(self._rows)
        durable.write(self._path, text.getvalue().encode())
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        self._scalars.add_event(Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values)))
        self._scalars.flush()

    def close(self) -> None:
        """Nothing comes after this."""
        self._scalars.close()


def read_epochs(folder: Path) -> list[Row]:
    """The table."""
    with (folder / EPOCHS).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
