"""The next token: its distribution, its determinism, and its edges."""

from itertools import product

import pytest
import torch
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from shared.job import SamplingParams
from worker.engine.draw import choice_seed, uniform
from worker.engine.prompt import Prompt
from worker.engine.sampler import Sampler, distribution
from worker.engine.sequence import Sequence

PROBABILITIES = torch.tensor([0.4, 0.3, 0.2, 0.1])
LOGITS = PROBABILITIES.log()
VOCAB = 500


class Numbers:
    def decode(self, token_ids):
        return "".join(f"{token_id} " for token_id in token_ids)

    def answer_bytes(self, token_id):
        return f"{token_id} ".encode()


def sequence(prompt_ids=(0,), token_ids=(), *, stop=(), penalizes_prompt=True, constraint=None, **sampling):
    prompt = Prompt(
        token_ids=tuple(prompt_ids),
        tokenizer=Numbers(),
        stop_token_ids=frozenset(stop),
        penalizes_prompt=penalizes_prompt,
    )
    return Sequence("it", prompt, SamplingParams(**sampling), 10**6, tuple(token_ids), constraint=constraint)


def choose(logits, *sequences):
    return [token.id for token in Sampler().choose(logits, sequences)]


def draw(num, logits=LOGITS, **sampling):
    """First tokens of answers with as many seeds."""
    sequences = [sequence(**{"temperature": 1.0, "seed": seed} | sampling) for seed in range(num)]
    return choose(logits.expand(num, -1), *sequences)


def frequencies(tokens):
    return torch.bincount(torch.tensor(tokens), minlength=4) / len(tokens)


def random_logits(rows, seed=0):
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def test_draws_follow_the_distribution():
    torch.testing.assert_close(frequencies(draw(4000)), PROBABILITIES, atol=0.03, rtol=0)


def test_positions_of_one_answer_follow_the_distribution_too():
    places = [sequence(token_ids=(0,) * n, temperature=1.0, seed=1) for n in range(400)]

    tokens = choose(LOGITS.expand(len(places), -1), *places)

    torch.testing.assert_close(frequencies(tokens), PROBABILITIES, atol=0.08, rtol=0)


def test_temperature_sharpens():
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()

    torch.testing.assert_close(frequencies(draw(4000, temperature=0.5)), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_k": 0}, {0, 1, 2, 3}),
        ({"top_k": 1000}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0, 1}),
        ({"top_p": 0.39}, {0}),
        ({"top_p": 1e-9}, {0}),
        ({"top_p": 0.95}, {0, 1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),  # 0.4 and 0.3 of the 0.9 that top-k leaves
        ({"min_p": 0.6}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"min_p": 0.2}, {0, 1, 2, 3}),
        ({"min_p": 0.6, "top_k": 1}, {0}),
        ({"temperature": 1e-30}, {0}),
        ({"temperature": 0.0, "top_p": 0.5}, {0}),
    ],
)
def test_cuts_keep_the_likeliest(sampling, kept):
    assert kept == {*draw(500, **sampling)}


def test_kept_tokens_share_the_whole():
    expected = torch.tensor([4 / 7, 3 / 7, 0, 0])

    torch.testing.assert_close(frequencies(draw(4000, top_k=2)), expected, atol=0.03, rtol=0)


def processors(sampling):
    """What `generate()` would put together for these parameters, in its own order."""
    made = LogitsProcessorList()
    if bias := sampling.get("logit_bias"):
        made.append(SequenceBiasLogitsProcessor([[[token_id], value] for token_id, value in bias]))
    if penalty := sampling.get("repetition_penalty"):
        made.append(RepetitionPenaltyLogitsProcessor(penalty))
    made.append(TemperatureLogitsWarper(sampling["temperature"]))
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in sampling:
            made.append(warper(sampling[name]))
    return made


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 0.6, "top_k": 5},
        {"logit_bias": ((3, 8.0), (7, -100.0), (400, 8.5))},
        {"top_k": 30, "top_p": 0.7, "min_p": 0.1},
        {"repetition_penalty": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    ],
    ids=lambda sampling: "-".join(sampling),
)
def test_distribution_is_that_of_transformers_own_processors(sampling):
    logits = random_logits(1)
    prompt_ids, token_ids = (1, 5, 5, int(logits.argmax())), (3, 9, 3)
    sampling = {"temperature": 1.4} | sampling
    ids = torch.tensor([[*prompt_ids, *token_ids]])
    expected = processors(sampling)(ids, logits.clone()).softmax(dim=-1)
    row = sequence(prompt_ids, token_ids, **sampling)

    Sampler().adjust(logits, [row])

    torch.testing.assert_close(distribution(logits, [row]), expected, atol=1e-6, rtol=1e-4)


