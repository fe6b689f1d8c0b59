"""The .html page: one file that asks for nothing, says where it comes from, and lets no text out of its place."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from dp360.exporters import splat_sog, viewer_html
from dp360.generation import InputError
from dp360.reconstruction.splats import Splats

HOSTILE = "</title><script>alert(1)</script><!-- \" ' & @SPLATS@ </script"


class Page(HTMLParser):
    """Tags with their attributes, and the text of the title."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.title = ""
        self._in_title = False
        self.feed(data.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""

    def meta(self, name: str) -> str | None:
        return next(a["content"] for t, a in self.tags if t == "meta" and name in (a.get("name"), a.get("http-equiv")))


def test_same_head_same_bytes(marked_head, provenance):
    assert viewer_html.encode(marked_head, provenance) == viewer_html.encode(marked_head, provenance)


def test_holds_the_splats(marked_head, provenance):
    expected = splat_sog.decode(splat_sog.encode(marked_head, provenance, up_axis="-y"))[0]
    back = viewer_html.decode(viewer_html.encode(marked_head, provenance))[0]
    for name in ("means_world", "log_scales", "quats_wxyz", "opacity_logits", "sh0", "sh_rest"):
        assert torch.equal(getattr(back, name), getattr(expected, name))


def test_says_where_it_comes_from(marked_head, provenance):
    data = viewer_html.encode(marked_head, provenance)
    assert viewer_html.decode(data)[1] == provenance
    page = Page(data)
    assert page.meta("generator") == "dp360 0.1.0"
    assert page.meta("description") == provenance.statement


def test_texts_stay_in_their_places(marked_head, provenance):
    harmless = Page(viewer_html.encode(marked_head, provenance, title="x"))
    hostile = replace(
        provenance, statement=HOSTILE, generator=HOSTILE, version=HOSTILE, settings={"note": HOSTILE, "é": "\ud800"}
    )
    data = viewer_html.encode(marked_head, hostile, title=HOSTILE)
    page = Page(data)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert page.title == HOSTILE
    assert page.meta("description") == HOSTILE
    assert viewer_html.decode(data)[1] == hostile


def test_asks_for_nothing(marked_head, provenance):
    data = viewer_html.encode(marked_head, provenance)
    page = Page(data)
    links = [a[name] for _, a in page.tags for name in ("src", "href", "srcset", "poster", "data") if name in a]
    assert links == ["data:,"]  # the icon that browsers would look for
    policy = page.meta("Content-Security-Policy")
    assert policy is not None
    rules = {words[0]: set(words[1:]) for words in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == {"'none'"}
    assert set().union(*rules.values()) <= {"'none'", "'unsafe-inline'", "'wasm-unsafe-eval'", "data:", "blob:"}
    hosts = set(re.findall(rb"(?:https?:)?//([a-z0-9.-]+\.[a-z]{2,})/", data))
    assert hosts <= {b"www.w3.org", b"github.com"}  # names of XML languages, and where the viewer's code is found
    assert b"@import" not in data and not re.search(rb"url\((?!['\"]?data:)['\"]?[a-z./]", data.split(b"<script>")[0])


def test_licence_travels_along(marked_head, provenance):
    data = viewer_html.encode(marked_head, provenance)
    assert data.count(b"Permission is hereby granted") == 2  # the viewer's and its engine's
    assert b"PlayCanvas Ltd" in data


def test_hundred_thousand_splats_stay_below_ten_megabytes(provenance):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(100_000, *shape, generator=generator)

    direction = torch.nn.functional.normalize(normal(3), dim=-1)
    splats = Splats(0.2 * direction, normal(3) * 0.3 - 5, normal(4), normal(), normal(3), 0.05 * normal(15, 3))
    assert len(viewer_html.encode(splats, provenance)) < 10e6


def test_damaged_pages_are_refused(marked_head, provenance):
    data = viewer_html.encode(marked_head, provenance)
    place = data.rfind(b'id="head">') + 100
    for damaged in (b"", data[:1000], data[:place], data[:place] + b"*" + data[place:], data.replace(b"head", b"hand")):
        with pytest.raises(InputError, match=r"Cannot read splats"):
            viewer_html.decode(damaged)


def test_no_splats_are_refused(make_splats, provenance):
    with pytest.raises(ValueError, match="at least one Gaussian"):
        viewer_html.encode(make_splats(0, 0), provenance)
