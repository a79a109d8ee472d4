"""The example of docs/any-network.md runs, and the page names what there is."""

import re
from pathlib import Path

from epe_nas_jax.networks.adapters import ADAPTERS
from epe_nas_jax.networks.columns import NETWORK_COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "any-network.md").read_text()


def test_example_runs(capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = {"__name__": "example"}
    exec(example, names)
    table = names["table"]
    assert table["error"].isna().all()
    assert list(table["note"]) == [""] * 3
    assert sorted(table["rank"]) == [1, 2, 3]
    assert capsys.readouterr().out.count("\n") == 4


def test_every_column_and_framework_is_on_the_page():
    for name in NETWORK_COLUMNS:
        assert f"`{name}`" in PAGE, name
    for adapter in ADAPTERS:
        assert adapter.name.split()[0].strip("(") in PAGE
