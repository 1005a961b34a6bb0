"""What is checked of a job before anything is sent, without a cluster."""

import os
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from temper.cli import main
from temper.cli.job_command import as_written, check_words, parse_words
from temper.cluster.jobs import JobRequest, Parcel, check_folder, connect, last_lines, pack
from temper.cluster.jobs.address import in_between
from temper.cluster.jobs.checks import read_check
from temper.cluster.jobs.probe import look_around, missing_folders, tidy, write_mark
from temper.cluster.jobs.request import load_runtime_env, next_free
from temper.errors import JobError, RecipeError, SearchSpaceError, UsageError
from temper.spec import validate

ROOT = Path(__file__).parents[2]
SECRET = "planted-9d41c0aa77be53f2"  # it is looked for, never used


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tree(
        tmp_path / "work",
        {
            ".gitignore": "/runs/\n*.log\n",
            ".rayignore": "big/\n",
            "a.py": "x = 1\n",
            "b.log": "noise",
            "runs/one/record.json": "{}",
            "big/data.bin": "0" * 1000,
            "deep/.gitignore": "left_out\n",
            "deep/left_out/c.txt": "c",
            "deep/kept/d.txt": "dd",
            ".git/config": "[core]",
            "tests/test_a.py": "assert True",
        },
    )


