"""What a call is to inspect: files, folders, manifests, and the recipe of each image."""

from pathlib import Path

import pytest

from lad_agent import recipe
from lad_agent.errors import NotFound, RecipeError, UsageError
from lad_agent.inputs import find_recipe, gather
from tests.scripted import write_parts, write_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _ids(*paths: Path, **options: object) -> list[str]:
    return [item.part_id for item in gather(paths, **options).items]  # type: ignore[arg-type]


def test_a_folder_is_searched_through_in_the_order_of_names(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray" / "b", 2)
    write_parts(tmp_path / "tray" / "a" / "deep", 1)
    write_parts(tmp_path / "tray" / "ground_truth", 1)
    write_parts(tmp_path / "tray" / ".hidden", 1)
    (tmp_path / "tray" / "notes.txt").write_text("no image")
    ids = _ids(tmp_path / "tray")
    assert ids == ["tray/a/deep/part-000.png", "tray/b/part-000.png", "tray/b/part-001.png"]


def test_the_part_id_is_relative_to_the_paths_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path / "tray")
    [image] = write_parts(tmp_path / "tray" / "test", 1)
    assert _ids(Path("tray/test")) == ["test/part-000.png"]
    assert _ids(image) == ["part-000.png"]
    monkeypatch.chdir(tmp_path / "tray")
    assert _ids(Path()) == ["tray/test/part-000.png"]


def test_each_product_has_the_recipe_of_its_folder(tmp_path: Path) -> None:
    for product in ("screw_bag", "pushpins"):
        write_recipe(tmp_path / "line" / product, product)
        write_parts(tmp_path / "line" / product / "test" / "good", 1)
    found = gather([tmp_path / "line"])
    assert [item.recipe.product for item in found.items] == ["pushpins", "screw_bag"]
    assert found.faults == ()


def test_a_reference_is_no_part(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 1)
    assert _ids(tmp_path / "tray") == ["tray/part-000.png"]


def test_the_recipe_is_not_looked_for_above_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path)
    write_parts(tmp_path / "here" / "parts", 1)
    assert _ids(Path("here")) == ["here/parts/part-000.png"]
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=r"no recipe.yaml in it or above it; give --recipe"):
        gather([Path("parts")])


def test_a_recipe_can_be_named_by_path_or_product(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipes", "pushpins")
    write_parts(tmp_path / "parts", 1)
    for name, product in (("recipes/recipe.yaml", "pushpins"), ("juice_bottle", "juice_bottle")):
        [item] = gather([Path("parts")], recipe_name=name).items
        assert item.recipe.product == product
    assert find_recipe("recipe.yaml", path.parent).product == "pushpins"
    with pytest.raises(NotFound):
        find_recipe("nothing", tmp_path)


def test_a_manifest_gives_part_image_and_recipe(tmp_path: Path) -> None:
    write_recipe(tmp_path / "m" / "special", "pushpins")
    write_recipe(tmp_path / "m" / "tray")
    write_parts(tmp_path / "m" / "tray", 3)
    manifest = tmp_path / "m" / "list.csv"
    manifest.write_text(
        "\ufeffpart_id,image,recipe\n"
        "P-1,tray/part-000.png,\n"
        "P-2,tray/part-001.png,special/recipe.yaml\n"
        ",tray/part-002.png,juice_bottle\n"
        "P-4,tray/gone.png,\n",
        encoding="utf-8",
    )
    found = gather([manifest])
    assert [(item.part_id, item.recipe.product) for item in found.items] == [
        ("P-1", "screw_bag"),
        ("P-2", "pushpins"),
        ("tray/part-002.png", "juice_bottle"),
        ("P-4", "screw_bag"),
    ]
    assert found.items[3].image == tmp_path / "m" / "tray" / "gone.png"


def test_a_manifest_may_have_semicolons_and_the_image_alone(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 1)
    (tmp_path / "a.csv").write_text("part_id;image\nP;tray/part-000.png\n")
    (tmp_path / "b.csv").write_text("image\ntray/part-000.png\n")
    assert _ids(Path("a.csv"), Path("b.csv")) == ["P", "tray/part-000.png"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("part_id,imag\n", "line 1: unknown column 'imag'; did you mean 'image'"),
        ("part_id\nP\n", "line 1: lacks the column image"),
        ("part_id,image\nP,\n", "line 2: names no image"),
        ("part_id,image\nP,a.png,x\n", "line 2: wants part_id,image"),
        ("", "lacks the column image"),
    ],
)
def test_a_wrong_manifest_is_explained(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=fault):
        gather([tmp_path / "m.csv"])


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match="UTF-8"):
        gather([tmp_path / "m.csv"])


def test_what_cannot_be_used_is_named_and_the_rest_is_found(tmp_path: Path) -> None:
    write_recipe(tmp_path / "good")
    write_parts(tmp_path / "good", 2)
    write_recipe(tmp_path / "bad").write_text("product: bad\n")
    write_parts(tmp_path / "bad", 3)
    write_parts(tmp_path / "none", 1)
    (tmp_path / "empty").mkdir()
    found = gather([Path(name) for name in ("good", "bad", "none", "empty", "gone")])
    assert len(found.items) == 2
    told = "\n".join(found.faults)
    assert len(found.faults) == 4
    assert "bad/recipe.yaml: line 1: rules is missing" in told
    assert "(4 images left out)" in told, "its reference was no longer known as one"
    assert "none: no recipe.yaml in it" in told
    assert "empty: no images in it" in told
    assert "gone: no such file or folder" in told


def test_nothing_to_inspect_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in it"):
        gather([tmp_path / "empty"])
    with pytest.raises(UsageError, match="nothing to inspect"):
        gather([])


def test_an_unknown_recipe_and_a_missing_reference(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", 1)
    with pytest.raises(UsageError, match="did you mean 'pushpins'"):
        gather([tmp_path / "parts"], recipe_name="pushpin")
    path = write_recipe(tmp_path / "tray")
    (tmp_path / "tray" / "reference.png").unlink()
    with pytest.raises(UsageError, match=r"reference image 'reference.png' is not there"):
        gather([tmp_path / "parts"], recipe_name=str(path))


def test_a_reference_that_is_no_picture(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "tray")
    (tmp_path / "tray" / "reference.png").write_text("no picture")
    with pytest.raises(RecipeError, match="not an image"):
        find_recipe(str(path), tmp_path)


def test_a_path_given_twice_is_inspected_once(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray" / "test", 2)
    assert len(_ids(Path("tray"), Path("tray/test"), Path("tray/test/part-000.png"))) == 2


def test_the_limit_takes_the_first(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 5)
    assert _ids(tmp_path / "tray", limit=2) == ["tray/part-000.png", "tray/part-001.png"]


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    loaded = recipe.load(write_recipe(tmp_path / "tray"))
    [image] = write_parts(tmp_path / "elsewhere", 1)
    (tmp_path / "tray" / "linked.png").symlink_to(image)
    [item] = gather([tmp_path / "tray"]).items
    assert (item.part_id, item.recipe) == ("tray/linked.png", loaded)
