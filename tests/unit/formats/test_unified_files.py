"""Records in Parquet and WebDataset files: where their pictures go, and that every mistake is named."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.core.sample import Conversation
from bettersynth.formats.pictures import keep_picture
from bettersynth.formats.unified import BadRecord
from bettersynth.formats.unified_files import read_records, read_unified
from bettersynth.train.unified_data import check_file

PAIR = {"text_prompt": "a cat", "image_path": "cat.png"}


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def pack(path: Path, members: list[tuple[str, Any]]) -> Path:
    """A tar of members; a tuple's text is a link's target."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[0]
                archive.addfile(info)
                continue
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def held(record: Conversation | BadRecord) -> list[bytes]:
    """The bytes of a record's pictures, in order."""
    assert isinstance(record, Conversation), record
    return [Path(image.path).read_bytes() for image in record.images]


def edit(first: str, second: str) -> dict[str, Any]:
    turns = [{"role": "user", "type": "image", "image_path": first}]
    turns += [{"role": "user", "type": "text", "content": "darker"}]
    return {"conversations": [*turns, {"role": "assistant", "type": "image", "image_path": second}]}


def test_pictures_of_a_tar_are_found_by_name_by_order_or_as_the_only_one(tmp_path: Path) -> None:
    a, b = picture(10), picture(20)
    path = pack(
        tmp_path / "d.tar",
        [
            *(("./s/1.b.png", b), ("./s/1.A.PNG", a), ("./s/1.json", edit("1.a.png", "./s/1.b.png"))),
            *(("2.json", edit("from/elsewhere.png", "other.png")), ("2.0.png", b), ("2.1.png", a)),
            *(("3.txt", b"a cat\n"), ("3.jpg", a), ("3.json", {"caption": "x", "uid": 5})),
            *(("4.json", {"id": "own", "text_prompt": "a cat"}), ("4.png", b)),
            ("5.json", {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}]}),
            ("5.png", a),
            *(("._6.json", b"Mac OS X"), ("6.json", PAIR)),
        ],
    )
    found = read_unified(path)
    assert [item.id for item in found] == ["s/1", "2", "3", "own", "5", "6"]
    assert [held(item) for item in found[:5]] == [[a, b], [b, a], [a], [b], [a]]
    assert found[2].segments[0].text == "a cat" and found[2].meta["meta"] == {"caption": "x", "uid": 5}
    assert found[5].images[0].path == "cat.png", "no picture of its own: looked for in the picture folder"
    kept = sorted(item for item in (tmp_path / ".pictures").rglob("*") if item.is_file())
    stamps = [item.stat().st_mtime_ns for item in kept]
    read_unified(path)
    assert len(kept) == 2 and [item.stat().st_mtime_ns for item in kept] == stamps


def test_no_member_leaves_the_folder_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    (tmp_path / "in").mkdir()
    path = pack(
        tmp_path / "in" / "d.tar",
        [
            *(("../../out.json", {"text_prompt": "x"}), ("../../out.png", picture(2))),
            *(("/abs.json", {"text_prompt": "x"}), ("/abs.png", picture(3))),
            *(("link.json", {"text_prompt": "x"}), ("link.png", ("../secret.png",))),
        ],
    )
    found = read_unified(path)
    for item in found[:2]:
        assert isinstance(item, Conversation)
        assert Path(item.images[0].path).is_relative_to(tmp_path / "in" / ".pictures")
    assert isinstance(found[2], BadRecord) and "link.png: is a link" in found[2].reason
    assert {item.name for item in tmp_path.iterdir()} == {"in", "secret.png"}


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ([("k.json", b"{broken"), ("k.txt", b"\xff")], ["k.json: not valid JSON", "k.txt: not UTF-8"]),
        ([("k.json", [1])], ["not a JSON object but a list"]),
        ([("k.json", b"null")], ["not a JSON object but a NoneType"]),
        ([("k.png", picture(1))], ["text_prompt: is missing"]),
        ([("k.json", edit("x.png", "y.png")), ("k.png", picture(1))], ["1 picture beside a record that names 2, none"]),
        ([("k.json", {"text_prompt": "x"}), ("k.0.png", b""), ("k.1.png", b"")], ["k.0.png, k.1.png", "is missing"]),
        ([("k.json", PAIR), ("k.json", PAIR)], ["k.json: comes again"]),
    ],
)
def test_mistakes_of_a_sample_are_named_together_with_its_key(
    tmp_path: Path, members: list[tuple[str, Any]], wanted: list[str]
) -> None:
    pack(tmp_path / "d.tar", [("ok.json", PAIR), *members])
    good, bad = read_unified(tmp_path / "d.tar")
    assert isinstance(good, Conversation) and isinstance(bad, BadRecord)
    assert (bad.row, bad.id) == (1, "k")
    for text in wanted:
        assert text in bad.reason, bad.reason


