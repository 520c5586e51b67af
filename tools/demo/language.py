"""What is asked and answered, in English and Chinese; a question has several wordings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.demo.scene import COLOURS, KINDS

BORDER = "\t"
"""Stands around a word where no space does, for the tokenizer to learn words and not whole sentences."""

_ENGLISH_PLACES = (
    *("top left", "top", "top right"),
    *("left", "middle", "right"),
    *("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The words of one language."""

    border: str
    """What stands around a word that a wording is filled with."""
    kinds: Sequence[str]
    plurals: Sequence[str]
    colours: Sequence[str]
    thing: str
    """How a colour and a kind are said together."""
    separator: str
    """Stands between the things of a list."""
    places: Sequence[str]
    """Of the three by three parts of a picture, row by row."""
    sizes: tuple[str, str]
    sides: tuple[str, str, str, str]
    """Left, right, above and below, as one shape lies beside another."""
    directions: tuple[str, str, str, str]
    """Left, right, up and down, as a shape moves."""
    truths: tuple[str, str]
    """No and yes."""
    presences: tuple[str, str]
    """No and yes to whether something is there."""
    ordinals: tuple[str, str]
    choices: tuple[str, str, str, str]
    """Neither picture, the first, the second, both."""
    equal: str
    wordings: Mapping[str, Sequence[str]]
    """By what is asked; `it` in a name marks a question about what was just spoken of."""


ENGLISH = Language(
    border="",
    kinds=KINDS,
    plurals=("circles", "squares", "triangles", "crosses"),
    colours=COLOURS,
    thing="{colour} {kind}",
    separator=", ",
    places=_ENGLISH_PLACES,
    sizes=("small", "large"),
    sides=("to the left of", "to the right of", "above", "below"),
    directions=("left", "right", "up", "down"),
    truths=("no", "yes"),
    presences=("no", "yes"),
    ordinals=("first", "second"),
    choices=("neither", "the first", "the second", "both"),
    equal="the same",
    wordings={
        "kind": ("What shape is the {colour} one?", "Which shape is {colour}?", "What is the {colour} shape?"),
        "only kind": ("What shape is it?", "Which shape do you see?", "What shape is this?"),
        "colour": ("What colour is the {kind}?", "What color is the {kind}?", "Which colour does the {kind} have?"),
        "count": ("How many shapes are there?", "How many shapes do you see?", "How many shapes are in the picture?"),
        "count kind": ("How many {plural} are there?", "How many {plural} do you see?"),
        "count colour": ("How many {colour} shapes are there?", "How many shapes are {colour}?"),
        "where": ("Where is the {thing}?", "In which part of the picture is the {thing}?"),
        "at": ("What is at the {place}?", "What do you see at the {place}?"),
        "larger": ("Which is larger, the {thing} or the {other}?", "What is larger: the {thing} or the {other}?"),
        "size": ("Is the {thing} large or small?", "How large is the {thing}?"),
        "exists": ("Is there a {thing}?", "Do you see a {thing}?", "Does the picture show a {thing}?"),
        "check": ("Is the {kind} {colour}?",),
        "beside": ("Is the {thing} {side} the {other}?",),
        "box": ("Frame the {thing}.", "Draw a box around the {thing}.", "Give me the box of the {thing}."),
        "list": ("What do you see?", "Describe the picture.", "What is in the picture?", "What shapes are there?"),
        "also": ("And the {said}?", "What about the {said}?"),
        "also count": ("And {said}?", "What about {said}?"),
        "it colour": ("What colour is it?", "What color is it?"),
        "it where": ("Where is it?", "In which part of the picture is it?"),
        "it size": ("Is it large or small?", "How large is it?"),
        "it box": ("Frame it.", "Draw a box around it."),
        "more": ("Which picture has more shapes?", "Which picture shows more shapes?"),
        "which": ("Which picture has a {thing}?", "Which picture shows a {thing}?"),
        "nth count": ("How many shapes are in the {ordinal} picture?",),
        "nth colour": ("What colour is the {kind} in the {ordinal} picture?",),
        "nth list": ("What do you see in the {ordinal} picture?", "What is in the {ordinal} picture?"),
        "move": (
            *("In which direction does the {thing} move?", "Which way does the {thing} move?"),
            "Where does the {thing} move?",
        ),
        "mover": ("What moves?", "What is moving?", "Which shape moves?"),
        "it move": ("In which direction does it move?", "Which way does it move?"),
        "first": (
            "Which appears first, the {thing} or the {other}?",
            "What appears first: the {thing} or the {other}?",
        ),
        "first of all": ("What appears first?", "Which shape appears first?"),
        "end count": ("How many shapes are there at the end?", "How many shapes do you see at the end?"),
    },
)