def test_repetition_penalty_counts_the_prompt_only_where_the_authors_code_can():
    logits = torch.tensor([[1.0, 0.9, 0.8]])

    def greedy(**given):
        return choose(logits, sequence((0,), (1,), repetition_penalty=2.0, **given))

    assert greedy() == [2]
    assert greedy(penalizes_prompt=False) == [0]


def test_presence_and_frequency_count_the_answer_only():
    """OpenAI: logit - count * frequency - (count > 0) * presence."""
    logits = torch.tensor([[3.0, 2.9, 2.4, 0.0]])
    prompt_ids, token_ids = (0, 0, 0), (1, 2, 2)

    def greedy(logits=logits, **sampling):
        return choose(logits, sequence(prompt_ids, token_ids, **sampling))

    assert greedy(presence_penalty=2.0) == [0]
    assert greedy(logits + torch.tensor([-0.4, 0, 0, 0]), presence_penalty=0.2) == [1]  # 2.6, 2.7, 2.2
    assert greedy(logits + torch.tensor([-0.4, 0, 0, 0]), presence_penalty=0.4) == [0]  # 2.6, 2.5, 2.0
    assert greedy(torch.tensor([[0.0, 1.0, 1.9, 0.5]]), frequency_penalty=0.4) == [2]  # 0, 0.6, 1.1, 0.5
    assert greedy(torch.tensor([[0.0, 1.0, 1.9, 0.5]]), frequency_penalty=0.5) == [2]  # 0, 0.5, 0.9, 0.5
    assert greedy(torch.tensor([[0.0, 1.0, 1.9, 0.5]]), frequency_penalty=0.95) == [3]  # 0, 0.05, 0, 0.5
    assert greedy(torch.tensor([[5.0, 1.0, 1.0, 1.0]]), frequency_penalty=-2.0) == [0]
    assert greedy(torch.tensor([[4.0, 1.0, 1.0, 1.0]]), frequency_penalty=-2.0) == [2]  # 4, 3, 5, 1


def test_penalties_follow_the_answer_as_it_grows():
    sampler, logits = Sampler(), torch.tensor([[1.0, 0.95, 0.9, 0.0]])
    grown = sequence(frequency_penalty=0.07)

    for _ in range(9):
        grown.push(sampler.choose(logits, [grown])[0])
        again = sequence(token_ids=grown.token_ids[:-1], frequency_penalty=0.07)
        assert choose(logits, again) == grown.token_ids[-1:]

    assert grown.token_ids == [0, 1, 0, 2, 1, 0, 2, 1, 0]


def test_a_sequence_that_is_gone_leaves_nothing_to_the_next_one():
    sampler, logits = Sampler(), torch.tensor([[1.0, 0.9]])
    for token_ids in ((0,), (), (0, 0), ()):
        penalized = sequence((1,), token_ids, presence_penalty=1.0)
        assert sampler.choose(logits, [penalized])[0].id == (1 if token_ids else 0)
        del penalized
    for prompt_id in (0, 1, 0):
        penalized = sequence((prompt_id,), repetition_penalty=2.0)
        assert sampler.choose(logits, [penalized])[0].id == 1 - prompt_id
        del penalized

    assert len(sampler._counts._num_counted) == 1


def test_bias_may_force_or_forbid_a_token():
    logits = torch.tensor([[9.0, 1.0, 0.0]])

    assert choose(logits, sequence(logit_bias=((2, 100.0),))) == [2]
    assert choose(logits, sequence(logit_bias=((0, -100.0),))) == [1]


def test_answer_does_not_end_before_it_may():
    logits = torch.tensor([[9.0, 5.0, 8.0]])

    assert choose(logits, sequence(stop=(0, 2), token_ids=(1, 1), min_tokens=3)) == [1]
    assert choose(logits, sequence(stop=(0, 2), token_ids=(1, 1), min_tokens=2)) == [0]


class Even:
    """Only even tokens, none above 6; remembers what came."""

    def __init__(self):
        self.accepted = []

    is_complete = is_broken = False

    def mask(self):
        return bytes([0b1010101])

    def accept(self, token_id):
        self.accepted.append(token_id)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_constraint_leaves_only_what_it_allows_and_touches_no_other_row(temperature):
    logits = random_logits(3)
    constraint = Even()
    rows = [sequence(temperature=temperature, seed=3, constraint=c) for c in (None, constraint, None)]
    constrained = rows[1]

    tokens = Sampler().choose(logits, rows)
    constrained.push(tokens[1])

    assert tokens[1].id in {0, 2, 4, 6}
    assert constraint.accepted == [tokens[1].id]
    alone = [choose(logits[[row]], sequence(temperature=temperature, seed=3))[0] for row in (0, 2)]
    assert alone == [tokens[0].id, tokens[2].id]