def test_samples_whose_files_lie_apart_are_refused(tmp_path: Path) -> None:
    names = [("1.json", {"text_prompt": "x"}), ("2.json", {"text_prompt": "y"}), ("1.png", picture(1))]
    found = read_unified(pack(tmp_path / "d.tar", names))
    assert [type(item) for item in found] == [BadRecord] * 3
    assert "--sort=name" in found[2].reason  # type: ignore[union-attr]


def test_rows_of_parquet_are_records_without_their_empty_cells(tmp_path: Path) -> None:
    say = {"role": "assistant", "type": "text", "content": "yes"}
    rows = [
        {"id": "a", **PAIR, "conversations": None},
        {"id": "b", "text_prompt": None, "image_path": None, "conversations": [*edit("x", "y")["conversations"], say]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    first, second = read_unified(tmp_path / "d.parquet")
    assert isinstance(first, Conversation) and isinstance(second, Conversation)
    assert [image.path for image in second.images] == ["x", "y"] and second.segments[3].text == "yes"
    texts = [json.dumps(row["conversations"]) if row["conversations"] else None for row in rows]
    table = pa.table({"conversations": [*texts[1:], "[broken", None], "id": ["b", "c", "d"]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_unified(tmp_path / "t.parquet")
    assert found[0] == second
    assert isinstance(found[1], BadRecord) and found[1].id == "c" and "not valid JSON" in found[1].reason
    assert isinstance(found[2], BadRecord) and "text_prompt: is missing" in found[2].reason


def test_pictures_in_parquet_by_every_place_that_holds_them(tmp_path: Path) -> None:
    a, b = picture(10), picture(20)
    entry = {"bytes": a, "path": "cat.png"}
    turns = edit("source", "target")["conversations"]
    inside = [{**turn, "image_path": {"bytes": b, "path": None}} if turn["type"] == "image" else turn for turn in turns]
    llava = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "!"}]
    rows: dict[str, dict[str, Any]] = {
        "column": {"text_prompt": "x", "image": entry},
        "path": {"text_prompt": "x", "image_path": entry},
        "bytes": {"text_prompt": "x", "image_path": a},
        "named": {"conversations": turns, "source": a, "target": b},
        "list": {**edit("b.png", "cat.png"), "images": [entry, {"bytes": b, "path": "b.png"}]},
        "turns": {"conversations": inside},
        "llava": {"conversations": llava, "image": [entry]},
    }
    found = {}
    for name, row in rows.items():
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        (found[name],) = read_unified(tmp_path / f"{name}.parquet")
    wanted = {"column": [a], "path": [a], "bytes": [a], "named": [a, b], "list": [b, a], "turns": [b, b], "llava": [a]}
    assert {name: held(item) for name, item in found.items()} == wanted
    elsewhere = {"text_prompt": "x", "image": {"bytes": None, "path": "p/cat.png"}}
    empty = {"text_prompt": "x", "image": {"bytes": b"", "path": None}}
    pq.write_table(pa.Table.from_pylist([elsewhere, empty]), tmp_path / "e.parquet")
    there, bad = read_unified(tmp_path / "e.parquet")
    assert isinstance(there, Conversation) and there.images[0].path == "p/cat.png"
    assert isinstance(bad, BadRecord) and "image: is empty" in bad.reason


def test_other_parquet_and_damaged_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "captions": ["{}"]}), tmp_path / "o.parquet")
    with pytest.raises(DataError, match=r"image, captions[^$]*bagel-groups"):
        read_unified(tmp_path / "o.parquet")
    for name in ("d.parquet", "d.tar"):
        (tmp_path / name).write_bytes(b"PAR1" * 100)
        with pytest.raises(DataError, match="cannot read the data file") as caught:
            read_unified(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


def test_a_part_of_a_tar_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    members = [(f"{n}.{end}", part) for n in range(3) for end, part in (("json", PAIR), ("png", picture(n)))]
    whole = pack(tmp_path / "d.tar", members).read_bytes()
    assert len(read_unified(tmp_path / "d.tar")) == 3
    for cut in (*range(512, 512 * 12 + 1, 512), 700, 2100):
        (tmp_path / "d.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"cannot read the data file|cut off"):
            read_unified(tmp_path / "d.tar")
    (tmp_path / "d.tar").write_bytes(whole + whole)
    with pytest.raises(DataError, match="goes on after its end"):
        read_unified(tmp_path / "d.tar")


def test_a_folder_of_shards_is_read_in_order_and_of_one_set_only(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "cat.png").write_bytes(picture(1))
    (folder / "README.md").write_text("x")
    for number in (1, 0):
        pq.write_table(pa.Table.from_pylist([PAIR, {**PAIR, "text_prompt": ""}]), folder / f"part-{number}.parquet")
    labels = [label for label, _ in read_records(folder)]
    assert labels == ["part-0.parquet:"] * 2 + ["part-1.parquet:"] * 2
    bad = check_file(folder, image_root=folder / "images")
    assert [(item.row, item.id) for item in bad] == [(1, "part-0.parquet:1"), (3, "part-1.parquet:1")]
    pack(folder / "test-0.tar", [("1.json", PAIR)])
    with pytest.raises(DataError, match=r"part-#\.parquet, test-#\.tar"):
        list(read_records(folder))
    with pytest.raises(DataError, match="without shards"):
        list(read_records(folder / "images"))


def test_pictures_go_to_the_shared_cache_or_the_error_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "d.tar", [("1.json", {"text_prompt": "x"}), ("1.png", picture(7))])
    monkeypatch.setenv("BETTERSYNTH_CACHE", str(tmp_path / "cache"))
    assert held(read_unified(path)[0]) == [picture(7)]
    assert not (tmp_path / ".pictures").exists() and list((tmp_path / "cache" / "pictures").rglob("*.png"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BETTERSYNTH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="BETTERSYNTH_CACHE=FOLDER"):
        read_unified(path)


def turns_of(*names: str | None) -> dict[str, Any]:
    """Pictures in order, the last one to be drawn; None is a turn that names nothing."""
    turns = [{"role": "user", "type": "image", **({"image_path": name} if name else {})} for name in names]
    turns[-1]["role"] = "assistant"
    return {"conversations": [{"role": "user", "type": "text", "content": "darker"}, *turns]}


def rows_of(path: Path, *rows: dict[str, Any]) -> list[Conversation | BadRecord]:
    """Rows written, each as a file of its own because their columns differ, and read."""
    found = []
    for number, row in enumerate(rows):
        place = path / f"row-{number}.parquet"
        pq.write_table(pa.Table.from_pylist([row]), place)
        found += read_unified(place)
    return found


def reason(record: Conversation | BadRecord) -> str:
    assert isinstance(record, BadRecord), record
    return record.reason


def test_pictures_of_a_tar_are_named_by_their_endings_or_ordered_by_their_numbers(tmp_path: Path) -> None:
    a, b = picture(10), picture(20)
    many = [picture(value) for value in range(12)]
    llava = [{"from": "human", "value": "<image>" * 12}, {"from": "gpt", "value": "!"}]
    found = read_unified(
        pack(
            tmp_path / "d.tar",
            [
                *(("s/1.edited.png", b), ("s/1.json", edit("source.png", "edited.png")), ("s/1.source.png", a)),
                *(("2.0.png", b), ("2.1.png", a), ("2.json", edit("./1.png", "0.png"))),
                *(("3.json", turns_of(*(f"x{n}.png" for n in range(12)))),),
                *sorted((f"3.{n}.png", many[n]) for n in range(12)),
                *(("4.json", {"conversations": llava}), *sorted((f"4.{n}.png", many[n]) for n in range(12))),
                *(("5.edited.png", b), ("5.json", edit("from/elsewhere.png", "other.png")), ("5.source.png", a)),
                *(("6.0.jpg", b), ("6.0.png", a), ("6.json", turns_of(None, None))),
                *(("7.0.png", a), ("7.1.png", b), ("7.json", edit("0.png", "out/there.png"))),
                *(("8.json", {"text_prompt": "x", "image_path": None}), ("8.png", a)),
            ],
        )
    )
    assert [held(found[place]) for place in (0, 1, 2, 3, 7)] == [[a, b], [a, b], many, many, [a]]
    assert "numbers to tell their order (call them as they are called: 5.edited.png, 5.source.png" in reason(found[4])
    assert "numbers to tell their order (call them as they are called: 6.0.jpg, 6.0.png" in reason(found[5])
    assert "1 picture that the record does not name (call them as they are called: 7.1.png" in reason(found[6])


def test_a_picture_of_a_place_itself_is_never_replaced(tmp_path: Path) -> None:
    a, b, c = picture(10), picture(20), picture(30)
    own = turns_of("x", "x")
    for turn, data in zip(own["conversations"][1:], (a, b), strict=True):
        turn["image_path"] = data
    half = turns_of("x", None)
    half["conversations"][1]["image_path"] = {"bytes": a, "path": "x.png"}
    there = turns_of("x", "y")
    for turn, name in zip(there["conversations"][1:], ("one.png", "two.png"), strict=True):
        turn["image_path"] = {"bytes": None, "path": name}
    found = rows_of(
        tmp_path,
        {"text_prompt": "x", "image_path": a, "mask": b},
        {**own, "images": [c, b]},
        {**own, "images": [a]},
        {**half, "target": c},
        {**there, "images": [a, b]},
        {"text_prompt": "x", "image_path": "other/9.png", "image": {"bytes": a, "path": "t.png"}},
        own,
    )
    assert "1 picture that the record does not name (call them as they are called: mask" in reason(found[0])
    assert "2 pictures that the record does not name" in reason(found[1])
    assert "1 picture that the record does not name" in reason(found[2])
    assert held(found[3]) == [a, c], "the column goes to the turn that names nothing"
    assert "2 pictures beside a record that names 2, none of them" in reason(found[4])
    assert "1 picture beside a record that names 1, none of them (call them as they are called: image" in reason(
        found[5]
    )
    assert held(found[6]) == [a, b]


def test_a_named_path_that_is_no_picture_inside_stays_beside_those_that_are(tmp_path: Path) -> None:
    (found,) = rows_of(tmp_path, {**turns_of("elsewhere/1.png", "target"), "target": picture(10)})
    assert isinstance(found, Conversation) and found.images[0].path == "elsewhere/1.png"
    assert Path(found.images[1].path).read_bytes() == picture(10)


def test_columns_without_names_are_ordered_by_numbers_only(tmp_path: Path) -> None:
    pictures = [picture(value) for value in range(12)]
    unnamed = json.dumps(turns_of(*[None] * 12)["conversations"])
    pair = json.dumps(turns_of(None, None)["conversations"])
    numbered, listed, named = rows_of(
        tmp_path,
        {"conversations": unnamed, **{f"image_{n}": pictures[n] for n in sorted(range(12), key=str)}},
        {"conversations": unnamed, "images": pictures},
        {"conversations": pair, "target": pictures[0], "source": pictures[1]},
    )
    assert held(numbered) == held(listed) == pictures
    assert "2 pictures without names or numbers" in reason(named) and "target, source" in reason(named)


def test_a_name_of_two_pictures_is_a_mistake_that_names_both(tmp_path: Path) -> None:
    a, b = picture(10), picture(20)

    def row(first: str, second: str, *pictures: tuple[str, bytes]) -> dict[str, Any]:
        listed = [{"bytes": data, "path": name} for name, data in pictures]
        return {"conversations": json.dumps(edit(first, second)["conversations"]), "images": listed}

    found = rows_of(
        tmp_path,
        row("A.png", "a.png", ("A.png", a), ("a.png", b)),
        row("image.png", "image.png", ("image.png", a), ("image.png", b)),
        row("Cat.PNG", "b.png", ("CAT.png", a), ("cat.png", b), ("b.png", b)),
        row("image.png", "image.png", ("image.png", a), ("image.png", a)),
        row("images[1]", "images[0]", ("image.png", a), ("image.png", b)),
    )
    assert [held(found[place]) for place in (0, 3, 4)] == [[a, b], [a, a], [b, a]]
    assert "image.png could be any of 2 pictures (call them as they are called: images[0], images[1]" in reason(
        found[1]
    )
    assert "Cat.PNG could be any of 2 pictures" in reason(found[2])


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        (["1-of-3"], "part-00000-of-00003.parquet, part-00002-of-00003.parquet"),
        (["1-of-3", "3-of-3"], "part-00002-of-00003.parquet"),
        (["0-of-30"], "part-00020-of-00030.parquet, ... 9 more"),
        (["0-of-3", "1-of-3", "2-of-3"], ""),
        (["1-of-2", "2-of-2"], ""),
        (["0-of-2", "1-of-2", "0-of-1"], "part-#-of-00001.parquet, part-#-of-00002.parquet"),
    ],
)
def test_a_set_that_lacks_shards_is_refused_with_their_names(tmp_path: Path, numbers: list[str], missing: str) -> None:
    for text in numbers:
        number, total = text.split("-of-")
        name = f"part-{int(number):05d}-of-{int(total):05d}.parquet"
        pq.write_table(pa.Table.from_pylist([PAIR]), tmp_path / name)
    if not missing:
        assert len(list(read_records(tmp_path))) == len(numbers)
        return
    with pytest.raises(DataError) as caught:
        list(read_records(tmp_path))
    assert str(caught.value.got).endswith(missing), caught.value.render()


