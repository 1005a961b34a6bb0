"""Published results become external records: what is taken over, what is refused, and that twice is once."""

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from temper.errors import RecordError, StorageError, TemperError, UsageError
from temper.leaderboard.import_entries import MAX_FILES, Imported, import_entries
from temper.leaderboard.submit import check_board, submit_entry
from temper.records import EXTERNAL, ExternalRecord, read_external, read_record
from temper.verification import verify_shallow

ENTRY: dict[str, Any] = {
    "link": "https://example.org/a?id=1&noteId=2",
    "name": "An Invented Defence",
    "authors": "Jane Doe, John Doe",
    "additional_data": True,
    "number_forward_passes": 1,
    "dataset": "photos",
    "venue": "Nowhere,<br>Sep 2026",
    "architecture": "WideResNet-70-16",
    "eps": "8/255",
    "clean_acc": "90.25",
    "reported": "",
    "autoattack_acc": "53.08",
    "footnote": 'Uses \\(\\ell_{\\infty} \\) &le; <a href="https://example.org">8/255</a>.',
    "unreliable": False,
}


def write(folder: Path, model: str = "Doe2026Invented", /, *without: str, **changes: Any) -> Path:
    path = folder / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {key: value for key, value in {**ENTRY, **changes}.items() if key not in without}
    path.write_text(json.dumps(document))
    return path


def only(board: Path) -> ExternalRecord:
    (folder,) = board.iterdir()
    return read_external(folder / EXTERNAL)


def files_of(board: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(board)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in board.rglob("*")
        if path.is_file()
    }


def test_an_entry_is_taken_over_in_fractions_and_plain_words(tmp_path: Path) -> None:
    import_entries([write(tmp_path / "Linf", external="50.1")], tmp_path / "board")
    record = only(tmp_path / "board")
    assert (record.name, record.data_name, record.threat.label) == ("Doe2026Invented", "photos", "Linf 8/255")
    assert record.threat.eps == 8 / 255
    assert (record.clean_acc, record.autoattack_acc, record.external_acc) == (0.9025, 0.5308, 0.501)
    assert record.reported_acc is None
    assert (record.robust_acc, record.evaluated_with) == (0.501, "external evaluation")
    assert record.link == ENTRY["link"]
    assert record.venue == "Nowhere, Sep 2026"
    assert record.footnote == "Uses Linf ≤ 8/255 ."
    assert (record.title, record.extra_data, record.num_forward_passes) == (ENTRY["name"], True, 1)


@pytest.mark.parametrize(
    ("changes", "robust", "found_by"),
    [
        ({"autoattack_acc": "53.08"}, 0.5308, "AutoAttack"),
        ({"autoattack_acc": "53.08", "external": "53.08"}, 0.5308, "AutoAttack"),
        ({"autoattack_acc": None, "external": 41}, 0.41, "external evaluation"),
        ({"autoattack_acc": "0.0"}, 0.0, "AutoAttack"),
        ({"autoattack_acc": "", "reported": "61.5"}, None, "authors' report only"),
    ],
)
def test_what_authors_say_of_themselves_is_never_the_robust_accuracy(
    changes: dict[str, Any], robust: float | None, found_by: str, tmp_path: Path
) -> None:
    import_entries([write(tmp_path / "Linf", **changes)], tmp_path / "board")
    record = only(tmp_path / "board")
    assert (record.robust_acc, record.evaluated_with) == (robust, found_by)


def test_a_folder_of_model_info_says_data_set_and_norm(tmp_path: Path) -> None:
    info = tmp_path / "model_info"
    write(info / "cifar10/Linf", "Standard")
    write(info / "cifar10/L2", "Standard", eps="0.5")
    write(info / "cifar100/Linf", "Standard", dataset="cifar10")  # one of RobustBench's own files errs so
    write(info / "cifar10/corruptions", "Other", "autoattack_acc", eps=None, corruptions_acc="70")
    write(info / ".hidden/Linf", "Hidden", clean_acc="no")
    (info / "cifar10/corruptions/raw.csv").write_text("a,b")
    imported = import_entries([info], tmp_path / "board")
    records = [read_external(path) for path in sorted((tmp_path / "board").rglob(EXTERNAL))]
    assert sorted((one.data_name, one.threat.label) for one in records) == [
        ("cifar10", "L2 0.5"),
        ("cifar10", "Linf 8/255"),
        ("cifar100", "Linf 8/255"),
    ]
    (line,) = imported.left_out
    assert "cifar10/corruptions: 1 about common corruptions, which have no norm and no eps" in line


