"""`lad-agent recipe`: a recipe that can be filled in, and its faults explained."""

from pathlib import Path

import pytest

from lad_agent import recipe
from tests.cli.conftest import Cli
from tests.scripted import part, write_recipe


def test_a_new_recipe_is_in_order_once_its_reference_is_there(cli: Cli, tmp_path: Path) -> None:
    ran = cli("recipe", "new", "line/recipe.yaml", "--product", "my_tray")
    assert ran.code == 0
    assert "put a picture of a good part at line/reference.png" in ran.out
    ran = cli("recipe", "check", "line/recipe.yaml")
    assert ran.code == 5
    assert "line/recipe.yaml:15: reference image 'reference.png' is not there" in ran.out
    part("reference", 1).save(tmp_path / "line" / "reference.png")
    ran = cli("recipe", "check", "line/recipe.yaml")
    assert (ran.code, ran.out) == (0, "line/recipe.yaml: in order; my_tray, 2 rules\n")
    assert (tmp_path / "line" / "recipe.yaml").read_text().count("#") > 8


def test_references_can_be_named(cli: Cli, tmp_path: Path) -> None:
    part("a", 1).save(tmp_path / "a.png")
    (tmp_path / "line").mkdir()
    ran = cli("recipe", "new", "line/recipe.yaml", "--product", "x", "--reference", "a.png")
    assert "put a picture" not in ran.out
    assert recipe.load(tmp_path / "line" / "recipe.yaml").references == (tmp_path / "a.png",)
    ran = cli("recipe", "new", "b.yaml", "--reference", "gone.png")
    assert (ran.code, "gone.png: no such file" in ran.error) == (2, True)


@pytest.mark.parametrize("product", recipe.SHIPPED)
def test_a_shipped_product_is_a_start(cli: Cli, tmp_path: Path, product: str) -> None:
    cli("recipe", "new", "--product", product)
    ran = cli("recipe", "check", "recipe.yaml")
    assert ran.code == 0
    copied = recipe.load(tmp_path / "recipe.yaml")
    assert copied.task_version == recipe.load(recipe.shipped(product)).task_version


def test_nothing_is_overwritten_unasked(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    ran = cli("recipe", "new")
    assert (ran.code, "--force overwrites it" in ran.error) == (2, True)
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert cli("recipe", "new", "--force").code == 0


def test_every_fault_is_told_with_its_line(cli: Cli, tmp_path: Path) -> None:
    good = write_recipe(tmp_path / "good")
    broken = write_recipe(tmp_path / "broken")
    broken.write_text(broken.read_text().replace("rules:", "ruls:") + "image_size: 3\n")
    ran = cli("recipe", "check", good, broken)
    assert ran.code == 5
    assert f"{good}: in order" in ran.out
    assert f"{broken}:2: unknown key 'ruls'; did you mean 'rules'?" in ran.out
    assert f"{broken}:11: image_size: " in ran.out
    assert "1 of 2 recipes cannot be used" in ran.error
    faults = cli("recipe", "check", broken, "--json").json
    assert [fault["line"] for fault in faults] == [1, 2, 11]


def test_a_reference_that_is_no_picture(cli: Cli, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "tray")
    (tmp_path / "tray" / "reference.png").write_bytes(b"")
    ran = cli("recipe", "check", path)
    assert ran.code == 5
    assert "the file is empty" in ran.out
