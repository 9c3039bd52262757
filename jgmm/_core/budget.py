"""Constants that trade memory or compilation time for speed, each with the reason for its value.

Read a constant as ``budget.NAME`` at the place of use: then a test or a user can replace it for a
while. Work is counted in multiplications, roughly. The constants stand in the order of the topics,
from compilation to plots.
"""

from __future__ import annotations

# --- Compilation ---

# Work of a whole program below which compiling it takes longer than running it: this many
# multiplications take a CPU between a tenth of a second and a second. Such a program is compiled
# with fewer optimizations.
QUICK_WORK = 1 << 32

# Compiled programs that a session keeps; of more, the one used longest ago is dropped. On a CPU
# each takes 20 to 70 memory maps and about 2 MiB. Linux ends a process that has 65,530 maps; with
# this many programs it has some 10,000.
MAX_PROGRAMS = 150

# Size of the folder of the compilation cache (512 MiB): some thousands of programs, those of many
# data sets. Programs read long ago are removed at the beginning of a session.
COMPILATION_CACHE_BYTES = 1 << 29

# --- Shapes that many data sets share ---

# Samples are filled up with rows of weight zero, to this many rows or to a multiple of it by a
# power of the factor, so that data sets of similar size share their programs. Blocks without a row
# in use are not read; so the only cost is memory, which MAX_PADDED_BYTES bounds: more samples than
# that are not copied.
MIN_PADDED_ROWS, PADDED_ROWS_FACTOR, MAX_PADDED_BYTES = 128, 4, 1 << 26

# Work of one step of MIN_BATCH padded runs up to which components and restarts are filled up, too:
# such a step takes some milliseconds, and a program that is compiled once more takes a second.
SMALL_WORK = 1 << 24

# Components that a small problem is filled up to, or a multiple of it by a power of two: the
# default table of ``select`` has up to nine.
MIN_PADDED_COMPONENTS = 9

# Starts that a small problem has room for, or a multiple of it by a power of PADDED_ROWS_FACTOR.
MIN_PADDED_STARTS = 256

# --- Standardization and sampling ---

# Rows of a block in the passes that find the mean, the variances and the correlations of the
# samples: enough that the loop over blocks costs next to nothing, few enough that the centred copy
# of a block stays small.
MOMENT_BLOCK_ROWS = 8192

# Samples drawn from a mixture at once: the factor of a sample's component, D×D, is copied for every
# sample of a block, and not for all N.
SAMPLE_BLOCK_ROWS = 4096

# --- E-step ---

# Size of the K×D differences of one block of samples in the difference form of the E-step: they
# stay in a CPU's cache between the loops that read them.
DIFFERENCE_BLOCK_BYTES = 1 << 21

# Size of the features and scores of one block in the matrix-product form, and of one row of them,
# which holds one number for each sample of the block. Matrix products are fastest on larger blocks
# than loops over differences.
PRODUCT_BLOCK_BYTES, PRODUCT_ROW_BYTES = 1 << 23, 1 << 13

# Size of a block of samples in the form of whitened differences, and its rows. It is larger than
# the caches of a core, because its loops take GROUP_ROWS samples at a time. The more rows, the less
# often the K D² sums are added to the total.
WHITENED_BLOCK_BYTES, MAX_WHITENED_ROWS = 1 << 25, 4096

# Samples of a block that are processed together in that form: enough for fast matrix products, few
# enough that many groups hold samples of one or two components only.
GROUP_ROWS = 192

# Panels of a triangular D×D matrix: four leave out three eighths of it; ones of fewer than 64 rows
# make slow products.
MIN_PANEL_ROWS, MAX_PANELS = 64, 4

# Columns from which on whitened differences are products large enough to be fast, and from which on
# they are preferred whatever the number of components.
MIN_WHITENED_COLUMNS, WIDE_COLUMNS = 32, 96

# Time of making one feature, and of one difference in all loops over it, in multiplications of a
# matrix product: together they say from which number of columns on differences are faster.
FEATURE_WORK, DIFFERENCE_WORK = 40, 50

# Bounds of the rows in a block: fewer would make the loop over blocks cost more than the work in
# it; more than MAX_BLOCK_ROWS bring no more speed to loops over differences.
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 64, 2048

# --- k-means and starts ---

# Numbers that the restarts seeded together may hold, one for each restart and sample (64 MiB in
# float32): the distances to the centers drawn so far. More restarts are seeded one group after
# another.
KMEANS_DISTANCES = 1 << 24

# Starts made at once. More than these are made in batches, so that memory does not grow with R.
MAX_STARTS_AT_ONCE = 4096

# --- Batched restarts ---

# EM steps between two reports of progress: a return to the host every step would slow short steps
# down; 25 of them still let the display move.
CHUNK_STEPS = 25

# Number of restarts that run side by side in one batch: at least MIN_BATCH; on a CPU at most
# MAX_BATCH_CPU, because more bring no more speed there and all wait for the slowest of them.
# Accelerators run more in parallel, so MAX_BATCH is larger.
MIN_BATCH, MAX_BATCH_CPU, MAX_BATCH = 8, 32, 1024

# Work of one step of a whole batch above which adding restarts to the batch brings no more speed.
BATCH_WORK = 1 << 27

# Work of one step of a whole batch above which it pays to compile the program once more, for a
# narrower batch, when only few restarts are still running at the end.
NARROWING_WORK = 1 << 29

# Steps that a restart is expected to take: with them the work of a program is estimated before it
# is compiled, for comparison with QUICK_WORK.
EXPECTED_STEPS = 128

# --- Many data sets ---

# Number of runs that go side by side when many data sets are fitted at once: few enough that the
# runs do not wait for one another, and that the few slow ones at the end waste little.
MAX_DATA_SET_RUNS = 64

# --- Model selection ---

# Work of one step of all restarts above which the components that a grid of fits is padded with, so
# that all numbers of components share one program, cost more than the compilations they save.
PADDING_WORK = 1 << 28

# --- Likelihood-ratio test ---

# Memory of the data sets that are fitted together, with the distances of their samples to the
# centers of all starts (64 MiB). More data sets are fitted one group after another.
RATIO_TEST_BYTES = 1 << 26

# --- Bootstrap ---

# Memory of the replicates that are fitted side by side (32 MiB). More bring no more speed, and all
# of them wait for the slowest.
REFIT_BATCH_BYTES = 1 << 25

# --- Streaming ---

# Size of a block of a file (32 MiB): large enough that the cost of a block is that of its samples,
# small enough that memory holds several blocks.
STREAM_BLOCK_BYTES = 1 << 25

# Blocks that are read ahead and wait to be processed: with two, a block that takes longer to read
# than the others does not stop the computation; more would only take more memory.
PREFETCH_BLOCKS = 2

# --- Plots ---

# Points whose density is computed at once: all plots then share one compiled program, and memory
# does not grow with the number of points.
PLOT_BATCH_POINTS = 1 << 15
