"""Guess how a text file is written: separator, decimal mark, header, comments.

The guess is made from the first lines and is reported; the user may override each part of it. The
sample is split into values by Python's ``csv``, once for every separator, and the separator is
kept under which most lines have the same number of values and the values look most like numbers or
words. ``csv.Sniffer`` counts characters only, and takes the comma of "1,5;2,5" for the separator.
"""

import collections
import contextlib
import csv
import re
from dataclasses import dataclass, field

from jgmm.workbench.readers import numerals
from jgmm.workbench.readers.numerals import Numerals, looks_like_number, unit_of
from jgmm.workbench.readers.tables import MISSING, fail
from jgmm.workbench.readers.text import Cleaning, TextFile

SAMPLE_LINES = 2000
"""Lines at the beginning of a file from which its header and decimal mark are guessed."""
SEPARATOR_LINES = 200
"""Lines from which the separator is guessed, for each separator anew."""

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "blank"}
"""The separators that are tried, with their names; a blank stands for any number of blanks."""
_TOLD = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes", " ": "blanks"}
_NO_SEPARATOR = "\x1f"  # which no file of text holds
COMMENTS = "#%"
"""Characters with which comment lines may begin."""


@dataclass(frozen=True)
class Overrides:
    """What the user says about a file, in place of a guess.

    Attributes:
      separator: the character between values, or its name such as "tab"; " " for any blanks.
      decimal: the decimal mark, "." or ",".
      na: texts that stand for a missing value.
      header: whether the first line holds the names of the columns.
      part: which part of the file: the member of an archive, an array, a sheet.
    """

    separator: str | None = None
    decimal: str | None = None
    na: tuple[str, ...] = ()
    header: bool | None = None
    part: str | None = None

    def given(self) -> list[str]:
        """Return the names of what was said."""
        return [name for name, value in vars(self).items() if value not in (None, ())]


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
      separator: the character between values; " " for any number of blanks, "" for one column.
      numerals: how numbers are written.
      names: the names of the columns.
      has_header: whether the first line of the cleaned text holds names.
      n_before: lines of the cleaned text before the first row.
      cleaning: what has to be done to the lines before they are read.
      missing: the texts that stand for a missing value.
      told: what is not as in most files, for one line of report.
      sample: the values of the first rows.
      is_empty: whether there are no rows at all.
    """

    separator: str
    numerals: Numerals
    names: list[str]
    has_header: bool
    n_before: int
    cleaning: Cleaning
    missing: tuple[str, ...]
    told: list[str] = field(default_factory=list)
    sample: list[list[str]] = field(default_factory=list)
    is_empty: bool = False

    @property
    def delimiter(self) -> str:
        """The separator in the cleaned text."""
        return "\t" if self.cleaning.blanks else self.separator or _NO_SEPARATOR


def separator_of(text: str) -> str:
    r"""Return the separator that a text names.

    >>> separator_of("tab"), separator_of("\\t"), separator_of(";")
    ('\t', '\t', ';')
    """
    named = {name: mark for mark, name in SEPARATORS.items()}
    named |= {f"{name}s": mark for name, mark in named.items()}
    named |= {"\\t": "\t", "space": " ", "spaces": " ", "whitespace": " ", "bar": "|"}
    found = named.get(text.strip().lower(), text) if text.strip() else text
    if len(found) != 1 or found in '"\n\r' or found.isalnum():
        listed = ", ".join(SEPARATORS.values())
        fail(f"separator {text!r}", "this is no separator.", f"Give one character, or: {listed}.")
    return found


def guess(file: TextFile, given: Overrides) -> Dialect:
    """Guess how a file is written, as far as the user does not say it.

    Raises:
      UserError: the file holds no lines of data, or its numbers can be read in two ways.
    """
    separator = None if given.separator is None else separator_of(given.separator)
    lines, skip = file.sample, 0
    said = re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE) if lines else None
    if said or (lines and lines[0] == "sep=\t"):
        separator = separator or (said[1] if said else "\t")
        lines, skip = lines[1:], 1
    comment = _comment(lines)
    comments = [line.lstrip() for line in lines if comment and line.lstrip().startswith(comment)]
    data = [line for line in lines if line.strip() and not _is_comment(line, comment)]
    if not data:
        what = "the file holds no lines of data" if comments else "there are no rows of data"
        fail(file.where, f"{what}.", "Write the data again.")
    if separator is None:
        separator = _separator(data, "\t" if ".tsv" in file.path.name.lower() else ",")
    rows = _split(data[:SAMPLE_LINES], separator)
    missing = (*MISSING, *given.na)
    written = _numerals(file.where, rows, given.decimal, missing)
    header = Header(
        rows, written, missing, given.header, _named_in_comment(lines, comment, separator)
    )
    told = [] if separator in "," else [_TOLD.get(separator, f"{separator!r} between values")]
    told += [*written.told(), *header.told, *file.told()]
    if comments:
        what = "comment line" if len(comments) == 1 else "comment lines"
        more = "" if file.is_whole else " or more"
        told.append(f"{len(comments)}{more} {what} left out ({comments[0][:30]!r})")
    cleaning = Cleaning(skip, comment, separator == " ")
    return Dialect(
        separator,
        written,
        header.names,
        header.is_there,
        1 + _empty_before(lines, comment) if header.is_there else 0,
        cleaning,
        missing,
        told,
        [row for row in rows[header.is_there :] if len(row) == len(header.names)],
        file.is_whole and len(rows) == header.is_there,
    )


def _empty_before(lines: list[str], comment: str) -> int:
    """Return the number of empty lines before the first line of data, without comments."""
    kept = [line for line in lines if not _is_comment(line, comment)]
    return next((i for i, line in enumerate(kept) if line.strip()), 0)


def _is_comment(line: str, comment: str) -> bool:
    return bool(comment) and line.lstrip().startswith(comment)


def _comment(lines: list[str]) -> str:
    """Return the character with which comment lines begin, or nothing.

    Lines that begin so are comments if other lines do not, and if they stand at the beginning or
    are fewer than the others.
    """
    full = [line.lstrip() for line in lines if line.strip()]
    for mark in COMMENTS:
        n = sum(line.startswith(mark) for line in full)
        before = next((i for i, line in enumerate(full) if not line.startswith(mark)), len(full))
        if 0 < n < len(full) and (n == before or 2 * n <= len(full)):
            return mark
    return ""


def _split(lines: list[str], separator: str) -> list[list[str]]:
    """Split lines into values without the blanks around them; empty lines are left out."""
    if separator == " ":
        lines, separator = Cleaning(blanks=True).clean("\n".join(lines)).split("\n"), "\t"
    whole = (f"{line}\n" for line in lines)
    reader = csv.reader(whole, delimiter=separator or _NO_SEPARATOR, skipinitialspace=True)
    rows: list[list[str]] = []
    # A value that is far too long is an error: what was split until then is the sample.
    with contextlib.suppress(csv.Error):
        rows.extend([entry.strip() for entry in row] for row in reader if row)
    return rows or [[""]]


def _separator(data: list[str], usual: str) -> str:
    """Return the separator under which the lines look most like rows of one table."""
    lines = data[:SEPARATOR_LINES]
    scores: dict[str, float] = {}
    for mark in dict.fromkeys([usual, *SEPARATORS]):
        rows = _split(lines, mark)
        widths = collections.Counter(map(len, rows))
        width, n = max(widths.items(), key=lambda item: (item[1], item[0]))
        if width > 1:
            scores[mark] = n / len(rows) * _clean([row for row in rows if len(row) == width])
    if not any(mark in lines[0] for mark in ",;\t|"):  # perhaps there is only one column
        rows = _split(lines, "")
        entries = [row[0] for row in rows[1:] or rows]
        whole = [c for c in entries if looks_like_number(c) or not re.search(r"[,;\t|]", c)]
        scores[""] = len(whole) / len(entries) * _clean([[entry] for entry in whole])
    return max(scores, key=scores.__getitem__, default=usual)


def _clean(rows: list[list[str]]) -> float:
    """Return the fraction of values that are not split in a wrong place, as far as one can see."""
    entries = [entry for row in rows for entry in row]
    good = sum(
        not re.search(r"[\d\"]\s*[,;|\t]|[,;|\t]\s*[\d\"]|\d\s+[-\d]", entry)
        or looks_like_number(entry)
        for entry in entries
    )
    return good / max(len(entries), 1)


def _numeric_columns(rows: list[list[str]], missing: tuple[str, ...]) -> list[list[str]]:
    """Return the numbers of each column that holds mostly numbers, with or without a unit."""
    found = []
    for column in range(max(map(len, rows))):
        entries = [row[column] for row in rows if column < len(row) and row[column] not in missing]
        plain = [numerals.without_unit(entry) for entry in entries]
        numbers = [entry for entry in plain if looks_like_number(entry)]
        if 2 * len(numbers) > len(entries):
            found.append(numbers)
    return found


def _numerals(
    where: str, rows: list[list[str]], decimal: str | None, missing: tuple[str, ...]
) -> Numerals:
    body = rows[1:] or rows
    try:
        return numerals.guess(
            [entry for column in _numeric_columns(body, missing) for entry in column], decimal
        )
    except numerals.Ambiguous as error:
        example = str(error)
        what = f"numbers such as {example!r} may mean {example.replace(',', '.')}"
        what += f" or {example.replace(',', '')}."
        fail(where, what, "Say which: --decimal , or --decimal . (`decimal` in a config).")


def _named_in_comment(lines: list[str], comment: str, separator: str) -> list[str]:
    """Return the values of the comment line just before the first line of data."""
    before = ""
    for line in lines:
        if not _is_comment(line, comment) and line.strip():
            break
        before = line
    text = before.lstrip().removeprefix(comment).strip()
    return _split([text], separator)[0] if comment and text else []


class Header:
    """The names of the columns, and whether the first line holds them.

    Attributes:
      is_there: whether the first line holds names.
      names: the names of the columns.
      told: what is not as in most files.
    """

    def __init__(
        self,
        rows: list[list[str]],
        written: Numerals,
        missing: tuple[str, ...],
        given: bool | None,
        in_comment: list[str],
    ) -> None:
        """Take the values of the first lines, and those of a comment just above them."""
        first, body = rows[0], rows[1:]
        widths = collections.Counter(map(len, body or rows))
        width = max(widths, key=lambda each: (widths[each], each))
        self._kinds = _Kinds(written, missing)
        self.is_there = self._is_header(first, body) if given is None else given
        self.told: list[str] = []
        if self.is_there:
            self.names = self._completed(first, body, width)
            if given is None and any(map(written.is_number, first)):
                self.told.append(f"the first line holds names ({', '.join(first[:4])})")
            return
        self.names = [f"x{i}" for i in range(width)]
        is_text = all(self._kinds.of(name) == "text" for name in in_comment)
        if given is None and len(in_comment) == width and is_text:
            self.names = in_comment
            self.told.append("names from the comment above the first row")
            return
        listed = self.names[0] if width == 1 else f"{self.names[0]} to {self.names[-1]}"
        self.told.append(f"no header, columns named {listed}")

    def _is_header(self, first: list[str], body: list[list[str]]) -> bool:
        """Return whether the first line differs from the others as names do from values."""
        if not body:
            return not any(map(self._kinds.is_value, first))
        for_names = for_values = 0
        numbers = []
        below_whole = True
        for column, entry in enumerate(first):
            entries = [row[column] for row in body[:200] if column < len(row)]
            kind, below = self._kinds.of(entry), self._kinds.most(entries)
            if below in ("number", "unit"):
                for_names += kind == "text"
                for_values += kind in ("number", "unit")
                if kind == "number":
                    numbers.append(entry)
                    below_whole &= all(re.fullmatch(r"[-+]?\d+", c) for c in entries if c)
        counting = [int(entry) if re.fullmatch(r"\d{1,9}", entry) else None for entry in numbers]
        if len(counting) > 1 and not below_whole and None not in counting:
            # Such as 0, 1, 2 or 1999, 2000, above values with fractions.
            whole = [n for n in counting if n is not None]
            if whole == list(range(whole[0], whole[0] + len(whole))):
                return True
        return for_names >= for_values

    def _completed(self, first: list[str], body: list[list[str]], width: int) -> list[str]:
        """Return names with one for a column of row names, or for a separator after each row."""
        if len(first) != width - 1 or len(body) < 2 or not all(first):
            return first
        rows = [row for row in body if len(row) == width]
        if not any(row[-1] for row in rows):
            return [*first, ""]
        columns = list(zip(*rows, strict=True))
        kinds = [
            (self._kinds.most(list(entries)), self._kinds.of(entries[0])) for entries in columns
        ]
        if ("number", "text") in kinds:  # the names stand in the second line
            return first
        return ["", *first]


@dataclass(frozen=True)
class _Kinds:
    """What kind of value a text is."""

    written: Numerals
    missing: tuple[str, ...]

    def of(self, entry: str) -> str:
        if entry in self.missing or entry in ("?", "-", ".", "*"):
            return "missing"
        if self.written.is_number(entry):
            return "number"
        return "unit" if unit_of(entry) is not None else "text"

    def is_value(self, entry: str) -> bool:
        return self.of(entry) in ("number", "unit")

    def most(self, entries: list[str]) -> str:
        """Return the kind of more than half of the values that are there."""
        counts = collections.Counter(map(self.of, entries))
        counts.pop("missing", None)
        kind, n = max(counts.items(), key=lambda item: item[1], default=("missing", 0))
        return kind if 2 * n > sum(counts.values()) else "text"