CHINESE = Language(
    border=BORDER,
    kinds=("圆形", "正方形", "三角形", "十字形"),
    plurals=("圆形", "正方形", "三角形", "十字形"),
    colours=("红色", "绿色", "蓝色", "黄色", "紫色", "橙色"),
    thing="{colour}的{kind}",
    separator="、",
    places=("左上方", "上方", "右上方", "左边", "中间", "右边", "左下方", "下方", "右下方"),
    sizes=("小", "大"),
    sides=("的左边", "的右边", "的上面", "的下面"),
    directions=("向左", "向右", "向上", "向下"),
    truths=("不是", "是"),
    presences=("没有", "有"),
    ordinals=("第一", "第二"),
    choices=("都没有", "第一张", "第二张", "都有"),
    equal="一样多",
    wordings={
        "kind": ("{colour}的是什么形状？", "{colour}的图形是什么形状？", "哪种形状是{colour}的？"),
        "only kind": ("这是什么形状？", "图里是什么形状？", "你看到什么形状？"),
        "colour": ("{kind}是什么颜色？", "{kind}是什么颜色的？", "{kind}的颜色是什么？"),
        "count": ("图里有几个图形？", "有几个图形？", "一共有多少个图形？"),
        "count kind": ("有几个{plural}？", "图里有几个{plural}？", "有多少个{plural}？"),
        "count colour": ("有几个{colour}的图形？", "{colour}的图形有几个？"),
        "where": ("{thing}在哪里？", "{thing}在图的什么位置？"),
        "at": ("{place}是什么？", "{place}有什么？"),
        "larger": ("{thing}和{other}哪个更大？", "哪个更大，{thing}还是{other}？"),
        "size": ("{thing}是大的还是小的？", "{thing}大不大？"),
        "exists": ("有{thing}吗？", "图里有{thing}吗？", "你看到{thing}了吗？"),
        "check": ("{kind}是{colour}的吗？",),
        "beside": ("{thing}在{other}{side}吗？",),
        "box": ("框出{thing}。", "请框出{thing}。", "用方框标出{thing}。"),
        "list": ("图里有什么？", "你看到什么？", "描述这张图。", "有哪些图形？"),
        "also": ("那{said}呢？", "{said}呢？"),
        "also count": ("那{said}呢？", "{said}呢？"),
        "it colour": ("它是什么颜色？", "它是什么颜色的？"),
        "it where": ("它在哪里？", "它在图的什么位置？"),
        "it size": ("它是大的还是小的？", "它大不大？"),
        "it box": ("框出它。", "请框出它。"),
        "more": ("哪张图的图形更多？", "哪张图里有更多图形？"),
        "which": ("哪张图有{thing}？", "哪张图里有{thing}？"),
        "nth count": ("{ordinal}张图里有几个图形？",),
        "nth colour": ("{ordinal}张图里的{kind}是什么颜色？",),
        "nth list": ("{ordinal}张图里有什么？", "你在{ordinal}张图里看到什么？"),
        "move": ("{thing}往哪个方向移动？", "{thing}向哪边移动？", "{thing}往哪里移动？"),
        "mover": ("什么在移动？", "哪个图形在移动？"),
        "it move": ("它往哪个方向移动？", "它向哪边移动？"),
        "first": ("{thing}和{other}哪个先出现？", "哪个先出现，{thing}还是{other}？"),
        "first of all": ("什么先出现？", "先出现的是什么？"),
        "end count": ("最后有几个图形？", "最后一共有几个图形？"),
    },
)