def test_what_is_counted_is_what_ray_zips(work: Path, tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.txt").write_text("far")
    (work / "link").symlink_to(tmp_path / "elsewhere")
    excludes = [".git", "tests"]
    create_package(str(work), tmp_path / "w.zip", include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(tmp_path / "w.zip") as zipped:
        expected = {one.filename: one.file_size for one in zipped.infolist() if not one.is_dir()}
    assert pack(work, excludes).files == expected
    assert {"a.py", "deep/kept/d.txt", "link/far.txt"} <= set(expected)
    assert not {"b.log", "big/data.bin", ".git/config", "deep/left_out/c.txt"} & set(expected)


def test_a_folder_that_is_too_large_is_refused_with_its_largest_entries(work: Path) -> None:
    (work / "huge.bin").write_bytes(bytes(3 * 2**20))
    (work / "deep/large.bin").write_bytes(bytes(2 * 2**20))
    parcel = pack(work, [".git"])
    assert check_folder(parcel, max_mib=6).found.startswith(f"{len(parcel.files)} files, 5.0 MiB")
    with pytest.raises(
        UsageError, match=r"5\.0 MiB would be sent, more than 4 MiB; .*huge.bin 3.0, deep/ 2.0"
    ):
        check_folder(parcel, max_mib=4)


def test_this_checkout_is_small_and_holds_no_key() -> None:
    environment = load_runtime_env(ROOT, {})
    parcel = pack(ROOT, environment["excludes"])
    check_folder(parcel, max_mib=10)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    needed = [
        name
        for name in tracked.splitlines()
        if name.startswith(("platform/", "jobs/", "search_spaces/")) and (ROOT / name).exists()
    ]
    assert len(needed) > 200
    assert [name for name in needed if not parcel.holds(name)] == []
    assert not [name for name in parcel.files if name.startswith((".git/", ".venv/", "tests/"))]


def test_a_folder_without_temper_is_sent_with_all_of_temper_s_code(tmp_path: Path) -> None:
    environment = load_runtime_env(tmp_path, {"A": "1"})
    (code,) = environment["py_modules"]
    sent = pack(Path(code), environment["excludes"])
    tracked = subprocess.run(["git", "ls-files"], cwd=code, capture_output=True, text=True, check=True).stdout
    assert set(sent.files) >= set(tracked.splitlines()) >= {"__init__.py", "cli/__main__.py", "demo.py"}
    assert environment["env_vars"]["A"] == "1"
    assert "py_modules" not in load_runtime_env(ROOT, {})
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/runtime_env.yaml").write_text("excludes: [mine]\npy_modules: [s3://bucket/a.zip]\n")
    own = load_runtime_env(tmp_path, {})
    assert own == {"excludes": ["mine"], "env_vars": {}, "py_modules": ["s3://bucket/a.zip", code]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.md", f"my key is {SECRET}.", "the value of a secret variable"),
        ("notes.md", "-----BEGIN RSA PRIVATE KEY-----\nabc", "holds a private key"),
        ("notes.md", "aws AKIAIOSFODNN7EXAMPLE", "what looks like an access key"),
        ("sub/.env", "A=1", "by its name it holds keys"),
        ("id_ed25519", "x", "by its name it holds keys"),
        ("server.pem", "x", "by its name it holds keys"),
    ],
)
def test_a_folder_with_a_key_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, reason: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    check_folder(pack(work, []))
    tree(work, {name: content})
    with pytest.raises(UsageError, match=reason) as caught:
        check_folder(pack(work, []))
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def words(text: str) -> Any:
    return parse_words(shlex.split(text))


SWEEP = "sweep jobs/recipes/tiny.yaml search_spaces/alpha.yaml"
SHARED = "--set data.target=/shared/t --set data.source=s3://bucket/s"


@pytest.mark.parametrize(
    ("text", "sent", "out"),
    [
        (f"{SWEEP} --out /shared/a", f"{SWEEP} --out /shared/a --resume", "/shared/a"),
        (f"{SWEEP} --resume --out /a", f"{SWEEP} --resume --out /a", "/a"),
        ("sweep --resume /shared/a", "sweep --resume /shared/a", "/shared/a"),
        (f"{SWEEP} --go-on --out /a", f"{SWEEP} --go-on --out /a", "/a"),
        ("sweep /shared/a --resume", "sweep /shared/a --resume", "/shared/a"),
        ("sweep --resume=s3://b/a --samples 9", "sweep --resume=s3://b/a --samples 9", "s3://b/a"),
        ("train r.yaml --out s3://b/r", "train r.yaml --out s3://b/r --resume", "s3://b/r"),
        ("train r.yaml --go-on --out /a", "train r.yaml --go-on --out /a", "/a"),
        ("evaluate /shared/run", "evaluate /shared/run", "/shared/run"),
        ("crossval r.yaml --out /c --folds 3", "crossval r.yaml --out /c --folds 3", "/c"),
        ("demo --out /shared/demo", "demo --out /shared/demo", "/shared/demo"),
        ("shards /shared/a /shared/b", "shards /shared/a /shared/b", "/shared/b"),
        ("leaderboard /r --out s3://b/l", "leaderboard /r --out s3://b/l", "s3://b/l"),
    ],
)
def test_words_are_those_of_temper_and_can_be_sent_again(text: str, sent: str, out: str) -> None:
    parsed = words(text)
    assert shlex.join(parsed.sent) == sent
    assert parsed.out == out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of train, sweep, crossval, evaluate, demo, shards, leaderboard.*got nothing"),
        ("polish x", "got 'polish'"),
        ("doctor", "got 'doctor'"),
        ("sweep show /shared/a", "only shows results and cannot run as a job"),
        ("train r.yaml", "needs --out"),
        ("train r.yaml --out runs/a", "relative.*which the cluster removes"),
        ("demo", "--out demo is relative"),
        ("shards /shared/a shards/b", "--out shards/b is relative"),
        ("leaderboard /shared/runs", "--out leaderboard is relative"),
    ],
)
def test_words_that_make_no_job_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        assert words(text).out is None


def test_a_url_that_was_a_path_is_written_as_it_was() -> None:
    assert as_written(Path("s3://bucket/a")) == "s3://bucket/a"
    assert as_written(Path("/shared/a")) == "/shared/a"
    assert as_written("s3://bucket/a") == "s3://bucket/a"


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return pack(ROOT, load_runtime_env(ROOT, {})["excludes"])


