import dataclasses
import pathlib

import numpy as np
import pytest
from matplotlib import font_manager

from igpt_jax.config import DataConfig, EmojiConfig
from igpt_jax.data.builders import describe_emoji
from igpt_jax.data.builders.emoji import base
from igpt_jax.data.prepared import prepare
from igpt_jax.data.sources import describe_source, load_source
from igpt_jax.errors import InputError

LISTED = """\
# Version: 15.0
# group: Smileys & Emotion
# subgroup: face-smiling
1F600 ; fully-qualified # 😀 E1.0 grinning face
1F603 ; fully-qualified # 😃 E0.6 grinning face with big eyes
# subgroup: heart
2764 FE0F ; fully-qualified # ❤️ E0.6 red heart
2764 ; unqualified # ❤ E0.6 red heart
# group: People & Body
# subgroup: hand-fingers-open
1F44B ; fully-qualified # 👋 E0.6 waving hand
1F44B 1F3FB ; fully-qualified # 👋🏻 E1.0 waving hand: light skin tone
1F44B 1F3FF ; fully-qualified # 👋🏿 E1.0 waving hand: dark skin tone
# subgroup: person-role
1F468 200D 1F680 ; fully-qualified # 👨‍🚀 E4.0 man astronaut
1F469 200D 1F680 ; fully-qualified # 👩‍🚀 E4.0 woman astronaut
1F469 1F3FD 200D 1F680 ; fully-qualified # 👩🏽‍🚀 E4.0 woman astronaut: medium skin tone
1F469 200D 1F95A ; fully-qualified # 👩‍🥚 no font has this one
# group: Food & Drink
# subgroup: food-fruit
1F34E ; fully-qualified # 🍎 E0.6 red apple
1F34F ; fully-qualified # 🍏 E0.6 green apple
1F350 ; fully-qualified # 🍐 E1.0 pear
1F351 ; fully-qualified # 🍑 E0.6 peach
1F352 ; fully-qualified # 🍒 E0.6 cherries
1F353 ; fully-qualified # 🍓 E0.6 strawberry
# group: Flags
# subgroup: country-flag
1F1E8 1F1F5 ; fully-qualified # 🇨🇵 E2.0 flag: Clipperton Island
1F1EB 1F1F7 ; fully-qualified # 🇫🇷 E0.6 flag: France
"""
HAS_FONT = pathlib.Path(EmojiConfig().font).is_file()
needs_font = pytest.mark.skipif(not HAS_FONT, reason="needs apt-get install fonts-noto-color-emoji")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("emoji")
    (directory / "list.txt").write_text(LISTED, encoding="utf-8")
    return DataConfig(name="emoji", directory=str(directory), emoji=EmojiConfig(list=str(directory / "list.txt")))


def records(config):
    builder = prepare("emoji", config.directory, describe_emoji(config.emoji))
    return {split: list(builder.as_data_source(split)) for split in ("train", "validation", "test")}, builder


@pytest.mark.parametrize(
    "together",
    [
        ["👋", "👋🏻", "👋🏿"],
        ["🧑‍🚀", "👩🏽‍🚀", "👨🏿‍🚀", "👨‍🚀"],
        ["🏃", "🏃‍♀️", "🏃🏾‍♂️"],
        ["👪", "👨‍👩‍👧‍👦", "👩‍👦"],
        ["💏", "👨🏻‍❤️‍💋‍👨🏿"],
        ["💑", "👩‍❤️‍👨", "💑🏿"],
        ["🧑‍🤝‍🧑", "👭", "👩🏻‍🤝‍👨🏿", "👬🏽"],
        ["🤝", "🤝🏽", "🫱🏻‍🫲🏿"],
        ["🤴", "👸🏽", "🫅"],
        ["🎅", "🤶🏿", "🧑🏽‍🎄"],
    ],
)
def test_skin_tones_and_genders_of_an_emoji_have_one_base(together):
    assert len({base(emoji) for emoji in together}) == 1


def test_other_emoji_have_bases_of_their_own():
    apart = [
        "👋",
        "✋",
        "🧑‍🚀",
        "🧑‍🎓",
        "🧑",
        "🧒",
        "👪",
        "🏃",
        "🚶",
        "🇫🇷",
        "🇩🇪",
        "🐕",
        "🐕‍🦺",
        "🏳️",
        "🏳️‍🌈",
        "♀️",
        "♂️",
        "❤️",
        "❤️‍🔥",
    ]
    assert len({base(emoji) for emoji in apart}) == len(apart)


