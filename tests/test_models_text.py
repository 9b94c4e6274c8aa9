"""Texts to tokens and back: nothing is lost, and every token knows its characters."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rewardloop.errors import ModelError
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.types import Message
from tiny_models import CONTEXT, byte_fallback_tokenizer, byte_level_tokenizer, random_model, tiny_lm

TOKENIZERS = {"byte level": byte_level_tokenizer, "byte fallback": byte_fallback_tokenizer}
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
# no replacement character: what is undecodable in it cannot be told from a broken one
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffd"), max_size=30)


@cache
def lm_with(kind: str) -> LanguageModel:
    tokenizer = TOKENIZERS[kind]()
    return LanguageModel(random_model("llama", len(tokenizer)), tokenizer, (1,), CONTEXT, kind)


def token_bytes(lm: LanguageModel, token: int) -> bytes:
    """The bytes a token stands for, read from the vocabulary alone."""
    piece = lm.tokenizer.convert_ids_to_tokens(token)
    if lm.name == "byte level":
        back = {character: byte for byte, character in bytes_to_unicode().items()}
        return bytes(back[character] for character in piece)
    if piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


def spans_by_bytes(lm: LanguageModel, ids: list[int]) -> list[tuple[int, int]]:
    """The oracle: a token covers the characters that its bytes touch."""
    text = b"".join(token_bytes(lm, token) for token in ids).decode()
    owner = [at for at, character in enumerate(text) for _ in character.encode()]
    spans, start = [], 0
    for token in ids:
        end = start + len(token_bytes(lm, token))
        spans.append((owner[start], owner[end - 1] + 1))
        start = end
    return spans


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=TEXT)
def test_any_text_survives_and_every_token_covers_the_characters_its_bytes_touch(kind: str, text: str) -> None:
    lm = lm_with(kind)
    ids = lm.encode_completion(text)
    assert lm.decode(ids) == text
    *kept, end = ids
    assert end == 1
    assert lm.token_offsets(ids) == [*spans_by_bytes(lm, kept), (len(text), len(text))]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_offsets_of_any_tokens_are_monotone_and_cover_the_text(kind: str, data: st.DataObject) -> None:
    # a random policy says bytes that are no text
    lm = lm_with(kind)
    said = st.integers(0, len(lm.tokenizer) - 1).filter(lambda token: token not in lm.end_ids)
    ids = data.draw(st.lists(said, max_size=20)) + data.draw(st.sampled_from([[], [1]]))
    text, offsets = lm.decode(ids), lm.token_offsets(ids)
    assert len(offsets) == len(ids)
    assert offsets == sorted(offsets)
    assert [end for _, end in offsets] == sorted(end for _, end in offsets)
    assert set(range(len(text))) == {at for start, end in offsets for at in range(start, end)}


def test_a_first_space_is_part_of_the_completion() -> None:
    for kind in TOKENIZERS:
        lm = lm_with(kind)
        assert lm.decode(lm.encode_completion(" cat")) == " cat"
        assert lm.decode(lm.encode_completion("cat")) == "cat"


def test_prompt_and_completion_are_the_tokens_of_the_joined_text() -> None:
    lm = lm_with("byte level")
    joined = lm.tokenizer("the cat sat")["input_ids"]
    assert [*lm.encode_prompt("the cat"), *lm.encode_completion(" sat")] == [*joined, 1]


def test_a_conversation_is_rendered_by_the_template_of_the_model() -> None:
    lm = tiny_lm()
    lm.tokenizer.chat_template = CHAT
    prompt = (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "honey"))
    ids = lm.encode_prompt(prompt)
    assert lm.tokenizer.decode(ids) == "<user>hi\n<assistant>yes?\n<user>honey\n<assistant>"


def test_a_conversation_without_a_template_is_rendered_plainly_after_the_start_token() -> None:
    lm = tiny_lm()
    ids = lm.encode_prompt((Message("system", "Be kind."), Message("user", "hi")))
    assert ids[0] == 0
    assert lm.tokenizer.decode(ids[1:]) == "Be kind.\nUser: hi\nAssistant:"


def test_a_template_cannot_run_code() -> None:
    lm = tiny_lm()
    lm.tokenizer.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ModelError, match="chat template refuses a conversation of user"):
        lm.encode_prompt((Message("user", "hi"),))


def test_prompts_that_cannot_be_are_refused() -> None:
    lm = tiny_lm()
    with pytest.raises(ModelError, match=r"the prompt has \d+ tokens, and llama has room for 64"):
        lm.encode_prompt("你" * CONTEXT)
    assert len(lm.encode_prompt("0" * (CONTEXT - 2))) == CONTEXT - 1  # room for one token
    with pytest.raises(ModelError, match="has 64 tokens"):
        lm.encode_prompt("0" * (CONTEXT - 1))
    with pytest.raises(ModelError, match="without a message"):
        lm.encode_prompt(())


def test_an_empty_prompt_is_the_start_token() -> None:
    assert tiny_lm().encode_prompt("") == (0,)


def test_an_end_token_that_the_tokenizer_puts_after_every_text_does_not_end_a_prompt() -> None:
    lm = tiny_lm()
    from tokenizers import processors

    lm.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert lm.encode_prompt("cat")[-1] != 1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stories260K", "Lily said, “你好”! 🙂"),
        ("zh-poem-750K", "明月松间照，清泉石上流。"),
        ("tinystories-656K", " Once."),
    ],
)
def test_real_tokenizers_give_texts_back(shared: Path, name: str, text: str) -> None:
    lm = load_language_model(shared / "models" / name, device="cpu")
    ids = lm.encode_completion(text)
    offsets = lm.token_offsets(ids)
    assert lm.decode(ids) == text
    assert offsets[-1] == (len(text), len(text))
    assert set(range(len(text))) == {at for start, end in offsets for at in range(start, end)}


@pytest.mark.data
def test_the_end_tokens_of_a_model_that_ends_with_its_start_token(shared: Path) -> None:
    lm = load_language_model(shared / "models/stories260K", device="cpu")
    assert set(lm.end_ids) == {1, 2}
    assert lm.encode_completion("The end.")[-1] == 1
    assert lm.context == 512
