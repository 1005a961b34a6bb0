"""Secrets are masked in messages and refused in recipes; what turns or hides text is shown as an escape."""

import re
from pathlib import Path
from typing import Any

import pytest

from temper.credentials import find_secrets, mask, printable, secrets_of, shown
from temper.errors import ModelError, RecipeError, SearchSpaceError
from temper.models.weight_files import fetch_weights
from temper.recipe import load_recipe
from temper.search import load_space

ROOT = Path(__file__).parents[2]
TINY = ROOT / "jobs/recipes/tiny.yaml"
VALUE = "planted-4f8a1c77e2d94b06"


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "RAY_AUTH_TOKEN",
        "DB_PASSWORD",
    ],
)
def test_a_secret_of_the_environment_is_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert VALUE in mask(f"x {VALUE} y")
    monkeypatch.setenv(name, VALUE)
    assert mask(f"x {VALUE} y") == "x *** y"


def test_what_is_no_secret_stays() -> None:
    environment = {
        "KEYBOARD": "a-long-layout-name",
        "RAY_AUTH_TOKEN_PATH": "/home/me/token",
        "MY_KEY": "short",
    }
    assert secrets_of(environment) == []
    for text in (
        "s3://bucket/key/file.parquet",
        "https://example.org/w.pth?download=1&keys=2",
        "runs/a@b/c: see me@example.org",
        "http://127.0.0.1:8265/jobs",
        "ratio 8/255 @ eps",
    ):
        assert mask(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://me:pw@host/x", "at https://***@host/x"),
        ("s3:/me:p/w@bucket", "s3:/***@bucket"),
        ("https://ghtoken@host", "https://***@host"),
        ("https://h/w?a=1&X-Amz-Signature=abc&b=2", "https://h/w?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/w?access_token=abc", "https://h/w?access_token=***"),
        ("s3://b/x?secret_key=abc", "s3://b/x?secret_key=***"),
        ("key AKIAIOSFODNN7EXAMPLE.", "key ***."),
        ("hf_abcdefghijklmnopqrstuvwxyz", "***"),
    ],
)
def test_users_of_urls_and_keys_in_queries(text: str, expected: str) -> None:
    assert mask(text) == expected
    assert mask(expected) == expected


def test_every_place_of_a_document_is_searched() -> None:
    document = {"a": [{"b": "https://u:p@h"}], "https://u:p@h": 1, "c": ("x", "y"), "d": None}
    assert list(find_secrets(document)) == [("a.0.b", "https://***@h"), ("", "https://***@h")]


@pytest.mark.parametrize(
    "overrides",
    [
        {"data.target": "s3://me:hunter2hunter2@bucket/x"},
        {"model.weights": "https://me:hunter2hunter2@h/w.pth", "model.sha256": "0" * 64},
        {"model.weights": "https://h/w?token=hunter2hunter2", "model.sha256": "0" * 64},
        {"tracking.project": "p-" + VALUE},
        {"tracking.tags": ["a", VALUE]},
        {"no.such.field": VALUE},
    ],
)
def test_a_recipe_that_holds_a_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", VALUE)
    path = "no.such.field" if "no.such.field" in overrides else next(iter(overrides))
    with pytest.raises(RecipeError, match=rf"tiny\.yaml: '{re.escape(path)}(\.1)?' holds a secret") as caught:
        load_recipe(TINY, overrides)
    assert VALUE not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_search_space_that_holds_a_secret_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "search_spaces/alpha.yaml").read_text()
    (tmp_path / "s.yaml").write_text(f"{text}\nnote: https://me:hunter2@h\n")
    with pytest.raises(SearchSpaceError, match=r"s\.yaml: 'note' holds a secret \(https://\*\*\*@h\)"):
        load_space(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("url", "digest"),
    [
        ("s3://me:hunter2@b/w.pth", "0" * 64),
        ("https://me:hunter2@h/w.pth", None),
        ("http://me:hunter2@127.0.0.1:9/w.pth", "0" * 64),
    ],
)
def test_errors_about_urls_hide_their_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, digest: str | None
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"://\*\*\*@") as caught:
        fetch_weights(url, digest)
    assert "hunter2" not in str(caught.value)


def test_what_turns_or_hides_text_is_shown_as_an_escape() -> None:
    assert printable("cat\u202egnp.exe") == r"cat\u202egnp.exe"
    assert printable("a\x1b[31m\x00\r\x07b") == r"a\x1b[31m\x00\r\x07b"
    assert printable("zero\u200bwidth \udcff") == r"zero\u200bwidth \udcff"
    assert printable("Müller 猫 \tкот\n") == "Müller 猫 \tкот\n"
    assert shown("https://u:p@h/\u202e") == r"https://***@h/\u202e"
