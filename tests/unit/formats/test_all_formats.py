"""Every form in which rows are read and written: there and back again, through the engine."""

from __future__ import annotations

import csv
import functools
import gzip
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe
from bettersynth.core.errors import ConfigError, DataError, MissingExtraError
from bettersynth.engine.analyze import analyze
from bettersynth.engine.local import process
from bettersynth.engine.preflight import preflight
from bettersynth.formats.arrow import saved_files
from bettersynth.formats.jsonl import create_binary, read_rows, write_rows
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.read import ReadOptions, data_files, read_any
from bettersynth.formats.table import value_of
from bettersynth.formats.write import ENDINGS, kind_of, stem_of, write_any

ROWS: list[dict[str, Any]] = [
    {"id": "001", "images": ["p/0.png"], "text": 'a dog, "here"\nnew line', "n": 1, "x": 0.5, "note": None},
    {"id": "002", "images": ["p/1.png", "p/0.png"], "text": "猫 😀\t<image>", "n": -7, "x": 1e-9, "note": "012"},
    {"id": "003", "images": [], "text": "", "n": 0, "x": -1.25, "note": "plain"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """rows.jsonl with two pictures."""
    (tmp_path / "p").mkdir()
    for number in range(2):
        Image.fromarray(np.full((4 + number, 5, 3), 60 * number, np.uint8)).save(tmp_path / "p" / f"{number}.png")
    write_rows(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def recipe(folder: Path, **keys: Any) -> Recipe:
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    return build_recipe(parse_yaml(text + "process: []\n", name="r.yaml"), base=folder)


def result(folder: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(folder / "processed_data.jsonl") if isinstance(row, dict)]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "json", "parquet", "csv", "tsv", "arrow"])
def test_out_and_in_again(kind: str, folder: Path) -> None:
    name = f"res{ENDINGS[kind]}"
    for out in ("a", "again"):
        made = recipe(folder, dataset_path="rows.jsonl", export_path=f"x/{name}")
        artifact = process(made, out=folder / out, workers=1)
        assert artifact.facts["data"] == name and artifact.verify() == []
    first, again = (sorted((folder / out).glob("res*/*")) or [folder / out / name] for out in ("a", "again"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    back = recipe(folder, dataset_path=str(folder / "a" / name), image_root=str(folder))
    process(back, out=folder / "b", workers=1)
    want = [dict(row) for row in ROWS]
    if kind in ("csv", "tsv"):
        want[1]["note"], want[0]["id"], want[1]["id"], want[2]["id"] = "012", "001", "002", "003"
    assert result(folder / "b") == want


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "parquet", "json", "csv"])
def test_a_result_is_called_what_it_is(kind: str, folder: Path) -> None:
    made = recipe(folder, dataset_path="rows.jsonl", export_path="x/res.jsonl", export_type=kind)
    artifact = process(made, out=folder / "a", workers=1)
    assert artifact.facts["data"] == f"res.{kind}" and (folder / "a" / f"res.{kind}").is_file()
    back = recipe(folder, dataset_path=str(folder / "a" / f"res.{kind}"), image_root=str(folder))
    assert process(back, out=folder / "b", workers=1).facts["rows_out"] == 3


def test_compressed_lines_do_not_hold_the_name_of_a_passing_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with create_binary(tmp_path / name, ".gz") as stream:
            stream.write(b"x\n")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_webdataset_keeps_pictures_and_fields(folder: Path) -> None:
    made = recipe(folder, dataset_path="rows.jsonl", export_path="x/res.tar")
    process(made, out=folder / "a", workers=1)
    process(recipe(folder, dataset_path=str(folder / "a" / "res.tar")), out=folder / "b", workers=1)
    rows = result(folder / "b")
    assert [{**row, "images": []} for row in rows] == [{**row, "images": []} for row in ROWS]
    assert [len(row["images"]) for row in rows] == [1, 2, 0]
    assert (folder / "b" / rows[1]["images"][0]).read_bytes() == (folder / "p" / "1.png").read_bytes()
    (folder / "p" / "0.png").unlink()
    with pytest.raises(DataError, match="image not found"):
        process(
            recipe(folder, dataset_path="rows.jsonl", export_path="x/r.tar", on_missing_image="keep"), out=folder / "c"
        )


def _pack(path: Path, members: list[tuple[str, bytes | str]]) -> None:
    """A tar of members; a text is a link's target."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_members_that_no_row_can_hold_are_counted_and_said(folder: Path, call: Any) -> None:
    members: list[tuple[str, bytes | str]] = [("README", b"hello"), ("._0.json", b"\0\1")]
    for number in range(2):
        members += [
            (f"{number}.json", b'{"n": 1}' if number else b"[1, 2]"),
            (f"{number}.txt", b"a text"),
            (f"{number}.cls", b"7"),
            (f"{number}.mp4", b"\xff\xfe\x00"),
        ]
    _pack(folder / "w.tar", [*members, ("1.png", "0.png"), ("1.jfif", (folder / "p" / "0.png").read_bytes())])
    made = recipe(folder, dataset_path="w.tar")
    wanted = {".mp4": 2, "hidden": 1, "link": 1, "no ending": 1}
    assert process(made, out=folder / "a", workers=1).facts["left_out"] == wanted
    rows = result(folder / "a")
    assert rows[0] == {"json": [1, 2], "text": "a text", "cls": "7", "id": "0"}
    assert rows[1] == {"n": 1, "text": "a text", "cls": "7", "id": "1", "images": ["images/w/1.png"]}
    again = recipe(
        folder, dataset_path="w.tar", max_failed_ratio=0.5
    )  # the rows are not read anew, and it is said anew
    assert process(again, out=folder / "a", workers=1).facts["left_out"] == wanted
    (folder / "r.yaml").write_text(
        f"dataset_path: {folder / 'w.tar'}\nprocess:\n  - words_num_filter: {{min_num: 1}}\n"
    )
    said = call("process", folder / "r.yaml", "--out", folder / "b").out
    assert "5 members" in said and ".mp4 2, hidden files 1, links 1, without an ending 1" in said


def test_llava_out(folder: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a dog"}]
    (folder / "s.json").write_text(json.dumps([{"id": "1", "image": "p/1.png", "conversations": turns}]))
    made = recipe(folder, dataset_path="s.json", export_path="x/out.json", export_type="llava")
    process(made, out=folder / "a", workers=1)
    (record,) = json.loads((folder / "a" / "out.json").read_text())
    assert record == {"id": "1", "conversations": turns, "image": "p/1.png"}


def test_pictures_inside_parquet_become_files(folder: Path) -> None:
    data = [(folder / "p" / f"{n}.png").read_bytes() for n in range(2)]
    table = pa.table({"text": ["one", "two", "three"], "image_bytes": [[data[0]], [data[1], None], None]})
    pq.write_table(table.append_column("images", pa.array([["x"], ["y", "p/0.png"], []])), folder / "b.parquet")
    process(recipe(folder, dataset_path="b.parquet"), out=folder / "a", workers=1)
    rows = result(folder / "a")
    assert rows[0]["images"] == ["images/b/00000001-0.png"] and "image_bytes" not in rows[0]
    assert (folder / "a" / rows[0]["images"][0]).read_bytes() == data[0]
    entry = pa.array([{"bytes": data[1], "path": "q.png"}])
    pq.write_table(pa.table({"text": ["one"], "images": entry}), folder / "h.parquet")  # as `datasets` writes pictures
    process(recipe(folder, dataset_path="h.parquet"), out=folder / "h", workers=1)
    assert (folder / "h" / result(folder / "h")[0]["images"][0]).read_bytes() == data[1]


def test_splits_of_a_saved_data_set(folder: Path) -> None:
    for split, row in (("train", ROWS[0]), ("test", ROWS[1])):
        write_any(folder / "d" / split, "arrow", lambda row=row: [(row, [])], _options())
    (folder / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [path.parent.name for path in saved_files(folder / "d")] == ["train"]
    configs = {"configs": [{"path": str(folder / "d"), "split": "test"}]}
    process(recipe(folder, dataset=configs, image_root=str(folder)), out=folder / "a", workers=1)
    assert result(folder / "a") == [ROWS[1]]
    with pytest.raises(ConfigError, match="no such split"):
        saved_files(folder / "d", "dev")


def _options() -> Any:
    from bettersynth.formats.write import WriteOptions

    return WriteOptions()


def test_json_that_holds_lines_and_folders_of_one_kind(folder: Path) -> None:
    (folder / "lines.json").write_text((folder / "rows.jsonl").read_text())
    process(recipe(folder, dataset_path="lines.json"), out=folder / "a", workers=1)
    assert result(folder / "a") == ROWS
    only = ReadOptions(suffixes=(".jsonl",))
    assert [path.name for path in data_files(folder, only) if path.parent == folder] == ["rows.jsonl"]
    (folder / "what.bin").write_text("")
    with pytest.raises(ConfigError, match="unknown kind of data file"):
        data_files(folder / "what.bin", only)


def test_cells() -> None:
    cells = ["0", "-0", "00", "1.50", "1.5", "1e5", "nan", "[1", '{"a": 1}', None, "12345678901234567890123"]
    assert [value_of(cell) for cell in cells] == [
        *(0, "-0", "00", "1.50", 1.5, "1e5", "nan", "[1", {"a": 1}, None, "12345678901234567890123"),
    ]


def test_names() -> None:
    assert [kind_of(name) for name in ("a.jsonl", "a.json", "a.jsonl.zst", "a.txt")] == [
        *("jsonl", "json", "jsonl.zst", None),
    ]
    assert (stem_of("a.b.jsonl.gz"), stem_of("a")) == ("a.b", "a")


@pytest.mark.parametrize("name", ["bad.parquet", "bad.tar", "bad.arrow", "bad.csv", "bad.json"])
def test_damaged_files_are_named(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"text\n\xff\xfe\x00\x01" * 200)
    with pytest.raises(DataError, match=r"cannot read the data file|not valid JSON"):
        list(read_any(folder / name, ReadOptions(), PictureFolder(folder, "x")))


def test_rows_that_no_column_can_hold_are_refused_with_a_way_out(folder: Path) -> None:
    write_rows(folder / "m.jsonl", [{"text": "a", "v": 1}, {"text": "b", "v": {"w": 2}}])
    with pytest.raises(DataError, match="cannot share a column") as caught:
        process(recipe(folder, dataset_path="m.jsonl", export_path="x/m.parquet"), out=folder / "a", workers=1)
    assert "JSON lines" in str(caught.value.hint) and not list((folder / "a").glob(".m*"))


@pytest.mark.skipif(find_spec("lance") is not None, reason="pylance is installed")
def test_without_lance_the_extra_is_named(folder: Path) -> None:
    with pytest.raises(MissingExtraError, match="'lance' extra"):
        process(recipe(folder, dataset_path="rows.jsonl", export_path="x/r.lance"), out=folder / "a", workers=1)


@pytest.mark.skipif(find_spec("lance") is None, reason="pylance is not installed: pip install 'bettersynth[lance]'")
def test_lance_out_and_in_again(folder: Path) -> None:
    process(recipe(folder, dataset_path="rows.jsonl", export_path="x/r.lance"), out=folder / "a", workers=1)
    back = recipe(folder, dataset_path=str(folder / "a" / "r.lance"), image_root=str(folder))
    process(back, out=folder / "b", workers=1)
    assert result(folder / "b") == ROWS


# ---------------------------------------------------------------- places elsewhere


class _Store(http.server.BaseHTTPRequestHandler):
    """Just enough of S3 (path style, no signatures checked) and of a plain web server, over a dictionary."""

    objects: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.objects.get(path)
        stamp = "Sat, 21 Nov 2026 07:00:00 GMT"
        if "list-type=2" in query:
            prefix = path.strip("/") + "/"
            keys = [key.removeprefix("/" + prefix) for key in self.objects if key.startswith("/" + prefix)]
            wanted = next((part[7:] for part in query.split("&") if part.startswith("prefix=")), "")
            wanted = wanted.replace("%2F", "/")
            items = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(self.objects['/' + prefix + key])}</Size>"
                "<LastModified>2026-11-21T07:00:00.000Z</LastModified></Contents>"
                for key in sorted(keys)
                if key.startswith(wanted)
            )
            count = f"<IsTruncated>false</IsTruncated><KeyCount>{len(items) and 1}</KeyCount>"
            answer = f"<ListBucketResult>{count}{items}</ListBucketResult>"
            self._send(200, answer.encode(), Content_Type="application/xml")
        elif body is None:
            self._send(404)
        elif "Range" in self.headers:
            start, _, stop = self.headers["Range"].removeprefix("bytes=").partition("-")
            part = body[int(start) : int(stop) + 1 if stop else None]
            span = f"bytes {start}-{int(start) + len(part) - 1}/{len(body)}"
            self._send(206, part, ETag='"1"', Last_Modified=stamp, Content_Range=span)
        else:
            self._send(200, body, ETag=f'"{hash(body)}"', Last_Modified=stamp)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        if query.startswith("uploads"):
            self.objects[path] = b""
            self._send(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        else:
            self._send(200, b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>')

    def do_PUT(self) -> None:
        is_cut = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        body = self._chunks(self.rfile) if is_cut else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if is_cut:
            self.rfile.readline()
        if b"x-amz-checksum" in body[-80:]:
            body = self._chunks(io.BytesIO(body))
        path, _, query = self.path.partition("?")
        self.objects[path] = (self.objects.get(path, b"") if "partNumber" in query else b"") + body
        self._send(200, ETag='"1"')

    def _chunks(self, sent: Any) -> bytes:
        """What was sent in pieces, each after its size in hexadecimal; checksums at the end are not looked at."""
        body = b""
        while size := int(sent.readline().split(b";")[0], 16):
            body += sent.read(size)
            sent.readline()
        return body


@pytest.fixture
def store() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Address of a local store, and what it holds by path."""
    handler = type("Store", (_Store,), {"objects": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.objects
    server.shutdown()
    server.server_close()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps({**row, "images": []}).encode() + b"\n" for row in rows)


def test_rows_from_the_web(store: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    address, objects = store
    objects["/a/rows.jsonl"] = _lines(ROWS)
    made = recipe(tmp_path, dataset_path=f"{address}/a/rows.jsonl")
    process(made, out=tmp_path / "o", workers=1)
    assert len(result(tmp_path / "o")) == 3
    objects["/a/rows.jsonl"] = _lines(ROWS[:2])  # another version there is another input here
    process(made, out=tmp_path / "o", workers=1)
    assert len(result(tmp_path / "o")) == 2
    with pytest.raises(DataError, match="cannot read the data file"):
        process(recipe(tmp_path, dataset_path=f"{address}/none.jsonl"), out=tmp_path / "p", workers=1)


def test_rows_from_and_to_s3(store: tuple[str, dict[str, bytes]], tmp_path: Path, monkeypatch: Any) -> None:
    address, objects = store
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    objects |= {"/pool/d/a.jsonl": _lines(ROWS[:2]), "/pool/d/b.jsonl": _lines(ROWS[2:])}
    configs = {"configs": [{"type": "remote", "source": "s3", "path": "s3://pool/d", "endpoint_url": address}]}
    made = recipe(
        tmp_path,
        dataset=configs,
        export_path="s3://pool/out/res.jsonl",
        export_aws_credentials={"endpoint_url": address},
    )
    process(made, out=tmp_path / "o", workers=1)
    assert objects["/pool/out/res.jsonl"] == (tmp_path / "o" / "res.jsonl").read_bytes()
    assert objects["/pool/out/res.jsonl"].count(b"\n") == 3


@pytest.mark.skipif(find_spec("fsspec") is None, reason="fsspec is not installed: pip install 'bettersynth[remote]'")
def test_other_places_go_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/pool/rows.jsonl", _lines(ROWS))
    process(recipe(tmp_path, dataset_path="memory://pool/rows.jsonl"), out=tmp_path / "o", workers=1)
    assert len(result(tmp_path / "o")) == 3


def test_names_that_look_alike_once_cleaned_stay_two_pictures(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path, "pictures")
    places = [folder.save(stem, stem.encode(), ".png") for stem in ("a/b", "a_b", "a b", "../a")]
    assert places[1] == "pictures/a_b.png" and len(set(places)) == 4
    assert [(tmp_path / place).read_bytes() for place in places] == [b"a/b", b"a_b", b"a b", b"../a"]
    assert {(tmp_path / place).resolve().parent for place in places} == {(tmp_path / "pictures").resolve()}


def test_pictures_of_files_with_one_name_are_not_exchanged(tmp_path: Path) -> None:
    picture = b"\x89PNG\r\n\x1a\n"
    for number, name in enumerate(("a/s.tar", "b/s.tar", "b/s.001.tar", "b/s-2.tar")):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        _pack(tmp_path / "d" / name, [("1.txt", b"%d" % number), ("1.png", picture + b"%d" % number)])
    process(recipe(tmp_path, dataset_path=str(tmp_path / "d")), out=tmp_path / "o", workers=1)
    found = [(row["text"].encode(), (tmp_path / "o" / row["images"][0]).read_bytes()) for row in result(tmp_path / "o")]
    assert len(found) == 4 and all(data == picture + text for text, data in found)


def test_pictures_inside_a_file_are_found_beside_another_picture_folder(folder: Path) -> None:
    picture = (folder / "p" / "0.png").read_bytes()
    (folder / "d").mkdir()
    _pack(folder / "d" / "s.tar", [("1.txt", b"packed"), ("1.png", picture)])
    write_rows(folder / "d" / "t.jsonl", ROWS)
    process(recipe(folder, dataset_path=str(folder / "d"), image_root=str(folder)), out=folder / "o", workers=1)
    assert len(result(folder / "o")) == 4


def test_pictures_of_a_sample_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = sorted(f"s.{number}.png" for number in range(12))
    _pack(tmp_path / "d.tar", [*((name, name.encode()) for name in names), ("s.txt", b"text")])
    (row,) = read_any(tmp_path / "d.tar", ReadOptions(), PictureFolder(tmp_path, "x"))
    assert [Path(place).name for place in row["images"]] == [f"s.{number}.png" for number in range(12)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": b"x", "2.png": b"y", "1.txt": b"one", "2.txt": b"two"}, "comes again"),
        ({"1.json": b"{", "1.txt": b"one"}, "cannot read"),
    ],
)
def test_samples_that_would_lose_their_pictures_are_refused(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    _pack(tmp_path / "d.tar", list(files.items()))
    with pytest.raises(DataError, match=message) as caught:
        list(read_any(tmp_path / "d.tar", ReadOptions(), PictureFolder(tmp_path, "x")))
    assert caught.value.where is not None and "1" in caught.value.where.rpartition("/")[2]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_that_only_late_rows_have_are_kept(kind: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": str(number), "m": {"a": 1}, "z": None} for number in range(5000)]
    rows[-1] = {"text": "last", "m": {"a": 1, "b": "x"}, "z": [1], "late": 2.5}
    write_any(tmp_path / f"o.{kind}", kind, lambda: [(row, []) for row in rows], _options())
    place = tmp_path / "o.arrow" / "data-00000-of-00001.arrow" if kind == "arrow" else tmp_path / "o.parquet"
    *_, last = read_any(place, ReadOptions(), PictureFolder(tmp_path, "x"))
    assert last == rows[-1]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_values_that_columns_cannot_hold(kind: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "meta": {}, "deep": [{"x": {}}]}, {"text": "b", "meta": None}]
    write_any(tmp_path / f"o.{kind}", kind, lambda: [(row, []) for row in rows], _options())
    odd: list[dict[str, Any]] = [{"n": 2**64 - 1}, {"n": -1}]
    with pytest.raises(DataError, match="different types") as caught:
        write_any(tmp_path / f"p.{kind}", kind, lambda: [(row, []) for row in odd], _options())
    assert caught.value.where == str(tmp_path / f"p.{kind}") and not list(tmp_path.glob("*p.*"))
    if kind == "parquet":  # which has no empty objects
        assert pq.read_table(tmp_path / "o.parquet").to_pylist()[0] == {
            "text": "a",
            "meta": None,
            "deep": [{"x": None}],
        }


def test_tables_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    def read(text: str) -> list[Any]:
        (tmp_path / "t.csv").write_text(text)
        return list(read_any(tmp_path / "t.csv", ReadOptions(), PictureFolder(tmp_path, "x")))

    long = "x" * 200_000
    assert read(f'id,text\n1,"{long}"\n2,"a\nb"') == [{"id": 1, "text": long}, {"id": 2, "text": "a\nb"}]
    assert read("") == read("text\n") == []
    with pytest.raises(DataError, match="never closed") as caught:
        read('id,text\n1,"a\nb"\n2,"open\n3,c\n')
    assert caught.value.where == f"{tmp_path / 't.csv'}:4"
    with pytest.raises(DataError, match="named twice"):
        read("text,text\na,b\n")


@pytest.mark.parametrize("key", ["delimiter", "sep"])
def test_another_delimiter(key: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id;text\n1;a b\n")
    made = recipe(tmp_path, dataset_path="t.csv", load_dataset_kwargs={key: ";", "num_proc": 2})
    assert preflight(made) == [] and "load_dataset_kwargs.num_proc" in " ".join(made.notices)
    process(made, out=tmp_path / "o", workers=1)
    assert result(tmp_path / "o") == [{"id": 1, "text": "a b"}]
    (problem,) = preflight(recipe(tmp_path, dataset_path="t.csv"))
    assert problem.hint is not None and '{delimiter: ";"}' in problem.hint


def test_long_cells_are_read_and_the_limit_of_other_readers_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f"id,text\n1,{'a' * (limit + 1)}\n2,b\n")
    rows = read_any(tmp_path / "t.csv", ReadOptions(), PictureFolder(tmp_path, "x"))
    assert len(next(rows)["text"]) == limit + 1 and csv.field_size_limit() == limit
    assert [row["id"] for row in rows] == [2]


def test_a_compressed_list_of_records(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "r.json.gz", "wt") as handle:
        json.dump(ROWS[2:], handle)
    process(recipe(tmp_path, dataset_path="r.json.gz"), out=tmp_path / "o", workers=1)
    assert result(tmp_path / "o") == ROWS[2:]


def test_what_cannot_work_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (problem,) = preflight(recipe(tmp_path, dataset_path="bad.parquet"))
    assert "cannot read the data file" in problem.message
    if find_spec("lance") is None:
        write_rows(tmp_path / "r.jsonl", ROWS)
        (problem,) = preflight(recipe(tmp_path, dataset_path="r.jsonl", export_path="x/r.lance"))
        assert isinstance(problem, MissingExtraError)


def test_captions_as_llava_say_what_to_run(folder: Path) -> None:
    write_rows(folder / "first.jsonl", ROWS[:1])
    made = recipe(folder, dataset_path="first.jsonl", export_path="x/out.json", export_type="llava")
    with pytest.raises(DataError) as caught:
        process(made, out=folder / "a", workers=1)
    assert "bettersynth convert dj-to-llava" in str(caught.value.hint)


@pytest.mark.parametrize("keys", [{"export_shard_size": 100}, {"export_type": "arrow"}, {"keep_stats_in_res_ds": True}])
def test_a_result_folder_is_read_as_its_rows_alone(keys: dict[str, Any], folder: Path) -> None:
    write_rows(folder / "bad.jsonl", [*ROWS, {"text": 1}])
    made = recipe(folder, dataset_path="bad.jsonl", export_path="x/r.jsonl", max_failed_ratio=1, **keys)
    process(made, out=folder / "a", workers=1)
    assert analyze(folder / "a", image_root=folder)["rows"] == 3
    back = recipe(folder, dataset_path=str(folder / "a"), image_root=str(folder))
    assert process(back, out=folder / "b", workers=1).facts["rows_in"] == 3
