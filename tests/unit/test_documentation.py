"""README and docs: blocks, options of commands that are not run, quoted messages, the site."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import LANGUAGES, PAGES, ROOT, Block, blocks

from degrain.cli.main import MODULES
from degrain.cli.options import parse

BLOCKS = [block for page in PAGES for block in blocks(page)]
NOT_RUN = [
    pytest.param(words, id=f"{block.page.name}:{' '.join(words)[:60]}")
    for block in BLOCKS
    if block.language == "sh" and block.reason is not None
    for words in block.commands()
    if words[0] == "degrain"
]


def test_every_block_has_a_known_language() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    # Markdown takes indented lines after an empty one for code, which no test would run.
    for page in PAGES:
        outside = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        assert not re.search(r"\n\n {4}\S", outside), page


@pytest.mark.parametrize("words", NOT_RUN)
def test_options_of_commands_that_are_not_run_exist(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("data: patches\n")
    if ">" in words:  # The shell's part.
        words = words[: words.index(">")]
    module = importlib.import_module(f"degrain.cli.{MODULES.get(words[1], words[1])}")
    parse(module.COMMAND, words[2:], prog="degrain")


def test_the_example_of_a_network_keeps_its_contract() -> None:
    torch.manual_seed(0)
    [block] = [b for b in blocks(ROOT / "docs" / "own-network.md") if b.language == "python"]
    names: dict[str, Any] = {}
    exec(block.code, names)
    noisy = torch.rand(1, 3, 15, 15, requires_grad=True)
    clean = names["Tiny"]()(noisy)
    assert clean.shape == noisy.shape
    clean[0, :, 7, 7].sum().backward()
    assert noisy.grad is not None
    rows = noisy.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert max(abs(int(row) - 7) for row in rows) == names["contract"]().receptive_radius


def test_messages_of_the_troubleshooting_page_are_those_of_the_program() -> None:
    """The fixed parts of each quoted message, between `...`, occur in the source in this order."""
    sources = "".join(
        re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in (ROOT / "platform").rglob("*.py")
    )
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^#+ `(.+)`$", page, flags=re.M)
    assert len(messages) > 15
    for message in messages:
        parts = [re.escape(part.strip(" ,;")) for part in message.split("...") if part.strip(" ,;")]
        assert re.search(r"[^\n]*".join(parts), sources), message


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links between pages and to headings are checked too."""
    pytest.importorskip("sphinx", reason="the site needs the extra 'docs'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_a_block_knows_its_commands_and_its_reason() -> None:
    page = ROOT / "README.md"
    code = "A=1 degrain train \\\n  --steps 3   # a comment\n"
    assert list(Block(page, "sh", code, None).commands()) == [["degrain", "train", "--steps", "3"]]
    assert not Block(page, "sh", code, "it takes an hour").is_run
    assert not Block(page, "text", code, None).is_run
