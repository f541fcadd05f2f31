"""The text of what clients send as a document or a query, in every shape that a vendor documents.

Text is a string, `{text}`, `{content}` (a string, blocks, or one block) or a typed object
`{type: "text", value}`. Other objects are records and read as YAML. Pictures, videos, audio and
files are refused, because the model would read the letters of their URL or data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankd.config.text import shorten
from rankd.dialects.json_values import MAX_FIELDS, short_json, type_name
from rankd.dialects.yaml_blocks import yaml_lines, yaml_value

# What vendors call media: fields, and values of `type`.
_MEDIA = {
    **dict.fromkeys(
        [
            *("image", "images", "image_url", "image_base64", "image_data", "image_embeds"),
            *("image_pil", "input_image", "multi_images"),
        ],
        "a picture",
    ),
    **dict.fromkeys(["video", "video_url", "video_base64", "input_video"], "a video"),
    **dict.fromkeys(["audio", "audio_url", "audio_base64", "input_audio"], "audio"),
    **dict.fromkeys(["file_data", "file_url", "input_file", "inline_data", "inlineData"], "a file"),
}

# In records these fields usually say where the text is from.
_FILES = {"file": "a file", "pdf": "a file"}

_MEDIA_TYPES = _MEDIA | _FILES
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})

# Without them a `text` is the whole text.
_MARKS = frozenset(_MEDIA_TYPES) | {"type"}

# All fields of typed objects; an object that has others is a record with a field `type`.
_TYPED_FIELDS = frozenset(
    {
        *("type", "format", "value", "data", "base64", "url", "source", "id", "index", "uuid"),
        *("mime_type", "media_type", "encoding", "detail", "filename", "file_id"),
    }
)
_PAYLOADS = ("value", "data", "base64")

_TEXT_ONLY = "this model reads text only"


def text_of(value: Any, fields: Sequence[str] = ()) -> str:
    """The text of a string, an object, or an array of content blocks.

    Args:
        fields: read only these fields of an object, in this order. Default: its `text`, else
            its `content`, else the `value` of a typed object, else all fields.

    Raises:
        ValueError: it has no text, or holds a picture or other media; the message continues a
            sentence that begins with the field.
    """
    match value:
        case str():
            if value[4:5] == ":" and _is_data(value):
                raise ValueError(f"is a data: URL; {_TEXT_ONLY}")
            return value
        case dict() if fields:
            return _chosen(value, fields)
        # The usual case; a mapping pattern would take three times as long.
        case dict() if isinstance(text := value.get("text"), str) and (
            len(value) == 1 or _MARKS.isdisjoint(value)
        ):
            return text
        case dict():
            return _object_text(value)
        case [dict(), *_]:
            return _content(value)
    raise ValueError(f"must be a string or an object with `text`, not {type_name(value)}")


def _object_text(value: dict[str, Any]) -> str:
    if not _MARKS.isdisjoint(value):
        _refuse_media(value)
    match value:
        case {"text": str(text)}:
            return text
        case {"text": other}:
            raise ValueError(f"must hold its text as a string in `text`, not {type_name(other)}")
        case {"content": content}:
            return _content(content)
        case {"parts": [dict(), *_] as parts} if value.keys() <= {"parts", "role"}:
            return _content(parts)
    if not value:
        raise ValueError("must not be an empty object")
    if "type" in value and (typed := _typed_text(value)) is not None:
        return typed
    return record_text(value)


def _chosen(value: dict[str, Any], fields: Sequence[str]) -> str:
    fields = tuple(dict.fromkeys(fields))  # A name sent a thousand times reads one text.
    chosen = {field: value[field] for field in fields if value.get(field) is not None}
    if not chosen:
        raise ValueError(f"has none of the rank_fields {', '.join(map(repr, fields))}")
    if not _MARKS.isdisjoint(chosen):
        _refuse_media(chosen)
    if "content" in chosen:
        chosen["content"] = _chosen_content(chosen["content"])
    if len(fields) > 1:
        return record_text(chosen)
    _refuse_data(chosen)
    only = chosen[fields[0]]
    return only if isinstance(only, str) else yaml_value(only)


def _chosen_content(content: Any) -> Any:
    """The text of blocks; any other value stays as it is."""
    match content:
        case [{"type": str()}, *_]:
            return _content(content)
    return content


def record_text(value: dict[str, Any]) -> str:
    """All fields as YAML."""
    _refuse_media({name.lower(): item for name, item in value.items()})
    _refuse_data(value)
    return yaml_lines(value, value)


# Content and typed objects.


def _content(content: Any) -> str:
    """The content of a message: a string, a block, or blocks; each must be text."""
    if isinstance(content, str):
        return content
    blocks = [content] if isinstance(content, dict) else content
    if not isinstance(blocks, list) or not blocks:
        raise ValueError(f"must hold blocks in `content`, not {type_name(content)}")
    if len(blocks) > MAX_FIELDS:
        raise ValueError(f"has {len(blocks):,} blocks; the limit is {MAX_FIELDS:,}")
    return "\n".join(map(_block_text, blocks))


def _block_text(block: Any) -> str:
    match block:
        case {"type": str(kind)} if kind.lower() not in _TEXT_TYPES:
            raise ValueError(f"has a block of type {shorten(kind)!r}; {_TEXT_ONLY}")
        case dict():
            _refuse_media(block)
            text = block.get("text")
            if text is None:
                text = _typed_text(block)
            if isinstance(text, str):
                return text
    raise ValueError("must hold its text in blocks of type 'text'")


def _typed_text(value: Mapping[str, Any]) -> str | None:
    """The text of a typed object, such as Elastic's; None: the object is a record.

    Raises:
        ValueError: it is a typed object of something else than text.
    """
    kind = value.get("type")
    payload = next((name for name in _PAYLOADS if name in value), None)
    if not isinstance(kind, str) or payload is None or not value.keys() <= _TYPED_FIELDS:
        return None
    if kind.lower() not in _TEXT_TYPES:
        raise ValueError(f"is of type {shorten(kind)!r}; send text as a string or as `text`")
    if value.get("format") not in (None, "text", "plain") or payload == "base64":
        form = short_json(value.get("format", "base64"))
        raise ValueError(f"has its text in the format {form}; send it as format 'text'")
    text = value[payload]
    if not isinstance(text, str):
        raise ValueError(f"must hold its text as a string in `{payload}`, not {type_name(text)}")
    return text


# What is no text.


def _refuse_media(value: Mapping[str, Any]) -> None:
    """Raises `ValueError` if an object is or holds a picture, a video, audio or a file."""
    for name in value:
        if name in _MEDIA_TYPES and _is_media(name, value):
            raise ValueError(f"holds {_MEDIA_TYPES[name]} in `{name}`; {_TEXT_ONLY}")
    kind = value.get("type")
    if isinstance(kind, str) and kind.lower() in _MEDIA_TYPES and _is_typed(value):
        raise ValueError(f"is of type {kind!r}; {_TEXT_ONLY}")


def _is_media(name: str, value: Mapping[str, Any]) -> bool:
    """Whether the field holds media: an object, an array, or a string without a space."""
    content = value[name]
    if name in _FILES:
        return isinstance(content, dict) or (isinstance(content, str) and len(value) == 1)
    if isinstance(content, str):
        return bool(content) and (" " not in content.strip() or _is_data(content))
    return bool(content) and isinstance(content, dict | list)


def _is_typed(value: Mapping[str, Any]) -> bool:
    """Whether an object with a media type is one: a record about a video has a title."""
    return value.keys() <= _TYPED_FIELDS or any(name in value for name in _PAYLOADS)


def _refuse_data(value: Mapping[str, Any]) -> None:
    """Raises `ValueError` if a field of a record is a data: URL."""
    for name, item in value.items():
        # Most texts have no colon there.
        if isinstance(item, str) and item[4:5] == ":" and _is_data(item):
            raise ValueError(f"holds data in `{shorten(name)}`; {_TEXT_ONLY}")


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:" and ";base64," in text[:200]
