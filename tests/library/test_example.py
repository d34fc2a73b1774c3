"""The example: a C program of less than 60 lines trains the digits network from a CSV file."""
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.slow
def test_digits_in_c(tmp_path, capsys):
    sys.path.insert(0, str(EXAMPLES))
    import c_library
    assert c_library.main(["--folder", str(tmp_path)]) >= 0.98
    said = capsys.readouterr().out
    assert float(said.split("loss ")[1].split(", ")[1].split(" %")[0]) >= 98
    assert len(c_library.PROGRAM.read_text().splitlines()) < 60