def test_what_is_read_on_the_cluster_is_found(parcel: Parcel) -> None:
    reads = check_words(words(f"{SWEEP} {SHARED} --out /shared/a"), parcel)
    assert reads == {"data.target": "/shared/t", "data.source": "s3://bucket/s"}
    assert check_words(words("evaluate /shared/run"), parcel) == {"the model": "/shared/run"}
    assert check_words(words("demo --out /d"), parcel) == {}
    assert check_words(words("sweep --resume /shared/a"), parcel) == {"--resume": "/shared/a"}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (f"{SWEEP} --out /a", UsageError, "data.target: shards/digits_target is not sent"),
        (f"train nowhere.yaml {SHARED} --out /a", UsageError, "nowhere.yaml: not in"),
        (f"train /etc/r.yaml {SHARED} --out /a", UsageError, "/etc/r.yaml: not in"),
        (f"train tests/conftest.py {SHARED} --out /a", UsageError, "not sent"),
        (f"train jobs/recipes/tiny.yaml {SHARED} --set epoch=1 --out /a", RecipeError, "epochs"),
        (f"{SWEEP} {SHARED} --set objective.source=null --out /a", RecipeError, "objective"),
        ("sweep jobs/recipes/tiny.yaml jobs/recipes/tiny.yaml --out /a", SearchSpaceError, "tiny.yaml"),
        (f"{SWEEP} {SHARED} --dry-run --out /a", UsageError, "before the --"),
        ("evaluate zoo.py:build --data /d --out /a", UsageError, "the model: zoo.py is not sent"),
        ("evaluate runs/mine --out /a", UsageError, "runs/mine is not sent"),
    ],
)
def test_files_and_recipes_are_checked_before_they_are_sent(
    parcel: Parcel, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_words(words(text), parcel)


def request(**changes: Any) -> JobRequest:
    document = {
        "id": "a",
        "words": ["train", "r.yaml", "--set", "tracking.tags=[a b]"],
        "out": "/shared/a",
        "working_dir": ".",
        "runtime_env": {"env_vars": {"PYTHONPATH": "platform"}},
    }
    return validate(JobRequest, {**document, **changes}, "job")


SHELL_WORDS = "name='$(reboot)' ;`x`"


def test_a_command_survives_the_shell_of_the_cluster() -> None:
    entrypoint = request(words=["train", "r.yaml", "--set", SHELL_WORDS]).entrypoint
    assert shlex.split(entrypoint) == ["python", "-m", "temper.cli", "train", "r.yaml", "--set", SHELL_WORDS]
    spoken = subprocess.check_output(
        ["sh", "-c", entrypoint.replace("python -m temper.cli train", "printf %s_")], text=True
    )
    assert spoken == f"r.yaml_--set_{SHELL_WORDS}_"


@pytest.mark.parametrize(
    "changes",
    [
        {"words": ["train", "r.yaml", "--set", f"tracking.project={SECRET}"]},
        {"out": "s3://me:hunter2hunter2@bucket/a"},
        {"runtime_env": {"env_vars": {"OTHER": f"x{SECRET}"}}},
        {"runtime_env": {"env_vars": {"WANDB_API_KEY": "short"}}},
        {"reads": {"data.target": "https://h/x?token=hunter2hunter2"}},
    ],
)
def test_no_secret_travels_with_a_job(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    request()
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    with pytest.raises(UsageError, match="secret") as caught:
        request(**changes)
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "é", "x" * 64])
def test_an_id_is_a_word(name: str) -> None:
    with pytest.raises(UsageError, match="id"):
        request(id=name)


def test_the_next_attempt_has_an_id_that_ray_has_not_seen() -> None:
    assert next_free("a", set()) == "a"
    assert next_free("a", {"a", "a-3", "b"}) == "a-2"
    assert next_free("a", {"a", "a-2", "a-3"}) == "a-4"


def test_nothing_that_answers_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match=r"127\.0\.0\.1:9: cannot connect \(Connection refused\)"):
        connect("http://127.0.0.1:9")
    for address in ("127.0.0.1:6379", "ray://host:10001", "http://"):
        with pytest.raises(UsageError, match="--address: expected the dashboard's URL"):
            connect(address)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:10")
    with pytest.raises(JobError, match=r"127\.0\.0\.1:10: cannot connect"):
        connect()
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    with pytest.raises(UsageError, match="RAY_AUTH_MODE is empty"):
        connect("http://127.0.0.1:9")