@needs_font
def test_what_the_font_has_is_drawn_once_and_split_by_base(config):
    splits, builder = records(config)
    everything = [record["emoji"].decode() for part in splits.values() for record in part]
    assert len(everything) == len(set(everything)) == 16  # of 18: an egg is no profession, and two flags look the same
    assert "🇨🇵" in everything
    assert "🇫🇷" not in everything
    bases = [{record["base"] for record in part} for part in splits.values()]
    assert sum(map(len, bases)) == len(set.union(*bases)) == 12
    assert [len(part) for part in bases] == [10, 1, 1]
    assert "Unicode 15.0's emoji as Noto Color Emoji, Version 2." in builder.info.description


@needs_font
def test_a_source_says_which_font_drew_it():
    assert "Noto Color Emoji, Version 2." in describe_source(DataConfig(name="emoji"))
    assert describe_source(DataConfig(name="digits")) == ""


@needs_font
def test_drawings_have_the_side_that_was_asked_for(config):
    large = dataclasses.replace(config, emoji=dataclasses.replace(config.emoji, side=128))
    splits, builder = records(large)
    assert builder.info.full_name != records(config)[1].info.full_name
    small = {record["emoji"]: record["image"] for part in records(config)[0].values() for record in part}
    for part in splits.values():
        for record in part:
            assert record["image"].shape == (128, 128, 3)
            shrunk = record["image"].reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
            assert np.abs(shrunk - small[record["emoji"]]).mean() < 2  # the same drawing


@needs_font
def test_a_drawing_is_centered_on_white(config):
    for part in records(config)[0].values():
        for record in part:
            drawn = np.argwhere((record["image"] < 250).any(-1))
            low, high = drawn.min(0), 63 - drawn.max(0)
            assert abs(low - high).max() <= 2
            assert min(low.min(), high.min()) < 10  # and fills the picture in one direction
            assert (record["image"][[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


@needs_font
def test_sources_have_groups_or_subgroups_as_labels(config):
    train = load_source(config, "train")
    folded = load_source(DataConfig(**vars(config) | {"fold_validation": True}), "train")
    validation = load_source(config, "validation")
    assert train.classes == 4
    np.testing.assert_array_equal(folded.images, np.concatenate([train.images, validation.images]))
    emoji = EmojiConfig(list=config.emoji.list, labels="subgroup")
    assert load_source(DataConfig(**vars(config) | {"emoji": emoji}), "train").classes == 6
    (apple,) = [r for part in records(config)[0].values() for r in part if r["emoji"].decode() == "🍎"]
    assert records(config)[1].info.features["label"].int2str(apple["label"]) == "Food & Drink"


@needs_font
def test_another_list_is_another_set(config, tmp_path):
    other = tmp_path / "list.txt"
    other.write_text(LISTED.replace("# Version: 15.0", "# Version: 99.0"), encoding="utf-8")
    names = {describe_emoji(EmojiConfig(list=path)).name for path in (config.emoji.list, str(other))}
    assert len(names) == 2


def test_what_is_missing_or_wrong_is_named_with_the_remedy(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(LISTED, encoding="utf-8")
    plain = font_manager.findfont("DejaVu Sans")

    def load(**emoji):
        load_source(DataConfig(name="emoji", directory=str(tmp_path), emoji=EmojiConfig(**emoji)), "train")

    install = "run apt-get install fonts-noto-color-emoji unicode-data"
    with pytest.raises(InputError, match=rf"data\.emoji\.font=none\.ttf is missing; {install}"):
        load(font="none.ttf")
    with pytest.raises(InputError, match=rf"data\.emoji\.list=none\.txt is missing; {install}"):
        load(font=plain, list="none.txt")
    with pytest.raises(InputError, match="is not a font"):
        load(font=str(text), list=str(text))
    with pytest.raises(InputError, match="has no color bitmaps"):
        load(font=plain, list=str(text))
    with pytest.raises(InputError, match=r"data\.emoji\.labels='name' is not known; choose one of group, subgroup"):
        EmojiConfig(labels="name")
    text.write_text("# Version: 15.0\n")
    with pytest.raises(InputError, match="lists no fully-qualified emoji"):
        load(font=plain, list=str(text))
    text.write_text("1F6zz ; fully-qualified # ?\n")
    with pytest.raises(InputError, match="expected code points in base 16"):
        load(font=plain, list=str(text))