def test_a_single_file_takes_its_norm_and_its_data_set_s_name_from_the_call(tmp_path: Path) -> None:
    path = write(tmp_path / "downloads")
    with pytest.raises(RecordError, match="its norm is unknown: the folder 'downloads' is none of Linf, L2"):
        import_entries([path], tmp_path / "board")
    import_entries([path], tmp_path / "board", norm="l2", data_name="my-photos")
    record = only(tmp_path / "board")
    assert (record.data_name, record.dataset, record.threat.norm) == ("my-photos", "photos", "l2")
    with pytest.raises(RecordError, match="its folder says Linf, --norm l2"):
        import_entries([write(tmp_path / "Linf")], tmp_path / "board", norm="l2")
    with pytest.raises(UsageError, match="--norm: 'l7' is none of linf, l2, l1"):
        import_entries([path], tmp_path / "board", norm="l7")
    other = write(tmp_path / "Linf", "B", dataset="signs")
    with pytest.raises(UsageError, match="--data names one data set, the files are of photos, signs"):
        import_entries([tmp_path / "Linf", other], tmp_path / "board", data_name="mine")


def test_twice_is_once_and_other_content_needs_overwrite(tmp_path: Path) -> None:
    info, board = tmp_path / "Linf", tmp_path / "board"
    write(info, "A")
    write(info, "B")
    first = import_entries([info], board)
    assert (len(first.added), first.unchanged, first.replaced) == (2, [], [])
    before = files_of(board)
    again = import_entries([info, info / "A.json"], board)
    assert (again.added, len(again.unchanged), again.replaced) == ([], 2, [])
    assert files_of(board) == before
    write(info, "A", autoattack_acc="40.00")
    write(info, "C")
    with pytest.raises(RecordError, match=r"differs for 'A' \(autoattack_acc\)\n1 of 3 .*--overwrite"):
        import_entries([info], board)
    assert files_of(board) == before
    next(board.glob("*-b-*/external.json")).write_text("{")
    changed = import_entries([info], board, overwrite=True)
    assert (len(changed.added), len(changed.replaced), len(changed.unchanged)) == (1, 2, 0)
    found = {one.name: one.autoattack_acc for one in map(read_external, board.rglob(EXTERNAL))}
    assert found == {"A": 0.4, "B": 0.5308, "C": 0.5308}
    assert not [path for path in board.iterdir() if path.name.startswith(".")]


