"""Texts for the example buttons, in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """The fields that one button fills in.

    Attributes:
        instruction: "" is the server's own.
    """

    label: str
    query: str
    documents: tuple[str, ...]
    instruction: str = ""


EXAMPLES = (
    Example(
        "Web search",
        "What is the capital of China?",
        (
            "Gravity is a force that attracts two bodies towards each other.",
            "Shanghai is the largest city of China.",
            "The capital of China is Beijing.",
            "The capital of France is Paris.",
            "A capital letter begins a sentence.",
        ),
    ),
    Example(
        "Help desk",
        "how do I undo a commit?",
        (
            "A blue whale is the largest animal that has ever lived.",
            "Branches are made with git branch and listed by the same command.",
            "Commits can be undone: git revert makes a new one that takes the old one back.",
            "Invoices are sent on the first day of the month.",
            "A remote is another copy of the repository.",
        ),
        "Given a question to a help desk, retrieve the article that answers it",
    ),
    Example(
        "中文搜索",
        "中国的首都是哪里？",
        (
            "万有引力使两个物体相互吸引。",
            "上海是中国最大的城市。",
            "中国的首都是北京。",
            "法国的首都是巴黎。",
        ),
    ),
    Example(
        "中文客服",
        "怎么申请退款？",
        (
            "我们的办公室位于杭州。",
            "在订单页面点击“申请退款”，三个工作日内到账。",
            "会员每月可以领取一张优惠券。",
            "密码可以在设置中修改。",
        ),
    ),
)
