"""Small files as people have them, made anew for each test, and what each has to give."""

import bz2
import gzip
import io
import lzma
import zipfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.feather


@dataclass(frozen=True)
class Case:
    """A file, and the right values or parts of the sentence that refuses it.

    Attributes:
      file: the name of the file.
      content: its bytes.
      x: the samples; None where the file is refused.
      columns: their names.
      told: parts of the line that says how the file was read.
      refused: parts of the sentence that refuses it.
      options: arguments of ``datasets.load``.
      ids: the first and the last id.
      source: what is given instead of the name of the file.
    """

    file: str
    content: bytes
    x: list[list[float]] | None = None
    columns: tuple[str, ...] = ("a", "b")
    told: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    ids: tuple[str, str] | None = None
    source: str | None = None


X = [[1.5, 20.0], [2.25, 30.0], [-3.0, 41.5], [0.125, 5.0]]
PLAIN = "a,b\n1.5,20\n2.25,30\n-3,41.5\n0.125,5\n"
EURO = "a;b\n1,5;20\n2,25;30\n-3;41,5\n0,125;5\n"
BARE = "1.5,20,red\n2.25,30,blue\n-3,41.5,red\n0.125,5,red\n"
BIG = [[1234.5, 1.5], [12.25, 2.5], [1000000.0, 3.5]]


def _zip(**members):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return sink.getvalue()


def _npz(**arrays):
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def _feather():
    sink = io.BytesIO()
    table = pa.table({"a": [r[0] for r in X], "name": list("pqrs"), "b": [r[1] for r in X]})
    pyarrow.feather.write_feather(table, sink)
    return sink.getvalue()


def xlsx(*sheets):
    """A workbook of sheets, each a name and rows of text and numbers."""
    sink = io.BytesIO()
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"

    def cell(value, place):
        if isinstance(value, str):
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
        return f'<c r="{place}"><v>{value!r}</v></c>'

    with zipfile.ZipFile(sink, "w") as book:
        parts = "".join(
            f'<Override PartName="/xl/worksheets/sheet{i}.xml" ContentType="{kind}.worksheet+xml"/>'
            for i in range(len(sheets))
        )
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" ContentType='
            '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName='
            f'"/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>{parts}</Types>',
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type='
            f'"{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        names = "".join(
            f'<sheet name="{name}" sheetId="{i + 1}" r:id="r{i}"/>'
            for i, (name, _) in enumerate(sheets)
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{names}</sheets></workbook>',
        )
        links = "".join(
            f'<Relationship Id="r{i}" Type="{office}/worksheet" Target="worksheets/sheet{i}.xml"/>'
            for i in range(len(sheets))
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships">{links}</Relationships>',
        )
        for i, (_, rows) in enumerate(sheets):
            body = "".join(
                f'<row r="{r}">{"".join(cell(v, f"{chr(65 + c)}{r}") for c, v in enumerate(row))}'
                "</row>"
                for r, row in enumerate(rows, 1)
            )
            book.writestr(
                f"xl/worksheets/sheet{i}.xml",
                f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>',
            )
    return sink.getvalue()


ROWS = [["name", "a", "b"], *([f"r{i}", *row] for i, row in enumerate(X))]


def _case(file, text, x=None, **more):
    content = text if isinstance(text, bytes) else text.encode()
    return Case(file, content, x, **more)


def _swapped(old, new, text=PLAIN):
    return text.replace(old, new)


