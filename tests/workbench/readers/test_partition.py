"""Processes read consecutive rows, and together every row once."""

import numpy as np
import pytest

from jgmm.workbench.readers.partition import File, Piece, pieces_of_process


def opened(n_rows, can_split):
    """A file of the numbers of its rows, as one piece."""

    def piece(chosen, first, last):
        def read(n_bytes, skip):
            yield np.arange(first, last)[:, None]

        return Piece("here", last - first, first, read)

    split = piece if can_split else None
    return File("here", ["x"], lambda chosen: [piece(chosen, 0, n_rows)], split)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("can_split", [True, False])
@pytest.mark.parametrize("unit", [1, 4])
def test_processes_read_every_row_once_and_in_order(size, can_split, unit):
    files = [opened(n, can_split) for n in (5, 1, 9)]
    pieces = [(file, piece) for file in files for piece in file.pieces(["x"])]
    n_read = 0
    for rank in range(size):
        mine, first_row = pieces_of_process(pieces, ["x"], rank, size, unit)
        if mine:
            assert first_row == n_read
            if can_split:
                assert first_row % unit == 0
        for piece in mine:
            rows = np.concatenate(list(piece.read(1, False)))[:, 0]
            assert len(rows) == piece.n_rows
            assert rows[0] == piece.first
            n_read += piece.n_rows
    assert n_read == 15


def test_a_job_without_files_reads_nothing():
    assert pieces_of_process([], ["x"], 0, 2) == ([], 0)
