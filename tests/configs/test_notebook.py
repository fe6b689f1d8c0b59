"""The example notebook runs as it stands in the documentation, from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "head.ipynb"
QUICK = 'quality="fast", views=4, size_px=64, fit=FitOptions(iterations=20, start_count=2000)'


def run(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    """All that the cells put out, as text and HTML."""
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return [str(output.get("data", {}).get("text/html") or output.get("text", "")) for output in outputs]


def test_the_notebook_holds_no_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.slow
@pytest.mark.parametrize("is_quick", [True, False], ids=["small", "as it stands"])
def test_the_notebook_shows_a_head(tmp_path, is_quick):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if is_quick and 'quality="fast"' in cell.source:
            cell.source = "from dp360.configs.options import FitOptions\n" + cell.source.replace(
                'quality="fast"', QUICK
            )
    told = run(notebook, tmp_path)
    assert any("<iframe" in text and "srcdoc" in text for text in told), "the head to turn"
    assert any("head.spz" in text for text in told)
    assert (tmp_path / "heads" / "face" / "head.spz").stat().st_size > 10_000