CASES = [
    # --- separators
    _case("comma.csv", PLAIN, X),
    _case("semicolon.csv", _swapped(",", ";"), X, told=("semicolons",)),
    _case("tab.csv", _swapped(",", "\t"), X, told=("tabs",)),
    _case("tab.tsv", _swapped(",", "\t"), X, told=("tabs",)),
    _case("pipe.txt", _swapped(",", "|"), X, told=("pipes",)),
    _case("blank.txt", _swapped(",", " "), X, told=("blanks",)),
    _case(
        "aligned.dat",
        "   a      b\n 1.5   20\n2.25\t30\n  -3  41.5\n.125     5 \n",
        X,
        told=("blanks",),
    ),
    _case("other.txt", _swapped(",", ":"), X, options=(("separator", ":"),), told=("':'",)),
    _case("spaced.csv", _swapped(",", " , "), X),
    _case("one.csv", "a\n1.5\n2\n", [[1.5], [2.0]], columns=("a",)),
    _case("said.csv", "sep=;\n" + _swapped(",", ";"), X, told=("semicolons",)),
    _case("trailing.csv", _swapped("\n", ",\n"), X),
    _case("carriage.csv", _swapped("\n", "\r"), X),
    _case("windows.csv", _swapped("\n", "\r\n"), X),
    _case("quoted.csv", '"a","b"\n"1.5","20"\n"2.25","30"\n"-3","41.5"\n"0.125","5"\n', X),
    _case(
        "text.csv",
        'a,who,b\n1.5,"Doe, J.",20\n2.25,"x; y",30\n-3,z,41.5\n0.125,"1, 2",5\n',
        X,
        told=("1 column left out as text: who",),
    ),
    # --- numbers
    _case("euro.csv", EURO, X, told=("semicolons", "decimal commas")),
    _case("euro.tsv", _swapped(";", "\t", EURO), X, told=("tabs", "decimal commas")),
    _case(
        "euro_quoted.csv",
        'a,b\n"1,5",20\n"2,25",30\n-3,"41,5"\n"0,125",5\n',
        X,
        told=("decimal commas",),
    ),
    _case(
        "euro_one.csv", "a\n1,5\n2,25\n", [[1.5], [2.25]], columns=("a",), told=("decimal commas",)
    ),
    _case(
        "thousands.csv",
        'a,b\n"1,234.5",1.5\n12.25,2.5\n"1,000,000",3.5\n',
        BIG,
        told=("commas between thousands",),
    ),
    _case(
        "points.csv",
        "a;b\n1.234,5;1,5\n12,25;2,5\n1.000.000;3,5\n",
        BIG,
        told=("decimal commas", "points between thousands"),
    ),
    _case(
        "narrow.csv",
        "a;b\n1\u202f234,5;1,5\n12,25;2,5\n1\u202f000\u202f000;3,5\n",
        BIG,
        told=("blanks between thousands",),
    ),
    _case(
        "swiss.csv",
        "a;b\n1'234.5;1.5\n12.25;2.5\n1'000'000;3.5\n",
        BIG,
        told=("apostrophes between thousands",),
    ),
    _case("minus.csv", _swapped("-", "−"), X),
    _case("percent.csv", "a,b\n1.5%,20\n2.25 %,30\n-3%,41.5\n0.125%,5\n", X, told=("a in %",)),
    _case("percent_mixed.csv", "a,b\n1.5%,20\n2.25%,30\n0.03,41.5\n", refused=("row 3", "'%'")),
    _case("doubtful.tsv", "a\tb\n1,234\t1\n2,345\t2\n", refused=("1.234 or 1234", "--decimal")),
    _case(
        "decided.tsv",
        "a\tb\n1,234\t1\n2,345\t2\n",
        [[1.234, 1], [2.345, 2]],
        options=(("decimal", ","),),
        told=("decimal commas",),
    ),
    _case(
        "grouped.tsv",
        "a\tb\n1,234\t1\n2,345\t2\n",
        [[1234, 1], [2345, 2]],
        options=(("decimal", "."),),
        told=("commas between thousands",),
    ),
    _case(
        "units.csv",
        "a,mass,b\n1.5,3750 g,20\n2.25,3800 g,30\n",
        [[1.5, 20], [2.25, 30]],
        told=("1 column left out as numbers with a unit: mass",),
    ),
    _case(
        "units_named.csv",
        "a,mass\n1.5,3750 g\n2.25,3800 g\n",
        [[3750], [3800]],
        columns=("mass",),
        options=(("columns", ["mass"]),),
        told=("mass in g",),
    ),
    _case("units_only.csv", "mass\n3750 g\n3800 g\n", refused=("no column of numbers", "mass")),
    _case("stray.csv", "a,b\n1,2\n?,3\n4,5\n", refused=("column 'a', row 2", "'?'")),
    # --- headers
    _case("bare.data", BARE, X, columns=("x0", "x1"), told=("no header", "left out as text: x2")),
    _case(
        "numbers.csv",
        "1.5,20\n2.25,30\n",
        [[1.5, 20], [2.25, 30]],
        columns=("x0", "x1"),
        told=("no header, columns named x0 to x1",),
    ),
    _case(
        "counted.csv",
        "0,1\n1.5,20\n2.25,30\n",
        [[1.5, 20], [2.25, 30]],
        columns=("0", "1"),
        told=("the first line holds names",),
    ),
    _case(
        "years.csv",
        "land,1999,2000\np,1.5,20\nq,2.25,30\n",
        [[1.5, 20], [2.25, 30]],
        columns=("1999", "2000"),
        told=("holds names",),
    ),
    _case(
        "forced.csv",
        "7,8\n1.5,20\n2.25,30\n",
        [[1.5, 20], [2.25, 30]],
        columns=("7", "8"),
        options=(("header", True),),
    ),
    _case("lines_above.csv", "Export of May\n\na,b\n1,2\n3,4\n", refused=("row 1 has 2", "above")),
    # --- comments and encodings
    _case(
        "comments.csv",
        "# made by hand\n" + PLAIN + "# the end\n",
        X,
        told=("2 comment lines left out",),
    ),
    _case(
        "savetxt.txt", "# a b\n1.5 20\n2.25 30\n-3 41.5\n.125 5\n", X, told=("blanks", "comment")
    ),
    _case("bom.csv", b"\xef\xbb\xbf" + PLAIN.encode(), X),
    _case("utf16.csv", PLAIN.encode("utf-16"), X, told=("UTF-16",)),
    _case("utf16_bare.csv", PLAIN.encode("utf-16-le"), X, told=("UTF-16",)),
    _case(
        "latin.csv",
        PLAIN.replace("a,", "größe,").encode("latin-1"),
        X,
        columns=("größe", "b"),
        told=("Latin-1",),
    ),
    _case(
        "late_latin.csv",
        ("a,b,k\n" + "1,2,x\n" * 50_000 + "3,4,ö\n").encode("latin-1"),
        [[1, 2]] * 50_000 + [[3, 4]],
        told=("Latin-1",),
    ),
    _case("binary.txt", b"\x00\x01\x02\x03" * 50, refused=("no text",)),
    # --- compressed
    _case("a.csv.gz", gzip.compress(PLAIN.encode()), X),
    _case("a.csv.bz2", bz2.compress(PLAIN.encode()), X),
    _case("a.tsv.xz", lzma.compress(_swapped(",", "\t").encode()), X, told=("tabs",)),
    _case("a.csv.zst", pa.compress(PLAIN.encode(), "zstd", asbytes=True), X),
    _case("a.zip", _zip(data__csv=EURO), X, told=("decimal commas",)),
    _case("two.zip", _zip(p__csv=PLAIN, q__csv=EURO), refused=("2 files of text", "two.zip:p.csv")),
    _case("named.zip", _zip(p__csv=PLAIN, q__csv="z\n1\n"), X, source="named.zip:p.csv"),
    _case("cut.csv.gz", gzip.compress(PLAIN.encode() * 99)[:-20], refused=("damaged",)),
    _case("misnamed.csv", gzip.compress(PLAIN.encode()), X),
    # --- ids
    _case(
        "pandas.csv",
        ",a,b\n0,1.5,20\n1,2.25,30\n2,-3,41.5\n3,0.125,5\n",
        X,
        ids=("0", "3"),
        told=("the first column is an id",),
    ),
    _case(
        "rownames.csv",
        "rownames,a,b\np,1.5,20\nq,2.25,30\nr,-3,41.5\ns,0.125,5\n",
        X,
        ids=("p", "s"),
        told=("rownames is an id",),
    ),
    _case(
        "r_table.txt",
        '"a" "b"\n"Mazda RX4" 1.5 20\n"q" 2.25 30\n"r" -3 41.5\n"s" .125 5\n',
        X,
        ids=("Mazda RX4", "s"),
        told=("blanks", "the first column is an id"),
    ),
    _case(
        "id.csv",
        "id,a,b\n7,1.5,20\n8,2.25,30\n9,-3,41.5\n10,0.125,5\n",
        X,
        ids=("7", "10"),
        told=("id is an id",),
    ),
    _case(
        "named_id.csv",
        "a,code,b\n1.5,71,20\n2.25,3,30\n-3,9,41.5\n.125,1,5\n",
        X,
        ids=("71", "1"),
        options=(("id", "code"),),
        told=("code is an id",),
    ),
    _case("not_id.csv", "id,b\n1.5,20\n2.25,30\n", [[1.5, 20], [2.25, 30]], columns=("id", "b")),
    _case("no_id.csv", PLAIN, refused=("no column 'cod'",), options=(("id", "cod"),)),
    _case("nameless.csv", ",b\n1.5,20\n1.5,30\n", refused=("no name",)),
    # --- missing values
    _case("gap.csv", "a,b\n1,2\n3,\n", refused=("column 'b', row 2", "missing")),
    _case(
        "na.csv",
        "a,b\n1,2\n3,-999\n",
        refused=("column 'b', row 2", "missing"),
        options=(("na", ["-999"]),),
    ),
    _case(
        "na_text.csv",
        "a,b\n1,2\n3,?\n",
        refused=("column 'b', row 2", "missing"),
        options=(("na", ["?"]),),
    ),
    # --- other formats
    _case(
        "a.jsonl",
        '{"a": 1.5, "b": 20, "k": "x"}\n{"a": 2, "b": 3, "k": "y"}\n',
        [[1.5, 20], [2, 3]],
        told=("left out as text: k",),
    ),
    _case("a.jsonl.gz", gzip.compress(b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n'), [[1, 2], [3, 4]]),
    _case("bad.jsonl", '{"a": 1}\nnothing\n', refused=("not a file of JSON lines",)),
    _case("a.feather", _feather(), X, told=("left out as text: name",)),
    _case("a.npz", _npz(x=np.array(X)), X, columns=("x0", "x1")),
    _case(
        "xy.npz",
        _npz(x=np.array(X), y=np.arange(4)),
        X,
        columns=("x0", "x1"),
        told=("array x, not y",),
    ),
    _case("vectors.npz", _npz(a=np.array(X)[:, 0], b=np.array(X)[:, 1]), X),
    _case("two.npz", _npz(p=np.array(X), q=np.ones((2, 2))), refused=("one matrix", "two.npz:p")),
    _case(
        "named.npz",
        _npz(p=np.array(X), q=np.ones((2, 2))),
        X,
        columns=("x0", "x1"),
        source="named.npz:p",
    ),
    _case("a.xlsx", xlsx(("Data", ROWS)), X, told=("left out as text: name",)),
    _case("sheets.xlsx", xlsx(("Data", ROWS), ("More", [["z"], [1.0]])), X, told=("sheet 'Data'",)),
    _case(
        "sheet.xlsx",
        xlsx(("Notes", [["hello"]]), ("Data", ROWS)),
        X,
        source="sheet.xlsx:Data",
        told=("left out as text: name",),
    ),
    _case(
        "no_sheet.xlsx",
        xlsx(("Data", ROWS)),
        refused=("no sheet 'Dat'",),
        source="no_sheet.xlsx:Dat",
    ),
]
"""Every file; names are distinct."""
