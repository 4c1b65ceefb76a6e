"""Links between the pages of the documentation lead to files, and to headings of them, that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    path.relative_to(ROOT) for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md") for path in ROOT.glob(pattern)
]


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    missing = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^):]+)\)", (ROOT / page).read_text()):
            name, _, anchor = link.partition("#")
            target = ROOT / page.parent / name if name else ROOT / page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in find_anchors(target)):
                missing.append(f"{page}: {link}")
    assert missing == []


def test_the_pages_have_links() -> None:
    assert len(PAGES) > 30
    assert "](docs/config.md)" in (ROOT / "README.md").read_text()


def test_every_page_of_the_docs_is_linked_from_another_one() -> None:
    linked = {
        (ROOT / page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^):]+)\)", (ROOT / page).read_text())
        if not link.startswith((page.name, "#"))
    }
    assert [page for page in PAGES if page.parts[0] == "docs" and (ROOT / page).resolve() not in linked] == []
