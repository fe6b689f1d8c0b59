"""What OpenUSD's own validators, those that `usdchecker` runs, say about every OpenUSD file of ours."""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from pathlib import Path

import pytest

from dp360.exporters import formats

USD = [f for f in formats.FORMATS if f.extension.startswith(".usd")]


@pytest.fixture
def errors():
    """A function: what the validators find in a file."""
    pytest.importorskip("pxr.UsdVol")
    from pxr import Usd, UsdValidation

    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()

    def find(path: Path) -> list[str]:
        found = UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
        return [f"{error.GetName()}: {error.GetMessage()}" for error in found]

    return find


@pytest.mark.parametrize("row", USD, ids=[f"{f.extension}-{f.kind}" for f in USD])
def test_validators_find_nothing(row, marked_head, marked_mesh, provenance, tmp_path, errors):
    path = tmp_path / f"head{row.extension}"
    path.write_bytes(row.encode({"splats": marked_head, "mesh": marked_mesh}[row.kind], provenance))
    assert errors(path) == []


def test_validators_would_find_something(tmp_path, errors):
    (tmp_path / "a.usda").write_text('#usda 1.0\ndef Mesh "head"\n{\n    point3f[] points = [(0, 0, 0)]\n}\n')
    assert any("upAxis" in e or "defaultPrim" in e for e in errors(tmp_path / "a.usda"))
