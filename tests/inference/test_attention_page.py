"""The page of `a2video attend` without a browser: what it shows, how large it is, what names may do in it."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attending import CELLS, PREPROCESSING, Looker, bright_cells, looking, randomized
from conftest import moving_square, write_video
from pages import Page, assert_policy_names_its_own
from PIL import Image
from test_cli import fails
from test_imports import loaded_after

from a2video.cli import main
from a2video.errors import InputError
from a2video.inference.attention import Attention, attention, watched_blocks
from a2video.inference.attention_page import attention_html, coloured, heat, write_attention_page
from a2video.models import a2net_resnet50, a2net_tiny

HOSTILE = "<script>alert(1)<!-- \"'>&.mp4"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Attention:
    return attention(looking(Looker()), bright_cells(tmp_path_factory.mktemp("a folder") / HOSTILE))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = randomized(a2net_tiny(2))
    about = {
        "network": network.description,
        "class_names": ["left", "right"],
        "preprocessing": replace(PREPROCESSING, num_clips=2).to_dict(),
    }
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"a2video": about, "state_dict": state}, path)
    return path


def test_colours_go_from_nothing_to_bright() -> None:
    assert coloured(np.array([0.0, 0.5, 1.0, 2.0])).tolist() == [
        [61, 20, 110, 0],
        [217, 70, 98, 162],
        [250, 222, 92, 230],
        [250, 222, 92, 230],
    ]
    brightness = coloured(np.linspace(0, 1, 20))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) > 0).all()


def test_cells_are_drawn_around_what_they_see() -> None:
    values = torch.zeros(2, 4, 4)
    values[0, 1, 2] = values[1, 3, 0] = 1  # seen around pixels (8, 16) and (24, 0) of 32
    drawn = heat(values, 5, 32)
    assert drawn.shape == (5, 56, 56)
    weights = drawn[0] / drawn[0].sum()
    pixels = (torch.arange(56) + 0.5) * 32 / 56 - 0.5
    assert [(weights.sum(1) @ pixels).item(), (weights.sum(0) @ pixels).item()] == pytest.approx([8, 16], abs=0.1)
    assert drawn[0].max().item() > 0.9
    assert [frame[14, 28].item() > 0.5 for frame in drawn] == [True, True, True, False, False]
    assert [frame[45, 0].item() > 0.5 for frame in drawn] == [False, False, False, True, True]
    assert heat(torch.ones(1, 50, 50), 1, 200).shape == (1, 112, 112)
    assert torch.equal(heat(torch.ones(1, 3, 3), 2, 20), torch.ones(2, 56, 56))


def test_what_the_page_says(found: Attention) -> None:
    html = attention_html(found, top=2, checkpoint="/secret/runs/mine/best.ckpt")
    page = Page(html)
    assert HOSTILE in page.texts
    assert "seen by mine/best.ckpt" in page.text
    assert "secret" not in html
    assert "a folder" not in html
    assert "4 frames, 0.40 to 1.10 s" in page.text
    assert "This clip" in page.text
    assert "The whole video" not in page.text  # it has this clip only
    label, probability = found.of_clip.ranked[0]
    assert f"{label} {probability:.1%}" in page.text
    assert "3 descriptors (even share 33.3%) over 4 × 4 × 4 positions" in page.text
    usage = found.blocks[0].usage
    assert page.text.count("Descriptor ") == 2
    order = usage.argsort(descending=True).tolist()
    assert f"Descriptor {order[0]}: usage {usage.max().item():.1%}" in page.text
    assert f"The 2 most used have {usage.topk(2).values.sum().item():.1%} of the usage" in page.text
    both = found.of_video.clips * 2
    other = replace(found.of_video, ranked=(("down", 0.6), ("up", 0.4)), clips=both)
    page = Page(attention_html(replace(found, of_video=other)))
    assert "The whole video (2 clips) down 60.0%" in page.text
    assert page.text.count("Descriptor ") == 3  # all that there are


def test_the_scale_is_named(found: Attention) -> None:
    page = Page(attention_html(found, top=3))
    gather = found.blocks[0].gather[1]
    assert f"Full colour: {gather.max().item() * 64:.1f} × even" in page.text
    assert "Full colour: 2.0 × even. Half of it from 50.00% of all positions." in page.text  # of even ones
    assert f"At most {found.blocks[0].distribute[1].max().item():.1%} of what" in page.text


def test_heat_lies_on_what_is_bright(found: Attention) -> None:
    page = Page(attention_html(found, top=3))
    assert len(page.images) == 7  # the scale, and two of each descriptor
    place = found.blocks[0].usage.argsort(descending=True).tolist().index(1)
    for source in page.images[1 + 2 * place : 3 + 2 * place]:
        strip = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))
        assert strip.size == (56 * len(CELLS), 56)
        alpha = np.asarray(strip)[..., 3].reshape(56, len(CELLS), 56).astype(int)
        for time, (row, column) in enumerate(CELLS):
            inside = alpha[14 * row - 2 : 14 * row + 3, time, 14 * column - 2 : 14 * column + 3]
            assert inside.max() >= alpha[:, time].max() - 2 > 200
            assert alpha[:, time].mean() < 130


def test_nothing_comes_from_outside_and_names_are_text(found: Attention) -> None:
    html = attention_html(found)
    page = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("<script") == 1
    assert_policy_names_its_own(page)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", tag
        if name in ("src", "href"):
            assert value.startswith("data:"), (tag, value)
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(alternatives) == len(page.images)
    assert alternatives[1].startswith("Where descriptor ")
    assert alternatives[2].startswith("Who receives descriptor ")


def test_one_frame_does_not_move(tmp_path: Path) -> None:
    Image.fromarray(moving_square(1, 1)[0]).save(tmp_path / "picture.png")
    still = looking(Looker(), replace(PREPROCESSING, num_frames=1))
    page = Page(attention_html(attention(still, tmp_path / "picture.png")))
    assert "One frame, at 0.00 s" in page.text
    assert not {"input", "button", "output"} & page.tags


def test_a_long_clip_shows_some_of_its_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", moving_square(1, 100))
    classifier = looking(Looker(), replace(PREPROCESSING, num_frames=70, frame_stride=1))
    html = attention_html(attention(classifier, path), top=1)
    assert "70 frames, 0.50 to 2.83 s; 32 of them are shown" in Page(html).text
    assert "--n: 32;" in html


def test_the_page_of_a_large_network_stays_light(found: Attention) -> None:
    torch.manual_seed(0)
    network = a2net_resnet50(3)
    clip = torch.randint(0, 256, (3, 8, 64, 64), dtype=torch.uint8)
    with torch.inference_mode(), watched_blocks(network.eval()) as blocks:
        network(PREPROCESSING.normalize(clip[None]))
    large = replace(found, clip=clip, seconds=tuple(range(8)), blocks=tuple(blocks))
    page = attention_html(large)
    assert Page(page).text.count("Descriptor ") == 20
    assert len(page) < 1_500_000


def test_command_line(checkpoint: Path, tmp_path: Path) -> None:
    """In a process of its own, in which nothing slow to import may be loaded."""
    video, out = bright_cells(tmp_path / HOSTILE), tmp_path / "new/page.html"
    arguments = ["attend", str(checkpoint), str(video), "--out", str(out), "--top", "3", "--at", "0.7"]
    run = f"try: main({arguments!r})\nexcept SystemExit as e: assert e.code == 0, e.code"
    loaded = loaded_after(f"from a2video.cli import main\n{run}")
    assert not {"lightning", "torchmetrics", "matplotlib", "pyarrow"} & loaded
    page = Page(out.read_text(encoding="utf-8"))
    assert HOSTILE in page.texts
    assert "The whole video (2 clips)" in page.text
    assert page.text.count("Descriptor ") == 6


def test_the_last_line_says_what_was_written(
    checkpoint: Path, found: Attention, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as exit_info:
        main(["attend", str(checkpoint), found.path, "--out", str(out)])
    assert exit_info.value.code == 0
    size = round(out.stat().st_size / 1000)
    assert capsys.readouterr().out == f"Wrote {out} ({size} kB): open it in a browser, it needs no network\n"


def test_wrong_input(checkpoint: Path, found: Attention, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    attend = ["attend", checkpoint, found.path, "--out"]
    assert "is a file that ends in .html" in fails(capsys, *attend, tmp_path / "page.gif")
    assert "lasts 1.50 seconds: choose a moment from 0 to that, not 60" in fails(capsys, *attend, out, "--at", "60")
    assert "a page shows 1 to 64 descriptors of each block" in fails(capsys, *attend, out, "--top", "65")
    assert "does not exist" in fails(capsys, "attend", checkpoint, tmp_path / "gone.mp4", "--out", out)
    assert "give a .ckpt file" in fails(capsys, "attend", found.path, found.path, "--out", out)
    assert not out.exists()
    with pytest.raises(InputError, match="--top 0"):
        write_attention_page(looking(Looker()), found.path, out, top=0)
    with pytest.raises(InputError, match="cannot be written"):
        write_attention_page(looking(Looker()), found.path, Path(found.path) / "page.html")
