"""What is refused, and in which words; stops, streams, caches of a given size, calls at once."""
import re
import threading

import numpy as np
import pytest

import graphc as gc
from graphc import nn

COUNT = 7


def counting(step=1):
    """A network whose likeliest next token is the last one plus `step`: its scores are the rows of a table."""
    table = np.roll(np.eye(COUNT, dtype=np.float32), step, axis=1)
    return nn.Embedding(COUNT, COUNT), {"weight": table}


def transformer(position=None):
    return nn.Embedding(COUNT, 8) >> (position or nn.SinusoidalPosition()) >> nn.TransformerBlock(2, causal=True) >> nn.Linear(COUNT)


def test_tokens_end_with_the_stop_of_every_sequence():
    net, state = counting()
    assert gc.generate(net, [[0], [3]], 6, state=state).tolist() == [[1, 2, 3, 4, 5, 6], [4, 5, 6, 0, 1, 2]]
    assert gc.generate(net, [[0], [3]], 6, state=state, stop=5).tolist() == [[1, 2, 3, 4, 5], [4, 5, 5, 5, 5]]
    assert gc.generate(net, [1, 2], 3, state=state).tolist() == [3, 4, 5]
    assert gc.generate(net, 2, 3, state=state).tolist() == [[3, 4, 5]]
    assert gc.generate(net, [2], 1, state=state).tolist() == [3]


def test_prompts_keep_their_dtype_and_come_padded_or_as_lists():
    net, state = counting()
    generate = gc.Generator(net, state=state)
    padded = np.array([[1, 2, 6], [4, 6, 6]], np.int32)
    made = generate(padded, 3, lengths=[2, 1])
    assert made.dtype == np.int32 and made.tolist() == [[3, 4, 5], [5, 6, 0]] == generate([[1, 2], [4]], 3).tolist()


def test_a_stream_gives_each_token_as_it_is_made_and_may_be_left():
    net, state = counting()
    generate = gc.Generator(net, state=state)
    stream = generate.stream([[1], [2]], 100)
    assert [next(stream).tolist() for _ in range(3)] == [[2, 3], [3, 4], [4, 5]]
    inner = generate([[1], [2]], 100)                       # a second one at the same time has caches of its own
    assert inner[:, :3].tolist() == [[2, 3, 4], [3, 4, 5]]
    assert next(stream).tolist() == [5, 6]
    stream.close()
    assert [t.tolist() for t in generate.stream([[1], [2]], 2)] == [[2, 3], [3, 4]]


