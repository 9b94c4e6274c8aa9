"""Importers: every layout from a few lines of it; what is malformed names its file and line."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.errors import ConfigError, DataError
from rewardloop.feedback.layouts import builtin_layouts
from rewardloop.feedback.reading import import_feedback, read_feedback
from rewardloop.feedback.records import from_record, to_record, write_feedback
from rewardloop.feedback.splits import split_by_prompt, topic_of
from rewardloop.types import (
    THUMB,
    Comment,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Live,
    Message,
    Preference,
    Ranking,
    Rating,
    Scale,
    Span,
)

USER, REPLY = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
ASKED = (Message("user", "Hi?"),)


def write_lines(folder: Path, *records: Any, name: str = "feedback.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records), encoding="utf-8")
    return path


def chosen_of(judgment: Feedback) -> tuple[str, str]:
    assert isinstance(judgment, Preference)
    pair = judgment.first, judgment.second
    return pair if judgment.choice == "first" else pair[::-1]


# ---------------------------------------------------------------- pairs


def test_preference_with_an_explicit_prompt_plain_and_conversational(tmp_path: Path) -> None:
    plain = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    turns = {"prompt": [USER], "chosen": [REPLY], "rejected": [REPLY | {"content": "No."}]}
    one, two = read_feedback(write_lines(tmp_path, plain, turns))
    assert (one.prompt, *chosen_of(one)) == ("The sky is", " blue.", " green.")
    assert (two.prompt, *chosen_of(two)) == (ASKED, "Hello.", "No.")


def test_preference_with_an_implicit_prompt_parts_where_the_texts_part(tmp_path: Path) -> None:
    plain = {"chosen": "The sky is blue.", "rejected": "The sky is black."}
    turns = {"chosen": [USER, REPLY], "rejected": [USER, REPLY | {"content": "No."}]}
    one, two = read_feedback(write_lines(tmp_path, plain, turns))
    assert (one.prompt, *chosen_of(one)) == ("The sky is ", "blue.", "black.")  # whole words, not "b"
    assert (two.prompt, *chosen_of(two)) == (ASKED, "Hello.", "No.")


def test_transcripts_of_human_and_assistant(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"
    longer = " Stay!\n\nHuman: Why?\n\nAssistant: For tea."
    one, two = read_feedback(
        write_lines(
            tmp_path,
            {"chosen": start + " Bye.", "rejected": start + " No."},
            {"chosen": start + longer, "rejected": start + " No."},
        )
    )
    prompt = (Message("user", "Hi?"), Message("assistant", "Hello."), Message("user", "Bye?"))
    assert (one.prompt, *chosen_of(one)) == (prompt, "Bye.", "No.")
    assert two.prompt == prompt
    assert chosen_of(two) == ("Assistant: Stay!\n\nHuman: Why?\n\nAssistant: For tea.", "No.")


def test_the_unknown_side_is_drawn_so_that_no_side_is_favored(tmp_path: Path) -> None:
    records = [{"prompt": "p", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(400)]
    path = write_lines(tmp_path, *records)
    choices = Counter(judgment.choice for judgment in read_feedback(path) if isinstance(judgment, Preference))
    assert 150 < choices["first"] < 250
    assert read_feedback(path) == read_feedback(path)
    assert all(chosen_of(judgment)[0].startswith("good") for judgment in read_feedback(path))


def test_three_annotators_with_ties(tmp_path: Path) -> None:
    record = {"instruction": "Add", "input": "1+1", "response1": "2", "response2": "3"}
    people = {"annotator1": 1, "annotator2": 0, "annotator3": 2}
    judgments = read_feedback(write_lines(tmp_path, record | people))
    assert [(j.annotator, j.choice) for j in judgments if isinstance(j, Preference)] == [
        ("annotator1", "first"),
        ("annotator2", "tie"),
        ("annotator3", "second"),
    ]
    assert judgments[0].prompt == (Message("user", "Add\n\n1+1"),)


# ---------------------------------------------------------------- other kinds


def test_thumbs_stars_steps_rankings_and_corrections(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    write_lines(folder, {"prompt": "p", "completion": "c", "label": False}, name="1.jsonl")
    write_lines(folder, {"text": "a", "score": 1}, {"text": "b", "score": 10}, name="2.jsonl")
    write_lines(folder, {"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}, name="3.jsonl")
    ranked = {
        "rank": {"x": "X", "y": "Y"},
        "rankings": [{"annotator": "A1", "order": ["y", "x"]}, {"x": 1, "y": 2}],
    }
    write_lines(
        folder,
        {"instruction": "i", "texts": ranked["rank"], "rankings": ranked["rankings"]},
        name="4.jsonl",
    )
    write_lines(folder, {"source": "s", "edits": ["t", "s"]}, name="5.jsonl")
    imported = import_feedback(folder)
    assert imported.feedback == (
        Rating(prompt="p", completion="c", value=0, scale=THUMB),
        Rating(prompt="", completion="a", value=1, scale=Scale(low=1, high=10)),
        Rating(prompt="", completion="b", value=10, scale=Scale(low=1, high=10)),
        Span(prompt="p", completion="one\ntwo", start=0, end=3, category="step", severity=1.0),
        Span(prompt="p", completion="one\ntwo", start=4, end=7, category="step", severity=-1.0),
        Ranking(prompt=(Message("user", "i"),), completions=("X", "Y"), ranks=(2, 1), annotator="A1"),
        Ranking(prompt=(Message("user", "i"),), completions=("X", "Y"), ranks=(1, 2)),
        Edit(prompt="", completion="s", corrected="t"),
    )
    assert imported.skipped == {"corrections that change nothing": 1}
    assert sorted(imported.layouts.values()) == [
        "corrections",
        "named-rankings",
        "stepwise-supervision",
        "text-rating",
        "unpaired-preference",
    ]


def test_tables_and_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion,label\n"p, q",c,true\np,"d\ne",0\n', encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"prompt": "p", "chosen": "a", "rejected": "b"}]), "utf-8")
    (tmp_path / "c.tsv").write_text("text\tscore\na\t1\nb\t3\n", encoding="utf-8")
    judgments = read_feedback(tmp_path)
    assert judgments[0] == Rating(prompt="p, q", completion="c", value=1, scale=THUMB)
    assert judgments[1] == Rating(prompt="p", completion="d\ne", value=0, scale=THUMB)
    assert isinstance(judgments[2], Preference)
    assert judgments[3] == Rating(prompt="", completion="a", value=1, scale=Scale(low=1, high=3))


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    mapping = tmp_path / "mine.yaml"
    mapping.write_text(
        """
        has: [frage]
        gives:
          - {kind: rating, prompt: {system: rolle|, user: frage}, completion: antwort.text, value: note,
             scale: {low: 1, high: 6}, annotator: wer, criterion: {const: style}}
          - {kind: span, each: fehler, prompt: {user: frage}, completion: antwort.text, start: each.von,
             end: each.bis, category: each.art}
        """,
        encoding="utf-8",
    )
    record = {
        "frage": "Hi?",
        "antwort": {"text": "Hello."},
        "note": "2",
        "wer": 7,
        "fehler": [{"von": 0, "bis": 5, "art": "drift"}],
    }
    rating, span = read_feedback(write_lines(tmp_path, record), str(mapping))
    scale = Scale(low=1, high=6)
    assert rating == Rating(prompt=ASKED, completion="Hello.", value=2, scale=scale, annotator="7", criterion="style")
    assert span == Span(prompt=ASKED, completion="Hello.", start=0, end=5, category="drift")


# ---------------------------------------------------------------- annotation tools


def test_argilla_records_of_both_versions(tmp_path: Path) -> None:
    fields = {"prompt": "Hi?", "response-1": "Hello.", "response-2": "No."}
    newer = {
        "id": "1",
        "fields": fields,
        "responses": {
            "better": [
                {"value": "response-2", "user_id": "u1", "status": "submitted"},
                {"value": "response-1", "user_id": "u2", "status": "discarded"},
            ],
            "order": [
                {
                    "value": [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}],
                    "user_id": "u1",
                }
            ],
        },
    }
    older = {
        "fields": {"instruction": "Hi?", "answer": "Hello."},
        "responses": [
            {
                "user_id": "u3",
                "status": "submitted",
                "values": {
                    "quality": {"value": 4},
                    "corrected_answer": {"value": "Hello!"},
                    "mistakes": {"value": [{"start": 0, "end": 5, "label": "rude"}]},
                },
            }
        ],
    }
    assert read_feedback(write_lines(tmp_path, newer, older)) == [
        Preference(prompt=ASKED, first="Hello.", second="No.", choice="second", annotator="u1", criterion="better"),
        Ranking(prompt=ASKED, completions=("No.", "Hello."), ranks=(1, 2), annotator="u1", criterion="order"),
        Rating(prompt=ASKED, completion="Hello.", value=4, annotator="u3", criterion="quality"),
        Edit(
            prompt=ASKED,
            completion="Hello.",
            corrected="Hello!",
            annotator="u3",
            criterion="corrected_answer",
        ),
        Span(
            prompt=ASKED,
            completion="Hello.",
            start=0,
            end=5,
            category="rude",
            annotator="u3",
            criterion="mistakes",
        ),
    ]


def test_label_studio_tasks(tmp_path: Path) -> None:
    def result(kind: str, name: str, to: str, **value: Any) -> dict[str, Any]:
        return {"type": kind, "from_name": name, "to_name": to, "value": value}

    task = {
        "data": {"prompt": "Hi?", "answer1": "Hello.", "answer2": "No."},
        "annotations": [
            {
                "completed_by": {"email": "a@b.c"},
                "result": [
                    result("pairwise", "pw", "answer1,answer2", selected="left"),
                    result("rating", "stars", "answer2", rating=2),
                    result("textarea", "correction", "answer2", text=["Yes."]),
                    result("labels", "ner", "answer1", start=0, end=5, labels=["warm"]),
                ],
            },
            {"was_cancelled": True, "result": [result("rating", "stars", "answer1", rating=1)]},
        ],
    }
    who: dict[str, Any] = {"prompt": ASKED, "annotator": "a@b.c"}
    assert read_feedback(write_lines(tmp_path, task)) == [
        Preference(**who, first="Hello.", second="No.", choice="first", criterion="pw"),
        Rating(**who, completion="No.", value=2, criterion="stars"),
        Edit(**who, completion="No.", corrected="Yes.", criterion="correction"),
        Span(**who, completion="Hello.", start=0, end=5, category="warm", criterion="ner"),
    ]


def test_open_webui_thumbs_choices_and_remarks(tmp_path: Path) -> None:
    messages = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": "Hi?"},
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": "Hello.", "model": "a"},
        "m3": {"id": "m3", "parentId": "m1", "role": "assistant", "content": "No.", "model": "b"},
    }
    snapshot = {"chat": {"id": "c", "chat": {"history": {"currentId": "m2", "messages": messages}}}}
    base = {
        "user_id": "u",
        "type": "rating",
        "meta": {"message_id": "m2", "chat_id": "c"},
        "snapshot": snapshot,
    }
    thumb = base | {"data": {"rating": -1, "model_id": "a", "reason": "rude", "comment": "bah"}}
    arena = base | {"data": {"rating": "1", "model_id": "a", "sibling_model_ids": ["b"], "details": {"rating": 8}}}
    assert read_feedback(write_lines(tmp_path, thumb, arena)) == [
        Rating(prompt=ASKED, completion="Hello.", value=0, scale=THUMB, annotator="u"),
        Comment(prompt=ASKED, completion="Hello.", text="rude: bah", annotator="u"),
        Preference(prompt=ASKED, first="Hello.", second="No.", choice="first", annotator="u"),
        Rating(prompt=ASKED, completion="Hello.", value=8, scale=Scale(low=1, high=10), annotator="u"),
    ]


# ---------------------------------------------------------------- our own layout

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
PROMPTS = st.one_of(
    TEXTS, st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), max_size=2).map(tuple)
)
COMMON: dict[str, Any] = {"prompt": PROMPTS, "annotator": st.none() | TEXTS, "criterion": TEXTS}
FEEDBACK = st.one_of(
    st.builds(Rating, **COMMON, completion=TEXTS, value=st.integers(1, 5), scale=st.just(Scale())),
    st.builds(Preference, **COMMON, first=TEXTS, second=TEXTS, choice=st.sampled_from(["first", "tie", "both_bad"])),
    st.builds(Ranking, **COMMON, completions=st.just(("a", "b")), ranks=st.just((2, 1))),
    st.builds(Edit, **COMMON, completion=TEXTS, corrected=TEXTS),
    st.builds(Comment, **COMMON, completion=TEXTS, text=TEXTS),
    st.builds(
        Dialogue,
        **COMMON,
        completion=TEXTS,
        reply=TEXTS,
        evaluation=st.sampled_from([None, -1, 0, 1]),
        rewrite=st.none() | TEXTS,
    ),
    st.builds(
        Live,
        **COMMON,
        completion=st.just("abc"),
        offset=st.integers(0, 3),
        value=st.just(-1),
        reaction_ms=st.just(9),
    ),
    st.builds(
        Span,
        **COMMON,
        completion=st.just("abc"),
        start=st.just(1),
        end=st.integers(2, 3),
        category=TEXTS,
        severity=st.floats(-1, 1),
    ),
    st.builds(Flag, **COMMON, completion=TEXTS, reason=TEXTS),
)


@given(FEEDBACK)
@settings(max_examples=200, deadline=None)
def test_a_record_comes_back_as_it_was(judgment: Feedback) -> None:
    assert from_record(json.loads(json.dumps(to_record(judgment)))) == judgment


def test_a_file_comes_back_as_it_was_line_separators_and_all(tmp_path: Path) -> None:
    feedback = [
        Rating(prompt="p\u2028q", completion="猫\n", value=3, annotator="安"),
        Edit(prompt=ASKED, completion="a", corrected="b"),
    ]
    write_feedback(tmp_path / "out.jsonl", feedback)
    assert read_feedback(tmp_path / "out.jsonl") == feedback


# ---------------------------------------------------------------- bad input

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, "{not json"], r"feedback.jsonl:2: not valid JSON"),
        ([GOOD, "[1]"], r"feedback.jsonl:2: a record is a JSON object, this is a list"),
        ([GOOD, {"prompt": "p", "chosen": "a"}], r"feedback.jsonl:2: there is no rejected"),
        (
            [GOOD, {"prompt": "p", "chosen": "a", "rejected": 3}],
            r"feedback.jsonl:2: text was expected, given int",
        ),
        (
            [{"kind": "rating", "prompt": "p", "completion": "c", "value": 9}],
            r":1: a rating of 9 on a scale from 1 to 5",
        ),
        ([{"kind": "stars", "prompt": "p"}], r":1: the kind of feedback is 'stars'; known are rating"),
        ([{"kind": "flag", "prompt": "p", "completion": "c"}], r":1: a flag needs a usable reason"),
        ([{"kind": "flag", "prompt": "p", "completion": "c", "raeson": "x"}], r":1: a flag has no raeson"),
        ([{"text": "a", "score": 1}, {"text": "b", "score": 2.5}], r"whole step on its scale, given 2.5"),
        ([{"text": "a", "score": 2}, {"text": "b", "score": 2}], r"all values of score are equal"),
        ([{"colour": "red"}], r":1: no known layout has the columns colour"),
        (
            [{"messages": [{"role": "wizard", "content": "x"}], "label": 1}],
            r":1: a message has the role 'wizard'",
        ),
        ([{"messages": [USER], "label": 1}], r":1: the conversation must end with a turn of the assistant"),
        (
            [{"data": {"text": "a"}, "annotations": [{"result": [{"type": "rating", "value": {}}]}]}],
            r":1: not as label-studio writes it: KeyError\('rating'\)",
        ),
        ([GOOD | {"rejected": "a"}], r"no feedback is left \(1 choices between two equal texts\)"),
        ([""], r"the file is empty"),
    ],
)
def test_what_is_malformed_names_file_and_line(tmp_path: Path, lines: list[Any], message: str) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    with pytest.raises(DataError, match=message):
        read_feedback(path)


def test_malformed_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("prompt,completion,label\np,c\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"short.csv:2: 2 cells; the heading names 3"):
        read_feedback(tmp_path / "short.csv")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DataError, match=r"bytes.jsonl: not UTF-8 text"):
        read_feedback(tmp_path / "bytes.jsonl")
    (tmp_path / "deep.jsonl").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(DataError, match=r"deep.jsonl"):
        read_feedback(tmp_path / "deep.jsonl")
    with pytest.raises(DataError, match="no such file or folder"):
        read_feedback(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no layout is called 'prefrence'; known are"):
        read_feedback(write_lines(tmp_path, GOOD), "prefrence")


def test_equal_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    imported = import_feedback(write_lines(tmp_path, GOOD, GOOD | {"rejected": "a"}, GOOD))
    assert len(imported.feedback) == 2
    assert imported.skipped == {"choices between two equal texts": 1}


# ---------------------------------------------------------------- splits


def test_a_split_shares_no_prompt_and_is_drawn_by_its_seed() -> None:
    feedback: list[Feedback] = [
        Rating(
            prompt=(Message("user", f"q{i % 40}"), Message("assistant", str(i)), Message("user", "more")),
            completion="c",
            value=1,
        )
        for i in range(200)
    ]
    train, held_out = split_by_prompt(feedback, 0.25, seed=3)
    assert {topic_of(j.prompt) for j in train}.isdisjoint({topic_of(j.prompt) for j in held_out})
    assert len(train) + len(held_out) == 200
    assert len({topic_of(j.prompt) for j in held_out}) == 10
    assert split_by_prompt(feedback, 0.25, seed=3)[1] == held_out
    assert split_by_prompt(feedback, 0.25, seed=4)[1] != held_out
    with pytest.raises(DataError, match="about one prompt"):
        split_by_prompt(feedback[:1], 0.25, seed=3)
    without_prompt = [dataclasses.replace(j, prompt="", completion=str(i)) for i, j in enumerate(feedback)]  # type: ignore[type-var]
    assert len(split_by_prompt(without_prompt, 0.25, seed=3)[1]) == 50


# ---------------------------------------------------------------- real data


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        ("hh-rlhf-harmless", {"Preference": 1821}),
        ("pandalm-pairwise", {"Preference": 2418}),
        ("zh-preferences", {"Preference": 609}),
        ("lamp-writing", {"Rating": 2296, "Ranking": 883, "Edit": 150}),
        ("zh-mucgec-edits", {"Edit": 2467}),
    ],
)
def test_real_feedback_is_read_whole(shared: Path, folder: str, kinds: dict[str, int]) -> None:
    imported = import_feedback(shared / "data" / folder)
    assert Counter(type(judgment).__name__ for judgment in imported.feedback) == kinds


@pytest.mark.data
def test_real_transcripts_part_at_an_answer(shared: Path) -> None:
    for judgment in read_feedback(shared / "data" / "hh-rlhf-harmless"):
        assert isinstance(judgment.prompt, tuple)
        assert judgment.prompt[-1].role == "user"


@pytest.mark.data
def test_the_mapping_in_the_documentation_reads_the_file_it_is_for(shared: Path, tmp_path: Path) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "feedback.md").read_text(encoding="utf-8")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(docs.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    imported = import_feedback(shared / "data" / "finegrained-rlhf-qa", str(mapping))
    assert Counter(type(judgment).__name__ for judgment in imported.feedback) == {"Span": 1078, "Edit": 391}


def test_every_layout_is_documented() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "feedback.md").read_text(encoding="utf-8")
    assert [layout.name for layout in builtin_layouts() if f"`{layout.name}`" not in docs] == []


def test_our_own_file_is_known_whatever_kind_comes_first(tmp_path: Path) -> None:
    feedback: list[Feedback] = [
        Edit(prompt="p", completion="a b", corrected="a c"),
        Rating(prompt="p", completion="a", value=2),
        Preference(prompt="p", first="a", second="b", choice="first"),
    ]
    for start in range(3):
        rotated = feedback[start:] + feedback[:start]
        write_feedback(tmp_path / "f.jsonl", rotated)
        assert read_feedback(tmp_path / "f.jsonl") == rotated