def test_json_that_is_nested_too_deeply_is_a_mistake_of_its_record(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    found = read_unified(pack(tmp_path / "d.tar", [("1.json", deep), ("2.json", PAIR)]))
    assert "1.json: not valid JSON" in reason(found[0]) and isinstance(found[1], Conversation)
    pq.write_table(pa.table({"conversations": [deep.decode()]}), tmp_path / "d.parquet")
    assert "conversations: not valid JSON" in reason(read_unified(tmp_path / "d.parquet")[0])
    (tmp_path / "d.json").write_bytes(deep)
    (tmp_path / "d.jsonl").write_bytes(deep + b"\n")
    with pytest.raises(DataError, match="not valid JSON"):
        read_unified(tmp_path / "d.json")
    assert isinstance(read_unified(tmp_path / "d.jsonl")[0], BadRecord)


def test_no_text_of_a_sample_is_dropped_and_a_null_id_is_none(tmp_path: Path) -> None:
    talk = turns_of("1.png")
    members = [
        *(("1.caption", b"a dog"), ("1.txt", b"a cat"), ("1.png", picture(1))),
        *(("2.json", PAIR), ("2.txt", b"a dog")),
        *(("3.json", talk), ("3.txt", b"a dog"), ("3.png", picture(1))),
        *(("4.json", {"id": None, **PAIR}), ("4.txt", b"a cat\n")),
        *(("5.json", {"id": None}), ("5.txt", b"a cat"), ("5.png", picture(1))),
    ]
    found = read_unified(pack(tmp_path / "d.tar", members))
    assert "1.txt: is a second text beside 1.caption" in reason(found[0])
    assert "2.txt: is a text that the record does not have" in reason(found[1])
    assert "3.txt: is a text that the record does not have" in reason(found[2])
    assert [(type(item), item.id) for item in found[3:]] == [(Conversation, "4"), (Conversation, "5")]
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": None, **PAIR}))
    assert read_unified(tmp_path / "d.jsonl")[0].id == "0"


def test_a_kept_picture_that_was_damaged_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    data = picture(5)
    place = keep_picture(tmp_path, data)
    assert synced[0] == len(data) and place.read_bytes() == data
    for damage in (b"\0" * len(data), data[:-1] + b"x", data[:10]):
        place.write_bytes(damage)
        assert keep_picture(tmp_path, data) == place and place.read_bytes() == data
    assert [item.name for item in place.parent.iterdir()] == [place.name]


def test_names_that_are_mere_numbers_must_stand_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    members = [("a.json", edit("0.png", "1.png")), ("a.0.png", picture(10)), ("a.1.png", picture(20))]
    (found,) = read_unified(pack(tmp_path / "right.tar", members))
    assert held(found) == [picture(10), picture(20)]
    (found,) = read_unified(pack(tmp_path / "other.tar", [("a.json", edit("1.png", "0.png")), *members[1:]]))
    assert isinstance(found, BadRecord) and "another order" in found.reason