def test_threads_of_python_generate_at_once():
    net = nn.Embedding(COUNT, 8) >> nn.LSTM(8, batch_first=True) >> nn.Linear(COUNT)
    generate, results = gc.Generator(net, seed=0), {}
    wanted = [generate([i], 40, temperature=1.0, seed=i).tolist() for i in range(4)]
    threads = [threading.Thread(target=lambda i=i: results.update({i: generate([i], 40, temperature=1.0, seed=i).tolist()})) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [results[i] for i in range(4)] == wanted


def test_the_caches_are_updated_in_place_and_a_token_allocates_none():
    generate = gc.Generator(transformer(), seed=0, capacity=512)
    generate([1, 2, 3], 4)
    cache = 4 * 8 * 512
    assert generate.memory.arena < cache < generate.memory.state
    planned = generate.dump("planned")
    assert planned.count("in place") == 2 and not re.findall(r"copy\(.*: f32", planned)


@pytest.mark.parametrize("call, text", [
    (lambda g: g([1, 2, 3], 40), "the longest prompt has 3 tokens, with those to generate 42 must be kept; the caches hold 32: give capacity=42"),
    (lambda g: g(list(range(5)) * 8, 1), "the longest prompt has 40 tokens"),
    (lambda g: g([1, 2], 0), "generate makes 1 or more tokens, got steps=0"),
    (lambda g: g([1.0, 2.0], 3), r"a prompt is integers .* got float64 \[1, 2\]"),
    (lambda g: g([], 3), "a prompt is integers"),
    (lambda g: g([[1, 2], []], 3), "lengths are 2 integers from 1 to 2"),
    (lambda g: g([[1, 2]], 3, lengths=[3]), "lengths are 1 integers from 1 to 2"),
    (lambda g: g([1, 2], 3, temperature=-1), "temperature must be 0"),
    (lambda g: g([1, 2], 3, temperature=1e-50), "temperature must be 0"), (lambda g: g([1, 2], 3, temperature=1e300), "temperature must be 0"),
    (lambda g: g([1, 2], 3, top_k=3), "temperature is 0"),
    (lambda g: g([1, 2], 3, temperature=1.0, top_k=0), "top_k is an int of 1 or more"),
    (lambda g: g([1, 2], 3, temperature=1.0, top_p=1.5), "top_p is a probability"),
    (lambda g: g([1, 99], 3), "embedding got id 99"),
    (lambda g: g([1, 2], 3, memory=np.zeros((1, 2, 3), np.float32)), "memory"),
    (lambda g: g.dump(), "not known before the first call")])
def test_mistakes_of_a_call(call, text):
    with pytest.raises(gc.GraphError, match=text):
        call(gc.Generator(transformer(), seed=0, capacity=32))


@pytest.mark.parametrize("net, text", [
    (lambda: transformer(nn.LearnedPosition(4)), "knows 4 places, prompt and tokens need 7"),
    (lambda: nn.Embedding(COUNT, 8) >> nn.TransformerBlock(2) >> nn.Linear(COUNT), "generation needs causal attention"),
    (lambda: nn.Embedding(COUNT, 8) >> nn.GRU(8, batch_first=True, bidirectional=True) >> nn.Linear(COUNT), "bidirectional GRU looks at later tokens"),
    (lambda: nn.Embedding(COUNT, 8) >> nn.GRU(8) >> nn.Linear(COUNT), "make this GRU with batch_first=True"),
    (lambda: nn.Embedding(COUNT, 8) >> (lambda x: x[0]), "needs a network that gives scores"),
    (lambda: nn.LanguageModel(nn.Embedding(COUNT, 8), nn.GRU(8)), "make sequence_model, GRU, with batch_first=True"),
    (lambda: nn.LanguageModel(nn.Embedding(COUNT, 8), nn.GRU(9, batch_first=True)), r"put nn.Linear\(8\) in front, or take tied=False"),
    (lambda: nn.Seq2Seq(nn.Embedding(COUNT, 8), nn.Embedding(COUNT, 8) >> nn.GRU(8, batch_first=True)), "encoder must end in a recurrent layer"),
    (lambda: nn.Seq2Seq(nn.Embedding(COUNT, 8), nn.Embedding(COUNT, 8)), "takes nothing from the encoder")])
def test_networks_that_cannot_generate(net, text):
    net = net()
    source = {"source": np.zeros((2, 3), np.int64)} if isinstance(net, nn.Seq2Seq) else {}
    with pytest.raises(gc.GraphError, match=text):
        gc.generate(net, [[1, 2], [3, 4]], 6, seed=0, **source)


def test_what_is_wrong_with_one_size_does_not_hide_why_there_is_no_program_for_all():
    """Here another mistake in each: the network looks whether the number of tokens is known."""
    def forward(ids):
        raise gc.GraphError("of one size" if isinstance(ids.shape[1], int) else "of all sizes")
    with pytest.raises(gc.GraphError, match="of one size; one program for all T cannot be made either: of all sizes"):
        gc.generate(forward, [[1, 2]], 2, seed=0)


def test_mistakes_of_layers():
    with pytest.raises(gc.GraphError, match="takes the nn.Embedding of the tokens"):
        nn.GenerateToken(nn.Linear(3))
    with pytest.raises(gc.GraphError, match="Collapse takes first, last, average"):
        nn.LanguageModel(nn.Embedding(3, 2), nn.GRU(2), collapse="middle")
    with pytest.raises(gc.GraphError, match="parameters: give state="):
        gc.generate(transformer(), [1], 3)
    for options, text in (({"temperature": -1.0}, "temperature must be 0"), ({"top_k": 0}, "top_k is an int"), ({"top_p": 0.0}, "top_p is a probability")):
        with pytest.raises(gc.GraphError, match=text):
            gc.graph(lambda x=1: nn.sample(gc.zeros((3,)), **options))


def test_programs_are_shown_once_they_are_there():
    """That of the prompts after any call, that of a token after one that made several."""
    net, state = counting()
    generate = gc.Generator(net, state=state)
    with pytest.raises(gc.GraphError, match="the program of the prompts is not known before the first call"):
        generate.dump(prompt=True)
    generate([[0]], 1)
    assert generate.dump(prompt=True).startswith("graph prompt_")
    with pytest.raises(gc.GraphError, match="the program of a token is not known"):
        generate.dump()
    generate([[0]], 3)
    assert generate.dump().startswith("graph token_") and generate.memory.total > 0
