"""Constants that trade memory or compilation time for speed, each with the reason for its value.

Read one as ``budget.NAME`` where it is used: then a test or a user can change it for a while.
"""

from __future__ import annotations

# Multiplications of a program below which it compiles longer than it runs.
QUICK_WORK = 1 << 32


DIFFERENCE_BLOCK_BYTES = 1 << 21  # one block's K×D differences stay in cache


# A block's features and scores, and one row of them; matrix products like it larger than loops over
# differences do.
PRODUCT_BLOCK_BYTES, PRODUCT_ROW_BYTES = 1 << 23, 1 << 13


# Restarts are seeded together while they hold fewer numbers than this.
KMEANS_DISTANCES = 1 << 24


# Starts made at once; beyond that they come in waves, so that memory does not grow with R.
MAX_STARTS_AT_ONCE = 4096


CHUNK_STEPS = 25  # between two reports of progress
# Lanes at least, and at most: more than so many bring a CPU no more speed, and all wait
# for the slowest; other devices have more hands.
MIN_BATCH, MAX_BATCH_CPU, MAX_BATCH = 8, 32, 1024
# Work a step, in multiplications, at which more lanes bring no more speed, and above which it
# pays to compile the program once more for the few lanes that run on at the end.
BATCH_WORK = 1 << 27
NARROWING_WORK = 1 << 29
EXPECTED_STEPS = 128  # that a run is expected to take


# Multiplications in a step of all restarts above which the components a table pads its fits with
# cost more than the compilations they save.
PADDING_WORK = 1 << 28


# What the replicates that run side by side may hold. More bring no more speed, and all of them wait
# for the slowest.
REFIT_BATCH_BYTES = 1 << 25


# Bytes of a block: long enough that nothing but its samples costs time, short enough to hold a few.
STREAM_BLOCK_BYTES = 1 << 25
