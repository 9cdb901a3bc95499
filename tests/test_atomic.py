"""Files that are there wholly or not at all."""

from pathlib import Path

import pytest

from lad_agent import atomic


@pytest.mark.parametrize(
    ("content", "found"), [("Würze\r\n", "Würze\r\n".encode()), (b"\xff", b"\xff")]
)
def test_what_is_written_takes_the_place_of_what_was_there(
    tmp_path: Path, content: str | bytes, found: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    atomic.write(path, content)
    assert path.read_bytes() == found
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def cut_off() -> None:
        with atomic.replacing(path) as part:
            part.write_text("half a li")
            assert path.read_text() == "old"
            raise KeyError

    with pytest.raises(KeyError):
        cut_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def make(cut_off: bool) -> None:
        with atomic.new_folder(path) as part:
            part.mkdir()
            (part / "one.txt").write_text("one")
            assert not path.exists()
            if cut_off:
                raise KeyError

    with pytest.raises(KeyError):
        make(cut_off=True)
    assert list(tmp_path.iterdir()) == []
    make(cut_off=False)
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "one.txt").read_text() == "one"


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "none" / "a.txt", "x")
