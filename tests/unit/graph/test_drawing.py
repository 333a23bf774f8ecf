"""Drawings hold every layer and every tie, whatever the names are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.graph.drawing import to_dot, to_svg
from edgeecc.graph.spec import ChannelGroup, LayerSpec, NetworkSpec, Slice, WidthForm
from edgeecc.graph.ties import ties_of

pytestmark = pytest.mark.device
SVG = "{http://www.w3.org/2000/svg}"


def layer(name: str, macs: int = 100) -> LayerSpec:
    form = WidthForm(4)
    return LayerSpec(
        name=name, kind="conv", input=form, output=form, kernel=(3, 3), stride=(1, 1), dilation=(1, 1), padding=(1, 1),
        groups=1, in_size=(8, 8), out_size=(8, 8), calls=1, dense_macs=macs, bias=False,
    )  # fmt: skip


def group(name: str, roles: Dict[str, str], reason: str = "") -> ChannelGroup:
    pieces = tuple(
        Slice(f"{place}.weight", 0, role, 0, 1, 0, 4)  # type: ignore[arg-type]
        for place, role in roles.items()
    )
    return ChannelGroup(name, 4, pieces, not reason, reason)


def network(layers: List[LayerSpec], groups: List[ChannelGroup], name: str = "net") -> NetworkSpec:
    return NetworkSpec(name, ((1, 3, 8, 8),), tuple(groups), tuple(layers), ())


RESIDUAL = network(
    [layer("stem"), layer("c1", 300), layer("dw"), layer("c2", 400), layer("fc", 100)],
    [
        group("stem", {"fc": "in", "c2": "out", "stem": "out", "c1": "in", "bn": "through"}),
        group("c1", {"c1": "out", "dw": "through", "c2": "in"}),
        group("fc", {"fc": "out"}, "its channels are an output of the network"),
    ],
)

names = st.text(min_size=1, max_size=12)


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    layers = [layer(name) for name in draw(st.lists(names, min_size=1, max_size=8, unique=True))]
    groups = [
        group(
            name,
            draw(
                st.dictionaries(
                    st.sampled_from([item.name for item in layers]),
                    st.sampled_from(["out", "through", "in"]),
                )
            ),
            draw(st.sampled_from(["", "]]><&\"' \x00"])),
        )
        for name in draw(st.lists(names, max_size=5, unique=True))
    ]
    return network(layers, groups, draw(names))


def test_ties_name_who_makes_carries_and_reads() -> None:
    stem, inner, last = ties_of(RESIDUAL)
    assert (stem.makers, stem.carriers, stem.readers) == (("stem", "c2"), (), ("c1", "fc"))
    assert (inner.makers, inner.carriers, inner.readers) == (("c1",), ("dw",), ("c2",))
    assert stem.mac_share == pytest.approx(900 / 1000)
    assert inner.layers == ("c1", "dw", "c2")
    assert last.mac_share == pytest.approx(0.1)


@given(spec=specs())
def test_any_drawing_is_well_formed_and_complete(spec: NetworkSpec) -> None:
    root = ElementTree.fromstring(to_svg(spec))  # noqa: S314  # our own text
    ties = [item for item in ties_of(spec) if item.layers]
    drawn = root.findall(f"{SVG}g")
    assert len(drawn) == len(ties)
    for one, marks in zip(ties, drawn):
        dots = [mark for mark in marks.findall(f"{SVG}circle") if mark.get("fill") != "#ffffff"]
        assert len(dots) == len(one.makers)
        assert len(marks.findall(f"{SVG}polygon")) == len(one.carriers)
        assert len(marks.findall(f"{SVG}circle")) - len(dots) == len(one.readers)
    texts = [text.text for text in root.findall(f"{SVG}text")]
    for item in spec.layers:
        assert "".join(c if c.isprintable() else "?" for c in item.name) in texts


@given(spec=specs())
def test_lanes_never_overlap(spec: NetworkSpec) -> None:
    taken: List[Tuple[str, float, float]] = []
    for line in ElementTree.fromstring(to_svg(spec)).iter(f"{SVG}line"):  # noqa: S314  # our own text
        x, top, bottom = str(line.get("x1")), float(line.get("y1", 0)), float(line.get("y2", 0))
        assert all(x != other or top > end or bottom < start for other, start, end in taken)
        taken.append((x, top, bottom))


@given(spec=specs())
def test_graphviz_text_is_quoted(spec: NetworkSpec) -> None:
    text = to_dot(spec)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", text)
    assert '"' not in bare
    assert re.fullmatch(r"[\w\s{}\[\]=,;>\-]*", bare, re.ASCII)
    arrows = sum(
        len(item.makers) + len(item.carriers) + len(item.readers) for item in ties_of(spec)
    )
    assert bare.count("->") == arrows


def test_whole_groups_are_grey_and_say_why() -> None:
    assert "4 whole: its channels are an output of the network" in to_svg(RESIDUAL)
    assert "tied to stem" in to_svg(RESIDUAL)
    assert 'fontcolor="#8a8f98", label="fc\\n4\\nits channels' in to_dot(RESIDUAL)


def test_a_long_reason_is_cut_and_kept_for_the_pointer() -> None:
    reason = "because " * 40
    spec = network([layer("a")], [group("a", {"a": "out"}, reason.strip())])
    root = ElementTree.fromstring(to_svg(spec))  # noqa: S314  # our own text
    (text,) = [text for text in root.findall(f"{SVG}text") if text.find(f"{SVG}title") is not None]
    assert str(text.text).endswith("…")
    assert reason.strip() in str(text.findtext(f"{SVG}title"))
    assert float(root.get("width", 0)) < 1000


def test_fifty_layers_fit_a_column() -> None:
    chain = [layer(f"layer{place}") for place in range(50)]
    pairs = zip(chain, chain[1:])
    spec = network(chain, [group(a.name, {a.name: "out", b.name: "in"}) for a, b in pairs])
    lines = list(ElementTree.fromstring(to_svg(spec)).iter(f"{SVG}line"))  # noqa: S314  # our own text
    assert len({line.get("x1") for line in lines}) == 2


def test_drawing_leaves_the_spec_alone() -> None:
    before = replace(RESIDUAL)
    to_svg(RESIDUAL)
    assert before == RESIDUAL