def test_the_probe_writes_looks_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    out = str(tmp_path / "a/b")
    made = missing_folders(out)
    assert made == [out, str(tmp_path / "a")]
    assert write_mark(out, ".one") == ""
    found = look_around(out, [".one", ".two"], {"here": str(tmp_path / "data"), "there": "/nowhere/x"})
    assert found == {"unseen": 1, "unread": {"there": "/nowhere/x"}}
    tidy(out, [".one", ".two"], made)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_probe_says_why_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in write_mark(str(tmp_path / "file/out"), ".one")
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.geteuid() != 0:
        assert "ermission denied" in write_mark(str(tmp_path / "closed"), ".one")


def node(**changes: Any) -> dict[str, Any]:
    return {"node": "10.0.0.7", "is_head": False, "write_error": "", "unseen": 0, "unread": {}, **changes}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node(write_error="disk full"), r"/shared/a: node 10\.0\.0\.7 can't write there \(disk full\)"),
        (node(write_error=None), r"10\.0\.0\.7: does not respond"),
        (node(unseen=1), "does not see what other nodes wrote.*share"),
        (node(unread={"data.target": "/shared/t"}), r"data\.target: node 10\.0\.0\.7 cannot find /shared/t"),
    ],
)
def test_what_one_node_cannot_do_is_said(bad: dict[str, Any], message: str) -> None:
    good = node(is_head=True)
    assert "no worker is running yet" in read_check({"nodes": [good]}, request()).found
    assert "head and 2 workers" in read_check({"nodes": [good, node(), node()]}, request()).found
    with pytest.raises(JobError, match=message):
        read_check({"nodes": [good, bad]}, request())


def test_last_lines_are_those_that_say_something() -> None:
    assert last_lines("a\n\n  \nb\nc\n\n", 2) == ["b", "c"]
    assert last_lines("") == []


def test_a_sweep_that_is_sent_again_goes_on_only_if_it_is_the_same(tmp_path: Path) -> None:
    from temper.cli.sweep import _held
    from temper.recipe import load_recipe
    from temper.records import SweepFolder
    from temper.search import load_space
    from temper.spec import dump_yaml

    recipe, space = ROOT / "jobs/recipes/tiny.yaml", ROOT / "search_spaces/alpha.yaml"
    folder = SweepFolder(tmp_path / "sweep")
    assert _held(folder.path, recipe, space, []) is None
    folder.path.mkdir()
    folder.recipe.write_text(dump_yaml(load_recipe(recipe).resolved()))
    written = {**load_space(space).model_dump(mode="json", exclude_none=True), "samples": 3}
    folder.space.write_text(dump_yaml(written))
    assert _held(folder.path, recipe, space, []) is None  # it had not begun
    folder.points.write_text("")
    assert _held(folder.path, recipe, space, []) == folder.path
    with pytest.raises(UsageError, match="another recipe or space"):
        _held(folder.path, recipe, space, ["objective.alpha=0.7"])
    with pytest.raises(UsageError, match="another recipe or space"):
        _held(folder.path, recipe, ROOT / "search_spaces/attack.yaml", [])


def test_in_a_folder_that_was_sent_a_relative_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain ``ray job submit`` looks at nothing; Ray removes the folder, and the result with it."""
    sent = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_1"
    sent.mkdir(parents=True)
    monkeypatch.chdir(sent)
    for text in ("train r.yaml --out runs/a", "train r.yaml", "demo", "leaderboard /shared/runs"):
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(text))
        assert ended.value.code == 2
        assert "every node sees" in capsys.readouterr().err.replace("\n", " ")
    assert not list(sent.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(shlex.split("train r.yaml --out /shared/a"))
    assert "r.yaml" in capsys.readouterr().err  # goes on to the recipe, which is not there


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_in_between_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert in_between("http://head.example:8265") == ""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert variable in in_between("http://head.example:8265")
    assert "NO_PROXY=head.example" in in_between("http://head.example:8265")
    monkeypatch.setenv("no_proxy", "head.example")
    assert in_between("http://head.example:8265") == ""
