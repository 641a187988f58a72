"""Routing: clusters and thresholds against their definitions, experts of our own fields, conversations, profiles on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.serve.texts import WordEmbedder, asked

from genwright.base.errors import DataError, ModelError
from genwright.serve.clusters import at_most, kmeans, logistic, unit
from genwright.serve.contracts import AUTO, Request
from genwright.serve.expert_profile import profile_of, read_profile, write_profile
from genwright.serve.expert_report import judged, regret, write_plot
from genwright.serve.form import forms, scale, strange, usual
from genwright.serve.router import MOST_STRANGE, CentroidRouter, decide, question_of
from genwright.serve.words import hashed

EMBEDDER = WordEmbedder()


def request(*texts: str, model: str = AUTO) -> Request:
    return Request("chat", model, tuple({"role": "user", "content": text} for text in texts))


@pytest.fixture(scope="module")
def profiles():
    return [profile_of(asked(name, 80), EMBEDDER, name=name) for name in ("bread", "stars", "sails")]


@pytest.fixture(scope="module")
def router(profiles):
    return CentroidRouter(EMBEDDER, profiles)


@pytest.fixture(scope="module")
def sparing(profiles):
    return CentroidRouter(EMBEDDER, profiles, sparing=True)


def test_every_field_reaches_its_expert_and_what_belongs_to_none_the_base(router):
    for name in ("bread", "stars", "sails"):
        chosen = [router.route(request(text), None).expert for text in asked(name, 40, seed=5)]
        assert chosen.count(name) >= 38
    strangers = [
        "Which bus goes to the stadium on Sunday?",
        "Translate this invoice into Polish.",
        "Fix my printer driver please.",
    ]
    assert [router.route(request(text), None).reason for text in strangers] == ["nothing-fits"] * 3


def test_by_name_and_without_experts(router):
    assert router.route(request("x", model="bread"), None).reason == "named"
    assert router.route(request("x", model="base"), None).expert is None
    assert CentroidRouter(EMBEDDER).route(request("x"), None).expert is None


def test_a_conversation_stays_until_the_topic_moves_clearly(router):
    fitted = router.fitted
    bread = fitted.names.index("bread")
    scores = fitted.threshold_N + np.array([0.5 if name == "bread" else -3.0 for name in fitted.names])
    close = scores.copy()
    close[(bread + 1) % 3] = scores[bread] + 1.0
    assert decide(fitted, scores, "bread").reason == "held"
    assert decide(fitted, close, "bread").expert == "bread", "another is better, but not clearly"
    assert decide(fitted, close, None).expert == fitted.names[(bread + 1) % 3]
    clear = scores.copy()
    clear[(bread + 1) % 3] = scores[bread] + 5.0
    assert decide(fitted, clear, "bread").reason == "moved"
    assert decide(fitted, scores - 20, "bread").reason == "nothing-fits"


def test_a_turn_of_few_words_is_read_with_the_one_before_it():
    assert question_of(request("How is dough made?", "and then?")) == "How is dough made?\nand then?"
    assert (
        question_of(request("How is dough made?", "Now tell me about the moon instead"))
        == "Now tell me about the moon instead"
    )


def test_a_changed_library_is_learned_whole(router, profiles):
    grown = CentroidRouter(EMBEDDER, profiles)
    texts = [
        "Which bus goes to the stadium?",
        "Which bus goes to the harbour?",
        "When does the bus to the zoo leave?",
        "Is the bus late?",
    ]
    stops = ("market", "museum", "lake", "school", "airport", "mill", "church", "beach", "castle", "park")
    buses = profile_of(
        [text.replace("bus", f"bus to the {stop} or") for text in texts for stop in stops], EMBEDDER, name="buses"
    )
    assert grown.route(request(texts[0]), None).expert is None
    grown.learn([*profiles, buses])
    assert grown.route(request(texts[0]), None).expert == "buses"
    grown.learn(profiles[:1])
    assert grown.route(request(texts[0]), None).expert is None and grown.fitted.names == ("bread",)


def test_the_head_learns_from_the_held_out_queries_once_they_have_set_the_threshold(router, sparing, profiles):
    kept, learned = sparing.fitted, router.fitted
    assert np.array_equal(kept.threshold_N, learned.threshold_N) and kept.lost == learned.lost
    assert [len(one) for one in kept.texts_NVF] == [64] * 3 and [len(one) for one in learned.texts_NVF] == [80] * 3
    for one in profiles:
        own = [
            fitted.scores(one.calibration_VD, one.calibration_words_VW, one.calibration_forms_VE).max(1)
            for fitted in (kept, learned)
        ]
        assert own[1].mean() > own[0].mean(), "they have become near to themselves: to judge, they must be spared"


def test_the_threshold_gives_up_no_more_than_it_may(sparing, profiles):
    assert sparing.fitted.lost <= sparing.wanted.most_lost + 1 / sum(len(one.held_out) for one in profiles)
    told = judged(sparing, profiles)
    assert told["correct"] + told["abstained"] <= 1
    assert [point["correct"] for point in told["abstention"]] == sorted(
        (p["correct"] for p in told["abstention"]), reverse=True
    )


def test_regret_is_the_oracle_less_what_was_got(profiles):
    found = {"bread": {"bread": 8, "": 2}, "stars": {"stars": 9, "bread": 1}, "sails": {"sails": 10}}
    assert regret(found, profiles) == pytest.approx(3 / 30)


def test_the_plot_is_xml_with_every_name(sparing, profiles, tmp_path):
    import xml.etree.ElementTree as ET

    write_plot(judged(sparing, profiles), tmp_path / "plot.svg")
    words = "".join(ET.parse(tmp_path / "plot.svg").getroot().itertext())
    assert all(name in words for name in ("bread", "stars", "sails", "base"))


def test_a_profile_comes_back_as_it_was_written_and_damage_is_seen(profiles, tmp_path):
    one = profiles[0]
    write_profile(one, tmp_path)
    back = read_profile(tmp_path)
    assert back.held_out == one.held_out
    assert np.abs(back.train_VD - one.train_VD).max() < 1e-3
    assert np.abs(back.train_words_VW - one.train_words_VW).max() <= 0.5 / 8
    assert len(one.train_VD) + len(one.held_out) == 80, "no query is in both"
    (tmp_path / "expert" / "profile.npz").write_bytes(b"other")
    with pytest.raises(ModelError, match="is damaged"):
        read_profile(tmp_path)
    assert read_profile(tmp_path / "expert") is None


def test_too_few_texts_make_no_profile():
    with pytest.raises(DataError, match="No profile can be made"):
        profile_of(["one", "two"], EMBEDDER, name="x")


def test_profiles_of_another_encoder_are_left_out(profiles):
    other = profile_of(asked("chess", 40), EMBEDDER, name="chess")
    other.card["encoder"] = "another"
    assert CentroidRouter(EMBEDDER, [*profiles, other]).fitted.names == ("bread", "sails", "stars")


def test_kmeans_finds_separate_clusters():
    rng = np.random.default_rng(0)
    truth = np.eye(5)[:3]
    x = np.repeat(truth, 20, 0) + 0.02 * rng.normal(size=(60, 5))
    found = kmeans(x, 3)
    assert sorted((found @ truth.T).argmax(1).tolist()) == [0, 1, 2]
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert len(kmeans(np.ones((9, 4)), 8)) == 1, "equal texts need one centroid"


def test_the_logistic_head_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 30)
    x = unit(np.eye(3)[label] + 0.5 * rng.normal(size=(90, 3)))
    weight, bias = logistic(x, label, 3, l2=0.01, rounds=4000)
    theirs = sklearn.LogisticRegression(C=1 / (0.01 * 90), tol=1e-10, max_iter=2000).fit(x, label)
    ours, other = x @ weight + bias, theirs.decision_function(x)
    assert (ours.argmax(1) == other.argmax(1)).mean() > 0.97
    assert (
        np.corrcoef((ours - ours.mean(1, keepdims=True)).ravel(), (other - other.mean(1, keepdims=True)).ravel())[0, 1]
        > 0.999
    )


def test_the_conformal_threshold_keeps_its_promise():
    rng = np.random.default_rng(2)
    over = [(rng.normal() > at_most(rng.normal(size=39), 0.1)) for _ in range(4000)]
    assert abs(np.mean(over) - 0.1) < 0.02
    assert at_most([1.0, 2.0], 0.1) == float("inf"), "two values promise nothing at 10 %"


def test_hashed_words_do_not_depend_on_the_process():
    assert (
        hashed(["the cat, the dog"])[0].nonzero()[0].tolist() == hashed(["the cat, the dog"])[0].nonzero()[0].tolist()
    )
    assert np.array_equal(hashed(["Dog"]), hashed(["dog"])) and not np.array_equal(hashed(["a b"]), hashed(["b a"]))


def test_a_query_of_another_form_is_strange_and_of_the_same_is_not(profiles):
    known = forms([f"{text}\nA. {n}\nB. {n + 1}\nC. {n + 2}" for n, text in enumerate(asked("bread", 60))])
    per = scale(np.vstack([known, forms(asked("stars", 60))]))
    bounds = usual(known / per)
    same = forms([f"{text}\nA. 3\nB. 5\nC. 9" for text in asked("bread", 30, seed=7)]) / per
    other = forms(asked("bread", 30, seed=7)) / per
    assert np.mean([strange(known / per, one, bounds) for one in same]) < 0.5
    assert min(strange(known / per, one, bounds) for one in other) > 2


def test_a_question_without_options_is_less_of_an_examination():
    listed = lambda texts: [f"{text}\nA. yes\nB. no\nC. often\nD. never" for text in texts]
    exams = [profile_of(listed(asked(name, 80)), EMBEDDER, name=name) for name in ("bread", "stars")]
    router = CentroidRouter(EMBEDDER, exams)
    texts = asked("bread", 20, seed=5)
    scores = [[router.query_scores(router.fitted, one)[0] for one in kind] for kind in (listed(texts), texts)]
    strangest = router.query_scores(replace(router.fitted, usual_N=((0.0, 1e-3),) * 2), texts[0])[0]
    assert np.mean(scores[0]) - np.mean(scores[1]) > 2
    assert router.query_scores(router.fitted, texts[0])[0] - strangest <= MOST_STRANGE, "a form alone costs no more"


def test_forms_are_finite_for_any_text():
    assert np.isfinite(forms(["", " ", "\n" * 9, "?", "a" * 100_000, "\ud800", "(A) x"])).all()
    assert forms([]).shape == (0, 12)
    assert forms(["Which?\nA. one"])[0, 9] == 1 and forms(["Which?"])[0, 9] == 0, "options are seen"
