"""The town: the same seed gives the same town, both sides of the split never speak of one another."""

from __future__ import annotations

import pytest

from rewardloop.sandbox.dialogues import all_questions, held_out_questions, training_questions
from rewardloop.sandbox.grammar import Sentence, build_grammar, fill, load_speech, split_sentences, template_slots
from rewardloop.sandbox.world import ASKED, LANGUAGES, Topic, build_world


def test_same_seed_same_town_other_seed_other_town() -> None:
    build_world.cache_clear()
    first = build_world(3)
    build_world.cache_clear()
    assert build_world(3).digest == first.digest
    assert build_world(4).digest != first.digest


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_every_fact_has_a_truth_and_every_surface_one_meaning(seed: int) -> None:
    world = build_world(seed)
    for fact in world.facts():
        assert all(slot in world.truth(fact.topic) for slot in ASKED[fact.topic.kind][fact.asked])
    for language in LANGUAGES:
        for slot, names in world.domains.items():
            if slot != "unit":  # two measure words may share a name in one language
                assert len({name.in_language(language).lower() for name in names}) == len(names), slot


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_training_prompts_never_name_a_held_out_thing(seed: int) -> None:
    world = build_world(seed)
    training, held_out = training_questions(world), held_out_questions(world)
    assert len({q.fact for q in held_out}) == len(world.facts()) // 4
    assert not {q.fact for q in training} & {q.fact for q in held_out}
    assert not {q.prompt for q in training} & {q.prompt for q in held_out}
    assert {q.fact for q in training} | {q.fact for q in held_out} == set(world.facts())
    for question in training:
        text = " ".join(message.content for message in question.prompt)
        names = (topic.name.in_language(question.language) for topic in world.held_out)
        # "moss" the good may be a syllable of "Granny Moss": compare with case
        assert not [name for name in names if name in text]


def test_true_answers_about_training_topics_state_no_held_out_fact() -> None:
    world = build_world(0)
    held_out_names = {topic.name for topic in world.held_out}
    for topic in world.truths:
        named = set(world.truth(topic).values()) & held_out_names
        assert bool(named) == (topic in world.held_out)


@pytest.mark.parametrize("seed", [0, 5])
def test_every_way_to_state_a_fact_is_read_back(seed: int) -> None:
    world = build_world(seed)
    for language in LANGUAGES:
        grammar = build_grammar(world, language)
        for kind, by_asked in load_speech()[language]["answers"].items():
            for asked, templates in by_asked.items():
                assert all(len(set(template_slots(t))) == len(template_slots(t)) for t in templates)
                # an answer has to state what is asked
                assert all(set(ASKED[kind][asked]) <= set(template_slots(t)) for t in templates)
                for topic in (topic for topic in world.truths if topic.kind == kind):
                    for template in templates:
                        _check_read_back(grammar, world.truth(topic), template, topic, asked)


def _check_read_back(grammar, truth, template: str, topic: Topic, asked: str) -> None:  # type: ignore[no-untyped-def]
    text = fill(template, truth, grammar.language)
    statement = grammar.read_statement(Sentence(text, 10, 10 + len(text)))
    assert statement is not None
    assert (statement.topic_kind, statement.asked) == (topic.kind, asked)
    assert set(statement.mentions) == set(template_slots(template))
    for slot, mention in statement.mentions.items():
        surface = truth[slot].in_language(grammar.language)
        assert text[mention.start - 10 : mention.end - 10].lower() == surface.lower()


def test_both_languages_can_ask_and_answer_the_same_things() -> None:
    for part in ("questions", "follow_ups", "answers"):
        shapes = [{k: set(v) for k, v in load_speech()[language][part].items()} for language in LANGUAGES]
        assert shapes[0] == shapes[1] == {kind: set(asked) for kind, asked in ASKED.items()}
    assert set(load_speech()["en"]) == set(load_speech()["zh"])


def test_sentences_are_split_after_marks_but_not_after_a_title() -> None:
    text = " Mrs. Alder is in.  Ask Mr. Finch! 好的。再见"
    pieces = list(split_sentences(text))
    assert [piece.text for piece in pieces] == ["Mrs. Alder is in.", "Ask Mr. Finch!", "好的。", "再见"]
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)


def test_every_question_is_asked_in_both_languages_and_as_a_follow_up() -> None:
    questions = all_questions(build_world(0))
    assert {question.language for question in questions} == set(LANGUAGES)
    turns = {len(question.prompt) for question in questions}
    assert turns == {1, 3}
    assert len({question.prompt for question in questions}) == len(questions)