def test_constraint_hears_of_an_earlier_attempts_tokens():
    constraint = Even()
    sequence(token_ids=(2, 4), constraint=constraint)

    assert constraint.accepted == [2, 4]


def test_each_row_has_its_own_parameters():
    params = [
        {"temperature": t, "top_k": k, "top_p": p, "seed": s, **more}
        for t, k, p, s, more in product(
            (0.0, 0.5, 2.0),
            (0, 2),
            (0.6, 1.0),
            (1, 2),
            ({}, {"min_p": 0.1}, {"repetition_penalty": 1.5}, {"frequency_penalty": 1.0, "logit_bias": ((4, 3.0),)}),
        )
    ]
    logits = random_logits(len(params))
    rows = [sequence((1, 2), (3, 4, 3), **given) for given in params]
    alone = [choose(row[None], sequence((1, 2), (3, 4, 3), **given)) for row, given in zip(logits, params, strict=True)]

    together = choose(logits, *rows)

    assert [token_id for (token_id,) in alone] == together
    assert together != logits.argmax(-1).tolist()


@pytest.mark.parametrize("num", [0, 1, 5])
def test_log_probabilities_are_the_models_own(num):
    """Whatever the request changes about the logits; vLLM calls them raw."""
    logits = random_logits(3)
    expected = logits.log_softmax(-1)
    asked = {"temperature": 1.7, "seed": 1, "repetition_penalty": 2.0, "logit_bias": ((11, 100.0),)}

    plain, scored, silent = Sampler().choose(
        logits, [sequence(num_logprobs=num), sequence(**asked, num_logprobs=2), sequence()]
    )

    assert plain.logprob == pytest.approx(expected[0].max().item(), abs=1e-5)
    assert [top.id for top in plain.top] == expected[0].topk(num).indices.tolist()
    assert [top.logprob for top in plain.top] == pytest.approx(expected[0].topk(num).values.tolist(), abs=1e-5)
    assert (scored.id, scored.logprob) == (11, pytest.approx(expected[1, 11].item(), abs=1e-5))
    assert len(scored.top) == 2
    assert (silent.logprob, silent.top) == (None, ())


def test_token_that_cannot_come_has_a_number_that_json_knows():
    logits = torch.tensor([[0.0, -torch.inf]])

    (token,) = Sampler().choose(logits, [sequence(num_logprobs=2)])

    assert token.top == ((0, 0.0), (1, -9999.0))


def test_draw_depends_on_seed_and_position_only():
    def answer(seed):
        return choose(
            LOGITS.expand(50, -1), *(sequence(token_ids=(0,) * n, temperature=1, seed=seed) for n in range(50))
        )

    assert answer(3) == answer(3)
    assert answer(3) != answer(4)


def test_choices_have_seeds_of_their_own_and_the_first_one_the_requests():
    seeds = [choice_seed(7, index) for index in range(100)]

    assert seeds[0] == 7
    assert len({*seeds}) == 100
    assert len({choice_seed(seed, 1) for seed in range(100)}) == 100


def test_seed_of_a_choice_never_changes():
    """A worker of another version may continue the answer."""
    assert [choice_seed(0, 1), choice_seed(42, 3)] == [12916487576478746327, 17416857270088266676]


def test_uniform_numbers_are_spread():
    numbers = torch.tensor([uniform(seed, position) for seed in range(100) for position in range(100)])

    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert torch.histc(numbers, 10, 0, 1).min() > 900


def test_uniform_number_never_changes():
    """A worker of another version may continue the answer."""
    assert [uniform(0, 0), uniform(1, 0), uniform(-1, 2), uniform(2**64 - 1, 2)] == [
        0.6524484863740322,
        0.36818951565166946,
        0.3190935449185015,
        0.3190935449185015,
    ]


def test_equal_logits_are_no_trouble():
    both = (sequence(), sequence(temperature=1.0, top_k=1, seed=5))

    assert choose(torch.zeros(1, 9), sequence()) == [0]
    assert choose(torch.zeros(2, 9), *both)[0] == 0


def test_tokens_that_tie_are_cut_or_kept_together():
    """So that it doesn't matter who else is in the batch; transformers' top-k does the same."""
    logits = torch.tensor([2.0, 1.0, 1.0, 0.0])

    assert {*draw(500, logits, top_k=2)} == {0, 1, 2}
    assert {*draw(500, logits, top_p=0.6)} == {0, 1, 2}


def test_last_token_can_be_drawn():
    logits = torch.full((4,), -1e4)
    logits[3] = 0

    assert {3} == {*draw(100, logits=logits)}