def test_the_same_name_twice_is_refused_unless_it_says_the_same(tmp_path: Path) -> None:
    write(tmp_path / "a/Linf")
    write(tmp_path / "b/Linf")
    assert len(import_entries([tmp_path / "a", tmp_path / "b"], tmp_path / "board").added) == 1
    write(tmp_path / "b/Linf", clean_acc="91")
    with pytest.raises(RecordError, match=r"b/Linf/.*: another 'Doe2026Invented' than .*a/Linf/"):
        import_entries([tmp_path / "a", tmp_path / "b"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[1]", "a list, not an entry of RobustBench's model_info"),
        ('{"schema_version": 1, "name": "a"}', "a temper file"),
        ('{"a": 1}', "no name, dataset, eps, clean_acc, autoattack_acc or external or reported"),
        ('{"clean_acc": NaN}', "NaN is not a number of JSON"),
        ('{"name": "\\ud800"}', "half a character"),
        ("[" * 5_000, "nested more than 64 deep"),
        (b"\xff\xfe", "'utf-8' codec can't decode"),
        (" " * 70_000, "70,000 bytes; allowed: 65,536"),
        ({"clean_acc": "nan"}, "'clean_acc' must be a percentage such as \"53.08\", got 'nan'"),
        ({"clean_acc": "1e9"}, "'clean_acc' must be a percentage"),
        ({"clean_acc": True}, "'clean_acc' must be a percentage"),
        ({"clean_acc": "９９"}, "'clean_acc' must be a percentage"),
        ({"clean_acc": "9" * 500}, "'clean_acc' must be a percentage"),
        ({"clean_acc": ""}, "'clean_acc' is empty"),
        ({"clean_acc": "0.9025"}, "'clean_acc' must be in percent, got '0.9025', a fraction?"),
        ({"autoattack_acc": "100.1"}, "'autoattack_acc' must be in 0..100 percent, got 100.1"),
        ({"external": "-1"}, "'external' must be in 0..100 percent, got -1"),
        ({"autoattack_acc": "95"}, "robust accuracy is above its clean accuracy"),
        ({"autoattack_acc": None}, "no robust accuracy: autoattack_acc, external, reported are all empty"),
        ({"eps": None}, "'eps' must be a number or a ratio such as \"8/255\", got None"),
        ({"eps": 0}, "'eps' is 0, within which nothing is perturbed"),
        ({"eps": -1}, "Bad.json: eps is in pixel units of [0,1], so for linf it lies in 0..1, got -1"),
        ({"eps": "8"}, "did you mean 8/255"),
        ({"eps": "1/0"}, "expected a number or a ratio"),
        ({"eps": "eight"}, "'eps': Input should be a valid number"),
        ({"eps": "1" * 33}, "'eps' must be a number"),
        ({"link": "javascript:alert(1)"}, "'link' must be an http or https address"),
        ({"link": "https://a.example/>x"}, "'link' must be an http or https address"),
        ({"name": 5}, "'name' must be text, got 5"),
        ({"name": "a\x1b[2J"}, "'name': has characters that cannot be printed"),
        ({"footnote": "x" * 2001}, "'footnote': String should have at most 2000 characters"),
        ({"unreliable": "no"}, "'unreliable' must be true or false, got 'no'"),
        ({"number_forward_passes": 1.5}, "'number_forward_passes' must be a whole number"),
        ({"number_forward_passes": 0}, "'number_forward_passes': Input should be greater than or equal to 1"),
        ({"dataset": "<br>"}, "'dataset' is empty"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(content: Any, reason: str, tmp_path: Path) -> None:
    good = write(tmp_path / "Linf", "Good")
    bad = tmp_path / "Linf/Bad.json"
    if isinstance(content, dict):
        write(tmp_path / "Linf", "Bad", **content)
    else:
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordError) as caught:
        import_entries([good, bad], tmp_path / "board")
    line, end = str(caught.value).split("\n")
    assert line.startswith(f"{bad}: ")
    assert reason in line
    assert len(line) < 400
    assert end == "1 of 2 files refused, so nothing was written"
    assert not (tmp_path / "board").exists()


def test_files_that_are_none_and_calls_that_are_wrong(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(RecordError, match="not a regular file"):
        import_entries([tmp_path / "pipe.json"], tmp_path / "board", norm="linf")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        import_entries([tmp_path / "nowhere"], tmp_path / "board")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: no .json file in there"):
        import_entries([tmp_path / "empty"], tmp_path / "board")
    path = write(tmp_path / "Linf")
    with pytest.raises(UsageError, match="a board is a folder"):
        import_entries([path], path)
    (tmp_path / "Linf" / os.fsdecode(b"a\xff.json")).write_text(path.read_text())
    with pytest.raises(RecordError, match=r"a\\udcff' cannot be printed"):
        import_entries([tmp_path / "Linf"], tmp_path / "board")


def test_many_wrong_files_are_not_listed_without_end(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / "Linf", f"{number:02d}", clean_acc="no")
    with pytest.raises(RecordError) as caught:
        import_entries([tmp_path / "Linf"], tmp_path / "board")
    lines = str(caught.value).split("\n")
    assert len(lines) == 22
    assert lines[-2:] == ["and 10 more", "30 of 30 files refused, so nothing was written"]
    for number in range(MAX_FILES):
        (tmp_path / f"Linf/x{number}.json").touch()
    with pytest.raises(UsageError, match=r"5,030 .json files; allowed: 5,000"):
        import_entries([tmp_path / "Linf"], tmp_path / "board")


def test_keys_of_another_version_are_named(tmp_path: Path) -> None:
    imported = import_entries([write(tmp_path / "Linf", reported="40", **{"AA+": "1"})], tmp_path / "board")
    assert imported.left_out == [f"{tmp_path}/Linf/Doe2026Invented.json: 'AA+'"]


def test_a_disk_that_refuses_half_way_leaves_the_board_as_it_was(tmp_path: Path) -> None:
    """Files of more than 2 kB cannot be written: the second of three entries."""
    info, board = tmp_path / "Linf", tmp_path / "board"
    write(info, "A", autoattack_acc="1.0")
    import_entries([info], board)
    before = files_of(board)
    for name in "ABC":
        write(info, name, footnote="long " * (400 if name == "B" else 4))
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, former[1]))
    try:
        with pytest.raises(StorageError, match=r"external.json: cannot be written \(File too large\)"):
            import_entries([info], board, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert files_of(board) == before
    assert len(list(board.iterdir())) == 1
    import_entries([info], board, overwrite=True)
    assert len(files_of(board)) == 3


def test_an_external_record_is_never_taken_for_one_of_temper_s(tmp_path: Path) -> None:
    board = tmp_path / "board"
    imported: Imported = import_entries([write(tmp_path / "Linf")], board)
    folder = board / imported.added[0]
    for attempt in (
        lambda: read_record(folder / EXTERNAL),
        lambda: verify_shallow(folder),
        lambda: submit_entry(folder, board, verify_shallow),
    ):
        with pytest.raises(TemperError, match=r"published elsewhere and not measured here; .*verified"):
            attempt()
    assert check_board(board) == {folder.name: []}
    document = json.loads((folder / EXTERNAL).read_text())
    (folder / EXTERNAL).write_text(json.dumps({**document, "name": "Other"}))
    assert "the folder should be named external-photos-linf-other-" in check_board(board)[folder.name][0]
    for changes, reason in (
        ({"clean_acc": 90.25}, "clean_acc"),
        ({"link": "javascript:alert(1)"}, "link"),
        ({"rank": 1}, "rank"),
        ({"kind": "measured"}, "kind"),
    ):
        (folder / EXTERNAL).write_text(json.dumps({**document, **changes}))
        assert reason in check_board(board)[folder.name][0]
